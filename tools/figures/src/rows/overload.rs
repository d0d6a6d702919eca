//! What is left of the work when there is too much of it.

use crate::bench::{Bench, Result};
use crate::figure::{Bound, Curve, Figure, Outcome, with_unit};
use crate::load::{self, Report};
use crate::plot::Plot;
use crate::server::Server;

/// See [`overload`].
pub const PLOT: Plot = Plot {
    name: "overload",
    title: "Delivered against offered",
    x: "offered, thousands of packets per second",
    y: "delivered, thousands of packets per second",
    log: (false, false),
};

const PUBLISHERS: usize = 10;
const RECEIVERS: usize = 100;
/// Kilobits per second of a publisher at the first step, and the factor between steps.
const FIRST: f64 = 600.0;
const FACTOR: f64 = 1.2;
const STEPS: usize = 12;

/// Ever higher bitrates until packets are lost, then a fifth more than what held.
pub fn overload(bench: &Bench) -> Result<Outcome> {
    let server = Server::start(bench, &[])?;
    let (mut offered_to, mut points) = (FIRST, Vec::new());
    let mut held: Option<(f64, Report)> = None;
    let mut ended = String::from("nothing broke");
    for _ in 0..bench.size(STEPS, 1) {
        let report = run(bench, &server, offered_to)?;
        points.push(point(bench, &report)?);
        if !report.holds() {
            ended = reason(&report)?;
            break;
        }
        held = Some((offered_to, report));
        offered_to *= FACTOR;
    }
    let Some((kilobits, peak)) = held else {
        return Err(format!("not even the first step holds: {ended}").into());
    };
    let peak = peak.number("/packets/received_per_second")?;
    let over = run(bench, &server, kilobits * 1.2)?;
    points.push(point(bench, &over)?);
    let share = over.number("/packets/received_per_second")? / peak.max(1.0) * 100.0;
    if !bench.quick {
        points.push(point(bench, &run(bench, &server, kilobits * 1.6)?)?);
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let name = "at 120% of the highest load that holds: delivered, of that load's peak";
    let under = format!(
        "{PUBLISHERS} publishers, {RECEIVERS} receivers without feedback, {} held; then {ended}; at 120% {} cores",
        with_unit(peak, "packets/s"),
        with_unit(over.number("/server/cores")?, "")
    );
    let figure = Figure::number(name, share, "%", Bound::AtLeast { must: 90.0, aim: 97.0 });
    let curve = Curve { plot: PLOT.name.to_owned(), name: "delivered".to_owned(), points };
    Ok(Outcome {
        figures: vec![figure.under(under).unless_invalid(&over.faults())],
        curves: vec![curve],
    })
}

fn run(bench: &Bench, server: &Server, kilobits: f64) -> Result<Report> {
    let (publishers, receivers) = (bench.size(PUBLISHERS, 2), bench.size(RECEIVERS, 3));
    let (publishers, receivers) = (publishers.to_string(), receivers.to_string());
    let kilobits = format!("{kilobits:.0}");
    let who = ["--publishers", &publishers, "--peers", &receivers, "--bitrate", &kilobits];
    // Without feedback, or the estimate of each receiver's line would decide what is sent, not the load.
    let how = ["--feedback", "0", "--max-loss", "0.1", "--sample", "128", "--warmup", "1"];
    let times = ["--seconds", &bench.seconds(2.0)];
    load::report(bench, server, &[&who[..], &how[..], &times[..]].concat())
}

/// Offered and delivered, in thousands per second.
fn point(bench: &Bench, report: &Report) -> Result<(f64, f64)> {
    let receivers = bench.size(RECEIVERS, 3) as f64;
    let offered = report.number("/packets/sent_per_second")? * receivers / 1e3;
    Ok((offered, report.number("/packets/received_per_second")? / 1e3))
}

fn reason(report: &Report) -> Result<String> {
    let cores = with_unit(report.number("/server/cores")?, "cores");
    Ok(match report.faults() {
        faults if faults.is_empty() => {
            format!("loss {} at {cores}", with_unit(report.number("/packets/loss_percent")?, "%"))
        }
        faults => format!("the load's limit at {cores} of the server: {}", faults.join("; ")),
    })
}
