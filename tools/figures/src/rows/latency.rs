//! How long packets are on their way, by how busy the server is.

use super::conditions;
use crate::bench::{Bench, Result};
use crate::figure::{Bound, Curve, Figure, Outcome, with_unit};
use crate::load::{self, Report};
use crate::plot::Plot;
use crate::server::Server;

/// See [`latency`].
pub const PLOT: Plot = Plot {
    name: "latency",
    title: "Added latency against load, fan-out 50",
    x: "cores that the server keeps busy",
    y: "µs",
    log: (false, true),
};

const FAN_OUT: usize = 50;
/// The server's load, in cores. The figure is that of the half.
const LOADS: [f64; 4] = [0.1, 0.25, 0.5, 0.75];
/// The most that the load itself may be asked for.
const OWN: f64 = 0.75;

/// What is sent.
#[derive(Clone, Copy)]
enum Media {
    Audio,
    Video,
}

/// Rooms with a fan-out of 50, more and more of them.
pub fn latency(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for media in [Media::Audio, Media::Video] {
        climb(bench, media, &mut outcome)?;
    }
    Ok(outcome)
}

fn climb(bench: &Bench, media: Media, outcome: &mut Outcome) -> Result<()> {
    let (name, path) = match media {
        Media::Audio => ("audio", "/latency/audio"),
        Media::Video => ("video without key frames", "/latency/video"),
    };
    let server = Server::start(bench, &[])?;
    let first = run(bench, &server, media, 1)?;
    let (each, own) = (first.number("/server/cores")?, first.number("/load/cores")?);
    let loads = if bench.quick { &LOADS[..1] } else { &LOADS[..] };
    // One room alone costs more than one of many; so the next step learns from the one before.
    let (mut per_room, mut own_per_room) = (each, own);
    let (mut curves, mut best) = ([Vec::new(), Vec::new(), Vec::new()], None::<(f64, Report)>);
    for load in loads {
        let wanted = (load / per_room.max(1e-3)).round().max(1.0);
        let rooms = wanted.min((OWN / own_per_room.max(1e-3)).floor().max(1.0));
        let report = run(bench, &server, media, rooms as usize)?;
        let cores = report.number("/server/cores")?;
        (per_room, own_per_room) = (cores / rooms, report.number("/load/cores")? / rooms);
        for (curve, value) in curves.iter_mut().zip(report.percentiles(path)?) {
            curve.push((cores, value));
        }
        let nearer =
            best.as_ref().is_none_or(|(other, _)| (cores - 0.5).abs() < (other - 0.5).abs());
        if nearer {
            best = Some((cores, report));
        }
        if rooms < wanted {
            break;
        }
    }
    for (curve, percentile) in curves.into_iter().zip(["p50", "p99", "p99.9"]) {
        let name = format!(
            "{}, {percentile}",
            if matches!(media, Media::Audio) { "audio" } else { "video" }
        );
        outcome.curves.push(Curve { plot: PLOT.name.to_owned(), name, points: curve });
    }
    let Some((cores, report)) = best else { return Ok(()) };
    let bound = |must, aim| Bound::AtMost { must, aim };
    let bounds = [bound(100.0, 40.0), bound(400.0, 150.0), bound(1000.0, 500.0)];
    let name = format!("added latency, fan-out {FAN_OUT}, {name}: p50 / p99 / p99.9");
    let under = format!("{}, {}", with_unit(cores, "cores busy"), conditions(&report)?);
    let figure = Figure::numbers(&name, &report.percentiles(path)?, "µs", &bounds);
    outcome.figures.push(figure.under(under).unless_invalid(&report.faults()));
    Ok(())
}

fn run(bench: &Bench, server: &Server, media: Media, rooms: usize) -> Result<Report> {
    let (rooms, fan_out) = (rooms.to_string(), bench.size(FAN_OUT, 3));
    let members = (fan_out + 1).to_string();
    let fan_out = fan_out.to_string();
    let who = match media {
        Media::Audio => ["--scenario", "audio", "--rooms", &rooms, "--peers", &members],
        Media::Video => ["--scenario", "livestream", "--rooms", &rooms, "--peers", &fan_out],
    };
    let how =
        ["--sample", "8", "--joining", "32", "--warmup", "1", "--seconds", &bench.seconds(3.0)];
    load::report(bench, server, &[&who[..], &how[..]].concat())
}

/// Key frames of one publisher, each until its last packet has come to the last of all receivers.
pub fn key_frames(bench: &Bench) -> Result<Outcome> {
    let server = Server::start(bench, &[])?;
    let fan_out = bench.size(FAN_OUT, 3);
    let receivers = fan_out.to_string();
    let flags = ["--peers", &receivers, "--key-interval", "0.4", "--sample", "1"];
    let report =
        load::report(bench, &server, &[&flags[..], &["--seconds", &bench.seconds(5.0)]].concat())?;
    let packets = report.number("/key_frames/packets")?;
    let micros = report.number("/server/ns_per_packet")? / 1e3;
    let aim = 40.0 + 1.25 * packets * fan_out as f64 * micros;
    let value = report.number("/key_frames/last/p50")?;
    let bound = Bound::AtMost { must: f64::INFINITY, aim };
    let name = "the last packet of a key frame to the last consumer (median of key frames)";
    let note = format!(
        "longest {}; {} key frames of {packets:.0} packets to {fan_out}, {} per packet",
        with_unit(report.number("/key_frames/last/max")?, "µs"),
        report.number("/key_frames/count")?,
        with_unit(micros, "µs"),
    );
    let figure = Figure::number(name, value, "µs", bound).noting(&note);
    let figure = figure.under(conditions(&report)?).unless_invalid(&report.faults());
    Ok(Outcome { figures: vec![figure], curves: Vec::new() })
}
