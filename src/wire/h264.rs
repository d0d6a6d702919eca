//! H.264 payloads (RFC 6184 §5), non-interleaved mode: single NAL units, STAP-A and FU-A.

use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Most NAL units of one aggregation packet. Encoders put parameter sets and a few small slices
/// together; 1,500 bytes could hold 500 NAL units of one byte.
pub const MAX_AGGREGATED: usize = 64;

/// NAL unit types (RFC 6184 table 1, ITU-T H.264 table 7-1).
mod nal {
    pub const IDR_SLICE: u8 = 5;
    pub const SEQUENCE_PARAMETER_SET: u8 = 7;
    pub const LAST_SINGLE: u8 = 23;
    pub const STAP_A: u8 = 24;
    pub const FU_A: u8 = 28;
}

/// What an RTP payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// How NAL units are packed.
    pub packing: Packing,
    /// A slice of an IDR picture begins here: decoding can start.
    pub has_idr: bool,
    /// A sequence parameter set is here: encoders send it just before an IDR picture.
    pub has_parameter_set: bool,
}

/// How a packet carries NAL units (RFC 6184 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One whole NAL unit.
    Single,
    /// Several whole NAL units (STAP-A).
    Aggregate,
    /// A piece of one NAL unit (FU-A).
    Fragment {
        /// The first piece.
        start: bool,
        /// The last piece.
        end: bool,
    },
}

impl Descriptor {
    /// Looks through an RTP payload; other packings than those of non-interleaved mode are refused.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        let nal_type = reader.u8()? & 0x1f;
        let mut found = Self { packing: Packing::Single, has_idr: false, has_parameter_set: false };
        match nal_type {
            1..=nal::LAST_SINGLE => found.note(nal_type),
            nal::STAP_A => {
                found.packing = Packing::Aggregate;
                found.note_aggregated(&mut reader)?;
            }
            nal::FU_A => {
                let fragment = reader.u8()?;
                let (start, end) = (fragment & 0x80 != 0, fragment & 0x40 != 0);
                found.packing = Packing::Fragment { start, end };
                if start {
                    found.note(fragment & 0x1f);
                }
            }
            _ => return Err(Malformed),
        }
        Ok(found)
    }

    /// Whether decoding can begin here: at the parameter set, without which an IDR picture cannot be read.
    /// Browsers send one before each, and a later slice of the picture must not be taken for its start.
    pub const fn is_key_frame_start(&self) -> bool {
        self.has_parameter_set
    }

    fn note(&mut self, nal_type: u8) {
        self.has_idr |= nal_type == nal::IDR_SLICE;
        self.has_parameter_set |= nal_type == nal::SEQUENCE_PARAMETER_SET;
    }

    /// RFC 6184 §5.7.1: each NAL unit follows its 16-bit size.
    fn note_aggregated(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        for _ in 0..MAX_AGGREGATED {
            let size = reader.u16()?;
            let [header, ..] = reader.take(size.into())? else { return Err(Malformed) };
            self.note(header & 0x1f);
            if reader.is_empty() {
                return Ok(());
            }
        }
        Err(Malformed)
    }
}

/// Whether the RTP payload begins a key frame: the parameter set in front of an IDR picture.
pub fn is_key_frame_start(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_ok_and(|found| found.is_key_frame_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPS and PPS in one packet, as Chromium sends them before an IDR picture.
    const PARAMETER_SETS: [u8; 14] =
        [0x78, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 0x8c, 0, 4, 0x68, 0xce, 0x3c, 0x80];

    #[test]
    fn single_nal_units_are_told_by_their_type() {
        // RFC 6184 §5.6, ITU-T H.264 table 7-1: SPS 7.
        for nal_type in 0..32 {
            let found = Descriptor::parse(&[0x60 | nal_type, 0x88]);
            let key = nal_type == 7;
            match nal_type {
                1..=23 => {
                    let found = found.unwrap();
                    assert_eq!(found.packing, Packing::Single);
                    assert_eq!(found.is_key_frame_start(), key, "type {nal_type}");
                }
                // FU-A whose header says "middle piece", type 8.
                28 => assert!(!found.unwrap().is_key_frame_start()),
                _ => assert_eq!(found, Err(Malformed), "type {nal_type}"),
            }
        }
    }

    #[test]
    fn aggregates_are_walked() {
        // RFC 6184 §5.7.1.
        let found = Descriptor::parse(&PARAMETER_SETS).unwrap();
        assert_eq!(found.packing, Packing::Aggregate);
        assert!(found.has_parameter_set && !found.has_idr);
        assert!(is_key_frame_start(&PARAMETER_SETS));
        let two_deltas = [0x78, 0, 2, 0x41, 0x9a, 0, 2, 0x41, 0x9b];
        assert!(!is_key_frame_start(&two_deltas));
        let idr_second = [0x78, 0, 2, 0x41, 0x9a, 0, 2, 0x65, 0x88];
        assert!(Descriptor::parse(&idr_second).unwrap().has_idr);
    }

    #[test]
    fn every_cut_aggregate_is_malformed() {
        for len in 0..PARAMETER_SETS.len() {
            // After 8 bytes the first NAL unit is whole.
            assert_eq!(Descriptor::parse(&PARAMETER_SETS[..len]).is_ok(), len == 8, "{len}");
        }
        assert_eq!(Descriptor::parse(&[0x78, 0, 0]), Err(Malformed), "an empty NAL unit");
    }

    #[test]
    fn the_number_of_aggregated_units_is_bounded() {
        let mut payload = vec![0x78];
        payload.extend([0, 1, 0x41].repeat(MAX_AGGREGATED));
        assert!(Descriptor::parse(&payload).is_ok());
        payload.extend([0, 1, 0x41]);
        assert_eq!(Descriptor::parse(&payload), Err(Malformed));
    }

    #[test]
    fn only_the_first_fragment_begins_a_key_frame() {
        // RFC 6184 §5.8.
        let start = Descriptor::parse(&[0x7c, 0x85, 0x88]).unwrap();
        assert_eq!(start.packing, Packing::Fragment { start: true, end: false });
        assert!(start.has_idr);
        assert!(!is_key_frame_start(&[0x7c, 0x05, 0x88]), "middle");
        assert!(!is_key_frame_start(&[0x7c, 0x45, 0x88]), "end");
        assert!(!is_key_frame_start(&[0x7c, 0x81, 0x88]), "start of another slice");
        assert_eq!(Descriptor::parse(&[0x7c]), Err(Malformed));
    }
}
