//! What a line did, in numbers.

use std::ops::{Add, AddAssign, Sub};

use serde::Serialize;

use crate::delays::Delays;

/// Packets and their bytes, UDP payload only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub packets: u64,
    /// Their UDP payload in bytes.
    pub bytes: u64,
}

impl Tally {
    /// One more packet.
    pub fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { packets: self.packets - other.packets, bytes: self.bytes - other.bytes }
    }
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Lost by chance, by itself.
    Loss,
    /// Lost by chance, in a burst.
    Burst,
    /// The queue of the limited line was full.
    Queue,
    /// More was under way than the relay keeps.
    Memory,
}

/// All counters of one direction.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// What came in.
    pub offered: Tally,
    /// What went out, copies included.
    pub delivered: Tally,
    /// By [`Cause`].
    pub lost: Tally,
    /// Dropped in a burst of loss.
    pub lost_in_bursts: Tally,
    /// Dropped at the full queue of the limited line.
    pub queue_full: Tally,
    /// Dropped because too many are under way.
    pub memory_full: Tally,
    /// Copies made.
    pub duplicated: Tally,
    /// Held back for others to pass.
    pub held_back: Tally,
    /// How long packets waited for the limited line.
    pub queue_delay: Delays,
    /// How much later than due they left the relay: what the machine added.
    pub lateness: Delays,
}

impl Counters {
    /// Takes note of a packet that goes no further.
    pub fn dropped(&mut self, cause: Cause, bytes: usize) {
        match cause {
            Cause::Loss => self.lost.count(bytes),
            Cause::Burst => self.lost_in_bursts.count(bytes),
            Cause::Queue => self.queue_full.count(bytes),
            Cause::Memory => self.memory_full.count(bytes),
        }
    }

    /// All that were dropped, whatever the cause.
    pub fn all_dropped(&self) -> Tally {
        self.lost + self.lost_in_bursts + self.queue_full + self.memory_full
    }

    /// What happened since `earlier`, a copy of this one.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            offered: self.offered - earlier.offered,
            delivered: self.delivered - earlier.delivered,
            lost: self.lost - earlier.lost,
            lost_in_bursts: self.lost_in_bursts - earlier.lost_in_bursts,
            queue_full: self.queue_full - earlier.queue_full,
            memory_full: self.memory_full - earlier.memory_full,
            duplicated: self.duplicated - earlier.duplicated,
            held_back: self.held_back - earlier.held_back,
            queue_delay: self.queue_delay.since(&earlier.queue_delay),
            lateness: self.lateness.since(&earlier.lateness),
        }
    }

    /// Adds another line's.
    pub fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.lost_in_bursts += other.lost_in_bursts;
        self.queue_full += other.queue_full;
        self.memory_full += other.memory_full;
        self.duplicated += other.duplicated;
        self.held_back += other.held_back;
        self.queue_delay.merge(&other.queue_delay);
        self.lateness.merge(&other.lateness);
    }
}
