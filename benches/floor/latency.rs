//! How long packets are on their way: through the floor, through a whole shard, and through a queue that does
//! nothing but wait its turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shardcast::shard::Backend;

use crate::kernel::Sending;
use crate::load::{Habits, Scenario};
use crate::rig::sink_sender;
use crate::{ALL, AUDIO, Args, Figure, MMSG, Subject, VIDEO, floor, measure};

/// Of all packets to all receivers, as many are on their way for no longer than what is told.
pub const SHARES: [f64; 3] = [0.5, 0.99, 0.999];
/// The subject is to be busy for this part of its core.
const HALF: f64 = 0.5;
/// Rooms with which the search for that begins, and its steps: one room of many costs less than one alone.
const SEARCH: (usize, usize) = (6, 2);
/// Length of one step in seconds.
const STEP: f64 = 1.0;

/// A room of 51 in which one speaks, and the others send what silence takes: 177 packets a second, here from all alike.
const MEETING: Scenario = Scenario {
    name: "audio to 50",
    peers: 51,
    interval: Duration::from_millis(288),
    timed: true,
    ..AUDIO
};

/// One publishes to 50.
const STREAM: Scenario = Scenario { name: "video to 50", peers: 51, timed: true, ..VIDEO };

/// What the load saw of packets on their way. They stay sealed, so a packet is taken for one of the burst that its
/// sender sent last before it came: true while none is on its way for a whole interval.
pub struct Journeys {
    /// When each sender's bursts left, in nanoseconds of the wall clock.
    departures: Vec<Vec<u64>>,
    /// Departures, and the nanoseconds from there to the receiver's kernel.
    taken: Vec<(u64, u64)>,
}

impl Journeys {
    pub fn new(scenario: Scenario) -> Self {
        Self { departures: vec![Vec::new(); scenario.total()], taken: Vec::new() }
    }

    /// A sender's next burst leaves now.
    pub fn depart(&mut self, sender: usize) {
        self.departures[sender].push(wall());
    }

    /// A receiver's kernel got a packet.
    pub fn arrive(&mut self, packet: &[u8], stamp: u64) {
        let Some(ssrc) = packet.get(8..12).and_then(|bytes| bytes.first_chunk()) else { return };
        let ssrc = u32::from_be_bytes(*ssrc);
        let sender = sink_sender(ssrc).unwrap_or(ssrc as usize);
        let left = &self.departures[sender];
        // It is one of the last few.
        if let Some(departed) = left.iter().rev().find(|departed| **departed <= stamp) {
            self.taken.push((*departed, stamp - departed));
        }
    }

    /// Of what left in the last seconds: see [`SHARES`].
    pub fn micros(&self, seconds: f64) -> [f64; 3] {
        let end = self.taken.iter().map(|taken| taken.0).max().unwrap_or(0);
        let begin = end - (end as f64).min(seconds * 1e9) as u64;
        let last = self.taken.iter().filter(|taken| taken.0 >= begin);
        shares(last.map(|taken| taken.1 as f64 / 1e3).collect())
    }
}

fn wall() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    time.as_nanos() as u64
}

fn shares(mut micros: Vec<f64>) -> [f64; 3] {
    micros.sort_unstable_by(f64::total_cmp);
    let last = micros.len().saturating_sub(1);
    SHARES.map(|share| micros.get((share * last as f64) as usize).copied().unwrap_or(0.0))
}

/// The same of a server that takes `nanos` for each packet that it sends and loses no other time: packets wait for those
/// that came before, and receivers are served one after the other.
fn queue(scenario: Scenario, nanos: f64) -> [f64; 3] {
    let whole = |time: Duration| time.as_nanos() as u64;
    let each = (scenario.burst as f64 * nanos) as u64;
    let receivers = scenario.peers as u64 - 1;
    let (mut free, mut micros) = (0, Vec::new());
    // What the first round leaves waiting the second one finds.
    for round in 0..2 {
        for phase in scenario.phases() {
            let arrival = whole(round * scenario.interval + phase);
            let begin = arrival.max(free);
            free = begin + receivers * each;
            if round == 1 {
                let served = (1..=receivers).map(|served| begin + served * each - arrival);
                micros.extend(served.map(|nanos| nanos as f64 / 1e3));
            }
        }
    }
    shares(micros)
}

/// The floor and ours, under the load that keeps ours busy half of the time, and each under its own such load.
pub fn compare(args: &Args) {
    let habits = Habits { gro: args.gro, trains_in: false, nobody: false };
    let own = Subject::Ours { backend: Backend::Mmsg, twcc: false };
    let bare = floor(Sending { train: ALL, ..MMSG });
    for scenario in [MEETING, STREAM].into_iter().filter(|s| s.name.contains(&args.only)) {
        let half = |subject| at_half(args, scenario, habits, subject);
        let (ours, floors) = (half(own), half(bare));
        if !args.json {
            let receivers = if args.gro { "with" } else { "without" };
            println!("\n{}, receivers {receivers} UDP_GRO", scenario.name);
            println!(
                "{:<20}{:>6}{:>11}{:>7}{:>11}{:>24}{:>24}{:>11}",
                "",
                "rooms",
                "packets/s",
                "cores",
                "ns/packet",
                "p50 / p99 / p99.9 µs",
                "such a queue",
                "delivered"
            );
        }
        let mut loads = vec![ours, floors];
        loads.dedup();
        for rooms in loads {
            let scenario = Scenario { rooms, ..scenario };
            let subjects = [own, bare];
            for (subject, (figure, queue)) in
                subjects.iter().zip(rounds(args, scenario, habits, &subjects))
            {
                tell(args, scenario, *subject, figure, queue);
            }
        }
    }
}

/// A measurement, and what the queue with its cost per packet would have shown.
type Round = (Figure, [f64; 3]);

/// Rooms with which the subject is busy half of the time.
fn at_half(args: &Args, scenario: Scenario, habits: Habits, subject: Subject) -> usize {
    if let Some(rooms) = args.rooms {
        return rooms;
    }
    (0..SEARCH.1).fold(SEARCH.0, |rooms, _| {
        let figure = measure(Scenario { rooms, ..scenario }, habits, subject, STEP);
        (rooms as f64 * HALF / figure.cores).round().max(1.0) as usize
    })
}

/// Interleaved measurements of the subjects, each with the queue that it would be at best. In each round chance is the same
/// for all of them. Of each number the median is told.
fn rounds(args: &Args, scenario: Scenario, habits: Habits, subjects: &[Subject]) -> Vec<Round> {
    let mut all = vec![Vec::new(); subjects.len()];
    for seed in 0..args.rounds as u64 {
        let scenario = Scenario { seed, ..scenario };
        for (subject, figures) in subjects.iter().zip(&mut all) {
            let figure = measure(scenario, habits, *subject, args.seconds);
            figures.push((figure, queue(scenario, figure.nanos)));
        }
    }
    let medians = |figures: Vec<Round>| {
        let median = |of: &dyn Fn(&Round) -> f64| {
            let mut values: Vec<_> = figures.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let three = [0, 1, 2];
        let figure = Figure {
            nanos: median(&|it| it.0.nanos),
            cores: median(&|it| it.0.cores),
            rate: median(&|it| it.0.rate),
            micros: three.map(|index| median(&|it| it.0.micros[index])),
            ..figures[0].0
        };
        (figure, three.map(|index| median(&|it| it.1[index])))
    };
    all.into_iter().map(medians).collect()
}

fn tell(args: &Args, scenario: Scenario, subject: Subject, figure: Figure, queue: [f64; 3]) {
    let (name, Scenario { rooms, .. }) = (crate::name(subject), scenario);
    let Figure { nanos, cores, rate, micros, delivered, .. } = figure;
    if args.json {
        println!(
            r#"{{"scenario":"{}","receivers_gro":{},"subject":"{name}","rooms":{rooms},"packets_per_second":{rate:.0},"cores":{cores:.3},"ns_per_packet":{nanos:.1},"delivered":{delivered:.4},"micros":{micros:.0?},"queue_micros":{queue:.0?}}}"#,
            scenario.name, args.gro,
        );
        return;
    }
    let three = |[p50, p99, p999]: [f64; 3]| format!("{p50:.0} / {p99:.0} / {p999:.0}");
    println!(
        "{name:<20}{rooms:>6}{rate:>11.0}{cores:>7.2}{nanos:>11.0}{:>24}{:>24}{:>10.1}%",
        three(micros),
        three(queue),
        100.0 * delivered,
    );
}

/// That both subjects show what they should.
pub fn smoke() {
    // Alone, the first of two receivers waits for one packet and the second for two.
    let alone = Scenario { rooms: 1, peers: 3, all_send: false, ..MEETING };
    assert_eq!(queue(alone, 1000.0), [1.0, 1.0, 1.0]);
    assert_eq!(shares(vec![2.0, 1.0, 3.0]), [2.0, 2.0, 2.0]);
    let habits = Habits { gro: false, trains_in: false, nobody: false };
    let few = Scenario { rooms: 1, peers: 4, ..STREAM };
    for subject in [floor(MMSG), Subject::Ours { backend: Backend::Mmsg, twcc: false }] {
        let figure = measure(few, habits, subject, 0.2);
        assert!(figure.micros[0] > 0.0 && figure.cores > 0.0, "{subject:?}: {figure:?}");
    }
}
