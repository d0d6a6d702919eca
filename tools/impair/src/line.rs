//! One direction of a line, without sockets or clock: what becomes of each packet, and when it arrives.
//!
//! A packet meets, in this order: loss, the queue and the limited rate, the delay. What becomes of the
//! n-th packet follows from the seed, n, the profile, and when the packets came.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::bottleneck::Bottleneck;
use crate::counters::{Cause, Counters};
use crate::dice::Dice;
use crate::profile::{Burst, Profile};

/// Most packets that a line keeps, waiting and under way: 1 Gbit/s during half a second.
pub const MAX_PACKETS: usize = 65_536;

/// One direction. Time is the duration since the relay began, and never goes back.
#[derive(Debug)]
pub struct Line<P> {
    profile: Profile,
    chances: Chances,
    bottleneck: Bottleneck<Entered<P>>,
    flights: BinaryHeap<Flight<P>>,
    /// When the last packet that was not held back lands: none that follows it lands earlier.
    latest: Duration,
    /// Numbers the flights: the order of those that land at the same moment.
    count: u64,
    counters: Counters,
}

/// A stream of chance for each decision.
#[derive(Debug)]
struct Chances {
    loss: Dice,
    burst: Dice,
    /// The line is in the bad state of its [`Burst`].
    bad: bool,
    duplicate: Dice,
    jitter: Dice,
    reorder: Dice,
}

/// A packet that got past the losses, with what was decided about it.
#[derive(Debug)]
struct Entered<P> {
    packet: P,
    size: usize,
    /// Which part of the jitter it gets, 0 to 1.
    jitter: f64,
    held_back: bool,
    twice: bool,
}

#[derive(Debug)]
struct Flight<P> {
    lands: Duration,
    number: u64,
    size: usize,
    packet: P,
}

impl<P: Clone> Line<P> {
    /// A line with nothing on it.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self {
            bottleneck: Bottleneck::new(profile.rate, profile.queue),
            profile,
            chances: Chances::new(seed),
            flights: BinaryHeap::new(),
            latest: Duration::ZERO,
            count: 0,
            counters: Counters::default(),
        }
    }

    /// Changes the profile. The rate holds at once for all that waits; the rest for what comes, except the
    /// delay, which is that of the moment at which a packet leaves the queue.
    pub fn set(&mut self, now: Duration, profile: Profile) {
        self.take_off(now);
        self.bottleneck.set(now, profile.rate, profile.queue);
        self.profile = profile;
    }

    /// Takes a packet with `size` bytes of UDP payload; says why if it is dropped.
    pub fn offer(&mut self, now: Duration, packet: P, size: usize) -> Result<(), Cause> {
        self.counters.offered.count(size);
        let result = self.enter(now, packet, size);
        if let Err(cause) = result {
            self.counters.dropped(cause, size);
        }
        result
    }

    /// When the next packet lands or leaves the queue: the time to call [`Self::land`] again.
    pub fn next(&self) -> Option<Duration> {
        let landing = self.flights.peek().map(|flight| flight.lands);
        [landing, self.bottleneck.next()].into_iter().flatten().min()
    }

    /// Takes the next packet that has landed by `now`.
    pub fn land(&mut self, now: Duration) -> Option<P> {
        self.take_off(now);
        if self.flights.peek()?.lands > now {
            return None;
        }
        let flight = self.flights.pop()?;
        self.counters.delivered.count(flight.size);
        self.counters.lateness.add(now - flight.lands);
        Some(flight.packet)
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets waiting and under way.
    pub fn under_way(&self) -> usize {
        self.bottleneck.packets() + self.flights.len()
    }

    fn enter(&mut self, now: Duration, packet: P, size: usize) -> Result<(), Cause> {
        self.take_off(now);
        // All are drawn for every packet: a decision never shifts another's.
        let lost = self.chances.loss.happens(self.profile.loss);
        let lost_in_burst = self.chances.burst_loss(self.profile.burst);
        let entered = Entered {
            packet,
            size,
            jitter: self.chances.jitter.fraction(),
            held_back: self.chances.reorder.happens(self.profile.reorder),
            twice: self.chances.duplicate.happens(self.profile.duplicate),
        };
        if lost {
            return Err(Cause::Loss);
        }
        if lost_in_burst {
            return Err(Cause::Burst);
        }
        // Every packet may become two.
        if self.under_way() + self.bottleneck.packets() + 2 > MAX_PACKETS {
            return Err(Cause::Memory);
        }
        let on_line = size + self.profile.overhead;
        self.bottleneck.offer(now, entered, on_line).map_err(|_| Cause::Queue)?;
        self.take_off(now);
        Ok(())
    }

    // Moves on what the bottleneck has sent.
    fn take_off(&mut self, now: Duration) {
        while let Some(sent) = self.bottleneck.poll(now) {
            self.counters.queue_delay.add(sent.waited);
            let Entered { packet, size, jitter, held_back, twice } = sent.packet;
            let Profile { delay, jitter: most, hold, .. } = self.profile;
            let mut lands = self.latest.max(sent.at + delay + most.mul_f64(jitter));
            if held_back {
                self.counters.held_back.count(size);
                lands += hold;
            } else {
                self.latest = lands;
            }
            if twice {
                self.counters.duplicated.count(size);
                self.fly(lands, size, packet.clone());
            }
            self.fly(lands, size, packet);
        }
    }

    fn fly(&mut self, lands: Duration, size: usize, packet: P) {
        self.count += 1;
        self.flights.push(Flight { lands, number: self.count, size, packet });
    }
}

impl Chances {
    fn new(seed: u64) -> Self {
        let [loss, burst, duplicate, jitter, reorder] =
            [1, 2, 3, 4, 5].map(|stream| Dice::new(seed, stream));
        Self { loss, burst, bad: false, duplicate, jitter, reorder }
    }

    fn burst_loss(&mut self, burst: Option<Burst>) -> bool {
        let (turn, fate) = (self.burst.fraction(), self.burst.fraction());
        let Some(Burst { enter, leave, loss, good_loss }) = burst else {
            self.bad = false;
            return false;
        };
        if turn < if self.bad { leave } else { enter } {
            self.bad = !self.bad;
        }
        fate < if self.bad { loss } else { good_loss }
    }
}

// Reversed, so that the heap's greatest is the first to land.
impl<P> Ord for Flight<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.lands, other.number).cmp(&(self.lands, self.number))
    }
}

impl<P> PartialOrd for Flight<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Flight<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Flight<P> {}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
