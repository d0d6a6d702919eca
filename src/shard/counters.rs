//! What a shard counts instead of logging: plain numbers, owned by its thread.

use std::io;

/// Everything that a shard counts. Written by its own thread only; logged when the shard ends, and
/// meanwhile at DEBUG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Datagrams handed to the rooms.
    pub received: u64,
    /// Those of them that came in apart, as transport-wide feedback.
    pub feedback: u64,
    /// Datagrams longer than [`crate::wire::MAX_DATAGRAM`], dropped.
    pub truncated: u64,
    /// Datagrams whose sender address is neither IPv4 nor IPv6, dropped.
    pub nameless: u64,
    /// Times that the receive buffers ran out; the datagrams waited in the socket.
    pub buffers_exhausted: u64,
    /// Receives that failed for another reason.
    pub receive_errors: u64,
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
    /// Times that the shard had nothing queued and asked to sleep.
    pub sleeps: u64,
}

/// Datagrams that the kernel refused, by class of errno.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendDrops {
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
    pub fn total(&self) -> u64 {
        self.full + self.no_memory + self.unreachable + self.forbidden + self.other
    }
}

impl Counters {
    /// Counts a message of so many datagrams that the kernel took.
    pub fn took(&mut self, datagrams: u16) {
        let datagrams = u64::from(datagrams);
        self.sent += datagrams;
        if datagrams > 1 {
            self.trains += 1;
            self.sent_in_trains += datagrams;
        }
    }

    /// Counts a message of so many datagrams that the kernel refused with `error`.
    pub fn drop_send(&mut self, error: &io::Error, datagrams: u16) {
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
