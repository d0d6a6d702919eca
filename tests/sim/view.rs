//! One consumer's layered video at both ends of its last hop: what left the server, and what of it arrived.
//!
//! What left is opened as it leaves, before any weather. So it is known which gaps the server made, where it
//! went over to another source, and what each packet was that the weather took.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use shardcast::id::Ssrc;
use shardcast::media::history::Limits;
use shardcast::wire::extension::Elements;
use shardcast::wire::rtp::Header;
use shardcast::wire::seq::SeqNo;

use crate::decoders::Decoder;
use crate::media::CONSUMER_DEPENDENCY_ID;
use crate::streams::{Format, STAMP_LEN, Stamp};

/// When something happened, in the order of the whole world: moments may coincide.
pub type Order = u64;

/// When packets of publishers reached the server for the first time.
pub type Arrivals = HashMap<(Ssrc, u16), Order>;

/// Bytes of a label.
pub const LABEL_LEN: usize = 20;

/// What layered payloads say about their sender, in front of the encoder's stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Whose media it is.
    pub source: u32,
    pub ssrc: Ssrc,
    /// Microseconds since the simulation began.
    pub captured: u64,
    /// The publisher's sequence number.
    pub seq: u32,
}

impl Label {
    /// Writes the label into a payload, in front of its stamp.
    pub fn write(&self, payload: &mut Vec<u8>) {
        let stamp = payload.split_off(payload.len() - STAMP_LEN);
        payload.extend(self.source.to_be_bytes());
        payload.extend(self.ssrc.0.to_be_bytes());
        payload.extend(self.captured.to_be_bytes());
        payload.extend(self.seq.to_be_bytes());
        payload.extend(stamp);
    }

    pub fn read(payload: &[u8]) -> Self {
        let at = payload.len() - STAMP_LEN - LABEL_LEN;
        let word = |from: usize| {
            u32::from_be_bytes(payload[at + from..at + from + 4].try_into().expect("four bytes"))
        };
        Self {
            source: word(0),
            ssrc: Ssrc(word(4)),
            captured: u64::from(word(8)) << 32 | u64::from(word(12)),
            seq: word(16),
        }
    }
}

/// A packet without what retransmission changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub marker: bool,
    pub timestamp: u32,
    pub payload: Vec<u8>,
    /// The dependency descriptor.
    pub element: Option<Vec<u8>>,
}

impl Image {
    pub fn new(header: &Header, packet: &[u8], payload: &[u8]) -> Self {
        let mut elements = Elements::of(header, packet);
        let element = elements.find(|(id, _)| *id == CONSUMER_DEPENDENCY_ID);
        Self {
            marker: header.marker,
            timestamp: header.timestamp,
            payload: payload.to_vec(),
            element: element.map(|(_, data)| data.to_vec()),
        }
    }

    /// The same with no more of the dependency descriptor than what each has (AV1 RTP specification, A.8.2).
    fn mandatory(&self) -> Self {
        let element = self.element.as_ref().map(|element| element[..3].to_vec());
        Self { element, ..self.clone() }
    }
}

#[derive(Debug)]
struct Sent {
    at: Order,
    label: Label,
    encoding: u8,
    image: Image,
}

impl Sent {
    /// Whether a replay that stood within a picture goes on with a newer key frame, since the history has let go of
    /// the picture's end: it keeps no more than the newest key frame for longer than its span. How long packets were
    /// under way to the server is not known here.
    fn leaps_to(&self, next: &Self) -> bool {
        let passed = next.label.captured.saturating_sub(self.label.captured);
        !self.image.marker && Duration::from_micros(passed) > Limits::VIDEO.span / 2
    }
}

pub struct View {
    format: Format,
    sent: BTreeMap<SeqNo, Sent>,
    /// Numbers that left with empty packets, for those that were left out late.
    filled: BTreeSet<SeqNo>,
    received: BTreeSet<SeqNo>,
    /// When the stream was made or interrupted, so that it begins anew behind.
    pub cuts: Vec<Order>,
}

impl View {
    /// A consumer's, made at `order`.
    pub fn new(format: Format, order: Order) -> Self {
        Self {
            format,
            sent: BTreeMap::new(),
            filled: BTreeSet::new(),
            received: BTreeSet::new(),
            cuts: vec![order],
        }
    }

    /// An empty packet leaves the server.
    pub fn fill(&mut self, seq: SeqNo) {
        assert!(self.filled.insert(seq) && !self.sent.contains_key(&seq), "{seq:?} is taken");
    }

    /// An empty packet arrives.
    pub fn arrive_empty(&mut self, seq: SeqNo) {
        assert!(self.filled.contains(&seq));
        self.received.insert(seq);
    }

    /// A packet leaves the server for the first time.
    pub fn leave(&mut self, seq: SeqNo, image: Image, at: Order) {
        let label = Label::read(&image.payload);
        let encoding = Stamp::read(&image.payload).encoding;
        let before = self.sent.insert(seq, Sent { at, label, encoding, image });
        assert!(before.is_none(), "{seq:?} was given out twice");
    }

    /// A packet or its retransmission arrives: bit by bit what left first, but for the decode targets that
    /// are active, which a retransmission says as they are now.
    pub fn arrive(&mut self, seq: SeqNo, image: &Image) {
        let sent = self.sent.get(&seq).map(|sent| sent.image.mandatory());
        assert_eq!(Some(image.mandatory()), sent, "{seq:?} never left like this");
        self.received.insert(seq);
    }

    /// Checks the stream as it left and as it arrived; returns what the receiver decoded.
    pub fn check(&self, arrivals: &Arrivals) -> Decoder {
        for ((first, before), (second, after)) in self.sent.iter().zip(self.sent.iter().skip(1)) {
            let step = after.image.timestamp.wrapping_sub(before.image.timestamp) as i32;
            assert!(step >= 0, "a timestamp steps back: {before:?} {after:?}");
            self.check_gap((*first, before), (*second, after), arrivals);
        }
        self.decode(|_| true);
        self.decode(|seq| self.received.contains(seq))
    }

    /// When the newest packet that arrived was captured, in microseconds since the beginning.
    pub fn newest(&self) -> Option<u64> {
        let newest = self.received.iter().rev().find_map(|seq| self.sent.get(seq));
        newest.map(|sent| sent.label.captured)
    }

    /// The server leaves no number out, but for packets that had not come when later ones went.
    fn check_gap(
        &self,
        (first, before): (SeqNo, &Sent),
        (second, after): (SeqNo, &Sent),
        arrivals: &Arrivals,
    ) {
        let missing = self.missing_between(first, second, |_| true);
        if missing == 0 {
            return;
        }
        if self.is_cut(before, after) {
            // In front of what was left out late, something else may be missing.
            let filled = self.filled.range(first..second).next_back().copied();
            let last = filled.unwrap_or(first);
            assert_eq!(second.0, last.0 + 1, "a gap at a switch: {before:?} {after:?}");
            return;
        }
        let between = before.label.seq + 1..after.label.seq;
        let late = between.filter(|seq| {
            let arrival = arrivals.get(&(after.label.ssrc, *seq as u16));
            // What came while the producer was paused was not even lent to other shards.
            let was_cut =
                |arrival: &Order| self.cuts.iter().any(|cut| (*arrival..=after.at).contains(cut));
            arrival.is_none_or(|arrival| *arrival > after.at || was_cut(arrival))
        });
        let late = late.count() as u64;
        assert!(missing <= late, "{missing} missing, {late} were late: {before:?} {after:?}");
    }

    /// Numbers between two neighbours under which nothing came that `arrived`.
    fn missing_between(
        &self,
        first: SeqNo,
        second: SeqNo,
        arrived: impl Fn(&SeqNo) -> bool,
    ) -> u64 {
        let between = SeqNo(first.0 + 1)..second;
        let filled = self.filled.range(between).filter(|seq| arrived(seq)).count() as u64;
        second.0 - first.0 - 1 - filled
    }

    /// Whether the stream goes over to another source between two neighbours, goes back to a key frame that is
    /// kept, or was interrupted.
    fn is_cut(&self, before: &Sent, after: &Sent) -> bool {
        before.encoding != after.encoding
            || after.label.seq <= before.label.seq
            || self.cuts.iter().any(|cut| (before.at..=after.at).contains(cut))
    }

    fn decode(&self, arrived: impl Fn(&SeqNo) -> bool) -> Decoder {
        let mut decoder = Decoder::new(self.format);
        let mut last: Option<(SeqNo, &Sent)> = None;
        let mut switch = true;
        for (seq, sent) in &self.sent {
            switch |= last.is_some_and(|(_, it)| self.is_cut(it, sent) || it.leaps_to(sent));
            let missing = |arrived: &dyn Fn(&SeqNo) -> bool| {
                last.is_some_and(|(before, _)| self.missing_between(before, *seq, arrived) > 0)
            };
            // A frame that is left out late leaves a gap in VP8's picture ids all the same.
            let is_vp8 = self.format == Format::Vp8;
            let is_gap = missing(&|seq| !is_vp8 && arrived(seq));
            if missing(&|_| false) {
                decoder.miss();
            }
            last = Some((*seq, sent));
            if is_gap || !arrived(seq) {
                decoder.lose();
            }
            if arrived(seq) {
                let Image { marker, payload, element, .. } = &sent.image;
                decoder.receive(*marker, payload, element.as_deref(), switch);
                switch = false;
            }
        }
        decoder.end();
        decoder
    }
}
