//! A decoder's view of one stream: does each frame find what it refers to, and do the numbers go on?
//!
//! It takes packets of [`super::streams`] in the order of their outgoing sequence numbers, and is told where
//! some are missing. It panics at the first fault that no loss explains.

use std::collections::{BTreeMap, BTreeSet};

use super::streams::{Format, Stamp};
use super::wire::{dependency, vp8, vp9};

/// One consumer's decoder.
pub struct Decoder {
    format: Format,
    /// Frames that were decoded, and those that a loss damaged, by encoding and frame.
    decoded: BTreeSet<(u8, u32)>,
    damaged: BTreeSet<(u8, u32)>,
    /// Frames between which something was lost.
    gaps: Vec<Gap>,
    /// The frame whose packets are coming.
    partial: Option<Partial>,
    /// A packet is missing in front of the next one.
    lost: bool,
    numbers: Option<Numbers>,
    /// What is added to the true numbers since the last switch.
    shift: Option<Shift>,
    picture: Option<Picture>,
    /// Decoded frames by encoding, spatial and temporal layer.
    pub frames: BTreeMap<(u8, u8, u8), usize>,
    pub switches: usize,
}

struct Gap {
    encoding: u8,
    from: u32,
    to: u32,
}

struct Partial {
    stamp: Stamp,
    /// Packets so far, and whether some are missing.
    packets: u8,
    damaged: bool,
}

/// The numbers of the packet before.
#[derive(Clone, Copy)]
struct Numbers {
    picture: u16,
    bits: u8,
    tl0: Option<u8>,
    frame: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    picture: u16,
    frame: u16,
}

struct Picture {
    number: u32,
    encoding: u8,
    /// Its last frame so far.
    frame: u32,
    damaged: bool,
    /// Whether the last packet had the marker bit.
    ended: bool,
}

impl Decoder {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            decoded: BTreeSet::new(),
            damaged: BTreeSet::new(),
            gaps: Vec::new(),
            partial: None,
            lost: false,
            numbers: None,
            shift: None,
            picture: None,
            frames: BTreeMap::new(),
            switches: 0,
        }
    }

    /// A sequence number is missing.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Something was left out after it had been counted on: the picture may lack its end.
    pub fn miss(&mut self) {
        if let Some(picture) = &mut self.picture {
            picture.damaged = true;
        }
    }

    /// The next packet. `switch`: it is the first of a source, so that everything before may be cut short.
    pub fn receive(&mut self, marker: bool, payload: &[u8], element: Option<&[u8]>, switch: bool) {
        let stamp = Stamp::read(payload);
        if switch {
            let begins = stamp.key && stamp.index == 0 && stamp.spatial == 0;
            assert!(begins || self.lost, "{stamp:?} begins nothing");
            self.finish(true);
            self.shift = None;
            self.picture = None;
            self.switches += 1;
        }
        self.note_gap(&stamp, switch);
        self.check_picture(&stamp, marker);
        let lost = std::mem::take(&mut self.lost);
        self.check_numbers(&stamp, payload, element, lost, switch);
        self.collect(stamp, lost);
    }

    /// The stream is over.
    pub fn end(&mut self) {
        self.finish(true);
    }

    fn note_gap(&mut self, stamp: &Stamp, switch: bool) {
        if !self.lost {
            return;
        }
        let before = self.partial.as_ref().map(|partial| &partial.stamp).filter(|_| !switch);
        let from = before.map_or(0, |before| before.frame);
        self.gaps.push(Gap { encoding: stamp.encoding, from, to: stamp.frame });
    }

    /// Whether a picture or frame has the number behind the last one's.
    fn counts_on(&self, numbers: &Numbers, mask: u16) -> bool {
        self.numbers.as_ref().is_some_and(|before| match (numbers.frame, before.frame) {
            (Some(frame), Some(last)) => frame == last.wrapping_add(1),
            _ => numbers.picture.wrapping_sub(before.picture) & mask == 1,
        })
    }

    /// The marker bit ends each picture, and stands nowhere else: but a picture that gains a layer has one
    /// in front of it too.
    fn check_picture(&mut self, stamp: &Stamp, marker: bool) {
        if let Some(picture) = &mut self.picture
            && picture.number == stamp.picture
            && picture.encoding == stamp.encoding
        {
            picture.damaged |= self.lost;
            let gains = stamp.frame != picture.frame && stamp.spatial > 0;
            assert!(!picture.ended || gains, "a marker inside of a picture: {stamp:?}");
            (picture.ended, picture.frame) = (marker, stamp.frame);
            return;
        }
        if let Some(before) = &self.picture {
            let excused = before.damaged || self.lost;
            assert!(before.ended || excused, "no marker before {stamp:?}");
        }
        self.picture = Some(Picture {
            number: stamp.picture,
            encoding: stamp.encoding,
            frame: stamp.frame,
            damaged: self.lost,
            ended: marker,
        });
    }

    fn check_numbers(
        &mut self,
        stamp: &Stamp,
        payload: &[u8],
        element: Option<&[u8]>,
        lost: bool,
        switch: bool,
    ) {
        let numbers = self.read_numbers(payload, element);
        let mask = u16::MAX >> (16 - u16::from(numbers.bits));
        let shift = Shift {
            picture: numbers.picture.wrapping_sub(stamp.picture as u16) & mask,
            frame: numbers.frame.unwrap_or(0).wrapping_sub(stamp.frame as u16),
        };
        if self.format != Format::Vp8 {
            if stamp.key && stamp.index == 0 && self.counts_on(&numbers, mask) {
                // A replay may be given up for a newer key frame, where the stream goes on as behind a switch.
                self.shift = None;
            }
            // References are distances, so the numbers of one source may only move together.
            let expected = *self.shift.get_or_insert(shift);
            assert!(numbers.picture == 0 || shift.picture == expected.picture, "{stamp:?}");
            assert!(numbers.frame.is_none() || shift.frame == expected.frame, "{stamp:?}");
        }
        if let Some(before) = self.numbers {
            let step = numbers.picture.wrapping_sub(before.picture) & mask;
            let is_same = self.partial.as_ref().is_some_and(|partial| {
                (partial.stamp.encoding, partial.stamp.picture) == (stamp.encoding, stamp.picture)
            });
            let forward = step < mask / 2;
            match self.format {
                Format::H264 => {}
                _ if is_same && !switch => assert_eq!(step, 0, "{stamp:?}"),
                Format::Vp8 if !lost => assert_eq!(step, 1, "picture ids leave no gap: {stamp:?}"),
                _ if switch && !lost && !self.format.is_described() => {
                    assert_eq!(step, 1, "the new source counts on: {stamp:?}");
                }
                Format::Av1 | Format::H264Layered => {
                    let step = numbers.frame.unwrap_or(0).wrapping_sub(before.frame.unwrap_or(0));
                    assert!(step < 0x8000, "frame numbers go on: {stamp:?}");
                    assert!(!switch || lost || step == 1, "the new source counts on: {stamp:?}");
                }
                _ => assert!(forward, "picture ids go on: {stamp:?}"),
            }
            if let (Some(tl0), Some(old), false, false) = (numbers.tl0, before.tl0, lost, is_same) {
                let step = tl0.wrapping_sub(old);
                let expected = u8::from(stamp.temporal == 0);
                assert_eq!(step, expected, "TL0PICIDX counts layer 0: {stamp:?}");
            }
        }
        self.numbers = Some(numbers);
    }

    fn read_numbers(&self, payload: &[u8], element: Option<&[u8]>) -> Numbers {
        let (id, tl0) = match self.format {
            Format::Vp8 => {
                let found = vp8::Descriptor::parse(payload).expect("a descriptor");
                (found.picture_id, found.tl0_picture_index)
            }
            Format::Vp9Flexible | Format::Vp9Pattern => {
                let found = vp9::Descriptor::parse(payload).expect("a descriptor");
                (found.picture_id, found.layer.and_then(|layer| layer.tl0_picture_index))
            }
            Format::Av1 | Format::H264 | Format::H264Layered => (None, None),
        };
        let frame = element
            .map(|data| dependency::Descriptor::parse(data).expect("a descriptor").frame_number);
        let (picture, bits) = id.map_or((0, 15), |id| (id.value, if id.long { 15 } else { 7 }));
        Numbers { picture, bits, tl0, frame }
    }

    fn collect(&mut self, stamp: Stamp, lost: bool) {
        let key = (stamp.encoding, stamp.frame);
        if let Some(partial) = &mut self.partial
            && (partial.stamp.encoding, partial.stamp.frame) == key
        {
            partial.packets += 1;
            partial.damaged |= lost;
            return;
        }
        if let Some(partial) = &mut self.partial {
            partial.damaged |= lost;
        }
        self.finish(false);
        self.partial = Some(Partial { packets: 1, damaged: lost, stamp });
    }

    /// All packets of a frame that will come have come.
    fn finish(&mut self, cut: bool) {
        let Some(Partial { stamp, packets, damaged }) = self.partial.take() else { return };
        let key = (stamp.encoding, stamp.frame);
        if packets != stamp.count {
            assert!(damaged || cut, "a part of a frame was left out: {stamp:?}");
            self.damaged.insert(key);
            return;
        }
        for reference in &stamp.references {
            if self.decoded.contains(&(stamp.encoding, *reference)) {
                continue;
            }
            let is_damaged = self.damaged.contains(&(stamp.encoding, *reference))
                || self.gaps.iter().any(|gap| {
                    gap.encoding == stamp.encoding && (gap.from..=gap.to).contains(reference)
                });
            assert!(is_damaged, "frame {reference} is missing: {stamp:?}");
            self.damaged.insert(key);
            return;
        }
        self.decoded.insert(key);
        *self.frames.entry((stamp.encoding, stamp.spatial, stamp.temporal)).or_default() += 1;
    }
}
