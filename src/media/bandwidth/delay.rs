//! Do we send more than the line carries? What arrival times say.
//!
//! Packets sent within a few ms count as one group (draft-ietf-rmcat-gcc-02 §5.2). A group's delay is that of
//! its *fastest* packet: a frame leaves here in one burst, so that its last packets also wait for its first,
//! and a big frame would look like a growing queue. For the same reason growth only counts as overuse when
//! no packet of the last feedback found the queue nearly empty.

use super::trend::Trend;

/// Packets sent within this time form a group (draft §5.2: burst_time 5 ms).
const BURST_US: u64 = 5_000;
/// Groups that a radio link held back and delivered at once count as one (libwebrtc's limit).
const MAX_GROUP_US: i64 = 100_000;
/// Growth with less standing queue than this is noise: less than half the time between two frames.
const MIN_QUEUE_US: i64 = 12_000;
/// A queue of this length is overuse even if it no longer grows, for its buffer may be full.
const LONG_QUEUE_US: i64 = 150_000;
/// Unless it shrinks by this much from one judgement to the next.
const RELIEF_US: i64 = 5_000;
/// The standing queue is judged from at least this much time on the receiver's clock.
const WINDOW_US: i64 = 80_000;
/// The least delay is remembered for one to two of these, so that a new route or clocks that drift apart
/// are followed.
const BASE_PERIOD_US: u64 = 15_000_000;
/// A probe fills the queue on purpose: what was sent until this long after it says nothing.
const PROBE_SHADOW_US: u64 = 200_000;

/// What the delay says of our use of the line (draft §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// The queue is emptying: neither raise nor lower the rate.
    Under,
    Normal,
    Over,
}

/// The one-way delays of one transport's packets. Clocks differ, so each is known up to a constant.
#[derive(Debug, Default)]
pub(super) struct Delay {
    trend: Trend,
    base: Option<Base>,
    group: Option<Group>,
    /// Packets sent before this moment may wait behind a probe.
    shadow_until_us: u64,
    window: Option<Window>,
    standing_us: i64,
    /// The long queue is not getting shorter.
    stuck: bool,
}

/// The group that is still growing.
#[derive(Debug)]
struct Group {
    first_sent_us: u64,
    first_arrival_us: i64,
    last_arrival_us: i64,
    /// Arrival and delay of the fastest packet.
    fastest: (i64, i64),
}

/// Packets since the standing queue was last judged.
#[derive(Debug)]
struct Window {
    first_arrival_us: i64,
    last_arrival_us: i64,
    least_us: i64,
}

impl Delay {
    /// A packet sent at `sent_us` on our clock arrived at `arrival_us` on the receiver's.
    pub fn arrived(&mut self, sent_us: u64, arrival_us: i64, is_probe: bool) {
        let delay = arrival_us - sent_us as i64;
        self.base.get_or_insert(Base::new(sent_us, delay)).learn(sent_us, delay);
        let window = self.window.get_or_insert(Window {
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
            least_us: delay,
        });
        window.last_arrival_us = window.last_arrival_us.max(arrival_us);
        window.least_us = window.least_us.min(delay);
        if is_probe {
            self.shadow_until_us = self.shadow_until_us.max(sent_us + PROBE_SHADOW_US);
        }
        if sent_us < self.shadow_until_us {
            self.group = None;
        } else {
            self.regroup(sent_us, arrival_us, delay);
        }
    }

    /// The end of a feedback: how we use the line.
    pub fn judge(&mut self) -> Usage {
        self.measure_queue();
        match self.trend.usage() {
            _ if self.stuck => Usage::Over,
            Usage::Over if self.standing_us < MIN_QUEUE_US => Usage::Normal,
            usage => usage,
        }
    }

    /// What even the fastest packet lately waited in queues, in µs.
    pub fn standing_us(&self) -> i64 {
        self.standing_us
    }

    fn regroup(&mut self, sent_us: u64, arrival_us: i64, delay: i64) {
        let Some(group) = &mut self.group else {
            self.group = Some(Group::new(sent_us, arrival_us, delay));
            return;
        };
        // Reported late; its group is long closed.
        if sent_us < group.first_sent_us {
            return;
        }
        if group.takes(sent_us, arrival_us, delay) {
            group.last_arrival_us = group.last_arrival_us.max(arrival_us);
            if delay < group.fastest.1 {
                group.fastest = (arrival_us, delay);
            }
            return;
        }
        let (fastest_arrival, least) = group.fastest;
        *group = Group::new(sent_us, arrival_us, delay);
        self.trend.group(fastest_arrival, least);
    }

    fn measure_queue(&mut self) {
        let (Some(window), Some(base)) = (&self.window, &self.base) else { return };
        if window.last_arrival_us - window.first_arrival_us < WINDOW_US {
            return;
        }
        let standing = window.least_us - base.least_us();
        self.stuck = standing > LONG_QUEUE_US && standing > self.standing_us - RELIEF_US;
        self.standing_us = standing;
        self.window = None;
    }
}

impl Group {
    fn new(sent_us: u64, arrival_us: i64, delay: i64) -> Self {
        Self {
            first_sent_us: sent_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
            fastest: (arrival_us, delay),
        }
    }

    /// Whether a packet belongs to this group: sent with it, or held back and delivered with it.
    fn takes(&self, sent_us: u64, arrival_us: i64, delay: i64) -> bool {
        let delivered_at_once = delay < self.fastest.1
            && arrival_us - self.last_arrival_us <= BURST_US as i64
            && arrival_us - self.first_arrival_us < MAX_GROUP_US;
        sent_us - self.first_sent_us <= BURST_US || delivered_at_once
    }
}

/// The least delay of the present period and of the one before it.
#[derive(Debug)]
struct Base {
    began_us: u64,
    present: i64,
    past: i64,
}

impl Base {
    fn new(sent_us: u64, delay: i64) -> Self {
        Self { began_us: sent_us, present: delay, past: delay }
    }

    fn learn(&mut self, sent_us: u64, delay: i64) {
        if sent_us.saturating_sub(self.began_us) > BASE_PERIOD_US {
            *self = Self { began_us: sent_us, present: delay, past: self.present };
        }
        self.present = self.present.min(delay);
    }

    fn least_us(&self) -> i64 {
        self.present.min(self.past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of three packets every 33 ms; each packet takes `service_us` on the line, which
    /// `growth_us` per frame delays more and more. Judged every third frame, as feedback would.
    fn frames(service_us: i64, growth_us: i64) -> Vec<Usage> {
        let mut delay = Delay::default();
        let mut usages = Vec::new();
        for frame in 0..90 {
            let sent = frame as u64 * 33_333;
            // Every tenth frame is four times as big.
            let packets = if frame % 10 == 9 { 12 } else { 3 };
            for packet in 1..=packets {
                let waits = frame * growth_us + packet * service_us;
                delay.arrived(sent, sent as i64 + 20_000 + waits, false);
            }
            if frame % 3 == 2 {
                usages.push(delay.judge());
            }
        }
        usages
    }

    #[test]
    fn big_frames_on_an_idle_line_are_not_overuse() {
        assert!(frames(2_500, 0).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn a_growing_queue_is_overuse_within_a_second() {
        let first = frames(2_500, 3_000).iter().position(|usage| *usage == Usage::Over);
        assert!(first.is_some_and(|feedback| feedback <= 10), "{first:?}");
    }

    #[test]
    fn a_queue_that_stays_full_is_overuse() {
        let mut delay = Delay::default();
        delay.arrived(0, 20_000, false);
        let mut usages = Vec::new();
        for i in 1..200u64 {
            delay.arrived(i * 20_000, i as i64 * 20_000 + 220_000, false);
            if i % 5 == 0 {
                usages.push(delay.judge());
            }
        }
        assert!(usages[2..].iter().all(|usage| *usage == Usage::Over), "{usages:?}");
    }
}
