//! All that an engine has counted and holds at one moment, for whoever watches a server from outside.
//!
//! Numbers only: no ids, addresses or names, so that it may be shown to people who may not know them.

use crate::room::Engine;
use crate::room::counters::Counters;
use crate::room::producer::{Producer, Source};

/// Upper bounds of [`Counters::handshake_times`], in milliseconds.
pub const HANDSHAKE_BOUNDS: [u64; 9] = [10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];

/// How often something was how large: counts by upper bound, which belong to the place where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// Of values up to each bound and above the one before it. What lies above the last is in `count` only.
    pub buckets: [u64; N],
    /// Of all values.
    pub count: u64,
    /// All values together.
    pub sum: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: [0; N], count: 0, sum: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts one value; `bounds` ascend, and are always the same.
    pub fn observe(&mut self, bounds: &[u64; N], value: u64) {
        if let Some(index) = bounds.iter().position(|bound| value <= *bound) {
            self.buckets[index] += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

/// Packets and their bytes of UDP payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Flow {
    /// Counts one packet.
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl std::ops::AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What transports have carried, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Media that arrived, without RTX.
    pub rtp_received: Flow,
    /// Retransmissions that arrived.
    pub rtx_received: Flow,
    /// RTCP that arrived.
    pub rtcp_received: Flow,
    /// Media that left, without what follows.
    pub rtp_sent: Flow,
    /// Retransmissions that left.
    pub rtx_sent: Flow,
    /// Bandwidth probes that left.
    pub probes_sent: Flow,
    /// RTCP that left.
    pub rtcp_sent: Flow,
}

impl std::ops::AddAssign for Flows {
    fn add_assign(&mut self, other: Self) {
        self.rtp_received += other.rtp_received;
        self.rtx_received += other.rtx_received;
        self.rtcp_received += other.rtcp_received;
        self.rtp_sent += other.rtp_sent;
        self.rtx_sent += other.rtx_sent;
        self.probes_sent += other.probes_sent;
        self.rtcp_sent += other.rtcp_sent;
    }
}

/// An engine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Transports.
    pub transports: u64,
    /// Those of them whose handshake is done.
    pub connected: u64,
    /// Producers that arrive here.
    pub producers: u64,
    /// Replicas of producers that arrive at other shards.
    pub replicas: u64,
    /// Consumers.
    pub consumers: u64,
    /// Packets kept for retransmission.
    pub history_packets: u64,
    /// The memory that they take, in bytes.
    pub history_bytes: u64,
    /// Transports whose line has been measured.
    pub measured_lines: u64,
    /// What all of these together are estimated to carry, in bit/s.
    pub estimated_bitrate: u64,
    /// Since the engine began, transports included that are gone.
    pub flows: Flows,
    /// Since the engine began.
    pub counters: Counters,
}

impl Engine {
    /// The engine at this moment. Looks at each transport and producer once.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            transports: self.paths.len() as u64,
            consumers: self.consumers.len() as u64,
            flows: self.departed,
            counters: self.counters.clone(),
            ..Snapshot::default()
        };
        for (_, path) in &self.paths {
            snapshot.connected += u64::from(path.transport.is_connected());
            snapshot.flows += path.meters.flows();
            if let Some(bitrate) = path.line.as_ref().and_then(|line| line.estimate()) {
                snapshot.measured_lines += 1;
                snapshot.estimated_bitrate += bitrate;
            }
        }
        for (_, producer) in &self.producers {
            snapshot.add_producer(producer);
        }
        snapshot
    }
}

impl Snapshot {
    fn add_producer(&mut self, producer: &Producer) {
        match producer.source {
            Source::Transport(_) => self.producers += 1,
            Source::Shard(_) => self.replicas += 1,
        }
        for encoding in &producer.encodings {
            self.history_packets += encoding.history.packets() as u64;
            self.history_bytes += encoding.history.memory() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_and_including_a_bound() {
        let mut histogram = Histogram::default();
        for value in [0, 10, 11, 20, 21] {
            histogram.observe(&[10, 20], value);
        }
        assert_eq!(histogram, Histogram { buckets: [2, 2], count: 5, sum: 62 });
    }
}
