//! The dependency descriptor's mandatory fields (RTP Payload Format For AV1, AOMedia, appendix A.8.2).

use crate::wire::Result;
use crate::wire::cursor::Reader;

/// What each dependency descriptor begins with. The template structure that may follow is not
/// looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The packet begins a frame.
    pub frame_start: bool,
    /// The packet ends a frame.
    pub frame_end: bool,
    /// Which template of the structure the frame follows, 0 to 63.
    pub template_id: u8,
    /// The frame's number.
    pub frame_number: u16,
    /// A new template structure follows: key frames carry one.
    pub has_structure: bool,
}

impl Descriptor {
    /// Reads an element's data.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(data);
        let first = reader.u8()?;
        let frame_number = reader.u16()?;
        // The extended fields begin with one flag each; they are there when there are more bytes.
        let flags = reader.u8().unwrap_or(0);
        Ok(Self {
            frame_start: first & 0x80 != 0,
            frame_end: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number,
            has_structure: flags & 0x80 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Malformed;

    #[test]
    fn the_first_three_bytes_are_mandatory() {
        // Appendix A.8.2.
        let found = Descriptor::parse(&[0x80 | 5, 0x12, 0x34]);
        let expected = Descriptor {
            frame_start: true,
            frame_end: false,
            template_id: 5,
            frame_number: 0x1234,
            has_structure: false,
        };
        assert_eq!(found, Ok(expected));
        for len in 0..3 {
            assert_eq!(Descriptor::parse(&[0x80, 0, 0][..len]), Err(Malformed));
        }
    }

    #[test]
    fn a_structure_is_announced_by_the_first_flag() {
        assert!(Descriptor::parse(&[0xc0, 0, 1, 0x80, 0]).unwrap().has_structure);
        assert!(!Descriptor::parse(&[0xc0, 0, 1, 0x78, 0]).unwrap().has_structure);
    }
}
