//! A sender and a receiver with a network between them that loses, reorders, repeats and forges.

use std::collections::HashSet;

use proptest::prelude::*;

use super::testing::{SSRC, hex, keys, pair, rtcp, rtp, seal_rtcp, seal_rtp};
use super::*;
use crate::wire::seq::SeqNo;

/// Opens a copy of `sealed`; the plaintext and its number.
fn open(receiver: &mut Receiver, sealed: &[u8]) -> Result<(Vec<u8>, SeqNo), Error> {
    let mut packet = sealed.to_vec();
    let opened = receiver.open_rtp(&mut packet)?;
    assert_eq!(opened.header, crate::wire::rtp::Header::parse(&packet[..opened.len]).unwrap());
    packet.truncate(opened.len);
    Ok((packet, opened.seq))
}

fn open_rtcp(receiver: &mut Receiver, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut packet = sealed.to_vec();
    let len = receiver.open_rtcp(&mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

/// Sends packet `seq` through; it must arrive as it was.
fn pass(sender: &Sender, receiver: &mut Receiver, seq: u64) {
    let plain = rtp(SSRC, SeqNo(seq), 40);
    let sealed = seal_rtp(sender, SeqNo(seq), &plain);
    assert_eq!(open(receiver, &sealed), Ok((plain, SeqNo(seq))), "packet {seq}");
}

/// The packets that libsrtp's own test seals with the master key of RFC 3711 appendix B.3.
#[test]
fn seals_the_reference_packets_of_libsrtp() {
    let (key, salt) =
        (hex("e1f97a0d3e018be0d64fa32c06de4139"), hex("0ec675ad498afeebb6960b3aabe6"));
    let master = Master { key: &key, salt: &salt };
    let keys = Keys::new(Profile::Aes128CmHmacSha1_80, master, master).unwrap();
    let (mut sender, mut receiver) = (Sender::new(&keys), Receiver::new(&keys));

    let plain = hex("800f1234decafbadcafebabeabababababababababababababababab");
    let sealed =
        hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
    assert_eq!(seal_rtp(&sender, SeqNo(0x1234), &plain), sealed);
    assert_eq!(open(&mut receiver, &sealed), Ok((plain, SeqNo(0x1234))));

    let plain = hex("81c8000bcafebabeabababababababababababababababab");
    let sealed = hex("81c8000bcafebabe7128035be487b9bdbef89041f977a5a8
                      80000001993e08cd54d6c1230798");
    // Its first index is 1, ours 0.
    seal_rtcp(&mut sender, &plain);
    assert_eq!(seal_rtcp(&mut sender, &plain), sealed);
    assert_eq!(open_rtcp(&mut receiver, &sealed), Ok(plain));
}

#[test]
fn every_payload_length_comes_back() {
    for profile in Profile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        for len in 0..200 {
            let seq = SeqNo(len as u64);
            let plain = rtp(SSRC, seq, len);
            let sealed = seal_rtp(&sender, seq, &plain);
            assert_eq!(sealed.len(), plain.len() + profile.rtp_overhead());
            assert_eq!(open(&mut receiver, &sealed), Ok((plain, seq)));
        }
        for extra in 0..100 {
            let plain = rtcp(SSRC, extra);
            let sealed = seal_rtcp(&mut sender, &plain);
            assert_eq!(sealed.len(), plain.len() + profile.rtcp_overhead());
            assert_eq!(open_rtcp(&mut receiver, &sealed), Ok(plain));
        }
    }
}

#[test]
fn nothing_but_the_headers_stays_readable() {
    for profile in Profile::ALL {
        let (mut sender, _) = pair(profile);
        let plain = rtp(SSRC, SeqNo(5), 64);
        let sealed = seal_rtp(&sender, SeqNo(5), &plain);
        assert_eq!(sealed[..24], plain[..24]);
        assert!(sealed[24..].chunks(8).zip(plain[24..].chunks(8)).all(|(a, b)| a != b));
        let plain = rtcp(SSRC, 8);
        let sealed = seal_rtcp(&mut sender, &plain);
        assert_eq!(sealed[..8], plain[..8]);
        assert!(sealed[8..40].chunks(8).zip(plain[8..].chunks(8)).all(|(a, b)| a != b));
    }
}

/// RFC 3711 §3.3.1: the rollover count follows two wraps, loss around them included.
#[test]
fn counts_rollovers_through_loss() {
    for profile in Profile::ALL {
        let (sender, mut receiver) = pair(profile);
        (32_000..(2 << 16) + 1000).step_by(997).for_each(|seq| pass(&sender, &mut receiver, seq));
    }
}

#[test]
fn reorders_across_the_wrap() {
    for profile in Profile::ALL {
        let (sender, mut receiver) = pair(profile);
        for seq in [30_000, 60_000, 65_534, 65_537, 65_535, 65_540, 65_536, 65_533, 65_538] {
            pass(&sender, &mut receiver, seq);
        }
        // The newest decides the guess, not the latest to arrive.
        pass(&sender, &mut receiver, 65_541);
    }
}

/// RFC 3711 appendix A, written down as it stands there.
fn rollover_by_appendix_a(roc: u32, highest: u16, seq: u16) -> u32 {
    let (highest, seq) = (i32::from(highest), i32::from(seq));
    if highest < 32_768 {
        if seq - highest > 32_768 { roc - 1 } else { roc }
    } else if highest - 32_768 > seq {
        roc + 1
    } else {
        roc
    }
}

proptest! {
    /// Apart from the one packet exactly opposite on the circle, where §3.3.1 leaves the choice.
    #[test]
    fn guesses_like_appendix_a(roc in 1u32..1 << 31, highest: u16, seq: u16) {
        prop_assume!(seq.wrapping_sub(highest) != 1 << 15);
        let newest = SeqNo(u64::from(roc) << 16 | u64::from(highest));
        let guess = newest.nearest(seq);
        prop_assert_eq!(guess.rollovers(), rollover_by_appendix_a(roc, highest, seq));
        prop_assert_eq!(guess.wire(), seq);
    }
}

#[test]
fn refuses_what_was_seen_or_is_too_old() {
    for profile in Profile::ALL {
        let (sender, mut receiver) = pair(profile);
        let sealed: Vec<_> = (0..1100)
            .map(|seq| seal_rtp(&sender, SeqNo(seq), &rtp(SSRC, SeqNo(seq), 20)))
            .collect();
        open(&mut receiver, &sealed[10]).unwrap();
        assert_eq!(open(&mut receiver, &sealed[10]), Err(Error::Replayed));
        open(&mut receiver, &sealed[1099]).unwrap();
        let oldest = 1099 - RTP_WINDOW as usize + 1;
        open(&mut receiver, &sealed[oldest]).unwrap();
        assert_eq!(open(&mut receiver, &sealed[oldest]), Err(Error::Replayed));
        assert_eq!(open(&mut receiver, &sealed[oldest - 1]), Err(Error::Replayed));
    }
}

#[test]
fn refuses_replayed_rtcp() {
    for profile in Profile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let sealed: Vec<_> = (0..200).map(|_| seal_rtcp(&mut sender, &rtcp(SSRC, 3))).collect();
        assert_eq!(open_rtcp(&mut receiver, &sealed[0]), Ok(rtcp(SSRC, 3)));
        assert_eq!(open_rtcp(&mut receiver, &sealed[0]), Err(Error::Replayed));
        open_rtcp(&mut receiver, &sealed[199]).unwrap();
        let oldest = 199 - RTCP_WINDOW as usize + 1;
        open_rtcp(&mut receiver, &sealed[oldest]).unwrap();
        assert_eq!(open_rtcp(&mut receiver, &sealed[oldest - 1]), Err(Error::Replayed));
    }
}

/// Hands every truncation and every bit flip of `sealed` to `refused`, which must say no to it.
fn sweep(sealed: &[u8], mut refused: impl FnMut(&[u8]) -> bool) {
    for len in 0..sealed.len() {
        assert!(refused(&sealed[..len]), "cut to {len} bytes");
    }
    for bit in 0..8 * sealed.len() {
        let mut forged = sealed.to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&forged), "bit {bit} flipped");
    }
}

#[test]
fn refuses_every_truncation_and_bit_flip_of_rtp() {
    for profile in Profile::ALL {
        for payload_len in [0, 1, 30] {
            let (sender, mut receiver) = pair(profile);
            pass(&sender, &mut receiver, 70);
            let plain = rtp(SSRC, SeqNo(80), payload_len);
            let sealed = seal_rtp(&sender, SeqNo(80), &plain);
            sweep(&sealed, |packet| open(&mut receiver, packet).is_err());
            assert_eq!(open(&mut receiver, &sealed), Ok((plain, SeqNo(80))), "nothing was marked");
        }
    }
}

#[test]
fn refuses_every_truncation_and_bit_flip_of_rtcp() {
    for profile in Profile::ALL {
        for extra in [0, 1, 6] {
            let (mut sender, mut receiver) = pair(profile);
            let sealed = seal_rtcp(&mut sender, &rtcp(SSRC, extra));
            sweep(&sealed, |packet| open_rtcp(&mut receiver, packet).is_err());
            assert_eq!(open_rtcp(&mut receiver, &sealed), Ok(rtcp(SSRC, extra)));
        }
    }
}

#[test]
fn tells_why_it_refuses() {
    for profile in Profile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut sealed = seal_rtp(&sender, SeqNo(9), &rtp(SSRC, SeqNo(9), 20));
        assert_eq!(open(&mut receiver, &sealed[..30]), Err(Error::Malformed));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut receiver, &sealed), Err(Error::Forged));
        // One CSRC more than the packet is long.
        assert_eq!(open(&mut receiver, &hex("8f60000900000000cafebabe")), Err(Error::Malformed));

        let mut sealed = seal_rtcp(&mut sender, &rtcp(SSRC, 2));
        assert_eq!(open_rtcp(&mut receiver, &sealed[..20]), Err(Error::Malformed));
        sealed[9] ^= 1;
        assert_eq!(open_rtcp(&mut receiver, &sealed), Err(Error::Forged));
        sealed[0] ^= 0x40;
        assert_eq!(open_rtcp(&mut receiver, &sealed), Err(Error::Malformed), "version 3");
    }
}

/// RFC 7714 §17.3 and §9.3: tagged but not encrypted. The profiles do not allow it.
#[test]
fn refuses_srtcp_without_encryption() {
    let sealed = hex("81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61
                      deadbeefdeadbeefdeadbeefdeadbeefdeadbeef
                      841dd9683dd78ec92ae58790125f62b3000005d4");
    let (_, mut receiver) = pair(Profile::AeadAes128Gcm);
    assert_eq!(open_rtcp(&mut receiver, &sealed), Err(Error::Malformed));
}

#[test]
fn the_two_directions_have_different_keys() {
    for profile in Profile::ALL {
        let sender = Sender::new(&keys(profile));
        let mut reflected = Receiver::new(&keys(profile));
        let sealed = seal_rtp(&sender, SeqNo(1), &rtp(SSRC, SeqNo(1), 20));
        assert_eq!(open(&mut reflected, &sealed), Err(Error::Forged));
    }
}

#[test]
fn ssrcs_are_independent() {
    let (sender, mut receiver) = pair(Profile::AeadAes128Gcm);
    for (ssrc, seq) in [(9, 65_535), (1, 7), (5, 30_000), (9, 65_536), (1, 8), (9, 65_534)] {
        let plain = rtp(ssrc, SeqNo(seq), 20);
        let sealed = seal_rtp(&sender, SeqNo(seq), &plain);
        assert_eq!(open(&mut receiver, &sealed), Ok((plain, SeqNo(seq))));
        assert_eq!(open(&mut receiver, &sealed), Err(Error::Replayed));
    }
}

#[test]
fn bounds_the_ssrcs_of_a_peer() {
    let (mut sender, mut receiver) = pair(Profile::AeadAes128Gcm);
    let seal = |ssrc, seq| seal_rtp(&sender, SeqNo(seq), &rtp(ssrc, SeqNo(seq), 20));
    // Forgeries take no place.
    for ssrc in 0..MAX_SSRCS as u32 {
        let mut forged = seal(!ssrc, 1);
        forged[40] ^= 1;
        assert_eq!(open(&mut receiver, &forged), Err(Error::Forged));
    }
    // Scattered, so that insertion in the middle is seen to keep the order.
    let ssrc = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9);
    for i in 0..MAX_SSRCS {
        open(&mut receiver, &seal(ssrc(i), 1)).unwrap();
    }
    assert_eq!(open(&mut receiver, &seal(ssrc(MAX_SSRCS), 1)), Err(Error::TooManySsrcs));
    for i in 0..MAX_SSRCS {
        assert_eq!(open(&mut receiver, &seal(ssrc(i), 1)), Err(Error::Replayed));
        open(&mut receiver, &seal(ssrc(i), 2)).unwrap();
    }
    for i in 0..MAX_SSRCS {
        let sealed = seal_rtcp(&mut sender, &rtcp(ssrc(i), 0));
        open_rtcp(&mut receiver, &sealed).unwrap();
    }
    let sealed = seal_rtcp(&mut sender, &rtcp(ssrc(MAX_SSRCS), 0));
    assert_eq!(open_rtcp(&mut receiver, &sealed), Err(Error::TooManySsrcs));
}

/// What a network does to packets that are numbered from `start` on.
fn arrivals() -> impl Strategy<Value = (u64, Vec<u64>)> {
    // Step to the next packet sent, and how many places late it arrives (or never).
    let packet = (
        1u64..900,
        prop_oneof![3 => Just(Some(0)), 2 => (0usize..12).prop_map(Some), 1 => Just(None)],
    );
    (0u64..1 << 15, prop::collection::vec(packet, 1..200)).prop_map(|(start, packets)| {
        let mut arriving: Vec<(usize, u64)> = vec![(0, start)];
        let mut seq = start;
        for (place, (step, delay)) in packets.into_iter().enumerate() {
            seq += step;
            arriving.extend(delay.map(|late| (place + 1 + late, seq)));
            // Every third packet is also repeated a little later.
            arriving.extend(delay.filter(|_| place % 3 == 0).map(|late| (place + late + 5, seq)));
        }
        arriving.sort();
        (start, arriving.into_iter().map(|(_, seq)| seq).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order: opened exactly once, or refused because it is too old.
    #[test]
    fn opens_each_packet_once((start, arriving) in arrivals(), profile in 0usize..3) {
        let (sender, mut receiver) = pair(Profile::ALL[profile]);
        let (mut newest, mut seen) = (start, HashSet::new());
        for seq in arriving {
            let plain = rtp(SSRC, SeqNo(seq), 30);
            let sealed = seal_rtp(&sender, SeqNo(seq), &plain);
            let fresh = seq + RTP_WINDOW > newest && seen.insert(seq);
            let expected = if fresh { Ok((plain, SeqNo(seq))) } else { Err(Error::Replayed) };
            prop_assert_eq!(open(&mut receiver, &sealed), expected);
            newest = newest.max(seq);
        }
    }

    /// Bytes that nobody sealed are refused, and nothing panics.
    #[test]
    fn refuses_noise(mut noise in prop::collection::vec(any::<u8>(), 0..120), profile in 0usize..3) {
        let (_, mut receiver) = pair(Profile::ALL[profile]);
        prop_assert!(receiver.open_rtcp(&mut noise.clone()).is_err());
        if let Some(first) = noise.first_mut() {
            *first = 0x80 | *first & 0x3f;
        }
        prop_assert!(receiver.open_rtp(&mut noise.clone()).is_err());
        prop_assert!(receiver.open_rtcp(&mut noise).is_err());
    }
}
