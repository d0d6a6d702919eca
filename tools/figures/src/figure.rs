//! A figure: what was measured, under which conditions, and how it compares with what is demanded.

use serde::{Deserialize, Serialize};

/// What is demanded of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Nothing: it is only told.
    Told,
    /// At least `must`, better `aim`.
    AtLeast {
        /// See the variant.
        must: f64,
        /// See the variant.
        aim: f64,
    },
    /// At most `must`, better `aim`.
    AtMost {
        /// See the variant.
        must: f64,
        /// See the variant.
        aim: f64,
    },
}

/// How a figure compares with what is demanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As good as it aims to be.
    Aim,
    /// As good as it must be.
    Must,
    /// Not as good as it must be.
    Missed,
    /// Nothing is demanded.
    Told,
    /// It was measured, but means nothing.
    Invalid,
    /// It could not be measured.
    Failed,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Under which conditions, beside those of the whole table.
    pub conditions: String,
    /// As it is printed, with its unit: receivers without `UDP_GRO`.
    pub value: String,
    /// The same with receivers that take trains whole, as a network card that segments them; empty: not measured.
    pub with_gro: String,
    /// As it is printed; empty: nothing is demanded.
    pub must: String,
    /// As it is printed; empty: nothing is aimed at.
    pub aim: String,
    /// The comparison.
    pub verdict: Verdict,
}

/// Points of one line in one plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Which plot.
    pub plot: String,
    /// The line's name.
    pub name: String,
    /// Where it leads.
    pub points: Vec<(f64, f64)>,
}

/// What measuring one row led to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Lines of the table.
    pub figures: Vec<Figure>,
    /// Lines of the plots.
    pub curves: Vec<Curve>,
}

impl Bound {
    fn verdict(self, value: f64) -> Verdict {
        let of = |holds: &dyn Fn(f64) -> bool, must, aim| match () {
            () if holds(aim) => Verdict::Aim,
            () if holds(must) => Verdict::Must,
            () => Verdict::Missed,
        };
        match self {
            Self::Told => Verdict::Told,
            Self::AtLeast { must, aim } => of(&|limit| value >= limit, must, aim),
            Self::AtMost { must, aim } => of(&|limit| value <= limit, must, aim),
        }
    }

    fn limits(self) -> Option<(f64, f64)> {
        match self {
            Self::Told => None,
            Self::AtLeast { must, aim } | Self::AtMost { must, aim } => Some((must, aim)),
        }
    }
}

impl Figure {
    /// A number in a unit.
    pub fn number(name: &str, value: f64, unit: &str, bound: Bound) -> Self {
        let print = |value| with_unit(value, unit);
        let limits = bound.limits();
        Self {
            name: name.to_owned(),
            conditions: String::new(),
            value: print(value),
            with_gro: String::new(),
            must: limits.map_or(String::new(), |(must, _)| limit(must, unit)),
            aim: limits.map_or(String::new(), |(_, aim)| limit(aim, unit)),
            verdict: bound.verdict(value),
        }
    }

    /// Several numbers in one unit, each with a limit of its own; the worst decides.
    pub fn numbers(name: &str, values: &[f64], unit: &str, bounds: &[Bound]) -> Self {
        let join = |values: Vec<String>| match values.is_empty() {
            true => String::new(),
            false => format!("{} {unit}", values.join(" / ")),
        };
        let limits = || bounds.iter().filter_map(|bound| bound.limits());
        let verdicts = || bounds.iter().zip(values).map(|(bound, value)| bound.verdict(*value));
        let worst = [Verdict::Missed, Verdict::Must, Verdict::Aim]
            .into_iter()
            .find(|verdict| verdicts().any(|found| found == *verdict));
        Self {
            name: name.to_owned(),
            conditions: String::new(),
            value: join(values.iter().map(|value| digits(*value)).collect()),
            with_gro: String::new(),
            must: join(limits().map(|(must, _)| digits(must)).collect()),
            aim: join(limits().map(|(_, aim)| digits(aim)).collect()),
            verdict: worst.unwrap_or(Verdict::Told),
        }
    }

    /// Words.
    pub fn told(name: &str, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..Self::number(name, 0.0, "", Bound::Told) }
    }

    /// Why there is no value.
    pub fn failed(name: &str, reason: &str) -> Self {
        Self { verdict: Verdict::Failed, ..Self::told(name, reason) }
    }

    /// Under which conditions it was measured.
    pub fn under(mut self, conditions: impl Into<String>) -> Self {
        self.conditions = conditions.into();
        self
    }

    /// More about the value.
    pub fn noting(mut self, note: &str) -> Self {
        if !note.is_empty() {
            self.value = format!("{} ({note})", self.value);
        }
        self
    }

    /// The same with receivers that take trains whole.
    pub fn with_gro(mut self, value: impl Into<String>) -> Self {
        self.with_gro = value.into();
        self
    }

    /// The load said that its figures mean nothing, and why.
    pub fn unless_invalid(mut self, faults: &[String]) -> Self {
        if !faults.is_empty() {
            self.verdict = Verdict::Invalid;
            self.value = format!("{}; the load: {}", self.value, faults.join("; "));
        }
        self
    }
}

impl Verdict {
    /// As it is printed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Aim => "aim",
            Self::Must => "must",
            Self::Missed => "MISSED",
            Self::Told => "",
            Self::Invalid => "INVALID",
            Self::Failed => "FAILED",
        }
    }
}

fn limit(value: f64, unit: &str) -> String {
    if value.is_finite() { with_unit(value, unit) } else { "printed".to_owned() }
}

/// A number with its unit.
pub fn with_unit(value: f64, unit: &str) -> String {
    let separator = if unit.is_empty() || unit.starts_with('%') { "" } else { " " };
    format!("{}{separator}{unit}", digits(value))
}

/// As many digits as mean something, thousands apart.
pub fn digits(value: f64) -> String {
    let text = match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let (sign, number) = text.strip_prefix('-').map_or(("", &text[..]), |number| ("-", number));
    let (whole, fraction) =
        number.split_once('.').map_or((number, String::new()), |(w, f)| (w, format!(".{f}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0.0, 0.0123, 0.85, 2.5, 14.84, 2495.4, 1_234_567.0, -1234.0, 100.0];
        let texts = shown.map(digits);
        let wanted = ["0", "0.012", "0.85", "2.5", "14.8", "2,495", "1,234,567", "-1,234", "100"];
        assert_eq!(texts, wanted);
        assert_eq!(
            (with_unit(5.0, "%"), with_unit(5.0, "ns")),
            ("5%".to_owned(), "5 ns".to_owned())
        );
    }

    #[test]
    fn limits_decide() {
        let most = Bound::AtMost { must: 200.0, aim: 80.0 };
        let of = |value| Figure::number("x", value, "ns", most).verdict;
        assert_eq!([70.0, 100.0, 300.0].map(of), [Verdict::Aim, Verdict::Must, Verdict::Missed]);
        let least = Bound::AtLeast { must: 0.65, aim: 0.85 };
        assert_eq!(Figure::number("x", 0.7, "", least).verdict, Verdict::Must);
        let both = Figure::numbers("x", &[90.0, 70.0], "ns", &[most, most]);
        assert_eq!((both.verdict, &both.value[..]), (Verdict::Must, "90 / 70 ns"));
        assert_eq!((&both.must[..], &both.aim[..]), ("200 / 200 ns", "80 / 80 ns"));
        let aimed = Bound::AtMost { must: f64::INFINITY, aim: 5.0 };
        assert_eq!(Figure::number("x", 9.0, "", aimed).must, "printed");
    }

    #[test]
    fn an_invalid_run_decides_nothing() {
        let good = Figure::number("x", 1.0, "", Bound::AtMost { must: 2.0, aim: 1.5 });
        assert_eq!(good.clone().unless_invalid(&[]).verdict, Verdict::Aim);
        let bad = good.unless_invalid(&["late".to_owned()]);
        assert_eq!((bad.verdict, &bad.value[..]), (Verdict::Invalid, "1; the load: late"));
    }
}
