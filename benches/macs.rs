//! Whether hashing several packets at once would pay: HMAC-SHA1 spends its time in compressing 64-byte blocks,
//! one after the other; blocks of different packets do not wait for each other.
//!
//! Compared are packets of 1,212 bytes (20 blocks with the padding): one after the other as the server does it,
//! in turns block by block with the same library, and in lockstep with the processor's own instructions.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha1::block_api::compress;

type State = [u32; 5];
type Block = [u8; 64];

/// Blocks of a packet, and of the two ends of its HMAC.
const BLOCKS: usize = 20;
const BEGIN: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

fn packets<const N: usize>() -> [[Block; BLOCKS]; N] {
    std::array::from_fn(|packet| {
        std::array::from_fn(|block| {
            std::array::from_fn(|byte| (packet * 7 + block * 3 + byte) as u8)
        })
    })
}

fn one_by_one<const N: usize>(packets: &[[Block; BLOCKS]; N]) -> [State; N] {
    std::array::from_fn(|packet| {
        let mut state = BEGIN;
        compress(&mut state, &packets[packet]);
        state
    })
}

fn in_turns<const N: usize>(packets: &[[Block; BLOCKS]; N]) -> [State; N] {
    let mut states = [BEGIN; N];
    for block in 0..BLOCKS {
        for (state, packet) in states.iter_mut().zip(packets) {
            compress(state, std::slice::from_ref(&packet[block]));
        }
    }
    states
}

/// SHA-NI on several blocks in lockstep.
#[cfg(target_arch = "x86_64")]
mod lockstep {
    use std::arch::x86_64::*;

    use super::{BEGIN, BLOCKS, Block, State};

    pub fn is_possible() -> bool {
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")
    }

    pub fn hash<const N: usize>(packets: &[[Block; BLOCKS]; N]) -> [State; N] {
        let mut states = [BEGIN; N];
        for block in 0..BLOCKS {
            let blocks = packets.each_ref().map(|packet| &packet[block]);
            // SAFETY: nobody measures this where `is_possible` says no.
            unsafe { compress(&mut states, blocks) };
        }
        states
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn compress<const N: usize>(states: &mut [State; N], blocks: [&Block; N]) {
        let mut words = [[_mm_setzero_si128(); 20]; N];
        let mut abcd = [_mm_setzero_si128(); N];
        let mut before = abcd;
        for lane in 0..N {
            let [a, b, c, d, e] = states[lane].map(u32::cast_signed);
            abcd[lane] = _mm_set_epi32(a, b, c, d);
            before[lane] = _mm_set_epi32(e, 0, 0, 0);
            for (word, bytes) in words[lane].iter_mut().zip(blocks[lane].as_chunks::<16>().0) {
                let [a, b, c, d] = *bytes.as_chunks::<4>().0 else { unreachable!("four in 16") };
                let [a, b, c, d] = [a, b, c, d].map(i32::from_be_bytes);
                *word = _mm_set_epi32(a, b, c, d);
            }
        }
        let (first, ends) = (abcd, before);
        macro_rules! rounds {
            ($function:literal) => {
                for step in $function * 5..$function * 5 + 5 {
                    for lane in 0..N {
                        let words = &mut words[lane];
                        if step >= 4 {
                            let mixed = _mm_sha1msg1_epu32(words[step - 4], words[step - 3]);
                            let mixed = _mm_xor_si128(mixed, words[step - 2]);
                            words[step] = _mm_sha1msg2_epu32(mixed, words[step - 1]);
                        }
                        let word = words[step];
                        let input = match step {
                            0 => _mm_add_epi32(before[lane], word),
                            _ => _mm_sha1nexte_epu32(before[lane], word),
                        };
                        before[lane] = abcd[lane];
                        abcd[lane] = _mm_sha1rnds4_epu32::<$function>(abcd[lane], input);
                    }
                }
            };
        }
        rounds!(0);
        rounds!(1);
        rounds!(2);
        rounds!(3);
        for lane in 0..N {
            let e = _mm_sha1nexte_epu32(before[lane], ends[lane]);
            let sum = _mm_add_epi32(abcd[lane], first[lane]);
            states[lane] = [
                _mm_extract_epi32::<3>(sum),
                _mm_extract_epi32::<2>(sum),
                _mm_extract_epi32::<1>(sum),
                _mm_extract_epi32::<0>(sum),
                _mm_extract_epi32::<3>(e),
            ]
            .map(i32::cast_unsigned);
        }
    }
}

fn several<const N: usize>(criterion: &mut Criterion) {
    let packets = packets::<N>();
    let right = one_by_one(&packets);
    let mut group = criterion.benchmark_group(format!("sha1/{N} packets"));
    group.throughput(Throughput::Elements(N as u64));
    group.bench_function("one by one", |bencher| bencher.iter(|| one_by_one(black_box(&packets))));
    if N == 1 {
        return;
    }
    assert_eq!(in_turns(&packets), right);
    group.bench_function("in turns", |bencher| bencher.iter(|| in_turns(black_box(&packets))));
    #[cfg(target_arch = "x86_64")]
    if lockstep::is_possible() {
        assert_eq!(lockstep::hash(&packets), right);
        let hash = || lockstep::hash(black_box(&packets));
        group.bench_function("in lockstep", |bencher| bencher.iter(hash));
    }
}

criterion_group!(benches, several::<1>, several::<2>, several::<4>);
criterion_main!(benches);
