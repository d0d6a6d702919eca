//! What forwarding costs beside the least that it can cost, out of `benches/floor`.

use crate::bench::{Bench, Result};
use crate::figure::{Bound, Figure, Outcome, Verdict, digits, with_unit};
use crate::floor::{self, Line};

/// How the subjects with congestion feedback are called.
const FEEDBACK: &str = " with twcc";

/// One scenario, with receivers of both kinds.
pub fn row(bench: &Bench, scenario: &str, bound: Bound) -> Result<Outcome> {
    let (cut, whole) =
        (floor::lines(bench, scenario, false)?, floor::lines(bench, scenario, true)?);
    let mut figures: Vec<_> = cut.iter().filter_map(|line| ratio(line, &whole, bound)).collect();
    figures.extend(["uring", "mmsg"].iter().filter_map(|backend| feedback(&cut, &whole, backend)));
    figures.extend(fallback(&cut, &whole));
    let figures =
        figures.into_iter().map(|f| f.under(format!("{scenario}, AES-128-GCM, benches/floor")));
    Ok(Outcome { figures: figures.collect(), curves: Vec::new() })
}

fn find<'a>(lines: &'a [Line], subject: &str) -> Option<&'a Line> {
    lines.iter().find(|line| line.subject == subject)
}

fn ratio(line: &Line, whole: &[Line], bound: Bound) -> Option<Figure> {
    let print = |line: &Line| {
        let nanos = with_unit(line.ns_per_packet, "ns");
        line.floor_over_ours.map(|ratio| format!("{} ({nanos})", digits(ratio)))
    };
    let name = format!(
        "floor / ours, {}, {}",
        line.scenario,
        line.subject.trim_start_matches("shardcast ")
    );
    let figure = Figure::number(&name, line.floor_over_ours?, "", bound);
    let with_gro = find(whole, &line.subject).and_then(print).unwrap_or_default();
    let mut figure = Figure { value: print(line)?, ..figure }.with_gro(with_gro);
    // Less than what was sent, or at another time: another load than the floor's.
    if line.delivered < 0.99 || line.late > 0.01 {
        figure.verdict = Verdict::Invalid;
    }
    Some(figure)
}

/// What taking in transport-wide feedback and estimating bandwidth costs per forwarded packet. Where the floor
/// is measured with feedback too, what receiving it costs the floor is not ours.
fn feedback(cut: &[Line], whole: &[Line], backend: &str) -> Option<Figure> {
    let of = |lines: &[Line]| {
        let nanos = |subject: String| find(lines, &subject).map(|line| line.ns_per_packet);
        let extra =
            |name: &str| Some(nanos(format!("{name}{FEEDBACK}"))? - nanos(name.to_owned())?);
        let ours = extra(&format!("shardcast {backend}"))?;
        Some((ours, extra(&format!("{backend} GSO"))))
    };
    let (ours, floor) = of(cut)?;
    let value = ours - floor.unwrap_or(0.0);
    let name = format!("extra CPU per packet with transport-wide-cc, {backend}");
    let figure = Figure::number(&name, value, "ns", Bound::AtMost { must: 200.0, aim: 80.0 });
    let note = floor.map_or(String::new(), |floor| {
        format!("{} less {} of the floor", with_unit(ours, "ns"), with_unit(floor, "ns"))
    });
    let with_gro = of(whole).map(|(ours, floor)| with_unit(ours - floor.unwrap_or(0.0), "ns"));
    Some(figure.noting(&note).with_gro(with_gro.unwrap_or_default()))
}

fn fallback(cut: &[Line], whole: &[Line]) -> Option<Figure> {
    let of = |lines: &[Line]| {
        let nanos = |backend: &str| {
            find(lines, &format!("shardcast {backend}")).map(|line| line.ns_per_packet)
        };
        Some(nanos("mmsg")? / nanos("uring")?)
    };
    let bound = Bound::AtMost { must: f64::INFINITY, aim: 1.15 };
    let figure = Figure::number("the fallback's cost against io_uring's", of(cut)?, "", bound);
    Some(figure.with_gro(of(whole).map_or(String::new(), digits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(subject: &str, ns_per_packet: f64, floor_over_ours: Option<f64>) -> Line {
        Line {
            scenario: "video 1:20".to_owned(),
            subject: subject.to_owned(),
            ns_per_packet,
            floor_over_ours,
            delivered: 1.0,
            late: 0.0,
        }
    }

    #[test]
    fn ratios_and_differences_are_read_out_of_the_lines() {
        let lines = [
            line("uring GSO", 2000.0, None),
            line("shardcast mmsg", 2400.0, Some(0.8)),
            line("shardcast uring", 2500.0, Some(0.8)),
            line("shardcast uring with twcc", 2650.0, Some(0.75)),
        ];
        assert_eq!(ratio(&lines[0], &lines, VIDEO), None);
        let figure = ratio(&lines[2], &lines, VIDEO).expect("a ratio");
        assert_eq!((&figure.value[..], figure.verdict), ("0.8 (2,500 ns)", Verdict::Must));
        let extra = feedback(&lines, &lines, "uring").expect("measured");
        assert_eq!((&extra.value[..], extra.verdict), ("150 ns", Verdict::Must));
        assert_eq!(feedback(&lines, &lines, "mmsg"), None);
        assert_eq!(fallback(&lines, &[]).expect("both").value, "0.96");
        let more = [&lines[..], &[line("uring GSO with twcc", 2100.0, None)]].concat();
        assert!(feedback(&more, &[], "uring").expect("measured").value.starts_with("50 ns (150"));
        let thin = Line { delivered: 0.9, ..lines[2].clone() };
        assert_eq!(ratio(&thin, &[], VIDEO).expect("a ratio").verdict, Verdict::Invalid);
    }

    const VIDEO: Bound = Bound::AtLeast { must: 0.65, aim: 0.85 };
}
