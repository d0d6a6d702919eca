//! SRTP and SRTCP exchanged with `webrtc-srtp`, which has all three profiles, in both directions.
//!
//! It is given well-formed packets only: it is known to panic on others.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardcast::transport::srtp::{
    Keys, MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, Master, Profile, Receiver, Sender,
};
use shardcast::wire::seq::SeqNo;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

/// By how many numbers a packet may be late: the replay windows of both sides take it then.
const REORDERING: u64 = 16;

/// One direction, sealed by one implementation and opened by the other.
struct Setup {
    ours: Keys,
    theirs: Context,
    rng: StdRng,
}

/// Random master keys of `profile`. Both directions share them: each test uses only one.
fn setup(profile: Profile, seed: u64) -> Setup {
    let mut rng = StdRng::seed_from_u64(seed);
    let key: Vec<u8> = (0..profile.key_len()).map(|_| rng.random()).collect();
    let salt: Vec<u8> = (0..profile.salt_len()).map(|_| rng.random()).collect();
    let master = Master { key: &key, salt: &salt };
    let theirs = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let rtp_window = Some(srtp_replay_protection(64));
    let rtcp_window = Some(srtcp_replay_protection(64));
    Setup {
        ours: Keys::new(profile, master, master).expect("the profile's own lengths"),
        theirs: Context::new(&key, &salt, theirs, rtp_window, rtcp_window).expect("likewise"),
        rng,
    }
}

/// Numbers across two rollovers: every one near a wrap, elsewhere bursts with long gaps between.
fn numbers(rng: &mut StdRng) -> Vec<SeqNo> {
    let mut numbers = vec![SeqNo(rng.random_range(0..1 << 15))];
    let mut seq = numbers[0].0;
    while seq < (2 << 16) + 2000 {
        let to_wrap = (1 << 16) - seq % (1 << 16);
        let near_wrap = to_wrap < 4000 || to_wrap > (1 << 16) - 500;
        seq += if near_wrap || rng.random_bool(0.95) { 1 } else { rng.random_range(1..4000) };
        numbers.push(SeqNo(seq));
    }
    numbers
}

/// Which of the packets arrive, in which order: one in ten is lost, and each may be overtaken by the
/// [`REORDERING`] numbers behind it. The first is neither lost nor late, since a receiver takes its
/// rollover count as 0.
fn arrivals(numbers: &[SeqNo], rng: &mut StdRng) -> Vec<usize> {
    let mut arriving = vec![(0, 0)];
    for (i, seq) in numbers.iter().enumerate().skip(1) {
        if !rng.random_ratio(1, 10) {
            arriving.push((seq.0 + rng.random_range(0..=REORDERING), i));
        }
    }
    arriving.sort();
    arriving.into_iter().map(|(_, i)| i).collect()
}

/// A plain RTP packet: with CSRCs, with an extension block, with both or with neither.
fn rtp(seq: SeqNo, rng: &mut StdRng) -> Vec<u8> {
    let (csrcs, extension) = (rng.random_range(0..3), rng.random_bool(0.5));
    let mut packet = vec![0x80 | u8::from(extension) << 4 | csrcs, 96];
    packet.extend(seq.wire().to_be_bytes());
    packet.extend(rng.random::<[u8; 4]>());
    packet.extend(0x1234_5678u32.to_be_bytes());
    (0..csrcs).for_each(|_| packet.extend(rng.random::<[u8; 4]>()));
    if extension {
        // Audio level in element 1, a sequence number in element 3, 3 bytes of padding.
        packet.extend([0xbe, 0xde, 0, 2, 0x10, 0x8f, 0x31, rng.random(), rng.random(), 0, 0, 0]);
    }
    let len = rng.random_range(0..1200);
    packet.extend((0..len).map(|_| rng.random::<u8>()));
    packet
}

/// A sender report without blocks and a source description, from one of two senders.
fn rtcp(rng: &mut StdRng) -> Vec<u8> {
    let ssrc = rng.random_range(7u32..9).to_be_bytes();
    let mut compound = vec![0x80, 200, 0, 6];
    compound.extend(ssrc);
    compound.extend(rng.random::<[u8; 20]>());
    compound.extend([0x81, 202, 0, 3]);
    compound.extend(ssrc);
    compound.extend([1, 4, b'n', b'a', b'm', b'e', 0, 0]);
    compound
}

fn seal_rtp(sender: &Sender, seq: SeqNo, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + MAX_RTP_OVERHEAD, 0);
    let len = sender.seal_rtp(seq, &mut packet, plain.len()).expect("room for the tag");
    packet.truncate(len);
    packet
}

fn seal_rtcp(sender: &mut Sender, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + MAX_RTCP_OVERHEAD, 0);
    let len = sender.seal_rtcp(&mut packet, plain.len()).expect("room for tag and index");
    packet.truncate(len);
    packet
}

#[test]
fn they_open_our_rtp() {
    for (seed, profile) in (1..).zip(Profile::ALL) {
        let Setup { ours, mut theirs, mut rng } = setup(profile, seed);
        let sender = Sender::new(&ours);
        let numbers = numbers(&mut rng);
        let plain: Vec<_> = numbers.iter().map(|&seq| rtp(seq, &mut rng)).collect();
        for i in arrivals(&numbers, &mut rng) {
            let sealed = seal_rtp(&sender, numbers[i], &plain[i]);
            let opened = theirs.decrypt_rtp(&sealed);
            let opened = opened.unwrap_or_else(|e| panic!("{profile:?} {:?}: {e}", numbers[i]));
            assert_eq!(opened, plain[i], "{profile:?} {:?}", numbers[i]);
        }
    }
}

#[test]
fn we_open_their_rtp() {
    for (seed, profile) in (11..).zip(Profile::ALL) {
        let Setup { ours, mut theirs, mut rng } = setup(profile, seed);
        let (sender, mut receiver) = (Sender::new(&ours), Receiver::new(&ours));
        let numbers = numbers(&mut rng);
        let plain: Vec<_> = numbers.iter().map(|&seq| rtp(seq, &mut rng)).collect();
        // Their sender counts rollovers by what it is given, so it is given everything in order.
        let sealed: Vec<_> = plain.iter().map(|plain| theirs.encrypt_rtp(plain).unwrap()).collect();
        for i in arrivals(&numbers, &mut rng) {
            assert_eq!(seal_rtp(&sender, numbers[i], &plain[i]), sealed[i], "{profile:?}");
            let mut packet = sealed[i].to_vec();
            let opened = receiver.open_rtp(&mut packet);
            let opened = opened.unwrap_or_else(|e| panic!("{profile:?} {:?}: {e}", numbers[i]));
            assert_eq!(opened.seq, numbers[i]);
            assert_eq!(packet[..opened.len], plain[i], "{profile:?} {:?}", numbers[i]);
        }
    }
}

#[test]
fn they_open_our_rtcp() {
    for (seed, profile) in (21..).zip(Profile::ALL) {
        let Setup { ours, mut theirs, mut rng } = setup(profile, seed);
        let mut sender = Sender::new(&ours);
        let numbers: Vec<_> = (0..500).map(SeqNo).collect();
        let plain: Vec<_> = numbers.iter().map(|_| rtcp(&mut rng)).collect();
        let sealed: Vec<_> = plain.iter().map(|plain| seal_rtcp(&mut sender, plain)).collect();
        for i in arrivals(&numbers, &mut rng) {
            let opened = theirs.decrypt_rtcp(&sealed[i]);
            let opened = opened.unwrap_or_else(|e| panic!("{profile:?} compound {i}: {e}"));
            assert_eq!(opened, plain[i], "{profile:?} compound {i}");
        }
    }
}

#[test]
fn we_open_their_rtcp() {
    for (seed, profile) in (31..).zip(Profile::ALL) {
        let Setup { ours, mut theirs, mut rng } = setup(profile, seed);
        let mut receiver = Receiver::new(&ours);
        let numbers: Vec<_> = (0..500).map(SeqNo).collect();
        let plain: Vec<_> = numbers.iter().map(|_| rtcp(&mut rng)).collect();
        let sealed: Vec<_> =
            plain.iter().map(|plain| theirs.encrypt_rtcp(plain).unwrap()).collect();
        for i in arrivals(&numbers, &mut rng) {
            let mut packet = sealed[i].to_vec();
            let opened = receiver.open_rtcp(&mut packet);
            let len = opened.unwrap_or_else(|e| panic!("{profile:?} compound {i}: {e}"));
            assert_eq!(packet[..len], plain[i], "{profile:?} compound {i}");
        }
    }
}
