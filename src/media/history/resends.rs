//! What one consumer was sent again a moment ago.

use std::time::{Duration, Instant};

use crate::wire::seq::SeqNo;

/// Packets that are remembered: one round trip's losses at 10 % of a 5 Mbit/s stream. Who asks for
/// more at a time is held by its budget alone.
const ENTRIES: usize = 64;
/// Least time between two resends of a packet to one consumer, however short the round trip: its
/// requests come in ticks of some 20 ms.
pub const MIN_RESEND_INTERVAL: Duration = Duration::from_millis(10);
/// Longest time that a resend is held back, whatever round trip the consumer's reports claim.
const MAX_RESEND_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps one packet from being resent to one consumer twice within a round trip.
///
/// A receiver repeats its request while the first answer is on its way, and a hostile one repeats it
/// all the time. Costs a pointer until the first resend.
#[derive(Debug, Default)]
pub struct RecentResends {
    table: Option<Box<Table>>,
}

/// Slot `seq % ENTRIES` holds the last resend of such a number.
#[derive(Debug)]
struct Table {
    epoch: Instant,
    numbers: [u16; ENTRIES],
    /// Milliseconds since `epoch`, modulo 2^32.
    times: [u32; ENTRIES],
    /// Which slots hold something, lowest bit first.
    taken: u64,
}

const _: () = assert!(ENTRIES == u64::BITS as usize);

impl RecentResends {
    /// Whether packet `seq` may be resent at `now`, with `rtt` the round trip to the consumer. If so
    /// it is noted as resent.
    pub fn may_resend(&mut self, seq: SeqNo, now: Instant, rtt: Duration) -> bool {
        let table = self.table.get_or_insert_with(|| Table::new(now));
        let (slot, number) = (seq.0 as usize % ENTRIES, seq.wire());
        let time = now.saturating_duration_since(table.epoch).as_millis() as u32;
        let wait = rtt.clamp(MIN_RESEND_INTERVAL, MAX_RESEND_INTERVAL).as_millis() as u32;
        let is_noted = table.taken >> slot & 1 == 1 && table.numbers[slot] == number;
        if is_noted && time.wrapping_sub(table.times[slot]) < wait {
            return false;
        }
        table.numbers[slot] = number;
        table.times[slot] = time;
        table.taken |= 1 << slot;
        true
    }
}

impl Table {
    fn new(epoch: Instant) -> Box<Self> {
        Box::new(Self { epoch, numbers: [0; ENTRIES], times: [0; ENTRIES], taken: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(60);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_packet_is_resent_once_per_round_trip() {
        let (start, mut resends) = (Instant::now(), RecentResends::default());
        assert!(resends.may_resend(SeqNo(7), start, RTT));
        assert!(!resends.may_resend(SeqNo(7), start + ms(59), RTT));
        assert!(resends.may_resend(SeqNo(8), start + ms(59), RTT), "another packet");
        assert!(resends.may_resend(SeqNo(7), start + ms(60), RTT));
        assert!(!resends.may_resend(SeqNo(7), start + ms(119), RTT), "counted anew");
    }

    #[test]
    fn a_claimed_round_trip_has_bounds() {
        let (start, mut resends) = (Instant::now(), RecentResends::default());
        assert!(resends.may_resend(SeqNo(1), start, Duration::ZERO));
        assert!(!resends.may_resend(SeqNo(1), start + ms(9), Duration::ZERO));
        assert!(resends.may_resend(SeqNo(1), start + ms(1009), Duration::MAX));
    }

    #[test]
    fn a_refused_request_does_not_put_off_the_next() {
        let (start, mut resends) = (Instant::now(), RecentResends::default());
        let sent = (0..120).filter(|&t| resends.may_resend(SeqNo(3), start + ms(t), RTT));
        assert_eq!(sent.collect::<Vec<_>>(), [0, 60]);
    }

    #[test]
    fn all_of_a_burst_is_remembered() {
        let (start, mut resends) = (Instant::now(), RecentResends::default());
        let burst = || (65_500..65_500 + ENTRIES as u64).map(SeqNo);
        assert!(burst().all(|seq| resends.may_resend(seq, start, RTT)));
        assert!(burst().all(|seq| !resends.may_resend(seq, start + ms(1), RTT)));
    }
}
