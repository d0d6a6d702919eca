//! What a forwarded packet costs, by cipher and by fan-out.

use super::conditions;
use crate::bench::{Bench, Result, median};
use crate::figure::{Bound, Curve, Figure, Outcome, digits, with_unit};
use crate::load::{self, Report};
use crate::plot::Plot;

/// See [`fan_out`].
pub const PLOT: Plot = Plot {
    name: "fan-out",
    title: "CPU per forwarded packet against fan-out, video of 2.5 Mbit/s",
    x: "receivers",
    y: "ns per forwarded packet, all threads",
    log: (true, false),
};

/// The three protection profiles, in turns.
pub fn profiles(bench: &Bench) -> Result<Outcome> {
    const PROFILES: [&str; 3] = ["gcm128", "gcm256", "sha1"];
    let peers = bench.size(100, 3).to_string();
    let mut nanos: [Vec<f64>; 3] = Default::default();
    let (mut faults, mut under) = (Vec::new(), String::new());
    for _ in 0..bench.size(2, 1) {
        for (profile, nanos) in PROFILES.iter().zip(&mut nanos) {
            let flags = ["--peers", &peers, "--profile", profile, "--warmup", "1"];
            let seconds = bench.seconds(2.5);
            let report = load::alone(bench, &[], &[&flags[..], &["--seconds", &seconds]].concat())?;
            nanos.push(report.number("/server/ns_per_packet")?);
            faults.extend(report.faults());
            under = format!(
                "livestream to {peers}, {}",
                with_unit(report.number("/packets/received_per_second")?, "packets/s")
            );
        }
    }
    let [first, second, third] = nanos.map(median);
    let name = "CPU per packet with AES-128-GCM / AES-256-GCM / AES-CM + SHA1";
    let ratio = |nanos: f64| digits(nanos / first.max(1.0));
    let figure = Figure::numbers(name, &[first, second, third], "ns", &[Bound::Told])
        .noting(&format!("1 / {} / {}", ratio(second), ratio(third)))
        .under(under)
        .unless_invalid(&faults);
    Ok(Outcome { figures: vec![figure], curves: Vec::new() })
}

/// A livestream whose receivers send transport-wide feedback ten times a second, against one without: the difference
/// of neighbouring runs.
pub fn feedback(bench: &Bench) -> Result<Outcome> {
    let peers = bench.size(100, 3).to_string();
    let seconds = bench.seconds(3.0);
    let mut figures = Vec::new();
    for backend in ["mmsg", "uring"] {
        let run = |millis: &str| {
            let flags = ["--peers", &peers, "--feedback", millis, "--warmup", "3"];
            let flags = [&flags[..], &["--seconds", &seconds]].concat();
            load::alone(bench, &["--io-backend", backend], &flags)
        };
        let (mut extra, mut without, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..bench.size(8, 1) {
            // A machine that gets slower meanwhile adds to one pair what it takes from the next.
            let reports = match pair % 2 {
                0 => [run("0")?, run("100")?],
                _ => {
                    let telling = run("100")?;
                    [run("0")?, telling]
                }
            };
            let [silent, telling] = reports.each_ref().map(|r| r.number("/server/ns_per_packet"));
            let silent = silent?;
            extra.push(telling? - silent);
            without.push(silent);
            faults.extend(reports.iter().flat_map(Report::faults));
        }
        let name = format!("extra CPU per packet with transport-wide-cc, all threads, {backend}");
        let bound = Bound::AtMost { must: 200.0, aim: 80.0 };
        let note = format!("{} without", with_unit(median(without), "ns"));
        let figure = Figure::number(&name, median(extra), "ns", bound).noting(&note);
        figures.push(
            figure.under(format!("livestream to {peers}, AES-128-GCM")).unless_invalid(&faults),
        );
    }
    Ok(Outcome { figures, curves: Vec::new() })
}

/// One publisher to ever more receivers.
pub fn fan_out(bench: &Bench) -> Result<Outcome> {
    const FAN_OUTS: [usize; 5] = [1, 5, 20, 100, 300];
    let fan_outs = if bench.quick { &FAN_OUTS[..2] } else { &FAN_OUTS[..] };
    let mut outcome = Outcome::default();
    for (name, gro) in [("receivers without UDP_GRO", false), ("receivers with UDP_GRO", true)] {
        let mut points = Vec::new();
        for fan_out in fan_outs {
            let peers = fan_out.to_string();
            let gro = format!("--gro={gro}");
            let flags =
                ["--peers", &peers, "--warmup", "1", "--seconds", &bench.seconds(2.0), &gro];
            let report = load::alone(bench, &[], &flags)?;
            points.push((*fan_out as f64, report.number("/server/ns_per_packet")?));
            if *fan_out == fan_outs[fan_outs.len() - 1] {
                outcome.figures.push(
                    Figure::told(
                        &format!("CPU per packet, all threads, to {}", list(&points)),
                        values(&points),
                    )
                    .under(format!("{name}, {}", conditions(&report)?))
                    .unless_invalid(&report.faults()),
                );
            }
        }
        outcome.curves.push(Curve { plot: PLOT.name.to_owned(), name: name.to_owned(), points });
    }
    Ok(outcome)
}

fn list(points: &[(f64, f64)]) -> String {
    points.iter().map(|(fan_out, _)| digits(*fan_out)).collect::<Vec<_>>().join(" / ")
}

fn values(points: &[(f64, f64)]) -> String {
    let values: Vec<_> = points.iter().map(|(_, nanos)| digits(*nanos)).collect();
    format!("{} ns", values.join(" / "))
}
