//! VP8 payload descriptor and payload header (RFC 7741 §4.2 and §4.3).

use crate::wire::Result;
use crate::wire::cursor::Reader;

/// The bytes that begin the frame header of a key frame (RFC 6386 §9.1).
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

/// What stands in front of a packet's piece of VP8 frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// No other frame refers to this one: it may be dropped (N).
    pub non_reference: bool,
    /// The packet begins a partition (S).
    pub partition_start: bool,
    /// Which partition, 0 to 7 (PID).
    pub partition: u8,
    /// The frame's number.
    pub picture_id: Option<PictureId>,
    /// Counts the frames of temporal layer 0.
    pub tl0_picture_index: Option<u8>,
    /// The frame's temporal layer.
    pub temporal: Option<Temporal>,
    /// Tells which key frame this frame descends from, 0 to 31.
    pub key_index: Option<u8>,
    /// Bytes from the payload's start to the VP8 data.
    pub len: usize,
}

/// A frame's number, of 7 or 15 bits; VP9 has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// The number.
    pub value: u16,
    /// Whether it is written with 15 bits.
    pub long: bool,
}

/// A frame's temporal layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temporal {
    /// The layer, 0 to 3.
    pub id: u8,
    /// The frame refers to layer 0 only: one may switch up to its layer here (Y).
    pub sync: bool,
}

impl PictureId {
    /// RFC 7741 §4.2 and RFC 9628 §4.2: the first bit says whether another byte follows.
    pub(in crate::wire) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let first = reader.u8()?;
        if first & 0x80 == 0 {
            return Ok(Self { value: first.into(), long: false });
        }
        let value = u16::from_be_bytes([first & 0x7f, reader.u8()?]);
        Ok(Self { value, long: true })
    }

    /// Adds `shift` to the number that `bytes` begin with, which keeps its width. Returns the number's
    /// length in bytes, `None` if it is cut off.
    pub(in crate::wire) fn shift(bytes: &mut [u8], shift: u16) -> Option<usize> {
        match bytes {
            [first, ..] if *first & 0x80 == 0 => {
                *first = first.wrapping_add(shift as u8) & 0x7f;
                Some(1)
            }
            [first, second, ..] => {
                let value = u16::from_be_bytes([*first, *second]).wrapping_add(shift) | 0x8000;
                [*first, *second] = value.to_be_bytes();
                Some(2)
            }
            _ => None,
        }
    }
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let extended = if first & 0x80 != 0 { reader.u8()? } else { 0 };
        let [has_picture_id, has_tl0, has_temporal, has_key_index] =
            [0x80, 0x40, 0x20, 0x10].map(|bit| extended & bit != 0);
        let picture_id = if has_picture_id { Some(PictureId::read(&mut reader)?) } else { None };
        let tl0_picture_index = if has_tl0 { Some(reader.u8()?) } else { None };
        let layers = if has_temporal || has_key_index { reader.u8()? } else { 0 };
        Ok(Self {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id,
            tl0_picture_index,
            temporal: has_temporal
                .then_some(Temporal { id: layers >> 6, sync: layers & 0x20 != 0 }),
            key_index: has_key_index.then_some(layers & 0x1f),
            len: payload.len() - reader.rest().len(),
        })
    }

    /// Whether the packet begins a frame.
    pub const fn is_frame_start(&self) -> bool {
        self.partition_start && self.partition == 0
    }
}

/// Adds to a payload's picture id (which stays as wide as it is) and TL0PICIDX, in place: one outgoing stream
/// counts on whatever is left out of it and wherever it comes from. What is absent stays absent.
pub fn rewrite(payload: &mut [u8], picture_shift: u16, tl0_shift: u8) {
    let [first, extended, rest @ ..] = payload else { return };
    if *first & 0x80 == 0 {
        return;
    }
    let [has_picture_id, has_tl0] = [0x80, 0x40].map(|bit| *extended & bit != 0);
    let picture_id = if has_picture_id { PictureId::shift(rest, picture_shift) } else { Some(0) };
    if has_tl0 && let Some(tl0) = picture_id.and_then(|len| rest.get_mut(len)) {
        *tl0 = tl0.wrapping_add(tl0_shift);
    }
}

/// Whether the RTP payload begins a key frame.
pub fn is_key_frame_start(payload: &[u8]) -> bool {
    key_frame(payload).is_some()
}

/// Width and height in pixels, 1 to 16,383, if the RTP payload begins a key frame (RFC 6386 §9.1).
pub fn key_frame_size(payload: &[u8]) -> Option<(u16, u16)> {
    let &[_, _, _, s0, s1, s2, w0, w1, h0, h1, ..] = key_frame(payload)? else { return None };
    let [width, height] = [[w0, w1], [h0, h1]].map(|size| u16::from_le_bytes(size) & 0x3fff);
    ([s0, s1, s2] == START_CODE && width != 0 && height != 0).then_some((width, height))
}

/// The VP8 data, if it begins a key frame: the first bit is clear (RFC 7741 §4.3).
fn key_frame(payload: &[u8]) -> Option<&[u8]> {
    let descriptor = Descriptor::parse(payload).ok()?;
    let data = payload.get(descriptor.len..)?;
    (descriptor.is_frame_start() && data.first()? & 0x01 == 0).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Malformed;

    /// All optional fields, then the start of a 640 x 360 key frame.
    const KEY: [u8; 17] = [
        0x90,
        0xf0,
        0x92,
        0x34,
        7,
        0b0110_0101, // descriptor
        0x10,
        0x02,
        0x00,
        0x9d,
        0x01,
        0x2a,
        0x80,
        0x02,
        0x68,
        0x41,
        0,
    ];

    #[test]
    fn every_optional_field_is_found() {
        let expected = Descriptor {
            non_reference: false,
            partition_start: true,
            partition: 0,
            picture_id: Some(PictureId { value: 0x1234, long: true }),
            tl0_picture_index: Some(7),
            temporal: Some(Temporal { id: 1, sync: true }),
            key_index: Some(5),
            len: 6,
        };
        assert_eq!(Descriptor::parse(&KEY), Ok(expected));
    }

    #[test]
    fn every_combination_of_optional_fields() {
        // RFC 7741 §4.2: I, L, T, K, with a short and a long picture id.
        for flags in 0..16u8 {
            for long in [false, true] {
                let mut payload = vec![0x80, flags << 4];
                if flags & 8 != 0 {
                    payload.extend(if long { &[0x92, 0x34][..] } else { &[0x12] });
                }
                if flags & 4 != 0 {
                    payload.push(7);
                }
                if flags & 3 != 0 {
                    payload.push(0b1001_1111);
                }
                for len in 0..payload.len() {
                    assert_eq!(Descriptor::parse(&payload[..len]), Err(Malformed));
                }
                let found = Descriptor::parse(&payload).unwrap();
                assert_eq!(found.len, payload.len());
                let value = if long { 0x1234 } else { 0x12 };
                let picture_id = (flags & 8 != 0).then_some(PictureId { value, long });
                assert_eq!(found.picture_id, picture_id);
                assert_eq!(found.tl0_picture_index, (flags & 4 != 0).then_some(7));
                let temporal = (flags & 2 != 0).then_some(Temporal { id: 2, sync: false });
                assert_eq!(found.temporal, temporal);
                assert_eq!(found.key_index, (flags & 1 != 0).then_some(31));
            }
        }
    }

    #[test]
    fn the_first_byte_alone() {
        let found = Descriptor::parse(&[0x25]).unwrap();
        assert!(found.non_reference && !found.partition_start && !found.is_frame_start());
        assert_eq!((found.partition, found.len), (5, 1));
    }

    #[test]
    fn key_frames_are_told_by_the_first_bit() {
        // RFC 7741 §4.3: P is 0 in a key frame, and only the first partition has the bit.
        assert!(is_key_frame_start(&KEY));
        let mut delta = KEY;
        delta[6] |= 1;
        assert!(!is_key_frame_start(&delta));
        let mut continuation = KEY;
        continuation[0] &= !0x10;
        assert!(!is_key_frame_start(&continuation));
        let mut second_partition = KEY;
        second_partition[0] |= 1;
        assert!(!is_key_frame_start(&second_partition));
        assert!(!is_key_frame_start(&KEY[..6]), "no data");
    }

    #[test]
    fn numbers_are_shifted_in_place() {
        for flags in 0..16u8 {
            for (id, shifted) in [(&[0x92, 0x34][..], &[0x92, 0x2f][..]), (&[0x03], &[0x7e])] {
                let payload = |id: &[u8], tl0| {
                    let mut payload = vec![0x80, flags << 4];
                    payload.extend_from_slice(if flags & 8 != 0 { id } else { &[] });
                    payload.extend((flags & 4 != 0).then_some(tl0));
                    payload.extend([0x55; 4]);
                    payload
                };
                let mut found = payload(id, 254);
                rewrite(&mut found, 0u16.wrapping_sub(5), 3);
                assert_eq!(found, payload(shifted, 1), "flags {flags}");
                for len in 0..found.len() {
                    rewrite(&mut found[..len], 1, 1);
                }
            }
        }
        let mut bare = [0x10, 0xff, 0xff, 0xff];
        rewrite(&mut bare, 1, 1);
        assert_eq!(bare, [0x10, 0xff, 0xff, 0xff], "no extension");
    }

    #[test]
    fn a_long_picture_id_wraps_at_15_bits() {
        // RFC 7741 §4.2.
        let mut payload = [0x80, 0x80, 0xff, 0xff, 0x00];
        rewrite(&mut payload, 2, 0);
        assert_eq!(payload, [0x80, 0x80, 0x80, 0x01, 0x00]);
    }

    #[test]
    fn a_key_frame_tells_its_size() {
        // RFC 6386 §9.1: 14 bits each, little endian; the upper two bits are a scale.
        assert_eq!(key_frame_size(&KEY), Some((640, 360)));
        assert_eq!(key_frame_size(&KEY[..15]), None);
        let mut wrong_code = KEY;
        wrong_code[9] = 0;
        assert_eq!(key_frame_size(&wrong_code), None);
    }
}
