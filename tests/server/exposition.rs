//! A strict reader of Prometheus' text format, version 0.0.4, written from its description alone
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). What is not in order panics.

use std::collections::BTreeMap;

/// One line of a scrape: a name, its labels in order, and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All lines of one family.
#[derive(Clone, Debug)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// A scrape, by family name.
pub struct Exposition(pub BTreeMap<String, Family>);

impl Exposition {
    /// Reads a whole scrape.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "lines, each with an end");
        let mut families = BTreeMap::new();
        let mut last: Option<(String, Family)> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                let family =
                    Family { kind: String::new(), help: help.to_owned(), samples: Vec::new() };
                if let Some((name, family)) = last.replace((name.to_owned(), family)) {
                    assert!(families.insert(name, family).is_none(), "a family comes once");
                }
                continue;
            }
            let (name, family) = last.as_mut().expect("HELP goes before");
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (typed, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(typed == name && family.kind.is_empty() && family.samples.is_empty());
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                family.kind = kind.to_owned();
                continue;
            }
            let sample = sample(line);
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|end| sample.name == format!("{name}{end}")), "{line}");
            family.samples.push(sample);
        }
        families.extend(last);
        let read = Self(families);
        read.check();
        read
    }

    /// The value of the series with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<_, _> = labels.collect();
        let mut samples = self.0.values().flat_map(|family| &family.samples);
        let found = samples.find(|sample| sample.name == name && sample.labels == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?}")).value
    }

    /// The sum of a name's series.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.0.values().flat_map(|family| &family.samples);
        samples.filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// Every name that a query may use.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.values().flat_map(|family| &family.samples).collect();
        names.dedup_by(|a, b| a.name == b.name);
        names.into_iter().map(|sample| sample.name.clone()).collect()
    }

    /// Series that only grow: counters, and the parts of histograms.
    pub fn growing(&self) -> impl Iterator<Item = &Sample> {
        let growing = self.0.values().filter(|family| family.kind != "gauge");
        growing.flat_map(|family| &family.samples)
    }

    fn check(&self) {
        for (name, family) in &self.0 {
            assert!(!family.kind.is_empty() && !family.samples.is_empty(), "{name} has no type");
            assert!(!family.help.is_empty(), "{name} has no text");
            assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
            assert!(family.samples.iter().all(|sample| sample.value >= 0.0), "{name}");
            let mut seen: Vec<_> = family.samples.iter().map(|s| (&s.name, &s.labels)).collect();
            seen.sort();
            assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "a series of {name} twice");
            if family.kind == "histogram" {
                check_histogram(name, family);
            }
        }
    }
}

/// Buckets are cumulative, in ascending order, the last is `+Inf` and equals the count.
fn check_histogram(name: &str, family: &Family) {
    let counts = family.samples.iter().filter(|sample| sample.name == format!("{name}_count"));
    for count in counts {
        let of_this = |sample: &&Sample| {
            let mut labels = sample.labels.clone();
            labels.remove("le").is_some() && labels == count.labels
        };
        let buckets: Vec<_> = family.samples.iter().filter(of_this).collect();
        let bound = |sample: &Sample| number(&sample.labels["le"]);
        assert!(buckets.windows(2).all(|pair| bound(pair[0]) < bound(pair[1])), "{name}");
        assert!(buckets.windows(2).all(|pair| pair[0].value <= pair[1].value), "{name}");
        let last = buckets.last().expect("buckets");
        assert_eq!((last.labels["le"].as_str(), last.value), ("+Inf", count.value), "{name}");
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}').expect("a brace"))),
        None => (series, BTreeMap::new()),
    };
    assert!(is_name(name), "{line}");
    Sample { name: name.to_owned(), labels, value: number(value) }
}

/// None of our values needs escaping, so that none is understood.
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').expect("a label and its value");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.expect("quotes");
        assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{pair}");
        assert!(labels.insert(name.to_owned(), value.to_owned()).is_none(), "{name} twice");
    }
    labels
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
    }
}
