//! What a shard counts instead of logging: plain numbers, owned by its thread.

use std::io;

use crate::room::snapshot::Histogram;

/// Upper bounds of how long media stays in a shard, in nanoseconds.
pub const FORWARDING_BOUNDS: [u64; 10] = [
    20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    20_000_000,
];
/// Upper bounds of the sizes of drains, in datagrams; the last is the most that there can be.
pub const DRAIN_BOUNDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Upper bounds of the sizes of batches, in messages; the last is the most that there can be.
pub const BATCH_BOUNDS: [u64; 5] = [1, 4, 16, 64, 256];

/// Everything that a shard counts. Written by its own thread only; logged when the shard ends, and
/// meanwhile at DEBUG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams handed to the rooms.
    pub received: u64,
    /// Those of them that came in apart, as transport-wide feedback.
    pub feedback: u64,
    /// Times that datagrams were handed to the rooms, by their number.
    pub drains: Histogram<{ DRAIN_BOUNDS.len() }>,
    /// From a datagram's arrival at the machine to the end of the submit of its turn's media, in
    /// nanoseconds; of turns that forwarded something.
    pub forwarding: Histogram<{ FORWARDING_BOUNDS.len() }>,
    /// Datagrams longer than [`crate::wire::MAX_DATAGRAM`], dropped.
    pub truncated: u64,
    /// Datagrams whose sender address is neither IPv4 nor IPv6, dropped.
    pub nameless: u64,
    /// Most datagrams that waited in receive buffers at a time.
    pub most_waiting: u64,
    /// Times that the receive buffers ran out; the datagrams waited in the socket.
    pub buffers_exhausted: u64,
    /// Receives that failed for another reason.
    pub receive_errors: u64,
    /// Submits, by their number of messages: datagrams or trains.
    pub batches: Histogram<{ BATCH_BOUNDS.len() }>,
    /// Most bytes of the send arena that were in use at a time.
    pub most_arena: u64,
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Trains that it took: datagrams of one size to one destination, sent as one message.
    pub trains: u64,
    /// Datagrams in those.
    pub sent_in_trains: u64,
    /// Trains that had to leave as single datagrams.
    pub trains_refused: u64,
    /// Send drops, by reason.
    pub send_drops: SendDrops,
    /// Sends that had not ended when their submit returned. Always 0: `MSG_DONTWAIT` sees to it.
    pub late_sends: u64,
    /// Parcels taken from other shards.
    pub parcels_in: u64,
    /// Parcels put into other shards' queues.
    pub parcels_out: u64,
    /// Parcels dropped because the other shard's queue was full.
    pub parcels_full: u64,
    /// Most parcels that waited in one queue from another shard.
    pub most_parcels: u64,
    /// Times that the shard had nothing queued and asked to sleep.
    pub sleeps: u64,
}

/// Datagrams that the kernel refused, by class of errno.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendDrops {
    /// `EAGAIN`: the socket's send buffer is full.
    pub full: u64,
    /// `ENOBUFS`, `ENOMEM`: the device's queue or the kernel's memory is full.
    pub no_memory: u64,
    /// No route, host or network down, port refused.
    pub unreachable: u64,
    /// `EPERM`, `EACCES`: a firewall's verdict.
    pub forbidden: u64,
    /// Everything else, such as a datagram or an address that does not suit the socket.
    pub other: u64,
}

impl SendDrops {
    /// All drops together.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.named().iter().map(|(_, drops)| drops).sum()
    }

    /// Each class with its name.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("full", self.full),
            ("noMemory", self.no_memory),
            ("unreachable", self.unreachable),
            ("forbidden", self.forbidden),
            ("other", self.other),
        ]
    }
}

impl Counters {
    /// Counts a submit of so many messages, which take so many bytes of the arena.
    pub(super) fn submit(&mut self, messages: usize, bytes: usize) {
        self.batches.observe(&BATCH_BOUNDS, messages as u64);
        self.most_arena = self.most_arena.max(bytes as u64);
    }

    /// Counts a message of so many datagrams that the kernel took.
    pub(super) fn took(&mut self, datagrams: u16) {
        let datagrams = u64::from(datagrams);
        self.sent += datagrams;
        if datagrams > 1 {
            self.trains += 1;
            self.sent_in_trains += datagrams;
        }
    }

    /// Counts a message of so many datagrams that the kernel refused with `error`.
    pub(super) fn drop_send(&mut self, error: &io::Error, datagrams: u16) {
        let drops = &mut self.send_drops;
        let class = match error.raw_os_error().unwrap_or(0) {
            libc::EAGAIN => &mut drops.full,
            libc::ENOBUFS | libc::ENOMEM => &mut drops.no_memory,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ECONNREFUSED => {
                &mut drops.unreachable
            }
            libc::EPERM | libc::EACCES => &mut drops.forbidden,
            _ => &mut drops.other,
        };
        *class += u64::from(datagrams);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_apart_by_errno() {
        let mut counters = Counters::default();
        for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENETUNREACH, libc::EPERM, libc::EINVAL] {
            counters.drop_send(&io::Error::from_raw_os_error(errno), 1);
        }
        let expected = SendDrops { full: 1, no_memory: 1, unreachable: 1, forbidden: 1, other: 1 };
        assert_eq!(counters.send_drops, expected);
        assert_eq!(counters.send_drops.total(), 5);
    }
}
