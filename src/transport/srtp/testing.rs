//! What the tests of this module share.

use super::{Keys, Profile, Receiver, Sender};
use crate::wire::seq::SeqNo;

/// The SSRC of [`rtp`] and [`rtcp`].
pub(super) const SSRC: u32 = 0xcafe_babe;

/// Bytes from hexadecimal digits; blanks are ignored.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Keys that differ in every byte, so that a mix-up of directions or labels shows.
pub(super) fn keys(profile: Profile) -> Keys {
    let material: Vec<u8> = (0..profile.material_len()).map(|i| (i * 37 + 11) as u8).collect();
    Keys::from_dtls(profile, &material, true).expect("the profile's own length")
}

/// A sender, and the receiver of what it seals.
pub(super) fn pair(profile: Profile) -> (Sender, Receiver) {
    let keys = keys(profile);
    (Sender::new(&keys), Receiver::new(&keys.swapped()))
}

/// A plain RTP packet with one CSRC, an extension block and a payload that depends on `seq`.
pub(super) fn rtp(ssrc: u32, seq: SeqNo, payload_len: usize) -> Vec<u8> {
    let mut packet = vec![0x91, 96];
    packet.extend(seq.wire().to_be_bytes());
    packet.extend((seq.0 as u32).wrapping_mul(3000).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
    packet.extend((0..payload_len).map(|i| (i as u64 + seq.0) as u8));
    packet
}

/// An RTCP compound of one empty receiver report and `extra` words that nobody looks at.
pub(super) fn rtcp(ssrc: u32, extra: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1 + extra as u8];
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..4 * extra).map(|i| i as u8));
    packet
}

/// `plain`, sealed as number `seq`.
pub(super) fn seal_rtp(sender: &Sender, seq: SeqNo, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + super::MAX_RTP_OVERHEAD, 0);
    let len = sender.seal_rtp(seq, &mut packet, plain.len()).expect("room and a good header");
    packet.truncate(len);
    packet
}

/// `plain`, sealed with the next index.
pub(super) fn seal_rtcp(sender: &mut Sender, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + super::MAX_RTCP_OVERHEAD, 0);
    let len = sender.seal_rtcp(&mut packet, plain.len()).expect("room and a good header");
    packet.truncate(len);
    packet
}
