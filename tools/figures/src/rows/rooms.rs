//! Rooms: large ones, many, and one over two shards.

use super::conditions;
use crate::bench::{Bench, Result, median};
use crate::figure::{Bound, Figure, Outcome, digits, with_unit};
use crate::load::{self, Report};
use crate::server::Server;

/// Everybody sends audio and simulcast video and sees one in 720p, the rest in their lowest layer; then the same
/// with more of them, until packets are lost or not all can join.
pub fn meeting(bench: &Bench) -> Result<Outcome> {
    const SIZES: [usize; 4] = [50, 60, 70, 80];
    let first = gather(bench, bench.size(SIZES[0], 3))?;
    let (rate, seconds) =
        (first.number("/packets/received_per_second")?, first.number("/seconds")?);
    let threads = first.threads("/server/threads");
    let each = threads.iter().take(4).map(|(name, nanos)| {
        format!("{name} {}", with_unit(nanos / seconds / rate.max(1.0), "ns"))
    });
    let each = each.collect::<Vec<_>>().join(", ");
    let name = format!("meeting of {}: CPU per packet by thread", first.number("/peers")?);
    let loss_and_cores = loss_and_cores(&first)?;
    let mut figures =
        vec![Figure::told(&name, each), Figure::told("the same: loss, cores", loss_and_cores)];
    let mut held = first.holds().then(|| step(&first)).transpose()?;
    let mut ended = if first.holds() { None } else { Some(why(&first)?) };
    for &size in &SIZES[1..bench.size(SIZES.len(), 1)] {
        if ended.is_some() {
            break;
        }
        match gather(bench, size) {
            Ok(report) if report.holds() => held = Some(step(&report)?),
            Ok(report) => ended = Some(why(&report)?),
            Err(error) => ended = Some(format!("{size} peers: {error}")),
        }
    }
    let held = held.unwrap_or_else(|| "none that was tried".to_owned());
    let ended = ended.unwrap_or_else(|| "the largest that was tried".to_owned());
    figures.push(Figure::told("the same: the largest that holds", held).noting(&ended));
    let under = conditions(&first)?;
    let faults = first.faults();
    let figures =
        figures.into_iter().map(|f| f.under(&under[..]).unless_invalid(&faults)).collect();
    Ok(Outcome { figures, curves: Vec::new() })
}

fn gather(bench: &Bench, size: usize) -> Result<Report> {
    let (size, seconds) = (size.to_string(), bench.seconds(3.0));
    let who = ["--scenario", "meeting", "--simulcast", "--peers", &size, "--joining", "32"];
    // A receiver's line has to be known well enough for 49 others.
    let warmup = if bench.quick { "1" } else { "4" };
    let how = ["--max-loss", "0.1", "--warmup", warmup, "--seconds", &seconds];
    load::alone_within(bench, load::STEP, &[&who[..], &how[..]].concat())
}

fn step(report: &Report) -> Result<String> {
    let rate = with_unit(report.number("/packets/received_per_second")?, "packets/s");
    let cores = digits(report.number("/server/cores")?);
    Ok(format!("{} peers, {rate}, {cores} cores", report.number("/peers")?))
}

/// Why a step does not hold.
fn why(report: &Report) -> Result<String> {
    let loss = with_unit(report.number("/packets/loss_percent")?, "%");
    let faults = report.faults();
    let reason = match faults.is_empty() {
        true => format!("loss {loss}"),
        false => format!("the load's limit: {}", faults.join("; ")),
    };
    Ok(format!("{}: {reason}", step(report)?))
}

fn loss_and_cores(report: &Report) -> Result<String> {
    let loss = report.number("/packets/loss_percent")?;
    Ok(format!("{}, {}", with_unit(loss, "%"), with_unit(report.number("/server/cores")?, "cores")))
}

/// Many rooms in which one speaks at a time.
pub fn audio_rooms(bench: &Bench) -> Result<Outcome> {
    let rooms = bench.size(100, 2).to_string();
    let peers = bench.size(10, 3).to_string();
    let server = Server::start(bench, &[])?;
    let flags = ["--scenario", "audio", "--rooms", &rooms, "--peers", &peers, "--joining", "32"];
    let report =
        load::report(bench, &server, &[&flags[..], &["--seconds", &bench.seconds(6.0)]].concat())?;
    let name = format!("{rooms} audio rooms of {peers} on one shard");
    let under = format!("{}, {}", server.backend, conditions(&report)?);
    let loss = report.number("/packets/loss_percent")?;
    let faults = report.faults();
    let figures = vec![
        Figure::number(&format!("{name}: loss"), loss, "%", Bound::AtMost { must: 0.0, aim: 0.0 }),
        Figure::number(
            &format!("{name}: cores"),
            report.number("/server/cores")?,
            "",
            Bound::AtMost { must: f64::INFINITY, aim: 0.5 },
        )
        .noting(&with_unit(report.number("/server/ns_per_packet")?, "ns per packet")),
    ];
    let figures =
        figures.into_iter().map(|f| f.under(&under[..]).unless_invalid(&faults)).collect();
    Ok(Outcome { figures, curves: Vec::new() })
}

/// The same packets in the same bursts, in one room of 10 and in a thousand. Receivers send no transport-wide
/// feedback: how much they would send depends on their number, not on that of the packets.
pub fn many_rooms(bench: &Bench) -> Result<Outcome> {
    /// Of 3 packets, in each of many rooms per second: 80,000 packets/s.
    const FRAMES: usize = 3;
    const FRAME_KILOBITS: usize = 25;
    /// More than that take a second publisher.
    const MOST_FPS: usize = 1000;
    const PEERS: usize = 10;
    let many = bench.peers_within_limit(bench.size(1000 * PEERS, 20)) / PEERS;
    let run = |rooms: usize| {
        let frames = FRAMES * many / rooms;
        let publishers = frames.div_ceil(MOST_FPS);
        let fps = frames / publishers;
        let [rooms, publishers, receivers, fps, bitrate] =
            [rooms, publishers, PEERS - 1, fps, fps * FRAME_KILOBITS].map(|n| n.to_string());
        let flags = ["--rooms", &rooms, "--publishers", &publishers, "--peers", &receivers];
        let media = ["--fps", &fps, "--bitrate", &bitrate, "--feedback", "0", "--max-loss", "0.1"];
        // Until reports have become seldom, as they are on streams that go on.
        let how = ["--dtls", "dimpl", "--joining", "64", "--warmup", "8"];
        let times = ["--seconds", &bench.seconds(5.0), "--rest", &bench.seconds(4.0)];
        // One publisher sends what many do.
        let server = ["--max-producer-bitrate", "100000000"];
        load::alone(bench, &server, &[&flags[..], &media[..], &how[..], &times[..]].concat())
    };
    let reports = [run(1)?, run(many)?];
    let [one, all] = &reports;
    let per_packet = |report: &Report| -> Result<f64> {
        let rate = report.number("/packets/received_per_second")?;
        Ok(report.number("/server/cores")? * 1e9 / rate.max(1.0))
    };
    let (of_one, of_all) = (per_packet(one)?, per_packet(all)?);
    let more = (of_all / of_one.max(1e-9) - 1.0) * 100.0;
    let bound = Bound::AtMost { must: 15.0, aim: 5.0 };
    let name = format!("cost per packet at {many} rooms x {PEERS} against 1 x {PEERS}, more by");
    let note = format!("{} against {}", with_unit(of_all, "ns"), with_unit(of_one, "ns"));
    let at_rest = all.number("/rest/cores")? * 100.0;
    let figures = vec![
        Figure::number(&name, more, "%", bound).noting(&note),
        Figure::number("the same peers without media, of a core", at_rest, "%", Bound::Told)
            .noting("reports and checks go on"),
    ];
    let under = format!("{} against {}, no feedback", conditions(all)?, conditions(one)?);
    let broken = reports.iter().filter(|report| !report.holds());
    let faults = broken.map(why).collect::<Result<Vec<_>>>()?;
    let figures =
        figures.into_iter().map(|f| f.under(&under[..]).unless_invalid(&faults)).collect();
    Ok(Outcome { figures, curves: Vec::new() })
}

/// Many publishers and few receivers, all in one room: first on one shard, then spread over two, which share the
/// server's core.
pub fn shards(bench: &Bench) -> Result<Outcome> {
    let publishers = bench.size(40, 2).to_string();
    let kilobits = bench.size(5000, 500).to_string();
    // Without feedback, or the estimate of each receiver's line would decide how much is sent. Peers that join one
    // by one are shared out evenly.
    let who = ["--publishers", &publishers, "--peers", "4", "--joining", "1"];
    let flags = [&who[..], &["--bitrate", &kilobits, "--feedback", "0"]].concat();
    let run = |workers: &str| {
        load::alone(
            bench,
            &["--workers", workers],
            &[&flags[..], &["--seconds", &bench.seconds(3.0)]].concat(),
        )
    };
    let (mut extra, mut faults, mut under) = (Vec::new(), Vec::new(), String::new());
    // Runs of one server differ by more than the figure.
    for _ in 0..bench.size(5, 1) {
        let (one, two) = (run("1")?, run("2")?);
        // Half of the receivers are on the other shard, so each packet is handed over once.
        let handed_over = two.number("/packets/sent_per_second")?;
        extra.push(
            (two.number("/server/cores")? - one.number("/server/cores")?) * 1e9
                / handed_over.max(1.0),
        );
        faults = [one.faults(), two.faults()].concat();
        under =
            format!("{}, {} handed over", conditions(&two)?, with_unit(handed_over, "packets/s"));
    }
    let bound = Bound::AtMost { must: 200.0, aim: 100.0 };
    let name = "a room on two shards: extra CPU per packet handed over";
    let figure =
        Figure::number(name, median(extra), "ns", bound).under(under).unless_invalid(&faults);
    Ok(Outcome { figures: vec![figure], curves: Vec::new() })
}
