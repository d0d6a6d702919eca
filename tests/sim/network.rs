//! A network with a seed: the same seed loses, delays and reorders the same datagrams.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How bad the network is, in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// One-way delay of every datagram.
    pub delay: Duration,
    /// Up to this much is added at random; more than the distance of two packets reorders them.
    pub jitter: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
}

impl Weather {
    pub const CALM: Self = Self {
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplication: 0.0,
    };

    pub const ROUGH: Self = Self {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(15),
        loss: 0.05,
        duplication: 0.01,
    };
}

/// Who a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Shard(usize),
    Peer(usize),
}

/// A datagram under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flight {
    pub at: Instant,
    /// Tells datagrams of the same moment apart, in the order in which they were sent.
    order: u64,
    pub to: Node,
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

/// The narrow line to one peer: a rate and a queue in front of it.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bit/s, IP and UDP headers included.
    pub rate: u64,
    /// What does not fit a queue of this length is lost.
    pub queue: Duration,
    free_at: Option<Instant>,
}

/// IPv4 and UDP headers, in bytes.
const HEADERS: u64 = 28;

impl Line {
    pub fn new(rate: u64, queue: Duration) -> Self {
        Self { rate, queue, free_at: None }
    }

    /// How long a datagram takes from now on; `None` if the queue is full.
    fn carry(&mut self, now: Instant, len: usize) -> Option<Duration> {
        let begins = self.free_at.unwrap_or(now).max(now);
        if begins - now > self.queue {
            return None;
        }
        let nanos = (len as u64 + HEADERS) * 8 * 1_000_000_000 / self.rate;
        let ends = begins + Duration::from_nanos(nanos);
        self.free_at = Some(ends);
        Some(ends - now)
    }
}

pub struct Network {
    pub weather: Weather,
    /// Narrow lines to peers.
    pub lines: BTreeMap<usize, Line>,
    /// How long each datagram to a peer with a narrow line took to get through it.
    pub delays: BTreeMap<usize, Vec<Duration>>,
    /// What the weather did to the datagrams sent so far.
    pub lost: u64,
    rng: StdRng,
    flights: BinaryHeap<Reverse<Flight>>,
    count: u64,
}

impl Network {
    pub fn new(seed: u64, weather: Weather) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self {
            weather,
            lines: BTreeMap::new(),
            delays: BTreeMap::new(),
            lost: 0,
            rng,
            flights: BinaryHeap::new(),
            count: 0,
        }
    }

    /// Sends a datagram into the weather.
    pub fn send(&mut self, now: Instant, from: SocketAddr, to: Node, bytes: &[u8]) {
        if self.rng.random_bool(self.weather.loss) {
            self.lost += 1;
            return;
        }
        let mut on_line = Duration::ZERO;
        if let Node::Peer(peer) = to
            && let Some(line) = self.lines.get_mut(&peer)
        {
            let Some(delay) = line.carry(now, bytes.len()) else {
                self.lost += 1;
                return;
            };
            self.delays.entry(peer).or_default().push(delay);
            on_line = delay;
        }
        let copies = if self.rng.random_bool(self.weather.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = self.weather.jitter.mul_f64(self.rng.random());
            self.count += 1;
            let flight = Flight {
                at: now + on_line + self.weather.delay + jitter,
                order: self.count,
                to,
                from,
                bytes: bytes.to_vec(),
            };
            self.flights.push(Reverse(flight));
        }
    }

    /// When the next datagram lands.
    pub fn next_landing(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse(flight)| flight.at)
    }

    /// Takes the next datagram that has landed by `now`.
    pub fn land(&mut self, now: Instant) -> Option<Flight> {
        (self.next_landing()? <= now).then(|| self.flights.pop().map(|Reverse(f)| f)).flatten()
    }
}
