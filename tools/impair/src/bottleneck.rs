//! A line of a given rate with a queue before it, exact to the bit: no timer's error adds up.

use std::collections::VecDeque;
use std::time::Duration;

use crate::profile::Queue;

/// Bits are counted in units of 1 bit/s during 1 ns, so that all sums are whole.
const UNITS_PER_BIT: i128 = 1_000_000_000;

/// The queue and the packet on the line. Time is the duration since the relay began.
#[derive(Debug)]
pub struct Bottleneck<P> {
    rate: Option<u64>,
    bound: Queue,
    /// The first one is on the line, the others wait.
    queue: VecDeque<Queued<P>>,
    /// Bytes of all in the queue.
    bytes: usize,
    /// What of the first packet was not sent by `as_of`. Below zero when it is: a nanosecond's last bits
    /// then belong to the next packet.
    left: i128,
    as_of: Duration,
}

#[derive(Debug)]
struct Queued<P> {
    packet: P,
    size: usize,
    arrived: Duration,
    /// When its first bit goes; known once it is on the line.
    begun: Duration,
}

/// A packet whose last bit has been sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent<P> {
    /// The packet itself.
    pub packet: P,
    /// When its last bit left the line.
    pub at: Duration,
    /// How long it waited for its first bit to be sent.
    pub waited: Duration,
}

impl<P> Bottleneck<P> {
    /// An empty one. `rate` is bit/s and not 0; none sends at once.
    pub fn new(rate: Option<u64>, bound: Queue) -> Self {
        let (left, as_of) = (0, Duration::ZERO);
        Self { rate, bound, queue: VecDeque::new(), bytes: 0, left, as_of }
    }

    /// Changes rate and bound. What already waits goes on at the new rate; the new bound is for what comes.
    pub fn set(&mut self, now: Duration, rate: Option<u64>, bound: Queue) {
        self.work_until(now);
        (self.rate, self.bound) = (rate, bound);
    }

    /// Takes a packet of `size` bytes, or gives it back when the queue is full.
    /// Whatever was sent by `now` must have been taken with [`Self::poll`].
    pub fn offer(&mut self, now: Duration, packet: P, size: usize) -> Result<(), P> {
        if self.is_full(now, size) {
            return Err(packet);
        }
        if self.queue.is_empty() {
            (self.left, self.as_of) = (units(size), now);
        }
        self.bytes += size;
        self.queue.push_back(Queued { packet, size, arrived: now, begun: now });
        Ok(())
    }

    /// When the next packet will have been sent.
    pub fn next(&self) -> Option<Duration> {
        self.queue.front()?;
        let Some(rate) = self.rate else { return Some(self.as_of) };
        let left = u128::try_from(self.left).unwrap_or(0);
        let nanos = left.div_ceil(u128::from(rate));
        Some(self.as_of + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes the next packet that was sent by `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Sent<P>> {
        let at = self.next().filter(|at| *at <= now)?;
        self.work_until(at);
        let Queued { packet, size, arrived, begun } = self.queue.pop_front()?;
        self.bytes -= size;
        if let Some(next) = self.queue.front_mut() {
            self.left = units(next.size) + self.left.min(0);
            next.begun = at.max(next.arrived);
        }
        Some(Sent { packet, at, waited: begun - arrived })
    }

    /// Packets in the queue and on the line.
    pub fn packets(&self) -> usize {
        self.queue.len()
    }

    fn is_full(&self, now: Duration, size: usize) -> bool {
        let Some(on_line) = self.queue.front() else { return false };
        match self.bound {
            Queue::Bytes(most) => self.bytes - on_line.size + size > most,
            Queue::Time(longest) => {
                let Some(rate) = self.rate.map(i128::from) else { return false };
                let waiting = self.left + units(self.bytes - on_line.size);
                let sent = nanos(now.saturating_sub(self.as_of)) * rate;
                waiting - sent > nanos(longest) * rate
            }
        }
    }

    fn work_until(&mut self, now: Duration) {
        match self.rate {
            Some(rate) => self.left -= nanos(now.saturating_sub(self.as_of)) * i128::from(rate),
            None => self.left = 0,
        }
        self.as_of = self.as_of.max(now);
    }
}

fn units(bytes: usize) -> i128 {
    bytes as i128 * 8 * UNITS_PER_BIT
}

// A duration's nanoseconds fit into 94 bits; with a rate below 2^37 and bounded sizes nothing overflows
// in any run shorter than a century.
fn nanos(time: Duration) -> i128 {
    time.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NO_BOUND: Queue = Queue::Bytes(usize::MAX);

    fn drain<P>(line: &mut Bottleneck<P>, until: Duration) -> Vec<Sent<P>> {
        std::iter::from_fn(|| line.poll(until)).collect()
    }

    #[test]
    fn an_idle_line_takes_a_packets_own_time() {
        // 1250 bytes are 10,000 bits: 10 ms at 1 Mbit/s.
        let mut line = Bottleneck::new(Some(1_000_000), NO_BOUND);
        assert_eq!(line.offer(5 * MS, 'a', 1250), Ok(()));
        assert_eq!(line.next(), Some(15 * MS));
        assert_eq!(line.poll(15 * MS - Duration::from_nanos(1)), None);
        assert_eq!(
            line.poll(15 * MS),
            Some(Sent { packet: 'a', at: 15 * MS, waited: Duration::ZERO })
        );
        // Idle time is not saved up.
        assert_eq!(line.offer(100 * MS, 'b', 1250), Ok(()));
        assert_eq!(line.next(), Some(110 * MS));
    }

    #[test]
    fn without_a_rate_packets_leave_at_once() {
        let mut line = Bottleneck::new(None, Queue::Time(Duration::ZERO));
        assert_eq!(line.offer(3 * MS, 'a', 1250), Ok(()));
        assert_eq!(
            line.poll(3 * MS),
            Some(Sent { packet: 'a', at: 3 * MS, waited: Duration::ZERO })
        );
    }

    #[test]
    fn a_packet_that_would_wait_too_long_is_given_back() {
        let mut line = Bottleneck::new(Some(1_000_000), Queue::Time(20 * MS));
        assert_eq!(line.offer(Duration::ZERO, 0, 1250), Ok(()));
        assert_eq!(line.offer(Duration::ZERO, 1, 1250), Ok(()));
        assert_eq!(line.offer(Duration::ZERO, 2, 1250), Ok(()), "it waits 20 ms: just allowed");
        assert_eq!(line.offer(Duration::ZERO, 3, 1250), Err(3));
        assert_eq!(line.offer(9 * MS, 4, 1250), Err(4), "it would wait 21 ms");
        assert_eq!(drain(&mut line, 10 * MS).len(), 1);
        assert_eq!(line.offer(10 * MS, 5, 1250), Ok(()));
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_the_packet_on_the_line_is_not_among_them() {
        let mut line = Bottleneck::new(Some(1_000_000), Queue::Bytes(2500));
        for packet in 0..3 {
            assert_eq!(line.offer(Duration::ZERO, packet, 1250), Ok(()));
        }
        assert_eq!(line.offer(Duration::ZERO, 3, 1), Err(3));
    }

    #[test]
    fn a_new_rate_is_for_what_waits_too() {
        let mut line = Bottleneck::new(Some(1_000_000), NO_BOUND);
        for packet in 0..2 {
            assert_eq!(line.offer(Duration::ZERO, packet, 1250), Ok(()));
        }
        // Half of the first is sent; the rest goes ten times as slow: 5 ms become 50, then 100.
        line.set(5 * MS, Some(100_000), NO_BOUND);
        let sent = drain(&mut line, 1000 * MS);
        assert_eq!(sent.iter().map(|sent| sent.at).collect::<Vec<_>>(), [55 * MS, 155 * MS]);
        assert_eq!(sent[1].waited, 55 * MS);
    }

    #[test]
    fn when_the_limit_goes_all_that_waits_leaves() {
        let mut line = Bottleneck::new(Some(1000), NO_BOUND);
        for packet in 0..3 {
            assert_eq!(line.offer(Duration::ZERO, packet, 1250), Ok(()));
        }
        line.set(MS, None, NO_BOUND);
        let sent = drain(&mut line, MS);
        assert_eq!(
            sent.iter().map(|sent| (sent.packet, sent.at)).collect::<Vec<_>>(),
            [(0, MS), (1, MS), (2, MS)]
        );
    }

    proptest! {
        /// Over any busy period the line sends exactly its rate, to the nanosecond at its end.
        #[test]
        fn the_rate_is_exact(rate in 1000_u64..10_000_000_000, sizes in prop::collection::vec(1_usize..2000, 1..200)) {
            let mut line = Bottleneck::new(Some(rate), NO_BOUND);
            for &size in &sizes {
                prop_assert!(line.offer(Duration::ZERO, (), size).is_ok());
            }
            let sent = drain(&mut line, Duration::MAX);
            let bits = sizes.iter().sum::<usize>() as u128 * 8;
            let expected = (bits * 1_000_000_000).div_ceil(u128::from(rate));
            prop_assert_eq!(sent.len(), sizes.len());
            prop_assert_eq!(sent[sent.len() - 1].at.as_nanos(), expected);
        }

        /// However late it is asked, what it says is the same.
        #[test]
        fn a_late_poll_changes_nothing(gaps in prop::collection::vec((0_u64..3000, 1_usize..1500), 1..100), late in 1_u64..50) {
            let run = |step: u64| {
                let mut line = Bottleneck::new(Some(5_000_000), NO_BOUND);
                let (mut now, mut sent) = (Duration::ZERO, Vec::new());
                for (index, &(gap, size)) in gaps.iter().enumerate() {
                    now += Duration::from_micros(gap);
                    if (index as u64).is_multiple_of(step) || line.next().is_some_and(|at| at <= now) {
                        sent.extend(drain(&mut line, now));
                    }
                    line.offer(now, index, size).expect("no bound");
                }
                sent.extend(drain(&mut line, Duration::MAX));
                sent
            };
            prop_assert_eq!(run(1), run(late));
        }
    }
}
