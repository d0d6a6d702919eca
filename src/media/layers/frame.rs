//! What one packet says about its frame, the same for every codec.

use crate::id::Codec;
use crate::wire::{av1, dependency, h264, vp8, vp9};

/// Most layers of either sort that are told apart: VP9 numbers them with 3 bits.
pub(super) const MAX_LAYERS: u8 = 8;

/// One packet's frame. In a layered picture (VP9, AV1) each spatial layer has its own frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// The frame begins in this packet. Not known for H.264 without dependency descriptor, except for key frames.
    pub begins_frame: bool,
    /// The frame ends in this packet.
    pub ends_frame: bool,
    /// Decoding can begin with this packet: it is the first of a key frame.
    pub key_frame: bool,
    /// What decoding needs besides frames is here: always, but for an H.264 key frame whose parameter sets came in
    /// an earlier packet.
    pub self_contained: bool,
    /// Spatial layer within the encoding, 0 to 7.
    pub spatial: u8,
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// The picture's or frame's number; without it no layer can be left out.
    pub number: Option<Number>,
    /// Each frame has a number of its own, not only each picture.
    pub numbered_by_frame: bool,
    /// What the frame refers to.
    pub references: References,
    /// It also refers to the next lower spatial layer of its picture; only said where pictures are numbered.
    pub inter_layer: bool,
    /// Counts the frames of temporal layer 0.
    pub tl0: Option<u8>,
    /// The frame number of the dependency descriptor.
    pub dependency_number: Option<u16>,
}

/// A number that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The number as it stands on the wire.
    pub value: u16,
    /// Its width: 7, 15 or 16 bits.
    pub bits: u8,
}

/// What a frame refers to, as far as its packets say, besides lower spatial layers of its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// Anything before it in its own and lower temporal layers.
    Unknown,
    /// Frames of lower temporal layers only: its layer may be taken up here.
    Below,
    /// These frames and no others.
    Listed {
        /// Bit `n`: the frame whose number is lower by `n + 1`; with picture numbers, its frame of the same spatial
        /// layer.
        earlier: u64,
        /// It also refers to frames further back.
        far: bool,
    },
}

/// What an encoding's packets said about its structure: the room keeps one per encoding.
#[derive(Clone, Debug, Default)]
pub struct Structure {
    /// From dependency descriptors.
    pub dependency: Option<dependency::Structure>,
    /// The decode targets that the publisher sends, a bit each; `None` until a descriptor says so.
    active_targets: Option<u32>,
    /// The repeating pattern of VP9's non-flexible mode, and the picture that announced it.
    group: Option<(vp9::Group, Number)>,
    /// The last picture with a frame that refers to no earlier picture: from it on, only a pattern counts that it
    /// announced itself, or a later one.
    fresh: Option<Number>,
}

impl References {
    /// No references at all.
    pub const NONE: Self = Self::Listed { earlier: 0, far: false };
}

impl Structure {
    /// The decode targets that the publisher sends and that need no layer above these, a bit each. `None`
    /// without dependency descriptors.
    pub fn targets_within(&self, spatial: u8, temporal: u8) -> Option<u32> {
        let sent = self.active_targets.unwrap_or(u32::MAX);
        Some(self.dependency.as_ref()?.targets_within(spatial, temporal) & sent)
    }

    /// The references of picture `number` by the pattern that the stream announced, as distances. `None` if it may
    /// be another picture's pattern, because the packet with its own is missing.
    fn pattern(
        &mut self,
        descriptor: &vp9::Descriptor,
        payload: &[u8],
        number: Number,
        temporal: u8,
    ) -> Option<[u8; 3]> {
        if self.fresh.is_some_and(|fresh| number.is_long_after(fresh)) {
            self.fresh = None;
        }
        let is_recent = self.fresh.is_none_or(|fresh| number.is_at_or_after(fresh));
        if is_recent && !descriptor.inter_picture {
            self.fresh = Some(number);
        }
        if is_recent && let Some(group) = descriptor.group(payload) {
            self.group = Some((group, number));
        }
        let (group, at) = self.group.as_mut()?;
        let is_current = self.fresh.is_none_or(|fresh| at.is_at_or_after(fresh));
        if is_current && !number.is_at_or_after(*at) {
            // A picture from before the pattern that comes late.
            return None;
        }
        let picture = group.picture(number.since(*at));
        if !is_current || picture.temporal != temporal {
            self.group = None;
            return None;
        }
        // The anchor follows, so that it never lies half the circle back.
        let rounds = number.since(*at) / u16::from(group.period());
        at.value = at.value.wrapping_add(rounds.saturating_sub(1) * u16::from(group.period()));
        at.value &= at.mask();
        Some(picture.references)
    }
}

impl Number {
    /// How far `self` lies after `other`, in `0..2^bits`.
    fn since(self, other: Self) -> u16 {
        self.value.wrapping_sub(other.value) & self.mask()
    }

    fn is_at_or_after(self, other: Self) -> bool {
        self.since(other) <= self.mask() / 2
    }

    /// Too far after `other` to have overtaken it, yet not so far as to be taken for an earlier one.
    fn is_long_after(self, other: Self) -> bool {
        (self.mask() / 4..=self.mask() / 2).contains(&self.since(other))
    }

    fn mask(self) -> u16 {
        u16::MAX >> (16 - u16::from(self.bits))
    }
}

impl From<vp8::PictureId> for Number {
    fn from(id: vp8::PictureId) -> Self {
        Self { value: id.value, bits: if id.long { 15 } else { 7 } }
    }
}

impl FrameInfo {
    /// Reads a packet's payload and its dependency descriptor, if it has one; `structure` is its encoding's, and
    /// learns from the packets that announce one. What is malformed counts as absent.
    ///
    /// VP8 and VP9 tell their layers in the payload; the descriptor serves AV1 and H.264.
    pub fn read(
        codec: Codec,
        payload: &[u8],
        marker: bool,
        dependency: Option<&[u8]>,
        structure: &mut Structure,
    ) -> Self {
        let mut frame = Self::plain(marker);
        let element = dependency.unwrap_or_default();
        frame.dependency_number =
            dependency::Descriptor::parse(element).ok().map(|descriptor| descriptor.frame_number);
        match codec {
            Codec::Vp8 => frame.read_vp8(payload),
            Codec::Vp9 => frame.read_vp9(payload, structure),
            Codec::Av1 => {
                frame.key_frame = av1::is_key_frame_start(payload);
                frame.read_dependency(element, structure);
            }
            Codec::H264 => {
                let found = h264::Descriptor::parse(payload);
                frame.key_frame = found.is_ok_and(|found| found.is_key_frame_start());
                frame.self_contained = found.is_ok_and(|found| found.has_parameter_set);
                frame.read_dependency(element, structure);
            }
            Codec::Opus => {
                (frame.begins_frame, frame.ends_frame, frame.key_frame) = (true, true, true);
            }
        }
        frame.begins_frame |= frame.key_frame;
        frame
    }

    fn plain(marker: bool) -> Self {
        Self {
            begins_frame: false,
            ends_frame: marker,
            key_frame: false,
            self_contained: true,
            spatial: 0,
            temporal: 0,
            number: None,
            numbered_by_frame: false,
            references: References::Unknown,
            inter_layer: false,
            tl0: None,
            dependency_number: None,
        }
    }

    fn read_vp8(&mut self, payload: &[u8]) {
        let Ok(descriptor) = vp8::Descriptor::parse(payload) else { return };
        self.begins_frame = descriptor.is_frame_start();
        self.key_frame = vp8::is_key_frame_start(payload);
        self.tl0 = descriptor.tl0_picture_index;
        let Some(picture_id) = descriptor.picture_id else { return };
        self.number = Some(picture_id.into());
        if self.key_frame {
            self.references = References::NONE;
        } else if let Some(temporal) = descriptor.temporal {
            self.temporal = temporal.id;
            // Layer 0 has nothing below it; there the bit would mean nothing.
            if temporal.sync && temporal.id > 0 {
                self.references = References::Below;
            }
        }
    }

    fn read_vp9(&mut self, payload: &[u8], structure: &mut Structure) {
        let Ok(descriptor) = vp9::Descriptor::parse(payload) else { return };
        self.begins_frame = descriptor.frame_start;
        self.ends_frame = descriptor.frame_end;
        self.key_frame = vp9::is_key_frame_start(payload);
        let Some(number) = descriptor.picture_id.map(Number::from) else { return };
        self.number = Some(number);
        let mut switching_up = false;
        if let Some(layer) = descriptor.layer {
            (self.spatial, self.temporal) = (layer.spatial, layer.temporal);
            self.tl0 = layer.tl0_picture_index;
            self.inter_layer = layer.inter_layer && layer.spatial > 0;
            switching_up = layer.switching_up && layer.temporal > 0;
        }
        let pattern = structure.pattern(&descriptor, payload, number, self.temporal);
        let listed = if !descriptor.inter_picture {
            Some([0; 3])
        } else if descriptor.flexible {
            Some(descriptor.references)
        } else {
            pattern
        };
        self.references = match listed {
            Some(distances) => listed_pictures(distances),
            // RFC 9628 promises this for layers above the picture's own; encoders set the bit where the
            // picture itself refers to lower layers only.
            None if switching_up => References::Below,
            None => References::Unknown,
        };
    }

    fn read_dependency(&mut self, element: &[u8], structure: &mut Structure) {
        let Ok(found) = dependency::Frame::read(element, &mut structure.dependency) else { return };
        structure.active_targets = found.active_targets.or(structure.active_targets);
        let descriptor = found.descriptor;
        self.begins_frame = descriptor.frame_start;
        self.ends_frame = descriptor.frame_end;
        let has_references = found.references != 0 || found.refers_far;
        self.key_frame &= descriptor.frame_start && !has_references && found.spatial == 0;
        (self.spatial, self.temporal) = (found.spatial, found.temporal);
        self.number = Some(Number { value: descriptor.frame_number, bits: 16 });
        self.numbered_by_frame = true;
        self.references = References::Listed { earlier: found.references, far: found.refers_far };
    }
}

/// Distances in pictures, of which 0 stands for none, as a mask.
fn listed_pictures(distances: [u8; 3]) -> References {
    let (mut earlier, mut far) = (0, false);
    for distance in distances.into_iter().filter(|distance| *distance > 0) {
        match 1u64.checked_shl(u32::from(distance) - 1) {
            Some(bit) => earlier |= bit,
            None => far = true,
        }
    }
    References::Listed { earlier, far }
}
