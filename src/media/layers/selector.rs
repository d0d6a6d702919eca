//! Which packets of a producer one consumer gets.

use crate::media::layers::frame::MAX_LAYERS;
use crate::media::layers::pictures::{Fate, Picture, Pictures, Reach};
use crate::media::layers::{FrameInfo, Kind, Layer, References, Verdict};
use crate::wire::seq::SeqNo;

/// How many packets, sent after a key frame's first one, may have come before it. mediasoup keeps 30; a lost
/// packet is back after a round trip, which is 128 packets at 10 Mbit/s and 120 ms.
pub const MAX_LATE: u64 = 128;

/// For how many pictures (or frames) a layer that cannot be taken up counts as being sent: about one second.
const BLOCKED_FOR: i32 = 32;

/// The state of one consumer of video. About 150 bytes, and 500 more once its stream has shown more than one spatial
/// layer.
#[derive(Clone, Debug)]
pub struct Selector {
    kind: Kind,
    target: Option<Layer>,
    flow: Option<Flow>,
    /// While an encoding is waited for that has been seen.
    approach: Option<Box<Approach>>,
}

/// The encoding that is being forwarded.
#[derive(Clone, Debug)]
struct Flow {
    encoding: u8,
    /// The first packet, and the highest so far.
    first: SeqNo,
    highest: SeqNo,
    /// Highest layers of the current picture; a new target counts from the next picture on.
    limit: Layer,
    /// What can be forwarded without a reference to something that was left out.
    reach: Reach,
    pictures: Pictures,
    /// Number of the current picture's first frame, and spatial layer of its last.
    picture_start: u64,
    last_spatial: u8,
    /// The verdict on the packet before.
    forwards: bool,
    /// The last picture of which a spatial layer was left out that cannot be taken up just so.
    blocked: Option<Blocked>,
}

#[derive(Clone, Copy, Debug)]
struct Blocked {
    /// Where the picture starts; the lower half.
    picture: u32,
    /// The lowest such layer.
    spatial: u8,
}

/// What has been seen of the encoding that is waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Approach {
    highest: Option<SeqNo>,
    /// Bit `n`: packet `highest - n` came.
    seen: u128,
}

impl Selector {
    /// A consumer that gets nothing yet.
    pub fn new(kind: Kind) -> Self {
        Self { kind, target: None, flow: None, approach: None }
    }

    /// Wants these layers, or nothing at all. Higher layers are left out from the next picture on; others are taken
    /// up where that breaks nothing. After `None` the stream begins again with a key frame.
    pub fn set_target(&mut self, target: Option<Layer>) {
        let layer = |target: Option<Layer>| target.map(|target| target.spatial);
        if layer(target) != layer(self.target) {
            self.approach = None;
        }
        let highest = MAX_LAYERS - 1;
        self.target =
            target.map(|target| Layer { temporal: target.temporal.min(highest), ..target });
        if target.is_none() {
            self.flow = None;
        }
    }

    /// Packets of `encoding` are about to be passed to [`Self::admit`] again, beginning with a key frame that may
    /// be old: the stream begins anew with it.
    pub fn restart(&mut self, encoding: u8) {
        self.approach = None;
        self.flow = self.flow.take().filter(|flow| flow.encoding != encoding);
    }

    /// The encoding that is being forwarded.
    pub fn flowing(&self) -> Option<u8> {
        self.flow.as_ref().map(|flow| flow.encoding)
    }

    /// The encoding that the wanted layers are of.
    pub fn wanted(&self) -> Option<u8> {
        self.target.map(|target| self.encoding_of(target))
    }

    /// Whether each spatial layer is an encoding of its own.
    pub fn is_simulcast(&self) -> bool {
        self.kind == Kind::Simulcast
    }

    /// The wanted layers.
    pub fn target(&self) -> Option<Layer> {
        self.target
    }

    /// The highest layers that are being forwarded. The temporal one may lie above those that the stream has.
    pub fn current(&self) -> Option<Layer> {
        let flow = self.flow.as_ref()?;
        let reach = flow.allowed();
        let top = reach.top()?;
        let temporal = reach.of(top) - 1;
        let spatial = if self.kind == Kind::Simulcast { flow.encoding } else { top };
        Some(Layer { spatial, temporal })
    }

    /// The encoding that a key frame is needed of before the wanted layers can be forwarded.
    pub fn needs_key_frame(&self) -> Option<u8> {
        let target = self.target?;
        let encoding = self.encoding_of(target);
        let flow = self.flow.as_ref().filter(|flow| flow.encoding == encoding);
        flow.is_none_or(|flow| flow.is_blocked(self.kind, target)).then_some(encoding)
    }

    /// Decides about one packet of the producer, in order of arrival: packet `seq` of encoding `encoding`.
    /// Packets without payload are not for it.
    pub fn admit(&mut self, encoding: u8, seq: SeqNo, frame: &FrameInfo) -> Verdict {
        let Some(target) = self.target else { return Verdict::Ignore };
        let wanted = self.encoding_of(target);
        if let Some(flow) = &mut self.flow
            && flow.encoding == encoding
        {
            return flow.admit(self.kind, target, seq, frame);
        }
        if encoding != wanted {
            return Verdict::Ignore;
        }
        let seen = self.approach.as_deref().copied().unwrap_or_default();
        if !(frame.key_frame && seen.can_begin(seq, frame.self_contained)) {
            self.approach.get_or_insert_default().note(seq);
            return Verdict::Ignore;
        }
        self.approach = None;
        let flow = self.flow.insert(Flow::new(encoding, seq, self.kind, target));
        match flow.admit(self.kind, target, seq, frame) {
            Verdict::Forward { marker, .. } => Verdict::Forward { marker, switch: true },
            verdict => verdict,
        }
    }

    fn encoding_of(&self, target: Layer) -> u8 {
        if self.kind == Kind::Simulcast { target.spatial } else { 0 }
    }
}

impl Approach {
    fn note(&mut self, seq: SeqNo) {
        let highest = self.highest.unwrap_or(seq).max(seq);
        let passed = highest.0 - self.highest.unwrap_or(seq).0;
        self.seen =
            u32::try_from(passed).ok().and_then(|by| self.seen.checked_shl(by)).unwrap_or(0);
        self.highest = Some(highest);
        if let Some(bit) = bit(highest.0 - seq.0) {
            self.seen |= bit;
        }
    }

    fn saw(&self, seq: u64) -> bool {
        let age = self.highest.and_then(|highest| highest.0.checked_sub(seq));
        age.and_then(bit).is_some_and(|bit| self.seen & bit != 0)
    }

    /// Whether the stream can begin with key frame packet `seq`. One whose parameter sets are in a packet before it
    /// must not overtake them: then it is they that begin the frame, or there are none.
    fn can_begin(&self, seq: SeqNo, self_contained: bool) -> bool {
        let is_late = self.highest.is_some_and(|highest| highest.0 > seq.0 + MAX_LATE);
        !is_late && (self_contained || seq.0.checked_sub(1).is_some_and(|before| self.saw(before)))
    }
}

fn bit(age: u64) -> Option<u128> {
    1u128.checked_shl(u32::try_from(age).ok()?)
}

impl Flow {
    fn new(encoding: u8, first: SeqNo, kind: Kind, target: Layer) -> Self {
        Self {
            encoding,
            first,
            highest: first,
            limit: limit(kind, encoding, target, target),
            reach: Reach::default(),
            pictures: Pictures::new(),
            picture_start: 0,
            last_spatial: 0,
            forwards: true,
            blocked: None,
        }
    }

    fn allowed(&self) -> Reach {
        self.reach.within(self.limit.spatial, self.limit.temporal)
    }

    fn admit(&mut self, kind: Kind, target: Layer, seq: SeqNo, frame: &FrameInfo) -> Verdict {
        if seq < self.first {
            return Verdict::Ignore;
        }
        let marker = self.judge(kind, target, seq, frame);
        self.highest = self.highest.max(seq);
        match marker {
            Some(marker) => Verdict::Forward { marker: marker.then_some(true), switch: false },
            None => Verdict::Skip,
        }
    }

    /// Whether the packet is forwarded, and then whether it ends the picture.
    fn judge(&mut self, kind: Kind, target: Layer, seq: SeqNo, frame: &FrameInfo) -> Option<bool> {
        let Some(number) = frame.number else {
            // Nothing can be left out of a stream without numbers; in another one, such a packet is a
            // malformed part of the frame before.
            if self.pictures.newest().is_none() {
                self.reach.set(0, Reach::ALL);
            }
            return self.forwards.then_some(false);
        };
        let mut number = self.pictures.extend(number);
        if seq > self.highest && self.pictures.newest().is_some_and(|newest| number < newest) {
            // Sent later, yet numbered lower: the encoder has begun to count anew.
            self.pictures.clear();
            number = self.pictures.extend(frame.number?);
        }
        let slot = if frame.numbered_by_frame { 0 } else { frame.spatial };
        self.forwards = match self.pictures.fate(number, slot) {
            Fate::Forwarded => {
                // The first packet of a VP8 key frame, which alone tells that it is one, after another.
                if frame.key_frame && self.pictures.newest() == Some(number) {
                    self.take_up(number, frame);
                }
                true
            }
            Fate::Skipped => false,
            Fate::Unknown => self.decide(kind, target, number, slot, frame),
        };
        let picture = self.pictures.picture(number)?;
        self.forwards.then_some(frame.ends_frame && frame.spatial == picture.top)
    }

    /// Decides about a frame of which nothing has come before.
    fn decide(
        &mut self,
        kind: Kind,
        target: Layer,
        number: u64,
        slot: u8,
        frame: &FrameInfo,
    ) -> bool {
        let is_late = self.pictures.newest().is_some_and(|newest| number < newest);
        if !is_late {
            self.begin_frame(kind, target, number, frame);
        }
        let Some(picture) = self.pictures.picture(number) else { return false };
        let flows = picture.allowed.flows(frame.spatial, frame.temporal);
        let is_wanted =
            frame.spatial <= self.limit.spatial && frame.temporal <= self.limit.temporal;
        let may_take_up = !is_late && is_wanted;
        let forward = match self.references(number, slot, frame) {
            Fate::Forwarded => flows || may_take_up,
            Fate::Skipped => false,
            // All that is missing belongs to this very picture, and is on its way.
            Fate::Unknown if may_take_up && frame.spatial > 0 && self.is_fresh(number, frame) => {
                flows || picture.allowed.flows(frame.spatial - 1, frame.temporal)
            }
            Fate::Unknown => flows,
        };
        self.pictures.change(number, |picture| picture.decide(slot, forward));
        if forward {
            self.await_references(number, frame);
        }
        if is_late {
            // What refers to it will be left out too, so pictures are not to wait for its layer. (Where references
            // are not listed, a sync frame may have taken the layer up again already.)
            if !forward && matches!(frame.references, References::Listed { .. }) {
                self.reach.lower(frame.spatial, frame.temporal);
            }
            return forward;
        }
        if forward {
            if !flows {
                self.pictures
                    .change(number, |picture| picture.take_up(frame.spatial, frame.temporal));
            }
            self.take_up(number, frame);
        } else {
            self.reach.lower(frame.spatial, frame.temporal);
            self.cap_picture(number, frame.spatial);
            if self.reach.of(frame.spatial) == 0 {
                let picture = self.picture_start as u32;
                let before = self.blocked.filter(|blocked| blocked.picture == picture);
                let spatial = before.map_or(frame.spatial, |it| it.spatial.min(frame.spatial));
                self.blocked = Some(Blocked { picture, spatial });
            }
        }
        forward
    }

    /// A frame that is not older than any other comes: its picture may be a new one.
    fn begin_frame(&mut self, kind: Kind, target: Layer, number: u64, frame: &FrameInfo) {
        let newest = self.pictures.newest();
        if newest == Some(number) {
            return;
        }
        let continues_picture = frame.numbered_by_frame
            && newest.is_some()
            && frame.spatial > self.last_spatial
            && number > self.picture_start
            // Each layer has one frame at most; what lies further on belongs to a later picture.
            && number - self.picture_start <= u64::from(frame.spatial);
        self.last_spatial = frame.spatial;
        if continues_picture {
            let first = self.pictures.picture(self.picture_start);
            let picture = Picture::new(self.allowed());
            self.pictures.advance(number, first.map_or(picture, Picture::undecided));
            return;
        }
        // The frames of lower layers that are missing belong to this picture, those before to the one before: what
        // was promised of that one holds for its higher layers even when they come late, and so does the old limit.
        let before = self.pictures.picture(self.picture_start).filter(|_| frame.numbered_by_frame);
        let below = if frame.numbered_by_frame { u64::from(frame.spatial) } else { 0 };
        let earliest = newest.map_or(number, |newest| newest + 1);
        self.picture_start = number.saturating_sub(below).max(earliest);
        if newest.is_some() {
            let missing = before.map_or(Picture::new(self.allowed()), Picture::undecided);
            self.pictures.advance(self.picture_start - 1, missing);
        }
        self.limit = limit(kind, self.encoding, target, self.limit);
        let mut picture = Picture::new(self.allowed());
        if frame.spatial == 0 && frame.references == References::NONE {
            // All layers of a key picture can be taken up. Where they do not come, the last packet has its marker
            // already.
            for spatial in 0..=self.limit.spatial {
                picture.allowed.set(spatial, self.limit.temporal + 1);
            }
            picture.top = self.limit.spatial;
        } else {
            picture.top = picture.allowed.top_above(frame.temporal).unwrap_or(0);
        }
        self.pictures.advance(number, picture);
    }

    /// The frame is forwarded, and with it what depends on it alone.
    fn take_up(&mut self, number: u64, frame: &FrameInfo) {
        let reach = if self.is_fresh(number, frame) { Reach::ALL } else { frame.temporal + 1 };
        self.reach.raise(frame.spatial, reach);
        self.pictures.change(number, |picture| picture.top = picture.top.max(frame.spatial));
    }

    /// A spatial layer is left out of the current picture, which so ends below, if it has not ended yet.
    fn cap_picture(&mut self, number: u64, spatial: u8) {
        let Some(highest) = spatial.checked_sub(1) else { return };
        for number in self.picture_start.min(number)..=number {
            self.pictures.change(number, |picture| picture.top = picture.top.min(highest));
        }
    }

    /// Whether the frame refers to no earlier picture, so that its layer can begin with it.
    fn is_fresh(&self, number: u64, frame: &FrameInfo) -> bool {
        let References::Listed { earlier, far: false } = frame.references else { return false };
        let start = if frame.numbered_by_frame { self.picture_start.min(number) } else { number };
        let in_picture = u32::try_from(number - start).unwrap_or(u32::MAX);
        earlier.checked_shr(in_picture).unwrap_or(0) == 0
    }

    /// The frames that this one refers to and that have not come yet are needed now, whatever is wanted when they do.
    fn await_references(&mut self, number: u64, frame: &FrameInfo) {
        let slot = if frame.numbered_by_frame { 0 } else { frame.spatial };
        let earlier = match frame.references {
            References::Listed { earlier, .. } => earlier,
            References::Unknown | References::Below => 0,
        };
        for reference in distances(earlier).map(|distance| number.saturating_sub(distance)) {
            if self.pictures.fate(reference, slot) != Fate::Unknown {
                continue;
            }
            self.pictures.change(reference, |picture| {
                for spatial in 0..=frame.spatial {
                    picture.allowed.raise(spatial, frame.temporal + 1);
                }
                picture.top = picture.top.max(frame.spatial);
            });
        }
    }

    /// What became of the frames that this one refers to: the worst of them.
    fn references(&self, number: u64, slot: u8, frame: &FrameInfo) -> Fate {
        let mut worst = Fate::Forwarded;
        let mut note = |fate| match fate {
            Fate::Skipped => worst = Fate::Skipped,
            Fate::Unknown if worst == Fate::Forwarded => worst = Fate::Unknown,
            Fate::Unknown | Fate::Forwarded => {}
        };
        if frame.inter_layer {
            note(self.pictures.fate(number, slot.saturating_sub(1)));
        }
        match frame.references {
            References::Unknown => note(Fate::Unknown),
            References::Below if frame.temporal <= self.reach.of(frame.spatial) => {}
            References::Below => note(Fate::Unknown),
            References::Listed { earlier, far } => {
                if far {
                    note(Fate::Unknown);
                }
                for distance in distances(earlier) {
                    note(self.pictures.fate(number.saturating_sub(distance), slot));
                }
            }
        }
        worst
    }

    /// Whether a wanted spatial layer is being sent but cannot be taken up.
    fn is_blocked(&self, kind: Kind, target: Layer) -> bool {
        let Some(Blocked { picture, spatial }) = self.blocked else { return false };
        let wanted = kind == Kind::Simulcast || spatial <= target.spatial;
        let since =
            self.pictures.newest().map_or(0, |newest| (newest as u32).wrapping_sub(picture) as i32);
        wanted && self.reach.of(spatial) == 0 && since < BLOCKED_FOR
    }
}

/// How far back the frames of a mask lie, 1 to 64.
fn distances(mut earlier: u64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        let distance = (earlier != 0).then(|| u64::from(earlier.trailing_zeros()) + 1);
        earlier &= earlier.wrapping_sub(1);
        distance
    })
}

/// The highest layers to forward of `encoding`, on the way to `target`.
fn limit(kind: Kind, encoding: u8, target: Layer, old: Layer) -> Layer {
    if kind == Kind::Svc {
        return Layer { spatial: target.spatial.min(MAX_LAYERS - 1), ..target };
    }
    let temporal = match target.spatial.cmp(&encoding) {
        core::cmp::Ordering::Equal => target.temporal,
        // Until the lower encoding begins, at least as little as it will be.
        core::cmp::Ordering::Less => old.temporal.min(target.temporal),
        // Until the higher encoding begins, no worse than before.
        core::cmp::Ordering::Greater => old.temporal,
    };
    Layer { spatial: MAX_LAYERS - 1, temporal }
}
