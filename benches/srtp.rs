//! What one packet costs to seal and to open, beside `webrtc-srtp` in the same run.
//!
//! Payloads of 160 bytes (a large opus packet) and 1200 (a full video packet) behind a 12-byte header.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shardcast::transport::srtp::{Keys, MAX_RTP_OVERHEAD, Master, Profile, Receiver, Sender};
use shardcast::wire::seq::SeqNo;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

const HEADER_LEN: usize = 12;
const PAYLOADS: [usize; 2] = [160, 1200];

const PROFILES: [(Profile, ProtectionProfile, &str); 3] = [
    (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm, "gcm-256"),
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm, "gcm-128"),
    (Profile::Aes128CmHmacSha1_80, ProtectionProfile::Aes128CmHmacSha1_80, "cm-sha1-80"),
];

/// One direction's keys for us and for them.
fn keys(profile: Profile, theirs: ProtectionProfile) -> (Keys, Context) {
    let (key, salt) = (vec![0x5a; profile.key_len()], vec![0xa5; profile.salt_len()]);
    let master = Master { key: &key, salt: &salt };
    let window = Some(srtp_replay_protection(1024));
    (
        Keys::new(profile, master, master).expect("the profile's own lengths"),
        Context::new(&key, &salt, theirs, window, None).expect("the profile's own lengths"),
    )
}

fn plain(seq: SeqNo, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x42; HEADER_LEN + payload];
    packet[..2].copy_from_slice(&[0x80, 96]);
    packet[2..4].copy_from_slice(&seq.wire().to_be_bytes());
    packet
}

fn sealed(sender: &Sender, seq: SeqNo, payload: usize) -> Vec<u8> {
    let mut packet = plain(seq, payload);
    let len = packet.len();
    packet.resize(len + MAX_RTP_OVERHEAD, 0);
    let len = sender.seal_rtp(seq, &mut packet, len).expect("room for the tag");
    packet.truncate(len);
    packet
}

fn seal(criterion: &mut Criterion) {
    for (profile, their_profile, name) in PROFILES {
        for payload in PAYLOADS {
            let mut group = criterion.benchmark_group(format!("srtp/seal/{name}/{payload}"));
            group.throughput(Throughput::Elements(1));
            let (ours, mut theirs) = keys(profile, their_profile);
            let sender = Sender::new(&ours);
            // Sealed over and over where it lies: what the payload says makes no difference.
            let (seq, packet) = (SeqNo(1000), plain(SeqNo(1000), payload));
            let mut buffer = packet.clone();
            buffer.resize(packet.len() + MAX_RTP_OVERHEAD, 0);
            group.bench_function("shardcast", |bencher| {
                bencher
                    .iter(|| sender.seal_rtp(seq, black_box(&mut buffer), packet.len()).unwrap());
            });
            group.bench_function("webrtc-srtp", |bencher| {
                bencher.iter(|| theirs.encrypt_rtp(black_box(&packet)).unwrap());
            });
        }
    }
}

fn open(criterion: &mut Criterion) {
    for (profile, their_profile, name) in PROFILES {
        for payload in PAYLOADS {
            let mut group = criterion.benchmark_group(format!("srtp/open/{name}/{payload}"));
            group.throughput(Throughput::Elements(1));
            let (ours, mut theirs) = keys(profile, their_profile);
            let (sender, mut receiver) = (Sender::new(&ours), Receiver::new(&ours));
            // A packet is opened but once, so each iteration has the next one made ready, untimed.
            let mut seq = SeqNo(0);
            let mut next = || {
                seq.0 += 1;
                sealed(&sender, seq, payload)
            };
            group.bench_function("shardcast", |bencher| {
                bencher.iter_batched_ref(
                    &mut next,
                    |packet| receiver.open_rtp(packet).unwrap(),
                    BatchSize::SmallInput,
                );
            });
            // Its rollover count begins at 0, so its packets begin anew.
            let mut seq = SeqNo(0);
            let mut next = || {
                seq.0 += 1;
                sealed(&sender, seq, payload)
            };
            group.bench_function("webrtc-srtp", |bencher| {
                bencher.iter_batched_ref(
                    &mut next,
                    |packet| theirs.decrypt_rtp(packet).unwrap(),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
