//! Numbers inside payloads, continuous for each consumer.

use std::num::NonZeroU64;

use crate::id::Codec;
use crate::media::layers::pictures::{WINDOW, extend_or_begin};
use crate::media::layers::{FrameInfo, Verdict};
use crate::wire::{dependency, vp8, vp9};

/// What is added to the numbers of one packet. It is all that a retransmission has to remember to be the
/// same as the packet that was sent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadShift {
    /// Added to the picture id of VP8 and VP9.
    pub picture: u16,
    /// Added to the TL0PICIDX of VP8 and VP9.
    pub tl0: u8,
    /// Added to the dependency descriptor's frame number.
    pub frame: u16,
}

impl PayloadShift {
    /// Renumbers a payload in place. Its length and everything else stay.
    pub fn apply(self, codec: Codec, payload: &mut [u8]) {
        match codec {
            Codec::Vp8 => vp8::rewrite(payload, self.picture, self.tl0),
            Codec::Vp9 => vp9::rewrite(payload, self.picture, self.tl0),
            Codec::Av1 | Codec::H264 | Codec::Opus => {}
        }
    }

    /// Renumbers the data of a dependency descriptor element in place.
    pub fn apply_dependency(self, element: &mut [u8]) {
        dependency::shift_frame_number(element, self.frame);
    }
}

/// Tracks the [`PayloadShift`] of one consumer's stream.
///
/// After a switch the numbers go on from the highest ones sent. VP8's picture ids also close up over frames
/// that are left out: receivers take a gap for a loss and wait. VP9's picture ids and the descriptor's frame
/// numbers keep their gaps, because references are distances between them.
#[derive(Clone, Debug)]
pub struct PictureIds {
    closes_gaps: bool,
    /// Highest picture number of the current source, extended; `None` until the next switch.
    newest: Option<NonZeroU64>,
    /// Bit `n`: picture `newest - n` closed a gap, so that those behind it are shifted by one less.
    closed: u64,
    /// The shift of pictures after the newest.
    next_shift: u16,
    tl0_shift: u8,
    frame_shift: u16,
    /// Highest numbers sent.
    sent: Option<Sent>,
}

/// The highest numbers that were sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    picture: u16,
    tl0: u8,
    frame: u16,
}

impl PictureIds {
    /// A stream of `codec` that has not begun.
    pub fn new(codec: Codec) -> Self {
        Self {
            closes_gaps: codec == Codec::Vp8,
            newest: None,
            closed: 0,
            next_shift: 0,
            tl0_shift: 0,
            frame_shift: 0,
            sent: None,
        }
    }

    /// Takes note of a packet and its verdict, and returns what to add to its numbers if it is sent; if it is skipped,
    /// what to add to those of the pictures behind it. To be asked once for every packet, in the order of the verdicts.
    pub fn shift(&mut self, frame: &FrameInfo, verdict: Verdict) -> PayloadShift {
        match verdict {
            Verdict::Ignore => PayloadShift::default(),
            Verdict::Skip => {
                self.skip(frame);
                self.payload(self.next_shift)
            }
            Verdict::Forward { switch, .. } => {
                if switch {
                    self.begin(frame);
                }
                self.forward(frame)
            }
        }
    }

    /// The stream goes on with `frame`, whatever its numbers are.
    fn begin(&mut self, frame: &FrameInfo) {
        (self.newest, self.closed) = (None, 0);
        let Some(sent) = self.sent else { return };
        let after = |sent: u16, value: Option<u16>| {
            value.map_or(0, |value| sent.wrapping_add(1).wrapping_sub(value))
        };
        self.next_shift = after(sent.picture, frame.number.map(|number| number.value));
        self.frame_shift = after(sent.frame, frame.dependency_number);
        self.tl0_shift = frame.tl0.map_or(0, |tl0| sent.tl0.wrapping_add(1).wrapping_sub(tl0));
    }

    fn forward(&mut self, frame: &FrameInfo) -> PayloadShift {
        let mut picture = self.note(frame);
        if picture.is_none() && frame.number.is_some() {
            // So old a frame is never forwarded: the encoder has begun to count anew.
            self.begin(frame);
            picture = self.note(frame);
        }
        let picture = picture.unwrap_or(self.next_shift);
        let shift = self.payload(picture);
        let number = frame.number.map_or(0, |number| number.value).wrapping_add(picture);
        let tl0 = frame.tl0.unwrap_or(0).wrapping_add(shift.tl0);
        let dependency = frame.dependency_number.unwrap_or(0).wrapping_add(shift.frame);
        let sent = self.sent.get_or_insert(Sent { picture: number, tl0, frame: dependency });
        let bits = frame.number.map_or(15, |number| number.bits);
        sent.picture = later(sent.picture, number, bits);
        sent.tl0 = later(sent.tl0.into(), tl0.into(), 8) as u8;
        sent.frame = later(sent.frame, dependency, 16);
        shift
    }

    fn payload(&self, picture: u16) -> PayloadShift {
        PayloadShift { picture, tl0: self.tl0_shift, frame: self.frame_shift }
    }

    fn skip(&mut self, frame: &FrameInfo) {
        let before = self.newest;
        self.note(frame);
        if self.closes_gaps && self.newest != before {
            self.next_shift = self.next_shift.wrapping_sub(1);
            self.closed |= 1;
        }
    }

    /// The shift of the frame's picture; a new picture, and those missing before it, get the next one. `None`
    /// without a number, or if it is too old.
    fn note(&mut self, frame: &FrameInfo) -> Option<u16> {
        let number = frame.number?;
        let extended = extend_or_begin(self.newest, number);
        let first_new = self.newest.map_or(extended, |newest| newest.get() + 1);
        if extended >= first_new {
            let passed = u32::try_from(extended + 1 - first_new).unwrap_or(u32::MAX);
            self.closed = self.closed.checked_shl(passed).unwrap_or(0);
            self.newest = NonZeroU64::new(extended);
        }
        let age =
            u32::try_from(self.newest?.get() - extended).ok().filter(|age| *age < WINDOW as u32)?;
        // Each gap that was closed from this picture on has lowered the next one's shift.
        let since = self.closed & (u64::MAX >> (u64::BITS - 1 - age));
        Some(self.next_shift.wrapping_add(since.count_ones() as u16))
    }
}

/// The later of two numbers of `bits` bits.
fn later(old: u16, new: u16, bits: u8) -> u16 {
    let unused = 16 - u32::from(bits);
    let distance = (new.wrapping_sub(old) << unused) as i16;
    if distance > 0 { new } else { old }
}
