//! The body of the fuzz target.

use std::collections::HashSet;

use super::{Keys, MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, Profile, RTP_WINDOW, Receiver, Sender};
use crate::wire::rtp::Header;
use crate::wire::seq::SeqNo;

/// Takes `data` as a packet and as a network's whims, under the profile that its first byte chooses.
///
/// # Panics
/// If bytes that nobody sealed are accepted, if what was sealed does not come back, or if a packet is
/// accepted twice: then a bug is found.
pub fn fuzz(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let profile = Profile::ALL[usize::from(choice) % Profile::ALL.len()];
    let material = vec![choice; profile.material_len()];
    let keys = Keys::from_dtls(profile, &material, true).expect("the profile's own length");
    open_as_it_is(&keys, data);
    seal_and_flip_rtp(&keys, data);
    seal_and_flip_rtcp(&keys, data);
    reorder(&keys, data);
}

/// The fuzzer does not search for 80-bit tags, so whatever it brings is forged.
fn open_as_it_is(keys: &Keys, data: &[u8]) {
    let mut receiver = Receiver::new(keys);
    assert!(receiver.open_rtp(&mut data.to_vec()).is_err());
    assert!(receiver.open_rtcp(&mut data.to_vec()).is_err());
}

fn seal_and_flip_rtp(keys: &Keys, data: &[u8]) {
    let Ok(header) = Header::parse(data) else { return };
    let seq = SeqNo(header.sequence.into());
    let mut packet = data.to_vec();
    packet.resize(data.len() + MAX_RTP_OVERHEAD, 0);
    let Some(len) = Sender::new(keys).seal_rtp(seq, &mut packet, data.len()) else {
        panic!("a header that parses can be sealed");
    };
    packet.truncate(len);

    let mut receiver = Receiver::new(&keys.swapped());
    assert!(receiver.open_rtp(&mut flipped(&packet, data)).is_err());
    let opened = receiver.open_rtp(&mut packet).expect("sealed with the same keys");
    assert_eq!((opened.header, opened.seq), (header, seq));
    assert_eq!(&packet[..opened.len], data);
}

fn seal_and_flip_rtcp(keys: &Keys, data: &[u8]) {
    let mut packet = data.to_vec();
    packet.resize(data.len() + MAX_RTCP_OVERHEAD, 0);
    let Some(len) = Sender::new(keys).seal_rtcp(&mut packet, data.len()) else {
        assert!(data.len() < 8 || data[0] >> 6 != 2);
        return;
    };
    packet.truncate(len);

    let mut receiver = Receiver::new(&keys.swapped());
    assert!(receiver.open_rtcp(&mut flipped(&packet, data)).is_err());
    assert_eq!(receiver.open_rtcp(&mut packet), Ok(data.len()));
    assert_eq!(&packet[..data.len()], data);
}

/// A copy of `packet` with the bit flipped that the end of `data` points to.
fn flipped(packet: &[u8], data: &[u8]) -> Vec<u8> {
    let pointer = data.last_chunk().map_or(0, |&bytes| usize::from(u16::from_be_bytes(bytes)));
    let mut packet = packet.to_vec();
    let bit = pointer % (8 * packet.len());
    packet[bit / 8] ^= 1 << (bit % 8);
    packet
}

/// Delivers authentic packets in the order that `data` asks for: two bytes choose how far from the
/// newest packet the next one lies, forwards or backwards.
fn reorder(keys: &Keys, data: &[u8]) {
    let (sender, mut receiver) = (Sender::new(keys), Receiver::new(&keys.swapped()));
    let (mut newest, mut seen) = (None, HashSet::new());
    for step in data.chunks_exact(2) {
        let step = i64::from(i16::from_be_bytes([step[0], step[1]]));
        let Some(seq) = newest.unwrap_or(100u64).checked_add_signed(step) else { continue };
        let [high, low] = SeqNo(seq).wire().to_be_bytes();
        let mut packet = [0; 12 + MAX_RTP_OVERHEAD];
        packet[..4].copy_from_slice(&[0x80, 96, high, low]);
        let len = sender.seal_rtp(SeqNo(seq), &mut packet, 12).expect("room for the tag");
        let opened = receiver.open_rtp(&mut packet[..len]);
        let fresh = newest.is_none_or(|newest| seq + RTP_WINDOW > newest) && !seen.contains(&seq);
        assert_eq!(opened.ok().map(|opened| opened.seq), fresh.then_some(SeqNo(seq)));
        if fresh {
            seen.insert(seq);
            newest = newest.max(Some(seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{SSRC, rtcp, rtp};
    use super::*;
    use crate::wire::fuzz::seeds;

    #[test]
    fn damaged_packets_are_refused() {
        let seeds = seeds::of("srtp_open");
        // What is longer only takes longer.
        let short = seeds.iter().filter(|seed| seed.len() <= 100);
        short.for_each(|seed| seeds::damage(seed, 1, fuzz));
    }

    #[test]
    fn takes_real_packets() {
        for choice in 0..3 {
            for packet in [rtp(SSRC, SeqNo(900), 40), rtcp(SSRC, 5)] {
                fuzz(&[&[choice], packet.as_slice()].concat());
            }
        }
    }

    proptest! {
        #[test]
        fn takes_anything(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&data);
        }
    }
}
