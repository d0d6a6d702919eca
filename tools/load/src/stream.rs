//! One stream as its receiver sees it: what came, what is missing, and what a browser would say about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rtcp::reception_report::ReceptionReport;

use crate::clock::MS;
use crate::recovery::Came;
use crate::stamp::{Kind, Stamp, Track};

/// Packets that are told apart from their copies: 1,024 back from the highest.
const WINDOW: u64 = 1024;
/// A jump of more numbers than this is a new beginning, not a gap.
const MAX_JUMP: i64 = 3000;
/// Packets missing at a time; libwebrtc gives up beyond 1,000 and asks for a key frame.
const MAX_MISSING: usize = 1000;
/// How often a packet is asked for; libwebrtc's figure.
const MAX_TRIES: u8 = 10;
/// How long apart at least: libwebrtc looks this often whether a round trip has gone since it asked last.
const TRY_INTERVAL: u64 = 20 * MS;
/// A receiver without a picture asks for a key frame this often.
const PICTURE_WAIT: u64 = 500 * MS;

/// What signaling says about a stream.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its kind.
    pub video: bool,
    /// The SSRC of the media, and of its retransmissions (0: none).
    pub ssrc: u32,
    /// See `ssrc`.
    pub rtx_ssrc: u32,
    /// The id of the transport-wide number among its header extensions; 0: none.
    pub wide_id: u8,
    /// Whether the receiver may ask for what it misses.
    pub nack: bool,
    /// Written when its media is there.
    pub came: Came,
}

/// What a packet was to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first of its number.
    New,
    /// Another of its number.
    Copy,
    /// Too late to tell.
    Old,
}

/// A receiver's state of one stream.
pub struct Stream {
    /// What signaling says.
    pub spec: Spec,
    /// Highest number, extended; none before the first packet.
    highest: Option<u64>,
    first: u64,
    /// Bit `n` of the window: number `highest - n` has come.
    window: [u64; (WINDOW / 64) as usize],
    /// Packets of which the first copy came, since ever.
    pub received: u64,
    /// Copies, since ever.
    pub copies: u64,
    missing: Vec<Missing>,
    mark: Mark,
    /// The track that it carries, once a packet said so.
    pub track: Option<Arc<Track>>,
    /// The track's number of a packet, and that packet's number here.
    anchor: Option<(u64, u64)>,
    rtt_base: Option<(u32, u64)>,
    reported: (u64, u64),
    jitter: Jitter,
    picture: Picture,
    /// When a picture was last asked for.
    asked: u64,
}

/// Where counting begins.
#[derive(Clone, Copy, Default)]
struct Mark {
    highest: Option<u64>,
    received: u64,
}

#[derive(Clone, Copy)]
struct Missing {
    number: u64,
    tries: u8,
    next: u64,
}

#[derive(Default)]
struct Jitter {
    last: Option<(u64, u32)>,
    /// In units of the timestamp, times 16 (RFC 3550 §A.8).
    scaled: i64,
}

/// The first key frame that came whole.
enum Picture {
    None { frame: u32, came: u16 },
    Shown,
}

impl Stream {
    /// A stream of which nothing came.
    pub fn new(spec: Spec, now: u64) -> Self {
        let picture = if spec.video { Picture::None { frame: 0, came: 0 } } else { Picture::Shown };
        Self {
            spec,
            highest: None,
            first: 0,
            window: [0; (WINDOW / 64) as usize],
            received: 0,
            copies: 0,
            missing: Vec::new(),
            mark: Mark::default(),
            track: None,
            anchor: None,
            rtt_base: None,
            reported: (0, 0),
            jitter: Jitter::default(),
            picture,
            asked: now,
        }
    }

    /// Takes note of a packet of number `wire`.
    pub fn note(&mut self, wire: u16, now: u64) -> (Seen, u64) {
        let Some(highest) = self.highest else {
            if !self.spec.video {
                self.spec.came.store(now, Ordering::Release);
            }
            // Room below for what was overtaken.
            let number = u64::from(wire) + (1 << 16);
            (self.highest, self.first) = (Some(number), number);
            self.window[0] = 1;
            self.received += 1;
            return (Seen::New, number);
        };
        let ahead = i64::from(wire.wrapping_sub(highest as u16) as i16);
        let number = highest.saturating_add_signed(ahead);
        if ahead > 0 {
            self.advance(highest, number, ahead, now);
        } else {
            let back = ahead.unsigned_abs();
            if back >= WINDOW {
                return (Seen::Old, number);
            }
            let (word, bit) = ((back / 64) as usize, 1 << (back % 64));
            if self.window[word] & bit != 0 {
                self.copies += 1;
                return (Seen::Copy, number);
            }
            self.window[word] |= bit;
            self.missing.retain(|missing| missing.number != number);
            self.first = self.first.min(number);
        }
        self.received += 1;
        (Seen::New, number)
    }

    fn advance(&mut self, highest: u64, number: u64, ahead: i64, now: u64) {
        self.highest = Some(number);
        self.shift(ahead.unsigned_abs());
        self.window[0] |= 1;
        if !self.spec.nack || ahead == 1 {
            return;
        }
        if ahead > MAX_JUMP || self.missing.len() + ahead as usize > MAX_MISSING {
            self.missing.clear();
            self.lose_picture();
            return;
        }
        let gap = highest + 1..number;
        self.missing.extend(gap.map(|number| Missing { number, tries: 0, next: now }));
    }

    fn shift(&mut self, by: u64) {
        if by == 1 {
            // Nearly always.
            let mut carry = 0;
            for word in &mut self.window {
                (*word, carry) = (*word << 1 | carry, *word >> 63);
            }
            return;
        }
        let (words, bits) = ((by / 64) as usize, by % 64);
        for index in (0..self.window.len()).rev() {
            let from = |back: usize| index.checked_sub(back).map_or(0, |at| self.window[at]);
            let (low, high) = (from(words), from(words + 1));
            self.window[index] = if bits == 0 { low } else { low << bits | high >> (64 - bits) };
        }
    }

    /// What is to be asked for now, `rtt` after it was asked for last.
    pub fn missing(&mut self, now: u64, rtt: u64, ask: &mut Vec<u16>) {
        ask.clear();
        if self.missing.is_empty() {
            return;
        }
        for missing in &mut self.missing {
            if missing.next <= now {
                ask.push(missing.number as u16);
                (missing.tries, missing.next) = (missing.tries + 1, now + rtt.max(TRY_INTERVAL));
            }
        }
        let before = self.missing.len();
        self.missing.retain(|missing| missing.tries < MAX_TRIES);
        if self.missing.len() < before {
            self.lose_picture();
        }
    }

    /// Whether a packet is missing that will be asked for.
    pub fn has_gaps(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether to ask for a key frame now.
    pub fn wants_picture(&mut self, now: u64) -> bool {
        let wants = !self.has_picture() && now >= self.asked + PICTURE_WAIT;
        if wants {
            self.asked = now;
        }
        wants
    }

    /// Whether a whole key frame has come.
    pub fn has_picture(&self) -> bool {
        matches!(self.picture, Picture::Shown)
    }

    fn lose_picture(&mut self) {
        if self.spec.video {
            self.picture = Picture::None { frame: 0, came: 0 };
        }
    }

    /// Takes note of an opened packet's stamp; says whether it completes the picture that was waited for.
    pub fn note_stamp(&mut self, stamp: &Stamp, number: u64, now: u64) -> bool {
        self.anchor = Some((u64::from(stamp.number), number));
        let Picture::None { frame, came } = &mut self.picture else { return false };
        if !stamp.key {
            return false;
        }
        if *frame != stamp.frame {
            (*frame, *came) = (stamp.frame, 0);
        }
        *came += 1;
        if *came < stamp.count {
            return false;
        }
        self.picture = Picture::Shown;
        // A picture that is lost later is another matter.
        let _ = self.spec.came.compare_exchange(0, now, Ordering::Release, Ordering::Relaxed);
        true
    }

    /// Counting begins here.
    pub fn mark(&mut self) {
        self.mark = Mark { highest: self.highest, received: self.received };
    }

    /// Packets that should have come since the mark, and those that did. What was sent at the end and did
    /// not come shows only where the track's own count is comparable: one encoding, and its publisher and this
    /// receiver are `still_here`.
    pub fn tally(&self, still_here: bool) -> (u64, u64) {
        let Some(highest) = self.highest else { return (0, 0) };
        let base = self.mark.highest.unwrap_or(self.first.saturating_sub(1));
        let mut expected = highest.saturating_sub(base);
        if let (Some(track), Some((sent, here))) = (&self.track, self.anchor)
            && track.kind != Kind::Layer
            && still_here
            && !track.ended.load(Ordering::Acquire)
        {
            let last = track.sent.load(Ordering::Acquire);
            let end = (here + last).saturating_sub(sent + 1);
            expected = expected.max(end.saturating_sub(base));
        }
        (expected, self.received - self.mark.received)
    }

    /// Takes note of a sender report's middle 32 bits of NTP time.
    pub fn note_report(&mut self, ntp: u64, now: u64) {
        self.rtt_base = Some(((ntp >> 16) as u32, now));
    }

    /// Takes note of when a packet of `timestamp` came, for the jitter.
    pub fn note_arrival(&mut self, now: u64, timestamp: u32) {
        let rate = if self.spec.video { 90 } else { 48 };
        if let Some((last, before)) = self.jitter.last {
            let elapsed = ((now.saturating_sub(last)) * rate / MS) as i64;
            let sampled = i64::from(timestamp.wrapping_sub(before) as i32);
            let distance = (elapsed - sampled).abs().min(1 << 24);
            self.jitter.scaled += distance - ((self.jitter.scaled + 8) >> 4);
        }
        self.jitter.last = Some((now, timestamp));
    }

    /// What a receiver report says (RFC 3550 §6.4.1); none before the first packet.
    pub fn report(&mut self, now: u64) -> Option<ReceptionReport> {
        let highest = self.highest?;
        let expected = highest + 1 - self.first;
        let window = (expected - self.reported.0, self.received.saturating_sub(self.reported.1));
        self.reported = (expected, self.received);
        let lost = window.0.saturating_sub(window.1);
        let (last_sender_report, delay) = self.rtt_base.map_or((0, 0), |(ntp, at)| {
            (ntp, ((now.saturating_sub(at)) * 65_536 / crate::clock::SECOND) as u32)
        });
        Some(ReceptionReport {
            ssrc: self.spec.ssrc,
            fraction_lost: (lost * 256 / window.0.max(1)).min(255) as u8,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff) as u32,
            // The first turn is number 1 here, and turn 0 for others.
            last_sequence_number: (highest - (1 << 16)) as u32,
            jitter: (self.jitter.scaled >> 4) as u32,
            last_sender_report,
            delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream() -> Stream {
        let came = Came::default();
        let spec = Spec { video: true, ssrc: 1, rtx_ssrc: 2, wide_id: 5, nack: true, came };
        Stream::new(spec, 0)
    }

    #[test]
    fn gaps_are_asked_for_until_they_are_filled_or_given_up() {
        let mut stream = stream();
        let mut ask = Vec::new();
        for wire in [65_534, 65_535, 2] {
            assert_eq!(stream.note(wire, 0).0, Seen::New);
        }
        stream.missing(0, 0, &mut ask);
        assert_eq!(ask, [0, 1]);
        stream.missing(TRY_INTERVAL - 1, 0, &mut ask);
        assert_eq!(ask, [0; 0], "too early");
        assert_eq!(stream.note(1, 0).0, Seen::New);
        assert_eq!(stream.note(1, 0).0, Seen::Copy);
        let mut asked = 1;
        let mut now = TRY_INTERVAL;
        while stream.has_gaps() {
            stream.missing(now, TRY_INTERVAL, &mut ask);
            asked += ask.len();
            now += TRY_INTERVAL;
        }
        assert_eq!(asked, usize::from(MAX_TRIES));
        assert_eq!(stream.tally(true), (5, 4));
        assert!(stream.wants_picture(now + PICTURE_WAIT), "what is lost breaks the picture");
    }

    #[test]
    fn a_lost_end_is_missed_too() {
        let mut stream = stream();
        let track = Arc::new(Track::new(Kind::Video));
        stream.track = Some(track.clone());
        track.depart(0, 100, 1);
        // The track's packet 40 has number 10 here.
        stream.note(10, 0);
        stream.note_stamp(&Stamp { number: 40, count: 1, ..Stamp::default() }, 10 + (1 << 16), 1);
        stream.mark();
        for wire in 11..60 {
            stream.note(wire, 0);
        }
        assert_eq!(stream.tally(true), (59, 49), "packets 41 to 99 were to come");
        assert_eq!(stream.tally(false), (49, 49));
        track.ended.store(true, Ordering::Release);
        assert_eq!(stream.tally(true), (49, 49));
    }

    #[test]
    fn a_picture_is_there_when_all_packets_of_a_key_frame_are() {
        let mut stream = stream();
        let part = |frame, index, key| Stamp { frame, index, key, count: 3, ..Stamp::default() };
        assert!(!stream.note_stamp(&part(4, 1, false), 0, 7));
        assert!(!stream.note_stamp(&part(5, 0, true), 0, 7));
        assert!(!stream.note_stamp(&part(6, 0, true), 0, 7));
        assert!(!stream.note_stamp(&part(6, 1, true), 0, 7));
        assert!(stream.note_stamp(&part(6, 2, true), 0, 7));
        assert!(stream.has_picture() && !stream.wants_picture(u64::MAX));
        assert_eq!(stream.spec.came.load(Ordering::Acquire), 7);
    }

    #[test]
    fn reports_count_losses_since_the_last() {
        let mut stream = stream();
        assert_eq!(stream.report(0), None);
        (0..100).for_each(|wire| assert_eq!(stream.note(wire, 0).0, Seen::New));
        stream.note_report(0x1_2345_6789_0000, 0);
        let report = stream.report(crate::clock::SECOND).expect("a report");
        assert_eq!((report.fraction_lost, report.total_lost), (0, 0));
        assert_eq!(report.last_sequence_number, 99);
        assert_eq!((report.last_sender_report, report.delay), (0x2345_6789, 65_536));
        (150..200).for_each(|wire| assert_eq!(stream.note(wire, 0).0, Seen::New));
        let report = stream.report(0).expect("a report");
        assert_eq!((report.fraction_lost, report.total_lost), (128, 50));
    }

    proptest! {
        /// Whatever the order, each number counts once.
        #[test]
        fn each_number_counts_once(mut offsets in prop::collection::vec(0_u64..800, 1..400), start: u16) {
            let mut stream = stream();
            offsets.insert(0, 400);
            let mut different = std::collections::HashSet::new();
            for offset in offsets {
                let (seen, _) = stream.note(start.wrapping_add(offset as u16), 0);
                prop_assert_eq!(seen == Seen::New, different.insert(offset));
            }
            prop_assert_eq!(stream.received, different.len() as u64);
        }
    }
}
