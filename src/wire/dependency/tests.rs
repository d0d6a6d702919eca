//! Descriptors written by hand, bit by bit.

use super::*;

/// The bits `text` (spaces ignored) as bytes, padded with zeros.
fn packed(text: &str) -> Vec<u8> {
    let bits: Vec<u8> =
        text.bytes().filter(|byte| byte.is_ascii_digit()).map(|b| b - b'0').collect();
    bits.chunks(8)
        .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at)))
        .collect()
}

/// Start of a key frame, template 5, number 0x0102, with a structure: L1T2, two targets, one chain,
/// one resolution.
fn key() -> Vec<u8> {
    packed(
        "1 1 000101 0000000100000010  1 0 0 0 0
         000101 00001  00 01 11
         10 10  10 10  00 11
         0  1 0001 0  1 0000 0
         10  0000 0001 0010
         1 0000000010011111 0000000001011001",
    )
}

fn structure() -> Option<Structure> {
    let mut structure = None;
    Frame::read(&key(), &mut structure).unwrap();
    structure
}

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

#[test]
fn a_key_frame_brings_the_structure() {
    let mut structure = None;
    let frame = Frame::read(&key(), &mut structure).unwrap();
    assert_eq!((frame.spatial, frame.temporal, frame.references), (0, 0, 0));
    assert_eq!(frame.active_targets, Some(0b11));
    assert_eq!(
        [0, 1, 2].map(|target| frame.indication(target)),
        [Indication::Switch, Indication::Switch, Indication::NotPresent]
    );
    let structure = structure.unwrap();
    assert_eq!((structure.targets(), structure.spatial_layers()), (2, 1));
    assert_eq!((structure.target_layers(0), structure.target_layers(1)), ((0, 0), (0, 1)));
    assert_eq!((structure.targets_within(0, 0), structure.targets_within(3, 7)), (0b01, 0b11));
}

#[test]
fn other_frames_follow_a_template() {
    let mut structure = structure();
    let frame = Frame::read(&[0xc0 | 6, 1, 3], &mut structure).unwrap();
    assert_eq!((frame.temporal, frame.references), (0, 0b10));
    let frame = Frame::read(&[0xc0 | 7, 1, 3], &mut structure).unwrap();
    assert_eq!((frame.temporal, frame.references), (1, 0b01));
    assert_eq!(frame.indication(1), Indication::Required);
    assert_eq!(Frame::read(&[0xc0 | 8, 1, 3], &mut structure), Err(Malformed), "no such template");
    assert_eq!(Frame::read(&[0xc0 | 4, 1, 3], &mut structure), Err(Malformed), "no such template");
    assert_eq!(Frame::read(&[0xc0 | 6, 1, 3], &mut None), Err(Malformed), "no structure");
}

#[test]
fn a_frame_may_differ_from_its_template() {
    // Active targets, custom indications, references (3, and 100 in two half bytes), chains.
    let data = packed(
        "1 1 000110 0000000100000011  0 1 1 1 1  01  00 01
         01 0010  10 01100011  00  00000111",
    );
    let frame = Frame::read(&data, &mut structure()).unwrap();
    assert_eq!(frame.active_targets, Some(0b01));
    assert_eq!(frame.indication(0), Indication::NotPresent);
    assert_eq!(frame.indication(1), Indication::Discardable);
    assert_eq!((frame.references, frame.refers_far), (0b100, true));
    for len in 0..data.len() {
        if len != 3 {
            assert_eq!(Frame::read(&data[..len], &mut structure()), Err(Malformed), "{len}");
        }
    }
}

#[test]
fn every_cut_structure_is_malformed_and_changes_nothing() {
    let key = key();
    for len in 0..key.len() {
        let mut structure = structure();
        // Cut before the flags it names its template only.
        assert_eq!(Frame::read(&key[..len], &mut structure).is_ok(), len == 3, "{len}");
        assert_eq!(structure, self::structure());
    }
}

#[test]
fn layers_and_templates_are_bounded() {
    let start = "1 1 000000 0000000000000001 1 0 0 0 0 000000 00000";
    let read = |layers: String| Frame::read(&packed(&format!("{start}{layers}")), &mut None);
    let rest = "0".repeat(4000);
    assert_eq!(read(format!("{}11{rest}", "10".repeat(4))), Err(Malformed), "spatial layer 4");
    assert_eq!(read(format!("{}11{rest}", "01".repeat(8))), Err(Malformed), "temporal layer 8");
    assert_eq!(read(format!("{}11{rest}", "00".repeat(64))), Err(Malformed), "65 templates");
    assert!(read(format!("{}11{rest}", "00".repeat(63))).is_ok());
    assert!(read(format!("{}11{rest}", "10".repeat(3))).is_ok());
}

#[test]
fn a_frame_number_is_shifted_in_place() {
    let mut data = [0xc6, 0xff, 0xfe, 0x12];
    shift_frame_number(&mut data, 3);
    assert_eq!(data, [0xc6, 0, 1, 0x12]);
    shift_frame_number(&mut data[..2], 3);
    assert_eq!(data, [0xc6, 0, 1, 0x12]);
}

#[test]
fn active_targets_are_put_in_and_replaced() {
    let structure = structure();
    let custom = packed("1 1 000110 0000000100000011  0 1 1 1 1  01  00 01  01 0010  00  00000111");
    for data in [key(), vec![0xc0 | 7, 1, 3], custom] {
        let before = Frame::read(&data, &mut structure.clone()).unwrap();
        let mut out = [0xff; 64];
        let len = with_active_targets(&data, structure.as_ref(), 0b10, &mut out).unwrap();
        let mut after_structure = structure.clone();
        let after = Frame::read(&out[..len], &mut after_structure).unwrap();
        assert_eq!(after, Frame { active_targets: Some(0b10), ..before });
        assert_eq!(after_structure, structure);
        let mut again = [0; 64];
        let again_len = with_active_targets(&out[..len], structure.as_ref(), 0b10, &mut again);
        assert_eq!((again_len, &again[..len]), (Some(len), &out[..len]), "the same once more");
        for short in 0..len {
            let len = with_active_targets(&data, structure.as_ref(), 0b10, &mut out[..short]);
            assert_eq!(len, None, "{short}");
        }
    }
}

#[test]
fn numbers_below_a_bound_take_few_bits() {
    // Appendix A.8.1: of five values the first three take two bits, the others three.
    let data = packed("00 01 10 110 111");
    let mut bits = Bits::at(&data, 0);
    assert_eq!([(); 5].map(|()| bits.below(5).unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(bits.below(1), Ok(0));
    assert_eq!(bits.position(), 12);
}
