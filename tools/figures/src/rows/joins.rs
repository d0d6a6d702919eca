//! Peers that come, and peers that are only there.

use super::conditions;
use crate::bench::{Bench, Result};
use crate::figure::{Bound, Curve, Figure, Outcome, with_unit};
use crate::load::{self, Report};
use crate::plot::Plot;

/// See [`idle`].
pub const PLOT: Plot = Plot {
    name: "memory",
    title: "Memory of the server against peers",
    x: "connected peers",
    y: "MB",
    log: (false, false),
};

/// Peers of a room in which nobody sends. In a large one each who comes is told to all others.
const ROOM: usize = 10;

/// So many rooms of peers that only connect.
fn idle_in(rooms: &str) -> [&str; 8] {
    ["--scenario", "idle", "--rooms", rooms, "--peers", "10", "--dtls", "dimpl"]
}

/// As many handshakes as both sides can make.
pub fn handshakes(bench: &Bench) -> Result<Outcome> {
    let rooms = bench.size(300, 1).to_string();
    let flags = [&idle_in(&rooms)[..], &["--joining", "64"]].concat();
    let report =
        load::alone(bench, &[], &[&flags[..], &["--warmup", "0.5", "--seconds", "0.5"]].concat())?;
    let joined = report.number("/joins/joined")?.max(1.0);
    let threads = report.threads("/joining/server/threads");
    let shard: f64 =
        threads.iter().filter(|(name, _)| name.starts_with("shard-")).map(|(_, ns)| ns).sum();
    let micros = shard / joined / 1e3;
    let rate = report.number("/joining/per_second")?;
    let cores = report.number("/joining/server/cores")?;
    let under = "dimpl as client; ICE, DTLS 1.2 and the transport's set-up on the shard";
    let figures = vec![
        Figure::number(
            "handshakes per second on one core, by the shard's CPU time",
            1e6 / micros.max(1e-3),
            "/s",
            Bound::AtLeast { must: 1500.0, aim: 3000.0 },
        )
        .noting(&format!("{} each", with_unit(micros, "µs"))),
        Figure::number(
            "joins per second, signaling and control on the same core",
            rate,
            "/s",
            Bound::Told,
        )
        .noting(&format!("{} of the server's core busy", with_unit(cores * 100.0, "%"))),
    ];
    let figures = figures.into_iter().map(|figure| figure.under(under)).collect();
    Ok(Outcome { figures, curves: Vec::new() })
}

/// A call goes on while others join other rooms.
pub fn storm(bench: &Bench) -> Result<Outcome> {
    let joiners = bench.size(500, 10).to_string();
    let who =
        ["--scenario", "storm", "--peers", "10", "--with-audio", "--joiners", &joiners, "--apart"];
    let how =
        ["--within", "1", "--dtls", "dimpl", "--sample", "1", "--warmup", "1", "--seconds", "1.2"];
    let report = load::alone(bench, &[], &[&who[..], &how[..]].concat())?;
    let p99 = |kind: &str| report.number(&format!("/latency/{kind}/p99"));
    let (audio, video) = (p99("audio")?, p99("video")?);
    let bound = Bound::AtMost { must: 2.0, aim: 1.0 };
    let name = format!("media p99 while {joiners} peers join in 1 s: audio / video");
    let figure = Figure::numbers(&name, &[audio / 1e3, video / 1e3], "ms", &[bound, bound]);
    let time = report.number("/joins/time/p50")? / 1e3;
    let figure = figure.noting(&format!("a join took {}", with_unit(time, "ms")));
    let under = format!("livestream to 10 with audio, {}", conditions(&report)?);
    Ok(Outcome {
        figures: vec![figure.under(under).unless_invalid(&report.faults())],
        curves: Vec::new(),
    })
}

/// Peers with a connected transport each, that neither send nor receive.
pub fn idle(bench: &Bench) -> Result<Outcome> {
    let peers = bench.peers_within_limit(bench.size(10_000, 20)) / ROOM * ROOM;
    let rooms = (peers / ROOM).to_string();
    let flags = [&idle_in(&rooms)[..], &["--joining", "64"]].concat();
    let times = ["--warmup", "3", "--seconds", &bench.seconds(10.0)];
    let report = load::alone(bench, &[], &[&flags[..], &times[..]].concat())?;
    let kilobytes = report.number("/server/bytes_per_peer")? / 1e3;
    let under = "process as a whole: shard, control, WebSocket; consent checks and pings go on";
    let figures = vec![
        Figure::number(
            "memory per connected idle peer",
            kilobytes,
            "kB",
            Bound::AtMost { must: 24.0, aim: 16.0 },
        ),
        Figure::number(
            &format!("{peers} idle peers, of a core"),
            report.number("/server/cores")? * 100.0,
            "%",
            Bound::AtMost { must: 5.0, aim: 2.0 },
        )
        .noting(&by_thread(&report)?),
    ];
    let figures =
        figures.into_iter().map(|f| f.under(under).unless_invalid(&report.faults())).collect();
    let points =
        report.points("/joining/memory").into_iter().map(|(peers, bytes)| (peers, bytes / 1e6));
    let curve = Curve {
        plot: PLOT.name.to_owned(),
        name: "idle peers".to_owned(),
        points: points.collect(),
    };
    Ok(Outcome { figures, curves: vec![curve] })
}

fn by_thread(report: &Report) -> Result<String> {
    let seconds = report.number("/seconds")?;
    let threads = report.threads("/server/threads");
    let share =
        |(name, ns): &(String, f64)| format!("{name} {}", with_unit(ns / seconds / 1e7, "%"));
    Ok(threads.iter().take(3).map(share).collect::<Vec<_>>().join(", "))
}

/// Many publishers of next to nothing, with few and with many receivers.
pub fn consumers(bench: &Bench) -> Result<Outcome> {
    let publishers = bench.size(50, 3);
    let (few, many) = (bench.size(10, 2), bench.size(210, 5));
    let run = |receivers: usize| {
        let (publishers, receivers) = (publishers.to_string(), receivers.to_string());
        let flags =
            ["--publishers", &publishers, "--peers", &receivers, "--fps", "1", "--bitrate", "16"];
        let times = ["--warmup", "1", "--seconds", &bench.seconds(1.0), "--dtls", "dimpl"];
        load::alone(bench, &[], &[&flags[..], &times[..]].concat())
    };
    let (little, much) = (run(few)?, run(many)?);
    let grown = |report: &Report| -> Result<f64> {
        Ok(report.number("/server/bytes_per_peer")? * report.number("/joins/joined")?)
    };
    let per_receiver = (grown(&much)? - grown(&little)?) / (many - few) as f64;
    // A receiver is an idle peer too; measured by the same means.
    let rooms = bench.size(50, 1).to_string();
    let times = ["--warmup", "0.5", "--seconds", "0.5"];
    let idle = load::alone(bench, &[], &[&idle_in(&rooms)[..], &times].concat())?;
    let idle = idle.number("/server/bytes_per_peer")?;
    let kilobytes = (per_receiver - idle) / publishers as f64 / 1e3;
    let figure = Figure::number(
        "memory per consumer",
        kilobytes,
        "kB",
        Bound::AtMost { must: 2.0, aim: 1.0 },
    );
    let note = format!(
        "{} more receivers of {publishers}: {} each, of which {} is the idle peer",
        many - few,
        with_unit(per_receiver / 1e3, "kB"),
        with_unit(idle / 1e3, "kB")
    );
    let figure =
        figure.noting(&note).under("process as a whole; one encoding of video, feedback on");
    Ok(Outcome { figures: vec![figure], curves: Vec::new() })
}
