//! What is said at the end: for people, for programs, and by the exit code.

use std::fmt::Write;
use std::net::SocketAddr;

use serde::Serialize;

use crate::flood::Sent;
use crate::peer::Joins;
use crate::phases::{Joining, Phase};
use crate::process::{Snapshot, Usage};
use crate::recovery;
use crate::run::Window;
use crate::settings::{Limits, Settings};
use crate::soak::Outcome;
use crate::stamp::Burst;
use crate::tally::{Tally, Times};

/// Frames that leave later than this at the 99th percentile are not the load that was asked for.
const MAX_LATENESS: f64 = 10_000.0;
/// Datagrams that our own sockets may lose, as a share of all: beyond it the loss is ours.
const MAX_OVERFLOW: f64 = 1e-5;
/// Datagrams that the kernel may refuse to send, likewise.
const MAX_UNSENT: f64 = 1e-3;

/// All that was found out.
pub struct Figures {
    /// Peers that were to join.
    pub planned: usize,
    /// What became of that.
    pub joins: Joins,
    /// How it went until measuring.
    pub joining: Joining,
    /// What the workers counted.
    pub tally: Tally,
    /// Key frames, and when their last packets had come.
    pub bursts: Vec<Burst>,
    /// The server when measuring began.
    pub before: Option<Snapshot>,
    /// The measured time.
    pub window: Window,
    /// The server while nobody sent.
    pub rest: Option<Phase>,
    /// Resident memory before the first join and at the end, in bytes.
    pub memory: Option<(u64, u64)>,
    /// How the soak went, if it was one.
    pub soak: Option<Outcome>,
    /// What followed when a shard failed, if one was to.
    pub recovery: Option<recovery::Outcome>,
    /// Where signaling was.
    pub server: SocketAddr,
    /// What strangers sent.
    pub flood: Option<Sent>,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Percentiles {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Percentiles {
    /// None of none.
    pub fn of(times: &Times) -> Option<Self> {
        let at = |share| times.micros(share);
        Some(Self {
            count: times.count(),
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: times.max_micros()?,
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        let Self { count, p50, p90, p99, p999, max } = self;
        format!(
            "p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0} µs ({count})"
        )
    }
}

/// Joins.
#[derive(Debug, Serialize)]
struct Joined {
    planned: usize,
    joined: u64,
    failed: u64,
    reasons: Vec<String>,
    refused_consumers: u64,
    closed: u64,
    time: Option<Percentiles>,
    first_frame: Option<Percentiles>,
    /// Receivers of video without a whole key frame at the end.
    dark: u64,
}

/// Key frames that everybody got while measured.
#[derive(Debug, Serialize)]
struct Bursts {
    count: usize,
    /// Packets of one, on average.
    packets: f64,
    /// From its departure until the last packet came to the last of all receivers.
    last: Option<Percentiles>,
}

impl Bursts {
    fn of(bursts: &[Burst]) -> Self {
        let mut last = Times::default();
        bursts.iter().for_each(|burst| last.note(burst.last));
        let packets: u64 = bursts.iter().map(|burst| u64::from(burst.packets)).sum();
        Self {
            count: bursts.len(),
            packets: packets as f64 / bursts.len().max(1) as f64,
            last: Percentiles::of(&last),
        }
    }
}

/// Packets in the measured time, and until its last ones had come.
#[derive(Debug, Serialize)]
struct Packets {
    sent: u64,
    sent_per_second: f64,
    expected: u64,
    delivered: u64,
    received_per_second: f64,
    received_bits_per_second: f64,
    lost: u64,
    loss_percent: f64,
    copies: u64,
    asked_for: u64,
    repaired: u64,
    resent_by_publishers: u64,
    opened: u64,
    authentication_failures: u64,
    unknown_streams: u64,
    strange: u64,
}

/// Added latency in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    audio: Option<Percentiles>,
    video: Option<Percentiles>,
    key_frames: Option<Percentiles>,
    last_packets_of_key_frames: Option<Percentiles>,
}

/// Feedback, as browsers give it.
#[derive(Debug, Serialize)]
struct Feedback {
    transport_wide_sent: u64,
    transport_wide_received: u64,
    reports_sent: u64,
    key_frames_asked_for: u64,
    key_frames_wanted_by_server: u64,
    consent_checks_answered: u64,
}

/// What the server used in the measured time.
#[derive(Debug, Serialize)]
struct Server {
    cores: f64,
    #[serde(flatten)]
    usage: Usage,
    ns_per_packet: Option<f64>,
    /// What its memory grew by from before the first join to the end, per peer.
    bytes_per_peer: f64,
}

/// The load itself.
#[derive(Debug, Serialize)]
struct Own {
    cores: f64,
    ns_per_packet: Option<f64>,
    lateness: Option<Percentiles>,
    overflowed: u64,
    unsent: u64,
    /// Packets per read from a socket: of a GSO send's segments, where receivers take them whole.
    packets_per_read: Option<f64>,
    /// Why the figures mean nothing; empty: they do.
    faults: Vec<String>,
}

/// See the top.
#[derive(Debug, Serialize)]
pub struct Report {
    scenario: String,
    rooms: usize,
    peers: usize,
    seconds: f64,
    profile: Option<&'static str>,
    interface: &'static str,
    udp_gro: bool,
    tx_udp_segmentation: Option<bool>,
    joins: Joined,
    joining: Joining,
    packets: Packets,
    latency: Latency,
    key_frames: Bursts,
    feedback: Feedback,
    server: Option<Server>,
    /// The server while all were there and nobody sent.
    rest: Option<Phase>,
    load: Own,
    soak: Option<Outcome>,
    recovery: Option<recovery::Outcome>,
    flood: Option<Sent>,
    /// Limits that do not hold.
    broken: Vec<String>,
}

impl Report {
    /// Puts the figures together and compares them with the limits.
    pub fn new(settings: &Settings, figures: Figures) -> Self {
        let Figures { joins, tally, before, window, memory, soak, recovery, server, .. } = figures;
        let peers = joins.times.count();
        let local = server.ip().is_loopback();
        let mut report = Self {
            scenario: format!("{:?}", settings.scenario).to_lowercase(),
            rooms: settings.rooms,
            peers: settings.peers,
            seconds: window.seconds,
            profile: joins.profile.map(crate::dtls::Profile::name),
            interface: if local { "lo" } else { "not loopback" },
            udp_gro: settings.gro,
            tx_udp_segmentation: local.then(tx_udp_segmentation).flatten(),
            packets: packets(&tally, &window),
            latency: Latency {
                audio: Percentiles::of(&tally.audio),
                video: Percentiles::of(&tally.video),
                key_frames: Percentiles::of(&tally.keys),
                last_packets_of_key_frames: Percentiles::of(&tally.key_ends),
            },
            feedback: Feedback {
                transport_wide_sent: tally.feedback,
                transport_wide_received: tally.feedback_received,
                reports_sent: tally.reports,
                key_frames_asked_for: tally.pictures_asked,
                key_frames_wanted_by_server: tally.pictures_wanted,
                consent_checks_answered: tally.consents,
            },
            key_frames: Bursts::of(&figures.bursts),
            server: server_figures(before, &window, memory, peers),
            rest: figures.rest,
            load: own(settings, &tally, &window),
            joining: figures.joining,
            flood: figures.flood,
            joins: Joined {
                planned: figures.planned,
                joined: peers,
                failed: joins.failed,
                reasons: joins.reasons,
                refused_consumers: joins.refused,
                closed: joins.closed,
                time: Percentiles::of(&joins.times),
                first_frame: Percentiles::of(&tally.first_frame),
                dark: tally.dark,
            },
            soak,
            recovery,
            broken: Vec::new(),
        };
        report.broken = report.broken_limits(&settings.limits);
        report.broken.extend(report.soak.iter().flat_map(|soak| soak.broken.clone()));
        report.broken.extend(report.recovery.iter().flat_map(|it| it.broken.clone()));
        report
    }

    fn broken_limits(&self, limits: &Limits) -> Vec<String> {
        let p99 = |times: &Option<Percentiles>| times.as_ref().map(|times| times.p99);
        let found = [
            ("loss in percent", limits.loss, Some(self.packets.loss_percent)),
            ("p99 of audio in µs", limits.p99, p99(&self.latency.audio)),
            ("p99 of video in µs", limits.p99, p99(&self.latency.video)),
            (
                "CPU ns per packet",
                limits.ns_per_packet,
                self.server.as_ref().and_then(|server| server.ns_per_packet),
            ),
        ];
        let broken = found.into_iter().filter_map(|(name, limit, found)| {
            let (limit, found) = (limit?, found?);
            (found > limit).then(|| format!("{name}: {found:.3}, allowed is {limit}"))
        });
        let mut broken: Vec<_> = broken.collect();
        if limits.loss.is_some() && self.packets.authentication_failures > 0 {
            let failures = self.packets.authentication_failures;
            broken.push(format!("{failures} packets failed to authenticate"));
        }
        broken
    }

    /// Whether every limit holds and the figures mean something.
    pub fn holds(&self) -> bool {
        self.code() == 0
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            _ if self.joins.failed > 0 || self.joins.joined < self.joins.planned as u64 => 4,
            _ if !self.load.faults.is_empty() => 3,
            _ if !self.broken.is_empty() => 1,
            _ => 0,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let gso = match self.tx_udp_segmentation {
            Some(true) => ", tx-udp-segmentation on",
            Some(false) => ", tx-udp-segmentation off",
            None => "",
        };
        let gro = if self.udp_gro { "with" } else { "without" };
        writeln!(
            out,
            "{}: {} x {} peers, {:.1} s, {}; interface {}{gso}, receivers {gro} UDP_GRO",
            self.scenario,
            self.rooms,
            self.peers,
            self.seconds,
            self.profile.unwrap_or("no handshake"),
            self.interface,
        )?;
        self.write_joins(out)?;
        self.write_packets(out)?;
        let latency = &self.latency;
        for (name, times) in [
            ("audio", &latency.audio),
            ("video", &latency.video),
            ("key frames", &latency.key_frames),
            ("key ends", &latency.last_packets_of_key_frames),
            ("the last", &self.key_frames.last),
        ] {
            if let Some(times) = times {
                writeln!(out, "{name:<12}  {}", times.line())?;
            }
        }
        if let Some(server) = &self.server {
            server.write(out)?;
        }
        if let Some(rest) = &self.rest {
            writeln!(out, "at rest       {:.4} cores", rest.cores)?;
        }
        self.load.write(out)?;
        if let Some(soak) = &self.soak {
            out.push_str(&soak.text());
        }
        if let Some(recovery) = &self.recovery {
            out.push_str(&recovery.text());
        }
        if let Some(flood) = &self.flood {
            writeln!(out, "strangers     {}", flood.line())?;
        }
        for fault in &self.load.faults {
            writeln!(out, "INVALID       {fault}")?;
        }
        for broken in &self.broken {
            writeln!(out, "BROKEN        {broken}")?;
        }
        Ok(())
    }

    fn write_joins(&self, out: &mut String) -> std::fmt::Result {
        let joins = &self.joins;
        write!(out, "joined        {} of {}", joins.joined, joins.planned)?;
        if joins.failed + joins.closed + joins.refused_consumers + joins.dark > 0 {
            let Joined { failed, closed, refused_consumers, dark, .. } = joins;
            write!(out, "; {failed} failed, {closed} closed early, ")?;
            write!(out, "{refused_consumers} consumers refused, {dark} without a picture")?;
        }
        writeln!(out)?;
        let Joining { seconds, per_second, .. } = &self.joining;
        writeln!(out, "joining       {seconds:.1} s, {per_second:.0} peers/s")?;
        joins.reasons.iter().try_for_each(|reason| writeln!(out, "              {reason}"))?;
        for (name, times) in [("to join", &joins.time), ("first frame", &joins.first_frame)] {
            if let Some(times) = times {
                writeln!(out, "{name:<12}  {}", times.line())?;
            }
        }
        Ok(())
    }

    fn write_packets(&self, out: &mut String) -> std::fmt::Result {
        let p = &self.packets;
        writeln!(
            out,
            "packets       sent {}, expected {}, delivered {}: loss {:.4} %; {:.0}/s, {:.1} Mbit/s",
            p.sent,
            p.expected,
            p.delivered,
            p.loss_percent,
            p.received_per_second,
            p.received_bits_per_second / 1e6,
        )?;
        writeln!(
            out,
            "repairs       {} asked for, {} repaired, {} resent by publishers, {} copies",
            p.asked_for, p.repaired, p.resent_by_publishers, p.copies
        )?;
        writeln!(
            out,
            "authenticity  {} opened, {} failed; {} of unknown streams, {} strange",
            p.opened, p.authentication_failures, p.unknown_streams, p.strange
        )?;
        let f = &self.feedback;
        writeln!(
            out,
            "feedback      {} transport-wide sent, {} received; {} reports, {} key frames asked for, {} wanted",
            f.transport_wide_sent,
            f.transport_wide_received,
            f.reports_sent,
            f.key_frames_asked_for,
            f.key_frames_wanted_by_server
        )
    }
}

impl Server {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        write!(
            out,
            "server        {:.3} cores ({:.0} % user)",
            self.cores,
            self.usage.user_share * 1e2
        )?;
        if let Some(nanos) = self.ns_per_packet {
            write!(out, ", {nanos:.0} ns per forwarded packet")?;
        }
        let megabytes = self.usage.resident as f64 / 1e6;
        writeln!(out, ", {megabytes:.1} MB, {:.1} kB more per peer", self.bytes_per_peer / 1e3)?;
        let total = self.usage.cpu_ns.max(1) as f64;
        let threads = self
            .usage
            .threads
            .iter()
            .take(8)
            .map(|(name, nanos)| format!("{name} {:.1} %", *nanos as f64 / total * 1e2));
        writeln!(out, "              {}", threads.collect::<Vec<_>>().join(", "))
    }
}

impl Own {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "load          {:.3} cores", self.cores)?;
        if let Some(nanos) = self.ns_per_packet {
            write!(out, ", {nanos:.0} ns per received packet")?;
        }
        if let Some(packets) = self.packets_per_read {
            write!(out, ", {packets:.2} packets per read")?;
        }
        writeln!(out, "; {} overflowed, {} unsent", self.overflowed, self.unsent)?;
        match &self.lateness {
            Some(times) => writeln!(out, "lateness      {}", times.line()),
            None => Ok(()),
        }
    }
}

fn packets(tally: &Tally, window: &Window) -> Packets {
    let rate = |count: u64| count as f64 / window.seconds;
    let lost = tally.expected.saturating_sub(tally.delivered);
    Packets {
        sent: tally.sent,
        sent_per_second: rate(window.reading.sent),
        expected: tally.expected,
        delivered: tally.delivered,
        received_per_second: rate(window.reading.received),
        received_bits_per_second: rate(window.reading.received_bytes) * 8.0,
        lost,
        loss_percent: lost as f64 / tally.expected.max(1) as f64 * 100.0,
        copies: tally.copies,
        asked_for: tally.asked,
        repaired: tally.repaired,
        resent_by_publishers: tally.resent,
        opened: tally.opened,
        authentication_failures: tally.forged,
        unknown_streams: tally.unknown,
        strange: tally.strange,
    }
}

fn server_figures(
    before: Option<Snapshot>,
    window: &Window,
    memory: Option<(u64, u64)>,
    peers: u64,
) -> Option<Server> {
    let usage = window.server.as_ref()?.since(&before?);
    let received = window.reading.received;
    let grown = memory.map_or(0, |(empty, now)| now.saturating_sub(empty));
    Some(Server {
        cores: usage.cpu_ns as f64 / 1e9 / window.seconds,
        ns_per_packet: (received > 0).then(|| usage.cpu_ns as f64 / received as f64),
        bytes_per_peer: grown as f64 / peers.max(1) as f64,
        usage,
    })
}

fn own(settings: &Settings, tally: &Tally, window: &Window) -> Own {
    let reading = &window.reading;
    let lateness = Percentiles::of(&tally.lateness);
    let mut faults = Vec::new();
    if let Some(late) = lateness.as_ref().filter(|late| late.p99 > MAX_LATENESS) {
        faults.push(format!("frames left {:.1} ms late (p99)", late.p99 / 1e3));
    }
    if tally.overflowed as f64 > MAX_OVERFLOW * tally.received as f64 {
        faults.push(format!("our sockets had no room for {} datagrams", tally.overflowed));
    }
    if tally.unsent as f64 > MAX_UNSENT * tally.sent as f64 {
        faults.push(format!("the kernel did not take {} of our datagrams", tally.unsent));
    }
    Own {
        cores: reading.cpu as f64 / 1e9 / window.seconds,
        ns_per_packet: (reading.received > 0).then(|| reading.cpu as f64 / reading.received as f64),
        lateness,
        overflowed: tally.overflowed,
        unsent: tally.unsent,
        packets_per_read: (settings.gro && reading.runs > 0)
            .then(|| reading.received as f64 / reading.runs as f64),
        faults,
    }
}

/// Whether the loopback interface takes GSO sends whole, as `ethtool` says; none where it is missing.
fn tx_udp_segmentation() -> Option<bool> {
    let said = std::process::Command::new("ethtool").args(["-k", "lo"]).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let line = said.lines().find_map(|line| line.trim().strip_prefix("tx-udp-segmentation:"))?;
    Some(line.trim().starts_with("on"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Reading;

    fn figures() -> Figures {
        let mut tally = Tally {
            sent: 100,
            received: 990,
            expected: 1000,
            delivered: 990,
            opened: 50,
            ..Tally::default()
        };
        (1..=100).for_each(|micros| tally.video.note(micros * 1000));
        tally.lateness.note(50_000);
        let mut joins = Joins::default();
        joins.times.note(5_000_000);
        let reading = Reading { received: 500, cpu: 250_000, ..Reading::default() };
        let window = Window { seconds: 2.0, reading, server: Some(Snapshot::default()) };
        Figures {
            planned: 1,
            joins,
            joining: Joining::default(),
            tally,
            bursts: vec![Burst { packets: 45, last: 7_000_000 }],
            rest: None,
            before: Some(Snapshot::default()),
            window,
            memory: Some((1_000_000, 3_000_000)),
            soak: None,
            recovery: None,
            server: ([127, 0, 0, 1], 3000).into(),
            flood: None,
        }
    }

    fn report(limits: Limits, change: impl FnOnce(&mut Figures)) -> Report {
        let mut figures = figures();
        change(&mut figures);
        Report::new(&Settings { limits, ..Settings::default() }, figures)
    }

    #[test]
    fn figures_are_what_they_are_called() {
        let report = report(Limits::default(), |_| ());
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["packets"]["lost"], 10);
        assert_eq!(json["packets"]["loss_percent"], 1.0);
        assert_eq!(json["packets"]["received_per_second"], 250.0);
        assert_eq!(json["load"]["ns_per_packet"], 500.0);
        assert_eq!(json["server"]["bytes_per_peer"], 2e6);
        let p99 = json["latency"]["video"]["p99"].as_f64().expect("a number");
        assert!((98.0..=100.0).contains(&p99), "{p99}");
        assert!(json["latency"]["audio"].is_null());
        assert_eq!(json["key_frames"]["packets"], 45.0);
        assert!(report.holds() && report.text().contains("loss 1.0000 %"), "{}", report.text());
    }

    #[test]
    fn limits_decide_the_code() {
        let limit =
            |loss, p99, ns_per_packet| Limits { loss, p99, ns_per_packet, ..Limits::default() };
        assert_eq!(report(limit(Some(1.0), Some(150.0), Some(1.0)), |_| ()).code(), 0);
        for limits in [limit(Some(0.9), None, None), limit(None, Some(90.0), None)] {
            let report = report(limits, |_| ());
            assert_eq!((report.code(), report.broken.len()), (1, 1));
            assert!(report.text().contains("BROKEN"));
        }
        let forged = report(limit(Some(5.0), None, None), |f| f.tally.forged = 1);
        assert_eq!(forged.code(), 1);
    }

    #[test]
    fn a_load_that_is_late_or_deaf_means_nothing() {
        for change in [
            (|f: &mut Figures| f.tally.lateness.note(crate::clock::SECOND)) as fn(&mut Figures),
            |f| f.tally.overflowed = 1,
            |f| f.tally.unsent = 1,
        ] {
            let report = report(Limits { loss: Some(0.0), ..Limits::default() }, change);
            assert_eq!((report.code(), report.load.faults.len()), (3, 1), "{}", report.text());
        }
        assert_eq!(report(Limits::default(), |f| f.planned = 2).code(), 4);
    }
}
