//! Malformed traffic: copies of real packets with something wrong, and junk of strangers.
//!
//! A copy leaves by the socket of the packet that it was made of, so that it comes from an address that the
//! server knows; junk comes from addresses that it does not. None of it may disturb anybody.

use shardcast_impair::dice::Dice;

use crate::sys::SendBatch;

/// Longest junk in bytes.
const MAX_JUNK: u64 = 1400;
/// First bytes that make junk look like STUN, DTLS, RTP, RTCP or nothing (RFC 7983 §7).
const BEGINNINGS: [&[u8]; 8] = [
    // A binding request of the right length, and one that lies.
    &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
    &[0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42],
    // A ClientHello, and a fragment of a longer one.
    &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1],
    &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 60, 1, 0, 0xff, 0xff],
    &[0x80, 96],
    &[0x90, 111],
    &[0x80, 200, 0, 6],
    &[0xff],
];

/// Spoils a share of what is sent.
pub struct Spoiler {
    dice: Dice,
    share: f64,
    copy: Vec<u8>,
}

impl Spoiler {
    /// `share`: copies per packet, 0 to 1.
    pub fn new(share: f64, seed: u64) -> Self {
        Self { dice: Dice::new(seed, 0), share, copy: Vec::new() }
    }

    /// Adds malformed copies to what is about to be sent; returns how many.
    pub fn spoil(&mut self, out: &mut SendBatch) -> u64 {
        let mut spoilt = 0;
        for index in 0..out.len() {
            if !self.dice.happens(self.share) {
                continue;
            }
            self.copy.clear();
            self.copy.extend_from_slice(out.get(index));
            mutate(&mut self.dice, &mut self.copy);
            out.push(&self.copy);
            spoilt += 1;
        }
        spoilt
    }
}

/// Changes something: the result always differs from what it was.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let len = bytes.len() as u64;
    match dice.draw() % 4 {
        // Cut short: perhaps to nothing.
        0 if len > 0 => bytes.truncate((dice.draw() % len) as usize),
        // Garbage at the end.
        1 => bytes.extend((0..1 + dice.draw() % 16).map(|n| n as u8 ^ 0x5a)),
        // A wrong beginning: version, padding, counts, lengths, sequence numbers.
        2 if len > 0 => {
            let at = (dice.draw() % len.min(16)) as usize;
            bytes[at] ^= 1 << (dice.draw() % 8);
        }
        // A flipped bit anywhere.
        _ if len > 0 => {
            let at = (dice.draw() % len) as usize;
            bytes[at] ^= 1 << (dice.draw() % 8);
        }
        _ => bytes.push(0),
    }
}

/// What a stranger sends.
pub fn junk(dice: &mut Dice) -> Vec<u8> {
    let beginning = BEGINNINGS[(dice.draw() % BEGINNINGS.len() as u64) as usize];
    let rest = dice.draw() % MAX_JUNK;
    let mut bytes = beginning.to_vec();
    bytes.extend((0..rest / 8).flat_map(|_| dice.draw().to_ne_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_malformed_and_what_they_are_made_of_stays() {
        let (mut spoiler, mut out) = (Spoiler::new(0.5, 7), SendBatch::new());
        let packets: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n)]).collect();
        packets.iter().for_each(|packet| out.push(packet));
        let spoilt = spoiler.spoil(&mut out) as usize;
        assert!((30..70).contains(&spoilt), "{spoilt}");
        let sent: Vec<&[u8]> = out.iter().collect();
        assert_eq!(sent.len(), packets.len() + spoilt);
        assert!(sent.iter().zip(&packets).all(|(sent, packet)| sent == packet));
        assert!(sent[100..].iter().all(|copy| !packets.iter().any(|packet| packet == copy)));
    }

    #[test]
    fn junk_is_of_every_kind_and_fits_a_datagram() {
        let mut dice = Dice::new(1, 2);
        let all: Vec<_> = (0..1000).map(|_| junk(&mut dice)).collect();
        assert!(all.iter().all(|junk| junk.len() < 1500));
        for first in BEGINNINGS.map(|beginning| beginning[0]) {
            assert!(all.iter().any(|junk| junk[0] == first), "{first}");
        }
    }
}
