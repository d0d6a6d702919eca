//! How much of a shard one peer, or strangers, may take. What exceeds it is dropped and counted.

use std::time::{Duration, Instant};

use crate::media::budget::Budget;
use crate::transport;

/// The bounds that an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What a producer may send in bit/s, all of its encodings and retransmissions together; `None`: as much as
    /// it likes.
    pub producer_bitrate: Option<u64>,
    /// SSRCs that one transport may lead to producers.
    pub ssrcs: usize,
    /// STUN checks per second that are authenticated for addresses that have not passed one: each costs an
    /// HMAC. All else from such addresses is dropped after one look into a table.
    pub stranger_checks: u32,
    /// Those of a transport's handshake.
    pub transport: transport::Limits,
}

/// What a browser sends in a large call (each video track has up to three encodings with RTX), with room to
/// spare.
const SSRCS: usize = 128;
/// A thousand peers who come within the same second, with several candidates each; and at most 1 % of a core.
const STRANGER_CHECKS: u32 = 5000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            producer_bitrate: None,
            ssrcs: SSRCS,
            stranger_checks: STRANGER_CHECKS,
            transport: transport::Limits::default(),
        }
    }
}

/// What a producer may save up: a key frame is sent faster than the mean.
const SAVED_UP: Duration = Duration::from_millis(500);

/// The budget of one producer, whose burst is [`SAVED_UP`].
pub(super) fn producer_budget(bitrate: u64) -> Budget {
    let burst = u128::from(bitrate) * SAVED_UP.as_millis() / 8000;
    Budget::new(bitrate, usize::try_from(burst).unwrap_or(usize::MAX))
}

/// Counts what strangers cost: a token bucket that holds a second's worth.
pub(super) struct Strangers(Budget);

impl Strangers {
    /// So many per second.
    pub(super) fn new(per_second: u32) -> Self {
        // A budget counts bytes: one stands for one check.
        Self(Budget::new(u64::from(per_second) * 8, per_second as usize))
    }

    /// Whether one more may be looked at.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        self.0.allow(1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_share_a_second_s_worth() {
        let (mut strangers, start) = (Strangers::new(100), Instant::now());
        let passed = (0..1000).filter(|_| strangers.allow(start)).count();
        assert_eq!(passed, 100);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..1000).filter(|_| strangers.allow(later)).count(), 50);
    }
}
