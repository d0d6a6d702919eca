//! AV1 payloads (RTP Payload Format For AV1, AOMedia, §4.4 and §4.5).

use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Most OBU elements of one packet. A temporal unit has a few per layer; 1,500 bytes could hold 750.
pub const MAX_ELEMENTS: usize = 64;

/// Longest length field, in bytes (AV1 bitstream specification §4.10.5).
const MAX_LEB128_LEN: u32 = 8;
/// The OBU type that begins a coded video sequence (AV1 bitstream specification §6.2.2).
const OBU_SEQUENCE_HEADER: u8 = 1;

/// What an RTP payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The first element goes on with an OBU of the packet before (Z).
    pub continues: bool,
    /// The last element goes on in the next packet (Y).
    pub continued: bool,
    /// The packet is the first of a coded video sequence, which begins with a key frame (N).
    pub new_sequence: bool,
    /// A sequence header begins here.
    pub has_sequence_header: bool,
    /// The layers of the first OBU that begins here, if it tells them.
    pub layer: Option<Layer>,
}

/// The layers that an OBU's extension header tells (AV1 bitstream specification §5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// Spatial layer, 0 to 3.
    pub spatial: u8,
}

impl Descriptor {
    /// Reads the aggregation header and walks the OBU elements of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        let mut found = Self {
            continues: header & 0x80 != 0,
            continued: header & 0x40 != 0,
            new_sequence: header & 0x08 != 0,
            has_sequence_header: false,
            layer: None,
        };
        // A sequence cannot begin in the middle of an OBU (§4.4).
        if found.continues && found.new_sequence {
            return Err(Malformed);
        }
        let announced = usize::from(header >> 4 & 0x03);
        let mut is_empty = true;
        for index in 0..MAX_ELEMENTS {
            let element = read_element(&mut reader, index + 1 == announced)?;
            is_empty &= element.is_empty();
            if index > 0 || !found.continues {
                found.note(element);
            }
            let done = if announced == 0 { reader.is_empty() } else { index + 1 == announced };
            if done {
                return if is_empty { Err(Malformed) } else { Ok(found) };
            }
        }
        Err(Malformed)
    }

    /// Whether decoding can begin here.
    pub const fn is_key_frame_start(&self) -> bool {
        self.new_sequence || self.has_sequence_header
    }

    /// Reads the header of an OBU that begins here. An element may be a fragment of any length,
    /// even an empty one, so parts of the header may be missing.
    fn note(&mut self, element: &[u8]) {
        let Some(header) = element.first() else { return };
        self.has_sequence_header |= header >> 3 & 0x0f == OBU_SEQUENCE_HEADER;
        if header & 0x04 != 0
            && let Some(extension) = element.get(1)
        {
            let layer = Layer { temporal: extension >> 5, spatial: extension >> 3 & 0x03 };
            self.layer = self.layer.or(Some(layer));
        }
    }
}

/// Whether the RTP payload begins a key frame.
pub fn is_key_frame_start(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_ok_and(|found| found.is_key_frame_start())
}

/// One OBU element: everything that is left, or as much as the length in front of it says.
fn read_element<'a>(reader: &mut Reader<'a>, without_length: bool) -> Result<&'a [u8]> {
    let len = if without_length { reader.rest().len() } else { read_leb128(reader)? };
    reader.take(len)
}

/// A number of 7 bits per byte, lowest first (AV1 bitstream specification §4.10.5).
fn read_leb128(reader: &mut Reader<'_>) -> Result<usize> {
    let mut value = 0u64;
    for index in 0..MAX_LEB128_LEN {
        let byte = reader.u8()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return usize::try_from(value).map_err(|_| Malformed);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence header (with its length) and the start of a frame, as Chromium begins a stream.
    const KEY: [u8; 17] = [
        0b0110_1000, // Y, W = 2, N
        11,
        0x08,
        0,
        0,
        0,
        0x24,
        0xce,
        0x7f,
        0xff,
        0xe0,
        0x10,
        0x40, // sequence header OBU
        0x30,
        0x10,
        0x00,
        0x83,
    ];

    #[test]
    fn a_new_sequence_is_a_key_frame() {
        let expected = Descriptor {
            continues: false,
            continued: true,
            new_sequence: true,
            has_sequence_header: true,
            layer: None,
        };
        assert_eq!(Descriptor::parse(&KEY), Ok(expected));
        assert!(is_key_frame_start(&KEY));
        let mut without_flag = KEY;
        without_flag[0] &= !0x08;
        assert!(is_key_frame_start(&without_flag), "the sequence header alone");
    }

    #[test]
    fn the_inside_of_an_obu_is_not_taken_for_its_header() {
        // §4.4: with Z, the first element goes on with an earlier OBU.
        assert!(is_key_frame_start(&[0b0001_0000, 0x08, 0]));
        assert!(!is_key_frame_start(&[0b1001_0000, 0x08, 0]));
        assert_eq!(Descriptor::parse(&[0b1001_1000, 0x08, 0]), Err(Malformed), "Z and N");
    }

    #[test]
    fn without_a_count_every_element_has_its_length() {
        // §4.4: W = 0.
        assert!(is_key_frame_start(&[0, 2, 0x30, 0, 2, 0x08, 0]));
        assert!(!is_key_frame_start(&[0, 2, 0x30, 0, 2, 0x30, 0]));
        assert_eq!(Descriptor::parse(&[0, 2, 0x30, 0, 3, 0x08, 0]), Err(Malformed));
        assert_eq!(Descriptor::parse(&[0]), Err(Malformed));
    }

    #[test]
    fn every_cut_before_the_last_element_is_malformed() {
        for len in 0..13 {
            assert_eq!(Descriptor::parse(&KEY[..len]), Err(Malformed), "{len} bytes");
        }
        assert!(Descriptor::parse(&KEY[..13]).is_ok(), "the last element may be empty");
    }

    #[test]
    fn a_packet_of_empty_elements_is_malformed() {
        assert_eq!(Descriptor::parse(&[0b0001_1000]), Err(Malformed));
        assert_eq!(Descriptor::parse(&[0, 0, 0]), Err(Malformed));
        assert!(Descriptor::parse(&[0, 0, 2, 0x30, 0]).is_ok());
    }

    #[test]
    fn an_obu_tells_its_layers() {
        // AV1 bitstream specification §5.3.3.
        let found = Descriptor::parse(&[0b0001_0000, 0x34, 0b0100_1000, 0]).unwrap();
        assert_eq!(found.layer, Some(Layer { temporal: 2, spatial: 1 }));
        let cut = Descriptor::parse(&[0b0101_0000, 0x34]).unwrap();
        assert_eq!(cut.layer, None, "the extension header is in the next packet");
    }

    #[test]
    fn lengths_have_at_most_eight_bytes() {
        // AV1 bitstream specification §4.10.5.
        assert!(Descriptor::parse(&[0, 0x81, 0x80, 0, 0x30]).is_ok(), "a long way to say 1");
        let mut endless = vec![0];
        endless.extend([0x80; 8]);
        endless.extend([1, 0x30]);
        assert_eq!(Descriptor::parse(&endless), Err(Malformed));
        let huge = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x30];
        assert_eq!(Descriptor::parse(&huge), Err(Malformed));
    }

    #[test]
    fn the_number_of_elements_is_bounded() {
        let mut payload = vec![0];
        payload.extend([1, 0x30].repeat(MAX_ELEMENTS));
        assert!(Descriptor::parse(&payload).is_ok());
        payload.extend([1, 0x30]);
        assert_eq!(Descriptor::parse(&payload), Err(Malformed));
    }
}
