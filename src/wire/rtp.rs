//! RTP packets (RFC 3550 §5.1) with header extensions (RFC 8285) and retransmission (RFC 4588).

use crate::id::{PayloadType, Ssrc};
use crate::wire::extension;
use crate::wire::{Malformed, Result};

/// Bytes of the fixed header.
pub const FIXED_HEADER_LEN: usize = 12;
/// Bytes in front of the original payload in a retransmission (RFC 4588 §4).
pub const RTX_HEADER_LEN: usize = 2;

/// The fixed header's fields and where the parts of the packet lie.
///
/// Made by [`Header::parse`], which has checked that CSRCs and the extension block lie inside the
/// packet. It says nothing about padding, which SRTP encrypts: see [`Header::payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The padding bit; only [`Header::payload`] can tell whether it is honest.
    pub padding: bool,
    /// The marker bit: for video, the last packet of a frame.
    pub marker: bool,
    /// The payload type.
    pub payload_type: PayloadType,
    /// The sequence number as it stands on the wire.
    pub sequence: u16,
    /// The timestamp, in units of the codec's clock.
    pub timestamp: u32,
    /// The sender's synchronization source.
    pub ssrc: Ssrc,
    /// The profile of the extension block (`0xBEDE`, `0x100?`, or anything), if there is one.
    pub extension_profile: Option<u16>,
    /// Where the extension block's elements begin (behind its 4-byte header); `len` when none.
    pub extension_start: u16,
    /// Bytes from the packet's start to its payload.
    pub len: u16,
}

impl Header {
    /// Reads and checks the header of `packet`: version 2, CSRCs and extension block inside.
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let Some((fixed, rest)) = packet.split_first_chunk::<FIXED_HEADER_LEN>() else {
            return Err(Malformed);
        };
        let csrcs = usize::from(fixed[0] & 0x0f) * 4;
        let has_extension = fixed[0] & 0x10 != 0;
        if fixed[0] >> 6 != 2 || rest.len() < csrcs || packet.len() > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        let mut len = FIXED_HEADER_LEN + csrcs;
        let (mut extension_profile, mut extension_start) = (None, len);
        if has_extension {
            let Some((&[p0, p1, l0, l1], elements)) = rest[csrcs..].split_first_chunk() else {
                return Err(Malformed);
            };
            let elements_len = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            if elements.len() < elements_len {
                return Err(Malformed);
            }
            extension_profile = Some(u16::from_be_bytes([p0, p1]));
            extension_start = len + 4;
            len = extension_start + elements_len;
        }
        Ok(Self {
            padding: fixed[0] & 0x20 != 0,
            marker: fixed[1] & 0x80 != 0,
            payload_type: PayloadType(fixed[1] & 0x7f),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            extension_profile,
            extension_start: extension_start as u16,
            len: len as u16,
        })
    }

    /// The payload of `packet` without padding; [`Malformed`] if the padding count lies.
    ///
    /// `packet` is the one that was parsed, decrypted and without its authentication tag.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8]> {
        let payload = packet.get(usize::from(self.len)..).ok_or(Malformed)?;
        if !self.padding {
            return Ok(payload);
        }
        // RFC 3550 §5.1: the last octet counts the padding, itself included.
        match payload.last() {
            Some(&count) if count != 0 && usize::from(count) <= payload.len() => {
                Ok(&payload[..payload.len() - usize::from(count)])
            }
            _ => Err(Malformed),
        }
    }

    /// Whether the opened `packet` carries nothing but padding: a bandwidth probe, or a filler that
    /// must not take part in the rewriting of the stream.
    pub fn is_padding_only(&self, packet: &[u8]) -> bool {
        self.padding && self.payload(packet).is_ok_and(<[u8]>::is_empty)
    }
}

/// The fixed header's fields as a sender chooses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Whether the payload will end with padding.
    pub padding: bool,
    /// The marker bit.
    pub marker: bool,
    /// The payload type, 0 to 127.
    pub payload_type: PayloadType,
    /// The sequence number as it stands on the wire.
    pub sequence: u16,
    /// The timestamp, in units of the codec's clock.
    pub timestamp: u32,
    /// The synchronization source.
    pub ssrc: Ssrc,
}

impl Fields {
    /// The fields of a received header, to be changed before they are written.
    pub const fn of(header: &Header) -> Self {
        Self {
            padding: header.padding,
            marker: header.marker,
            payload_type: header.payload_type,
            sequence: header.sequence,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
        }
    }
}

/// Writes a header without CSRCs to the start of `out`, with the elements that `extensions` pushes,
/// and returns its length: where the payload goes. `None` if it does not fit.
pub fn write_header(
    out: &mut [u8],
    fields: &Fields,
    extensions: impl FnOnce(&mut extension::Writer<'_>),
) -> Option<usize> {
    let (fixed, rest) = out.split_first_chunk_mut::<FIXED_HEADER_LEN>()?;
    let mut writer = extension::Writer::new(rest);
    extensions(&mut writer);
    let block_len = writer.finish()?;
    let has_extension = block_len != 0;
    fixed[0] = 2 << 6 | u8::from(fields.padding) << 5 | u8::from(has_extension) << 4;
    fixed[1] = u8::from(fields.marker) << 7 | (fields.payload_type.0 & 0x7f);
    fixed[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
    fixed[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
    fixed[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
    Some(FIXED_HEADER_LEN + block_len)
}

/// Splits a retransmission's payload into the original sequence number and the original payload
/// (RFC 4588 §4). `None` if it is too short, as the padding-only probes on an RTX stream are.
pub fn split_rtx(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (&original, rest) = payload.split_first_chunk::<RTX_HEADER_LEN>()?;
    Some((u16::from_be_bytes(original), rest))
}

/// Writes a retransmission's payload to the start of `out` (RFC 4588 §4) and returns its length;
/// `None` if it does not fit.
pub fn write_rtx(out: &mut [u8], original_sequence: u16, payload: &[u8]) -> Option<usize> {
    let (head, rest) = out.split_first_chunk_mut::<RTX_HEADER_LEN>()?;
    rest.get_mut(..payload.len())?.copy_from_slice(payload);
    *head = original_sequence.to_be_bytes();
    Some(RTX_HEADER_LEN + payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::extension::Elements;
    use proptest::prelude::*;

    /// Two CSRCs, an extension block of one word, three bytes of payload, two of padding.
    const FULL: [u8; 33] = [
        0xb2, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0xca, 0xfe, 0xba, 0xbe, // fixed header
        0, 0, 0, 1, 0, 0, 0, 2, // CSRCs
        0xBE, 0xDE, 0, 1, 0x10, 0x55, 0, 0, // extension
        b'a', b'b', b'c', 0, 2, // payload, padding
    ];

    #[test]
    fn every_field_is_found() {
        let header = Header::parse(&FULL).unwrap();
        let expected = Header {
            padding: true,
            marker: true,
            payload_type: PayloadType(96),
            sequence: 0x1234,
            timestamp: 9,
            ssrc: Ssrc(0xcafe_babe),
            extension_profile: Some(0xBEDE),
            extension_start: 24,
            len: 28,
        };
        assert_eq!(header, expected);
        assert_eq!(header.payload(&FULL), Ok(&b"abc"[..]));
        assert!(!header.is_padding_only(&FULL));
    }

    #[test]
    fn every_cut_inside_the_header_is_malformed() {
        // RFC 3550 §5.1, §5.3.1: CSRCs and extension must lie inside.
        for len in 0..28 {
            assert_eq!(Header::parse(&FULL[..len]), Err(Malformed), "{len} bytes");
        }
        for len in 28..=FULL.len() {
            assert!(Header::parse(&FULL[..len]).is_ok(), "{len} bytes");
        }
    }

    #[test]
    fn other_versions_are_malformed() {
        for version in [0, 1, 3u8] {
            let mut packet = FULL;
            packet[0] = packet[0] & 0x3f | version << 6;
            assert_eq!(Header::parse(&packet), Err(Malformed));
        }
    }

    #[test]
    fn a_lying_padding_count_is_malformed() {
        // RFC 3550 §5.1: the count includes itself, and there are 5 bytes behind the header.
        let header = Header::parse(&FULL).unwrap();
        for (count, expected) in [(0, None), (1, Some(4)), (5, Some(0)), (6, None), (255, None)] {
            let mut packet = FULL;
            packet[32] = count;
            assert_eq!(header.payload(&packet).ok().map(<[u8]>::len), expected, "count {count}");
            assert_eq!(header.is_padding_only(&packet), expected == Some(0), "count {count}");
        }
        assert_eq!(header.payload(&FULL[..28]), Err(Malformed), "no byte that counts");
        assert_eq!(header.payload(&FULL[..20]), Err(Malformed), "a shorter packet");
    }

    #[test]
    fn an_empty_payload_without_padding_is_no_padding() {
        let packet = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        assert!(!Header::parse(&packet).unwrap().is_padding_only(&packet));
    }

    #[test]
    fn retransmissions_carry_the_original_number() {
        // RFC 4588 §4.
        let mut out = [0; 8];
        assert_eq!(write_rtx(&mut out, 0x1234, b"abc"), Some(5));
        assert_eq!(split_rtx(&out[..5]), Some((0x1234, &b"abc"[..])));
        assert_eq!(split_rtx(&[0x12]), None);
        assert_eq!(write_rtx(&mut out[..4], 0x1234, b"abc"), None);
    }

    prop_compose! {
        fn any_fields()(
            (padding, marker) in any::<(bool, bool)>(),
            payload_type in 0u8..128,
            (sequence, timestamp, ssrc) in any::<(u16, u32, u32)>(),
        ) -> Fields {
            let (payload_type, ssrc) = (PayloadType(payload_type), Ssrc(ssrc));
            Fields { padding, marker, payload_type, sequence, timestamp, ssrc }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_parsed(
            fields in any_fields(),
            elements in prop::collection::vec(
                (1u8.., prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut packet = [0; 300];
            let len = write_header(&mut packet, &fields, |writer| {
                for (id, data) in &elements {
                    writer.push(*id, data);
                }
            }).unwrap();
            packet[len..len + payload.len()].copy_from_slice(&payload);
            let packet = &packet[..len + payload.len()];

            let header = Header::parse(packet).unwrap();
            prop_assert_eq!(Fields::of(&header), fields);
            prop_assert_eq!(usize::from(header.len), len);
            prop_assert_eq!(header.extension_profile.is_some(), !elements.is_empty());
            let found: Vec<_> =
                Elements::of(&header, packet).map(|(id, data)| (id, data.to_vec())).collect();
            prop_assert_eq!(found, elements);
            if !fields.padding {
                prop_assert_eq!(header.payload(packet), Ok(&payload[..]));
            }
        }

        #[test]
        fn a_buffer_too_small_is_noticed(fields in any_fields(), room in 0usize..20) {
            let mut out = vec![0; room];
            let written = write_header(&mut out, &fields, |writer| { writer.push(1, &[1, 2]); });
            prop_assert_eq!(written, None);
        }

        #[test]
        fn any_bytes_are_total(packet in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(header) = Header::parse(&packet) {
                prop_assert!(usize::from(header.len) <= packet.len());
                let _ = header.payload(&packet);
                prop_assert!(Elements::of(&header, &packet).count() <= packet.len());
            }
        }
    }
}
