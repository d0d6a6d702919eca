//! VP9 payload descriptor (RFC 9628 §4.2).

use crate::wire::cursor::Reader;
use crate::wire::vp8::PictureId;
use crate::wire::{Malformed, Result};

/// Most reference frames that a descriptor may list (RFC 9628 §4.2, P_DIFF).
const MAX_REFERENCES: usize = 3;

/// Longest group of pictures whose references are kept; encoders repeat every 1 to 8 pictures.
pub const MAX_GROUP: usize = 16;

/// What stands in front of a packet's piece of VP9 layer frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The frame's number (I).
    pub picture_id: Option<PictureId>,
    /// The frame refers to earlier pictures (P).
    pub inter_picture: bool,
    /// The frame's layers (L).
    pub layer: Option<Layer>,
    /// References are listed in each packet (F); otherwise they follow a fixed pattern.
    pub flexible: bool,
    /// In flexible mode, how many pictures back each reference lies, 1 to 127 (P_DIFF); 0 where there
    /// is none.
    pub references: [u8; MAX_REFERENCES],
    /// The packet begins a layer frame (B).
    pub frame_start: bool,
    /// The packet ends a layer frame (E).
    pub frame_end: bool,
    /// No higher spatial layer of the picture refers to this frame (Z).
    pub not_referenced_above: bool,
    /// The number of spatial layers, 1 to 8, where the packet tells the stream's structure (V).
    pub spatial_layers: Option<u8>,
    /// Where that structure begins.
    structure_at: Option<usize>,
    /// Bytes from the payload's start to the VP9 data.
    pub len: usize,
}

/// The layers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Temporal layer, 0 to 7 (TID).
    pub temporal: u8,
    /// Later frames of this layer do not refer to earlier ones of it: one may switch up here (U).
    pub switching_up: bool,
    /// Spatial layer, 0 to 7 (SID).
    pub spatial: u8,
    /// The frame refers to the next lower spatial layer of its picture (D).
    pub inter_layer: bool,
    /// Counts the frames of temporal layer 0; absent in flexible mode.
    pub tl0_picture_index: Option<u8>,
}

/// The pattern of references that a stream repeats when it is not in flexible mode (RFC 9628 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pictures: [GroupPicture; MAX_GROUP],
    len: u8,
}

/// One picture of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupPicture {
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// How many pictures back each reference lies; 0 where there is none.
    pub references: [u8; MAX_REFERENCES],
}

impl Group {
    /// The number of pictures after which the pattern repeats, 1 to 16.
    pub fn period(&self) -> u8 {
        self.len
    }

    /// The picture that comes `distance` pictures after the one that announced the group.
    pub fn picture(&self, distance: u16) -> GroupPicture {
        self.pictures[usize::from(distance) % usize::from(self.len)]
    }
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let [i, p, l, f, b, e, v, z] =
            [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01].map(|bit| first & bit != 0);
        let picture_id = if i { Some(PictureId::read(&mut reader)?) } else { None };
        let layer = if l { Some(Layer::read(&mut reader, f)?) } else { None };
        let references = if f && p { read_references(&mut reader)? } else { [0; MAX_REFERENCES] };
        let structure_at = v.then(|| payload.len() - reader.rest().len());
        let spatial_layers = if v { Some(read_structure(&mut reader)?.0) } else { None };
        Ok(Self {
            picture_id,
            inter_picture: p,
            layer,
            flexible: f,
            references,
            frame_start: b,
            frame_end: e,
            not_referenced_above: z,
            spatial_layers,
            structure_at,
            len: payload.len() - reader.rest().len(),
        })
    }

    /// The group of pictures that the packet announces, if it does; `payload` is what this was read from.
    pub fn group(&self, payload: &[u8]) -> Option<Group> {
        let mut reader = Reader::new(payload.get(self.structure_at?..)?);
        read_structure(&mut reader).ok()?.1
    }

    /// Whether the packet begins a picture that refers to no earlier one, in its lowest layer.
    pub fn is_key_frame_start(&self) -> bool {
        let lowest = self.layer.is_none_or(|layer| layer.spatial == 0 && !layer.inter_layer);
        self.frame_start && !self.inter_picture && lowest
    }
}

impl Layer {
    fn read(reader: &mut Reader<'_>, flexible: bool) -> Result<Self> {
        let byte = reader.u8()?;
        let tl0_picture_index = if flexible { None } else { Some(reader.u8()?) };
        Ok(Self {
            temporal: byte >> 5,
            switching_up: byte & 0x10 != 0,
            spatial: byte >> 1 & 0x07,
            inter_layer: byte & 0x01 != 0,
            tl0_picture_index,
        })
    }
}

/// Whether the RTP payload begins a key frame.
pub fn is_key_frame_start(payload: &[u8]) -> bool {
    let descriptor = Descriptor::parse(payload);
    descriptor.is_ok_and(|found| found.is_key_frame_start() && found.len < payload.len())
}

/// Adds to a payload's picture id (which stays as wide as it is) and TL0PICIDX, in place. References count
/// pictures, so one stream's numbers may only be shifted all alike, gaps included. What is absent stays absent.
pub fn rewrite(payload: &mut [u8], picture_shift: u16, tl0_shift: u8) {
    let [first, rest @ ..] = payload else { return };
    let [has_picture_id, has_layer, flexible] = [0x80, 0x20, 0x10].map(|bit| *first & bit != 0);
    let picture_id = if has_picture_id { PictureId::shift(rest, picture_shift) } else { Some(0) };
    // TL0PICIDX stands behind the byte of the layers.
    let tl0 = picture_id.and_then(|len| rest.get_mut(len + 1));
    if let (true, false, Some(tl0)) = (has_layer, flexible, tl0) {
        *tl0 = tl0.wrapping_add(tl0_shift);
    }
}

/// Reads the list of references: 7 bits each, then one that says whether another follows.
fn read_references(reader: &mut Reader<'_>) -> Result<[u8; MAX_REFERENCES]> {
    let mut references = [0; MAX_REFERENCES];
    for reference in &mut references {
        let byte = reader.u8()?;
        *reference = byte >> 1;
        if byte & 0x01 == 0 {
            return Ok(references);
        }
    }
    Err(Malformed)
}

/// Reads the scalability structure (RFC 9628 §4.2.1): the number of spatial layers, and the group of pictures
/// if there is one that is short enough.
fn read_structure(reader: &mut Reader<'_>) -> Result<(u8, Option<Group>)> {
    let head = reader.u8()?;
    let (has_sizes, has_group) = (head & 0x10 != 0, head & 0x08 != 0);
    let spatial_layers = (head >> 5) + 1;
    if has_sizes {
        reader.take(usize::from(spatial_layers) * 4)?;
    }
    let count = if has_group { reader.u8()? } else { 0 };
    let mut group = Group { pictures: [GroupPicture::default(); MAX_GROUP], len: count };
    for index in 0..usize::from(count) {
        let byte = reader.u8()?;
        let distances = reader.take((byte >> 2 & 0x03).into())?;
        let Some(picture) = group.pictures.get_mut(index) else { continue };
        picture.temporal = byte >> 5;
        picture.references[..distances.len()].copy_from_slice(distances);
    }
    let is_kept = (1..=MAX_GROUP).contains(&count.into());
    Ok((spatial_layers, is_kept.then_some(group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key picture's first packet as Chromium sends L3T3: non-flexible, with structure.
    const KEY: [u8; 24] = [
        0b1010_1010, // I, L, B, V
        0x92,
        0x34, // picture id
        0b0001_0000,
        7,           // layers 0/0, switching up; TL0PICIDX
        0b0101_1000, // 3 spatial layers, sizes, group
        0x01,
        0x40,
        0x00,
        0xb4,
        0x02,
        0x80,
        0x01,
        0x68,
        0x05,
        0x00,
        0x02,
        0xd0, // sizes
        2,
        0b0001_0100,
        4,
        0b0100_0000, // group of two pictures, one reference
        0x82,
        0x49,
    ];

    #[test]
    fn every_optional_field_is_found() {
        let expected = Descriptor {
            picture_id: Some(PictureId { value: 0x1234, long: true }),
            inter_picture: false,
            layer: Some(Layer {
                temporal: 0,
                switching_up: true,
                spatial: 0,
                inter_layer: false,
                tl0_picture_index: Some(7),
            }),
            flexible: false,
            references: [0; MAX_REFERENCES],
            frame_start: true,
            frame_end: false,
            not_referenced_above: false,
            spatial_layers: Some(3),
            structure_at: Some(5),
            len: 22,
        };
        assert_eq!(Descriptor::parse(&KEY), Ok(expected));
        assert!(is_key_frame_start(&KEY));
    }

    #[test]
    fn every_cut_inside_the_descriptor_is_malformed() {
        for len in 0..22 {
            assert_eq!(Descriptor::parse(&KEY[..len]), Err(Malformed), "{len} bytes");
        }
        assert!(!is_key_frame_start(&KEY[..22]), "no data");
    }

    #[test]
    fn flexible_mode_lists_up_to_three_references() {
        // RFC 9628 §4.2: no TL0PICIDX in flexible mode; N says whether another P_DIFF follows.
        let found = Descriptor::parse(&[0b0111_0101, 0b0110_0011, 0x03, 0x05, 0x06, 9]).unwrap();
        assert_eq!((found.len, found.references), (5, [1, 2, 3]));
        assert!(found.flexible && found.inter_picture && found.frame_end);
        assert!(found.not_referenced_above && !found.frame_start);
        let layer = Layer {
            temporal: 3,
            switching_up: false,
            spatial: 1,
            inter_layer: true,
            tl0_picture_index: None,
        };
        assert_eq!(found.layer, Some(layer));
        assert_eq!(Descriptor::parse(&[0b0101_0000, 0x03, 0x05, 0x07, 0x08, 9]), Err(Malformed));
    }

    #[test]
    fn only_the_lowest_layer_begins_a_key_picture() {
        let key = |first: u8, layer: u8| is_key_frame_start(&[first, layer, 0, 0x82]);
        assert!(key(0b0010_1000, 0), "B alone");
        assert!(!key(0b0110_1000, 0), "P: refers to earlier pictures");
        assert!(!key(0b0010_0000, 0), "not the first packet");
        assert!(!key(0b0010_1000, 0b0000_0011), "layer 1 of a key picture");
        assert!(is_key_frame_start(&[0b0000_1000, 0x82]), "no layers at all");
    }

    #[test]
    fn a_group_of_pictures_repeats() {
        // RFC 9628 §4.2.1.
        let group = Descriptor::parse(&KEY).unwrap().group(&KEY).unwrap();
        let first = GroupPicture { temporal: 0, references: [4, 0, 0] };
        let second = GroupPicture { temporal: 2, references: [0; 3] };
        assert_eq!([0, 1, 2, 5].map(|at| group.picture(at)), [first, second, first, second]);
        for (count, is_kept) in [(0, false), (16, true), (17, false)] {
            let mut payload = vec![0x0a, 0x08, count];
            payload.extend([0b0010_0100, 1].repeat(count.into()));
            let found = Descriptor::parse(&payload).unwrap();
            assert_eq!((found.len, found.group(&payload).is_some()), (payload.len(), is_kept));
        }
    }

    #[test]
    fn numbers_are_shifted_in_place() {
        for (before, after) in [
            (&[0b1010_1000, 0x92, 0x34, 0x10, 254][..], &[0b1010_1000, 0x92, 0x2f, 0x10, 1][..]),
            (&[0b1010_1000, 0x03, 0x10, 254], &[0b1010_1000, 0x7e, 0x10, 1]),
            (&[0b1011_1000, 0x03, 0x10, 254], &[0b1011_1000, 0x7e, 0x10, 254]),
            (&[0b0010_1000, 0x10, 254], &[0b0010_1000, 0x10, 1]),
            (&[0b1000_1000, 0x80, 0x01, 254], &[0b1000_1000, 0xff, 0xfc, 254]),
            (&[0b0000_1000, 0x80, 0x01], &[0b0000_1000, 0x80, 0x01]),
        ] {
            let mut payload = before.to_vec();
            rewrite(&mut payload, 0u16.wrapping_sub(5), 3);
            assert_eq!(payload, after);
            for len in 0..payload.len() {
                rewrite(&mut payload[..len], 1, 1);
            }
        }
    }

    #[test]
    fn a_short_picture_id_is_one_byte() {
        let found = Descriptor::parse(&[0x80, 0x7f, 9]).unwrap();
        assert_eq!(found.picture_id, Some(PictureId { value: 0x7f, long: false }));
        assert_eq!(found.len, 2);
    }
}
