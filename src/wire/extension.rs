//! Elements of the RTP header extension block (RFC 8285), and the values that some of them carry.

use std::time::Duration;

use crate::wire::rtp::Header;

/// Bytes in front of the elements: profile and length (RFC 3550 §5.3.1).
pub const BLOCK_HEADER_LEN: usize = 4;
/// Longest element data, in bytes: what the two-byte form's length octet can say (RFC 8285 §4.3).
pub const MAX_ELEMENT_LEN: usize = 255;

/// The profile that announces one-byte element headers (RFC 8285 §4.2).
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// The profile that announces two-byte element headers; its low 4 bits are free (RFC 8285 §4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;
/// Highest usable id of the one-byte form: 15 is reserved (RFC 8285 §4.2).
const ONE_BYTE_MAX_ID: u8 = 14;
/// Longest data of the one-byte form: its 4-bit length stands for 1 to 16 bytes (RFC 8285 §4.2).
const ONE_BYTE_MAX_LEN: usize = 16;

/// The elements of one packet's extension block, in order; ends at the first malformed one.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    two_byte: bool,
}

impl<'a> Elements<'a> {
    /// The elements of `packet`, whose header is `header`. Empty without an extension block, or with
    /// one of a profile that is neither one-byte (`0xBEDE`) nor two-byte (`0x100?`).
    pub fn of(header: &Header, packet: &'a [u8]) -> Self {
        let block = packet.get(usize::from(header.extension_start)..usize::from(header.len));
        match header.extension_profile {
            Some(ONE_BYTE_PROFILE) => Self { bytes: block.unwrap_or_default(), two_byte: false },
            Some(profile) if profile & 0xfff0 == TWO_BYTE_PROFILE => {
                Self { bytes: block.unwrap_or_default(), two_byte: true }
            }
            _ => Self { bytes: &[], two_byte: false },
        }
    }

    /// Takes the next element off `self.bytes`; `None` when nothing usable is left.
    fn advance(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (&first, rest) = self.bytes.split_first()?;
            // A zero byte is padding in both forms (RFC 8285 §4.1.2). In the one-byte form id 0
            // with a length is not: it ends the block, as the reserved id 15 does (§4.2).
            if first == 0 {
                self.bytes = rest;
                continue;
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first()?;
                (first, usize::from(len), rest)
            } else {
                let id = first >> 4;
                if !(1..=ONE_BYTE_MAX_ID).contains(&id) {
                    return None;
                }
                (id, usize::from(first & 0x0f) + 1, rest)
            };
            let (data, rest) = rest.split_at_checked(len)?;
            self.bytes = rest;
            return Some((id, data));
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    /// Element id (1 to 14, or 1 to 255 in the two-byte form) and data.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.advance();
        if element.is_none() {
            self.bytes = &[];
        }
        element
    }
}

/// Builds an extension block in place.
///
/// Element headers are one byte each as long as every id is 1 to 14 and every length 1 to 16; the
/// first element that needs more turns the whole block into the two-byte form, since a block has
/// one form only (RFC 8285 §4.1.2).
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    /// Bytes used so far, with the block header; 0 before the first element.
    len: usize,
    two_byte: bool,
    failed: bool,
}

impl<'a> Writer<'a> {
    /// An empty block at the start of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, two_byte: false, failed: false }
    }

    /// Appends the element `id` (1 to 255) with up to [`MAX_ELEMENT_LEN`] bytes of `data`. What does
    /// not fit makes [`Self::finish`] fail.
    pub fn push(&mut self, id: u8, data: &[u8]) -> &mut Self {
        if self.try_push(id, data).is_none() {
            self.failed = true;
        }
        self
    }

    /// Pads the block to a multiple of 4 bytes and returns its length, block header included: 0
    /// when there are no elements, and then the packet's X bit stays clear. `None` if an element
    /// did not fit.
    pub fn finish(self) -> Option<usize> {
        if self.failed {
            return None;
        }
        if self.len == 0 {
            return Some(0);
        }
        let padded = self.len.next_multiple_of(4);
        self.out.get_mut(self.len..padded)?.fill(0);
        let profile = if self.two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
        let words = u16::try_from((padded - BLOCK_HEADER_LEN) / 4).ok()?;
        let [p0, p1] = profile.to_be_bytes();
        let [l0, l1] = words.to_be_bytes();
        self.out.get_mut(..BLOCK_HEADER_LEN)?.copy_from_slice(&[p0, p1, l0, l1]);
        Some(padded)
    }

    fn try_push(&mut self, id: u8, data: &[u8]) -> Option<()> {
        let len = u8::try_from(data.len()).ok()?;
        if id == 0 {
            return None;
        }
        if self.len == 0 {
            self.len = BLOCK_HEADER_LEN;
        }
        let small = id <= ONE_BYTE_MAX_ID && (1..=ONE_BYTE_MAX_LEN).contains(&data.len());
        if !small && !self.two_byte {
            self.widen()?;
        }
        if self.two_byte {
            self.append(&[id, len])?;
        } else {
            self.append(&[id << 4 | (len - 1)])?;
        }
        self.append(data)
    }

    fn append(&mut self, data: &[u8]) -> Option<()> {
        let end = self.len.checked_add(data.len())?;
        self.out.get_mut(self.len..end)?.copy_from_slice(data);
        self.len = end;
        Some(())
    }

    /// Gives each element written so far a two-byte header.
    fn widen(&mut self) -> Option<()> {
        let mut at = BLOCK_HEADER_LEN;
        while at < self.len {
            let header = *self.out.get(at)?;
            if self.len == self.out.len() {
                return None;
            }
            self.out.copy_within(at + 1..self.len, at + 2);
            let len = (header & 0x0f) + 1;
            self.out[at] = header >> 4;
            self.out[at + 1] = len;
            self.len += 1;
            at += 2 + usize::from(len);
        }
        self.two_byte = true;
        Some(())
    }
}

/// How loud a packet's audio is (RFC 6464 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// Whether the sender believes that it is speech; false also from senders that cannot tell.
    pub voice: bool,
    /// Loudness below the overload point in dBov, negated: 0 is the loudest, 127 is silence.
    pub level: u8,
}

impl AudioLevel {
    /// Reads an element's data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let &[byte] = data else { return None };
        Some(Self { voice: byte & 0x80 != 0, level: byte & 0x7f })
    }

    /// The element's data; a level above 127 becomes 127.
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.level.min(127)]
    }
}

/// When a packet left its sender, in units of 2^-18 s, modulo 64 s: the abs-send-time element's 24
/// bits of fixed point, 6 before it and 18 behind (as libwebrtc documents its extension).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    /// From the time since any fixed moment.
    pub fn from_duration(since: Duration) -> Self {
        let seconds = (since.as_secs() & 63) << 18;
        let fraction = (u64::from(since.subsec_nanos()) << 18) / 1_000_000_000;
        Self((seconds | fraction) as u32)
    }

    /// From a 64-bit NTP timestamp (32 bits of seconds, 32 of fraction).
    pub const fn from_ntp(ntp: u64) -> Self {
        Self((ntp >> 14) as u32 & 0x00ff_ffff)
    }

    /// Reads an element's data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let &[high, middle, low] = data else { return None };
        Some(Self(u32::from_be_bytes([0, high, middle, low])))
    }

    /// The element's data.
    pub const fn to_bytes(self) -> [u8; 3] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        [high, middle, low]
    }

    /// The value, in units of 2^-18 s, below 2^24.
    pub const fn ticks(self) -> u32 {
        self.0
    }
}

/// A packet's number among all packets of its transport
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportSequence(pub u16);

impl TransportSequence {
    /// Reads an element's data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        data.try_into().ok().map(|bytes| Self(u16::from_be_bytes(bytes)))
    }

    /// The element's data.
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of a packet with this block behind a fixed header.
    fn elements(block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut packet = vec![0x90, 111, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend_from_slice(block);
        let header = Header::parse(&packet).unwrap();
        Elements::of(&header, &packet).map(|(id, data)| (id, data.to_vec())).collect()
    }

    fn block(elements: &[(u8, Vec<u8>)], room: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; room];
        let mut writer = Writer::new(&mut out);
        for (id, data) in elements {
            writer.push(*id, data);
        }
        let len = writer.finish()?;
        out.truncate(len);
        Some(out)
    }

    #[test]
    fn one_byte_elements_with_padding_between() {
        // RFC 8285 §4.2's layout: lengths 1, 2 and 4 with two padding bytes in between.
        let found = elements(&[
            0xBE, 0xDE, 0, 3, 0x10, 0xa1, 0x21, 0xb1, 0xb2, 0, 0, 0x33, 0xc1, 0xc2, 0xc3, 0xc4,
        ]);
        let expected = [(1, vec![0xa1]), (2, vec![0xb1, 0xb2]), (3, vec![0xc1, 0xc2, 0xc3, 0xc4])];
        assert_eq!(found, expected);
    }

    #[test]
    fn reserved_id_15_ends_the_one_byte_form() {
        // RFC 8285 §4.2: what follows id 15 is not looked at.
        let found = elements(&[0xBE, 0xDE, 0, 2, 0x10, 0xa1, 0xf0, 0, 0x20, 0xb1, 0, 0]);
        assert_eq!(found, [(1, vec![0xa1])]);
    }

    #[test]
    fn id_0_with_a_length_ends_the_one_byte_form() {
        // RFC 8285 §4.2.
        let found = elements(&[0xBE, 0xDE, 0, 2, 0x10, 0xa1, 0x01, 0, 0, 0x20, 0xb1, 0]);
        assert_eq!(found, [(1, vec![0xa1])]);
    }

    #[test]
    fn two_byte_elements_may_be_empty_and_long() {
        // RFC 8285 §4.3; the profile's low 4 bits may be anything.
        let found = elements(&[
            0x10, 0x07, 0, 3, 0x01, 0, 0x0f, 1, 0xa1, 0, 0xff, 4, 0xb1, 0xb2, 0xb3, 0xb4,
        ]);
        let expected = [(1, vec![]), (15, vec![0xa1]), (255, vec![0xb1, 0xb2, 0xb3, 0xb4])];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_element_longer_than_its_block_ends_it() {
        assert_eq!(elements(&[0xBE, 0xDE, 0, 1, 0x10, 0xa1, 0x2f, 0xb1]), [(1, vec![0xa1])]);
        assert_eq!(elements(&[0x10, 0, 0, 1, 0x01, 0, 0x02, 9]), [(1, vec![])]);
        assert_eq!(elements(&[0x10, 0, 0, 1, 0x01, 1, 0xa1, 9]), [(1, vec![0xa1])]);
    }

    #[test]
    fn other_profiles_have_no_elements() {
        assert_eq!(elements(&[0xAB, 0xAC, 0, 1, 0x10, 0xa1, 0, 0]), []);
    }

    #[test]
    fn writer_prefers_the_one_byte_form() {
        let written = block(&[(1, vec![0xa1]), (14, vec![7; 16])], 64).unwrap();
        assert_eq!(written[..6], [0xBE, 0xDE, 0, 5, 0x10, 0xa1]);
        assert_eq!(written[6], 0xef);
        assert_eq!(written.len(), 24);
        assert_eq!(written[23], 0, "padding is zero");
    }

    #[test]
    fn nothing_written_is_no_block() {
        assert_eq!(block(&[], 0), Some(vec![]));
    }

    #[test]
    fn one_large_element_widens_those_before_it() {
        for large in [(15, vec![1]), (1, vec![]), (1, vec![9; 17])] {
            let all = [(3, vec![1, 2]), (4, vec![5]), large, (5, vec![6])];
            let written = block(&all, 64).unwrap();
            assert_eq!(written[..2], [0x10, 0x00]);
            assert_eq!(elements(&written), all);
        }
    }

    #[test]
    fn id_0_and_too_long_data_fail() {
        assert_eq!(block(&[(0, vec![1])], 64), None);
        assert_eq!(block(&[(1, vec![1; 256])], 512), None);
    }

    #[test]
    fn audio_level_keeps_flag_and_level_apart() {
        // RFC 6464 §3: V is the top bit.
        assert_eq!(AudioLevel::parse(&[0x80 | 42]), Some(AudioLevel { voice: true, level: 42 }));
        assert_eq!(AudioLevel { voice: false, level: 200 }.to_bytes(), [127]);
        assert_eq!(AudioLevel::parse(&[]), None);
        assert_eq!(AudioLevel::parse(&[1, 2]), None);
    }

    #[test]
    fn send_time_is_6_18_fixed_point() {
        let time = AbsSendTime::from_duration(Duration::from_millis(64_000 + 1_500));
        assert_eq!(time.ticks(), 3 << 17);
        assert_eq!(time.to_bytes(), [0x06, 0, 0]);
        assert_eq!(AbsSendTime::from_ntp((64 + 1) << 32 | 1 << 31), time);
        assert_eq!(AbsSendTime::parse(&time.to_bytes()), Some(time));
        assert_eq!(AbsSendTime::parse(&[0; 4]), None);
        let last = AbsSendTime::from_duration(Duration::new(63, 999_999_999));
        assert_eq!(last.ticks(), 0x00ff_ffff);
    }

    #[test]
    fn transport_sequence_is_exactly_two_bytes() {
        assert_eq!(TransportSequence::parse(&[0x12, 0x34]), Some(TransportSequence(0x1234)));
        assert_eq!(TransportSequence(0x1234).to_bytes(), [0x12, 0x34]);
        assert_eq!(TransportSequence::parse(&[1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            all in prop::collection::vec((1u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let written = block(&all, 512).unwrap();
            prop_assert_eq!(written.len() % 4, 0);
            if !all.is_empty() {
                prop_assert_eq!(elements(&written), all);
            }
        }

        #[test]
        fn a_room_too_small_is_noticed(
            all in prop::collection::vec((1u8..20, prop::collection::vec(any::<u8>(), 0..20)), 1..6),
        ) {
            let needed = block(&all, 512).unwrap().len();
            for room in 0..needed {
                prop_assert_eq!(block(&all, room), None);
            }
            prop_assert_eq!(block(&all, needed).map(|written| written.len()), Some(needed));
        }
    }
}
