//! The lowest possible cost of forwarding on this machine, and ours beside it: CPU time, user and
//! system, per forwarded packet.
//!
//! The floor receives, opens, and per receiver copies, seals (AES-128-GCM) and sends, with the system
//! calls and batch sizes that the shards use, and does nothing else. The load runs on another core of
//! the same machine, over loopback. With `--what latency`: how long packets are on their way through both.
//! `cargo bench --bench floor -- --help` tells what can be asked.

mod floor;
mod kernel;
mod latency;
mod load;
mod ours;
#[path = "../rig/mod.rs"]
mod rig;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use shardcast::shard::Backend;

use floor::{Way, Worker};
use kernel::{Sending, cpu_time};
use load::{Habits, Load, Peers, Scenario, Seen};

#[derive(Clone, Debug, Parser)]
#[command(about = "CPU time per forwarded packet: the floor of this machine, and ours")]
struct Args {
    /// What to measure: forward, ours, trains, ingress, connected, latency
    #[arg(long, default_value = "forward", value_delimiter = ',')]
    what: Vec<String>,
    /// Only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Length of one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measurements of each kind, interleaved; the median is told
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Receivers with UDP_GRO: trains are not segmented on the server's core, as with a network card
    /// that does it
    #[arg(long)]
    gro: bool,
    /// For `connected`: receivers are nobody's addresses in 10.9.1.0/24, which must lead to a device that
    /// drops everything
    #[arg(long)]
    nobody: bool,
    /// For `latency`: so many rooms, in place of as many as keep the subject busy half of the time
    #[arg(long)]
    rooms: Option<usize>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const VIDEO: Scenario = Scenario {
    name: "video 1:20",
    rooms: 1,
    peers: 21,
    all_send: false,
    together: 1,
    burst: 9,
    len: 1200,
    uneven: false,
    interval: Duration::from_micros(34_560),
    video: true,
    timed: false,
    seed: 0,
};

const AUDIO: Scenario = Scenario {
    name: "audio 20x5",
    rooms: 20,
    peers: 5,
    all_send: true,
    together: 1,
    burst: 1,
    len: 100,
    uneven: false,
    interval: Duration::from_millis(20),
    video: false,
    timed: false,
    seed: 0,
};

const SCENARIOS: [Scenario; 6] = [
    VIDEO,
    Scenario { name: "video 1:100", peers: 101, ..VIDEO },
    Scenario { name: "video 1:100 uneven", peers: 101, uneven: true, ..VIDEO },
    Scenario { name: "video 1:500", peers: 501, ..VIDEO },
    AUDIO,
    Scenario { name: "audio 1x50", rooms: 1, peers: 50, ..AUDIO },
];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Floor(Way),
    /// With or without receivers who tell what arrives.
    Ours {
        backend: Backend,
        twcc: bool,
    },
}

const MMSG: Sending = Sending { uring: false, train: 1, connected: false };
const URING: Sending = Sending { uring: true, ..MMSG };
const ALL: usize = 64;

const OURS: [Subject; 4] = [
    Subject::Ours { backend: Backend::Mmsg, twcc: false },
    Subject::Ours { backend: Backend::Mmsg, twcc: true },
    Subject::Ours { backend: Backend::Uring, twcc: false },
    Subject::Ours { backend: Backend::Uring, twcc: true },
];

fn floor(send: Sending) -> Subject {
    Subject::Floor(Way { send, gro: false, outside: false, twcc: false })
}

/// With receivers who tell what arrives.
fn floor_with_twcc(send: Sending) -> Subject {
    Subject::Floor(Way { send, gro: false, outside: false, twcc: true })
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Figure {
    /// CPU nanoseconds per forwarded packet, or per received one if none is forwarded.
    nanos: f64,
    /// Datagrams per message that the kernel was given; 0: not known.
    segments: f64,
    /// Share of what had to be delivered.
    delivered: f64,
    /// Share of bursts that left late.
    late: f64,
    /// Cores that the subject kept busy.
    cores: f64,
    /// Packets per second that came out.
    rate: f64,
    /// Of a timed scenario, how long packets were on their way, in µs: see [`latency::SHARES`].
    micros: [f64; 3],
}

/// Two cores of their own, if there are two.
fn cores() -> (Option<core_affinity::CoreId>, Option<core_affinity::CoreId>) {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    (ids.first().copied(), ids.get(1).copied())
}

fn measure(scenario: Scenario, habits: Habits, subject: Subject, seconds: f64) -> Figure {
    let peers = Peers::new(scenario, habits);
    let addresses = peers.addresses.clone();
    let (own, other) = cores();
    match subject {
        Subject::Floor(way) => {
            let way = Way { outside: habits.nobody, ..way };
            let worker = Worker::start(scenario, way, &addresses, own);
            let sent = worker.sent.clone();
            let write = floor::writer(scenario);
            let answers = way.twcc.then(|| floor::answers(scenario));
            let load = Load::start(scenario, habits, peers, worker.target, other, write, answers);
            let out = habits.nobody.then_some(&*sent);
            let wait = settling(scenario, false, seconds);
            let mut figure = observe(scenario, &load, worker.tid, wait, seconds, out);
            let (outcome, journeys) = worker.end(load);
            figure.micros = journeys.micros(seconds);
            figure.segments = outcome.datagrams as f64 / outcome.messages.max(1) as f64;
            assert!(outcome.refused < 1000, "the kernel refused {} datagrams", outcome.refused);
            figure
        }
        Subject::Ours { backend, twcc } => {
            let shard = ours::Shard::start(scenario, backend, twcc, &addresses);
            let answers = twcc.then(|| ours::answers(scenario));
            let write = ours::writer(scenario);
            let load = Load::start(scenario, habits, peers, shard.target, other, write, answers);
            let wait = settling(scenario, twcc, seconds);
            let mut figure = observe(scenario, &load, shard.tid, wait, seconds, None);
            figure.micros = load.end().micros(seconds);
            shard.end();
            figure
        }
    }
}

/// How long the load runs before it is measured; with feedback, until lines have been probed; if times are taken, until
/// nobody reads on from a cached key frame.
fn settling(scenario: Scenario, twcc: bool, seconds: f64) -> Duration {
    let long = twcc || scenario.timed && scenario.video;
    Duration::from_secs_f64(if long { 3.0 } else { 0.5 } * seconds.min(1.0))
}

/// Lets the load run for a while, then measures. `out` counts what nobody receives.
fn observe(
    scenario: Scenario,
    load: &Load,
    tid: i32,
    settling: Duration,
    seconds: f64,
    out: Option<&AtomicU64>,
) -> Figure {
    let read = || {
        let mut seen = load.seen();
        seen.received = out.map_or(seen.received, |out| out.load(Ordering::Relaxed));
        (cpu_time(tid), seen)
    };
    std::thread::sleep(settling);
    let (cpu, seen) = read();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (cpu_after, after) = read();
    let of = |field: fn(&Seen) -> u64| (field(&after) - field(&seen)) as f64;
    let fan_out = scenario.peers - 1;
    let (sent, received) = (of(|s| s.sent), of(|s| s.received));
    let counted = if fan_out == 0 { sent } else { received };
    Figure {
        nanos: (cpu_after - cpu).as_nanos() as f64 / counted.max(1.0),
        segments: 0.0,
        delivered: received / (sent * fan_out as f64).max(1.0),
        late: of(|s| s.late) / (sent / scenario.burst as f64).max(1.0),
        cores: (cpu_after - cpu).as_secs_f64() / seconds,
        rate: received / seconds,
        micros: [0.0; 3],
    }
}

/// Interleaved measurements of several subjects; the median of each.
fn compare(args: &Args, scenario: Scenario, habits: Habits, subjects: &[Subject]) -> Vec<Figure> {
    let mut figures = vec![Vec::new(); subjects.len()];
    for _ in 0..args.rounds {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            figures.push(measure(scenario, habits, *subject, args.seconds));
        }
    }
    let median = |mut figures: Vec<Figure>| {
        figures.sort_by(|a, b| a.nanos.total_cmp(&b.nanos));
        figures[figures.len() / 2]
    };
    figures.into_iter().map(median).collect()
}

fn name(subject: Subject) -> String {
    match subject {
        Subject::Floor(way) => {
            let mut name = String::from(if way.send.uring { "uring" } else { "mmsg" });
            if way.send.connected {
                name.push_str(" connected");
            }
            match way.send.train {
                1 => {}
                ALL => name.push_str(" GSO"),
                train => write!(name, " GSO<={train}").expect("a String"),
            }
            if way.gro {
                name.push_str(" GRO-in");
            }
            if way.twcc {
                name.push_str(" with twcc");
            }
            name
        }
        Subject::Ours { backend, twcc } => {
            let feedback = if twcc { " with twcc" } else { "" };
            format!("shardcast {}{feedback}", format!("{backend:?}").to_lowercase())
        }
    }
}

/// Prints one line per subject; ratios are to the cheapest floor with the same backend and feedback.
fn report(args: &Args, scenario: Scenario, habits: Habits, subjects: &[Subject]) {
    let figures = compare(args, scenario, habits, subjects);
    if !args.json {
        println!(
            "\n{}: {} B, {:.0} packets/s out, receivers {} UDP_GRO, publishers' bursts as {}",
            scenario.name,
            scenario.len,
            scenario.rate(),
            if habits.gro { "with" } else { "without" },
            if habits.trains_in { "trains" } else { "single datagrams" },
        );
        println!(
            "{:<32}{:>10}{:>12}{:>12}{:>11}{:>8}",
            "", "ns/packet", "floor/ours", "segments", "delivered", "late"
        );
    }
    for (subject, figure) in subjects.iter().zip(&figures) {
        let floors = subjects.iter().zip(&figures).filter_map(|(other, figure)| {
            let is_yardstick = match (other, subject) {
                (Subject::Floor(way), Subject::Ours { backend, twcc }) => {
                    let is_same = way.send.uring == (*backend == Backend::Uring);
                    !way.send.connected && is_same && way.twcc == *twcc
                }
                _ => false,
            };
            is_yardstick.then_some(figure.nanos)
        });
        let ratio = floors.reduce(f64::min).map(|floor| floor / figure.nanos);
        let Figure { nanos, segments, delivered, late, .. } = figure;
        if args.json {
            let ratio = ratio.map_or("null".to_owned(), |ratio| format!("{ratio:.3}"));
            println!(
                r#"{{"scenario":"{}","receivers_gro":{},"trains_in":{},"subject":"{}","ns_per_packet":{nanos:.1},"floor_over_ours":{ratio},"segments":{segments:.2},"delivered":{delivered:.4},"late":{late:.4}}}"#,
                scenario.name,
                habits.gro,
                habits.trains_in,
                name(*subject),
            );
            continue;
        }
        let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let segments = if *segments == 0.0 { String::new() } else { format!("{segments:.1}") };
        println!(
            "{:<32}{nanos:>10.0}{ratio:>12}{segments:>12}{:>10.1}%{:>7.1}%",
            name(*subject),
            100.0 * delivered,
            100.0 * late,
        );
    }
}

/// Ours alone, for a profiler.
fn ours_alone(args: &Args) {
    let habits = Habits { gro: args.gro, trains_in: false, nobody: false };
    for scenario in SCENARIOS.into_iter().filter(|s| s.name.contains(&args.only)) {
        report(args, scenario, habits, &OURS);
    }
}

fn forward(args: &Args) {
    let subjects = [
        floor(MMSG),
        floor(Sending { train: ALL, ..MMSG }),
        floor(URING),
        floor(Sending { train: ALL, ..URING }),
        floor_with_twcc(Sending { train: ALL, ..MMSG }),
        floor_with_twcc(Sending { train: ALL, ..URING }),
        OURS[0],
        OURS[1],
        OURS[2],
        OURS[3],
    ];
    let habits = Habits { gro: args.gro, trains_in: false, nobody: false };
    for scenario in SCENARIOS.into_iter().filter(|s| s.name.contains(&args.only)) {
        report(args, scenario, habits, &subjects);
    }
}

/// What a train of so many is worth.
fn trains(args: &Args) {
    for burst in [1, 2, 3, 4, 6, 9, 16] {
        let name = format!("video 1:100, bursts of {burst}").leak();
        let interval = VIDEO.interval * burst as u32 / 9;
        let scenario = Scenario { name, peers: 101, burst, interval, ..VIDEO };
        let subjects = [
            floor(MMSG),
            floor(Sending { train: ALL, ..MMSG }),
            floor(URING),
            floor(Sending { train: ALL, ..URING }),
        ];
        report(
            args,
            scenario,
            Habits { gro: args.gro, trains_in: false, nobody: false },
            &subjects,
        );
    }
}

/// Receiving and opening alone.
fn ingress(args: &Args) {
    let scenario = Scenario {
        name: "nobody listens, bursts of 50",
        peers: 1,
        all_send: true,
        burst: 50,
        interval: Duration::from_millis(4),
        ..VIDEO
    };
    for trains_in in [false, true] {
        let way = |send, gro| Subject::Floor(Way { send, gro, outside: false, twcc: false });
        let subjects = [way(MMSG, false), way(URING, false), way(MMSG, true), way(URING, true)];
        report(args, scenario, Habits { gro: args.gro, trains_in, nobody: false }, &subjects);
    }
}

/// A socket per peer against one for all.
fn connected(args: &Args) {
    let habits = Habits { gro: args.gro, trains_in: false, nobody: args.nobody };
    for (name, peers, burst) in [
        ("single packets to 1 peer", 2, 1),
        ("single packets to 1,000 peers", 1001, 1),
        ("bursts of 4 to 1,000 peers", 1001, 4),
    ] {
        // One packet at a time to one peer would measure nothing but waking up.
        let together = if peers == 2 { 50 } else { burst };
        let interval = VIDEO.interval * if peers == 2 { 1 } else { 4 * burst as u32 } / 4;
        let scenario = Scenario { name, peers, interval, burst: together, ..VIDEO };
        each_way(args, scenario, habits);
    }
    if args.nobody {
        return;
    }
    for (name, rooms, together, burst) in
        [("1 peer sends", 1, 1, 50), ("1,000 peers send, 50 at a time", 1000, 50, 1)]
    {
        let interval = Duration::from_millis(5) * (rooms / together) as u32;
        let base = Scenario { name, rooms, peers: 1, all_send: true, ..VIDEO };
        each_way(args, Scenario { together, burst, interval, ..base }, habits);
    }
}

fn each_way(args: &Args, scenario: Scenario, habits: Habits) {
    let per_peer = Sending { connected: true, ..URING };
    let subjects = [
        floor(URING),
        floor(per_peer),
        floor(Sending { train: ALL, ..URING }),
        floor(Sending { train: ALL, ..per_peer }),
    ];
    report(args, scenario, habits, &subjects);
}

/// `cargo test` wants to know that it works, not how fast it is.
fn smoke() {
    let uring = std::env::var_os("SHARDCAST_TEST_WITHOUT_URING").is_none();
    let scenario =
        Scenario { name: "smoke", peers: 4, interval: Duration::from_millis(5), ..VIDEO };
    for subject in [
        floor(MMSG),
        floor(Sending { train: ALL, ..MMSG }),
        floor_with_twcc(Sending { train: ALL, ..MMSG }),
        floor(Sending { train: ALL, ..URING }),
        OURS[0],
        OURS[3],
    ] {
        let needs_uring = match subject {
            Subject::Floor(way) => way.send.uring,
            Subject::Ours { backend, .. } => backend == Backend::Uring,
        };
        if needs_uring && !uring {
            continue;
        }
        let habits = Habits { gro: false, trains_in: false, nobody: false };
        let figure = measure(scenario, habits, subject, 0.2);
        assert!(figure.delivered > 0.0 && figure.nanos > 0.0, "{subject:?}: {figure:?}");
    }
    latency::smoke();
    println!("floor: works; `cargo bench --bench floor` measures");
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("floor: benchmark");
        return;
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return smoke();
    }
    let args = Args::parse();
    for what in &args.what {
        match what.as_str() {
            "forward" => forward(&args),
            "ours" => ours_alone(&args),
            "trains" => trains(&args),
            "ingress" => ingress(&args),
            "connected" => connected(&args),
            "latency" => latency::compare(&args),
            other => eprintln!("{other}? forward, ours, trains, ingress, connected or latency"),
        }
    }
}
