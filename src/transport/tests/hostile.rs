//! What a peer that means harm can do with DTLS: fill buffers, crash, or disturb others' calls.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::pair::{Pair, identities};
use crate::transport::{CloseReason, Event, Rejected, Transport, dtls};
use crate::wire::MAX_DATAGRAM;

const SECOND: Duration = Duration::from_secs(1);

/// A plaintext handshake record with one fragment of a ClientHello (RFC 6347 §4.2.2).
fn hello_record(sequence: u16, message_len: usize, offset: usize, fragment: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    record.extend(sequence.to_be_bytes());
    record.extend((12 + fragment.len() as u16).to_be_bytes());
    record.push(1);
    record.extend(&(message_len as u32).to_be_bytes()[1..]);
    record.extend([0, 0]);
    record.extend(&(offset as u32).to_be_bytes()[1..]);
    record.extend(&(fragment.len() as u32).to_be_bytes()[1..]);
    record.extend(fragment);
    record
}

/// A browser's first ClientHello with a post-quantum key share, in the two datagrams that it sent.
fn browser_hello(fixture: &str) -> Vec<Vec<u8>> {
    let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
    let hex = fixture["raw_hex"].as_str().unwrap();
    let body: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let first_len = fixture["datagrams"][0].as_u64().unwrap() as usize - 13 - 12;
    let (first, second) = body.split_at(first_len);
    let datagrams =
        vec![hello_record(0, body.len(), 0, first), hello_record(1, body.len(), first_len, second)];
    let lens: Vec<u64> = datagrams.iter().map(|datagram| datagram.len() as u64).collect();
    assert_eq!(serde_json::json!(lens), fixture["datagrams"], "as the browser sent them");
    datagrams
}

const CHROMIUM: &str = include_str!("../../../tests/fixtures/browsers/chromium-clienthello-0.json");
const FIREFOX: &str = include_str!("../../../tests/fixtures/browsers/firefox-clienthello-0.json");

/// A passive side that passed a check and was told of its peer.
fn waiting() -> Pair {
    let mut pair = Pair::new(0);
    pair.check();
    pair.tell_passive(identities()[1].fingerprint());
    pair
}

fn receive(pair: &mut Pair, datagram: &[u8]) -> Result<(), Rejected> {
    pair.passive.transport.receive_dtls(pair.now, pair.active.addr, datagram)
}

#[test]
fn browsers_hellos_in_two_datagrams_are_answered() {
    for fixture in [CHROMIUM, FIREFOX] {
        let hello = browser_hello(fixture);
        for order in [[0, 1], [1, 0]] {
            for is_early in [false, true] {
                let mut pair = Pair::new(0);
                pair.check();
                if !is_early {
                    pair.tell_passive(identities()[1].fingerprint());
                }
                for part in order {
                    assert_eq!(receive(&mut pair, &hello[part]), Ok(()));
                }
                pair.tell_passive(identities()[1].fingerprint());
                let answer = pair.passive.outgoing();
                // A plaintext handshake record with a ServerHello (RFC 5246 §7.4.1.3).
                assert_eq!((answer[0][0], answer[0][13]), (22, 2));
                assert!(answer.iter().all(|datagram| datagram.len() <= dtls::MTU));
            }
        }
    }
}

/// A stranger may not even begin: nothing is kept, nothing is sent.
#[test]
fn a_hello_from_an_unchecked_address_is_rejected() {
    let mut pair = waiting();
    let stranger = ([198, 51, 100, 1], 5).into();
    for datagram in browser_hello(CHROMIUM) {
        let refused = pair.passive.transport.receive_dtls(pair.now, stranger, &datagram);
        assert_eq!(refused, Err(Rejected::EarlyDtls));
    }
    assert!(pair.passive.outgoing().is_empty());
}

#[test]
fn early_hellos_are_kept_within_a_bound() {
    let mut pair = Pair::new(0);
    pair.check();
    let fragment = [0; 1000];
    let kept = (0..100).filter(|&n| {
        let record = hello_record(n, 10_000, usize::from(n), &fragment);
        let result = receive(&mut pair, &record);
        let bounded = Err(Rejected::TooManyHellos);
        assert!(matches!(result, Ok(()) | Err(Rejected::EarlyDtls)) || result == bounded);
        result.is_ok()
    });
    assert_eq!(kept.count(), 4);
    // A handshake record that is no hello is not kept at all.
    let mut pair = Pair::new(0);
    pair.check();
    let mut finished = hello_record(0, 4, 0, b"body");
    finished[13] = 20;
    assert_eq!(receive(&mut pair, &finished), Err(Rejected::EarlyDtls));
}

/// Many small fragments of a message that never becomes whole (the shape of CVE-2022-29189).
#[test]
fn a_flood_of_fragments_ends_the_handshake_and_nothing_else() {
    let mut pair = waiting();
    let mut accepted = 0;
    for n in 0..10_000u16 {
        // Every second byte, so that the message has gaps throughout.
        match receive(&mut pair, &hello_record(n, 16_000, usize::from(n) % 8_000 * 2, b"x")) {
            Ok(()) => accepted += 1,
            Err(Rejected::BadDtls | Rejected::Closed) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(accepted <= 30, "{accepted} fragments were kept");
    pair.passive.collect_events();
    assert_eq!(pair.passive.events, [Event::Closed(CloseReason::DtlsFailed)]);
}

/// Empty and lying fragments are never kept (the shape of CVE-2022-29190).
#[test]
fn empty_and_lying_fragments_do_not_disturb_a_handshake() {
    let mut pair = waiting();
    for n in 0..10_000 {
        let lies = [
            hello_record(n, 1000, 0, b""),
            hello_record(n, 0xff_ffff, 0, b"endless"),
            hello_record(n, 1000, 999, b"beyond"),
        ];
        for lie in lies {
            assert_eq!(receive(&mut pair, &lie), Err(Rejected::BadDtls));
        }
    }
    assert_still_connects(pair);
}

/// The same fragment again and again takes no room, and does not keep the handshake alive.
#[test]
fn a_repeated_fragment_fails_by_the_handshakes_deadline() {
    let mut pair = waiting();
    for second in 0..30 {
        pair.check();
        for n in 0..1000 {
            let result = receive(&mut pair, &hello_record(n, 1000, 500, b"again"));
            let is_first = second == 0 && u32::from(n) < dtls::MAX_HELLOS;
            let expected = if is_first { Ok(()) } else { Err(Rejected::TooManyHellos) };
            assert_eq!(result, expected);
        }
        pair.run_for(SECOND);
        assert_eq!(pair.passive.events.is_empty(), second < 29, "after {second} s");
    }
    assert_eq!(pair.passive.events, [Event::Closed(CloseReason::DtlsFailed)]);
}

/// Garbage is rejected before the handshake sees it, and the handshake still succeeds.
#[test]
fn garbage_does_not_disturb_a_handshake() {
    let mut random = StdRng::seed_from_u64(1);
    let mut pair = waiting();
    for _ in 0..10_000 {
        let mut datagram = vec![0; random.random_range(0..1500)];
        random.fill(&mut datagram[..]);
        if let Some(kind) = datagram.first_mut() {
            *kind = random.random_range(20..64);
        }
        assert_eq!(receive(&mut pair, &datagram), Err(Rejected::BadDtls));
    }
    assert_still_connects(pair);
}

fn assert_still_connects(mut pair: Pair) {
    pair.tell_active(identities()[0].fingerprint());
    pair.run_for(SECOND);
    assert!(pair.are_connected(), "{:?}", pair.passive.events);
}

/// The datagrams of a whole handshake, in order, as (to the passive side, bytes).
fn recorded_handshake() -> (Pair, Vec<(bool, Vec<u8>)>) {
    let mut pair = Pair::new(0);
    pair.connect();
    let mut record = Vec::new();
    loop {
        let to_passive = pair.active.outgoing();
        for datagram in &to_passive {
            let from = pair.active.addr;
            pair.passive.transport.receive_dtls(pair.now, from, datagram).unwrap();
        }
        let to_active = pair.passive.outgoing();
        for datagram in &to_active {
            let from = pair.passive.addr;
            pair.active.transport.receive_dtls(pair.now, from, datagram).unwrap();
        }
        if to_passive.is_empty() && to_active.is_empty() {
            assert!(pair.are_connected());
            return (pair, record);
        }
        record.extend(to_passive.into_iter().map(|datagram| (true, datagram)));
        record.extend(to_active.into_iter().map(|datagram| (false, datagram)));
    }
}

/// RFC 6347 §4.1.2.6: what was seen before is dropped; it neither closes nor floods.
#[test]
fn a_replayed_handshake_changes_nothing() {
    let (mut pair, record) = recorded_handshake();
    let mut answers = 0;
    for _ in 0..100 {
        for (to_passive, datagram) in &record {
            let (side, from) = if *to_passive {
                (&mut pair.passive, pair.active.addr)
            } else {
                (&mut pair.active, pair.passive.addr)
            };
            let received = side.transport.receive_dtls(pair.now, from, datagram);
            // Of ClientHellos only so many are taken.
            assert!(matches!(received, Ok(()) | Err(Rejected::TooManyHellos)), "{received:?}");
            answers += side.outgoing().len();
        }
    }
    // The last flight is sent again once, then not before some time has passed.
    assert!(answers <= 2, "{answers} datagrams in answer to {} replayed", 100 * record.len());
    assert!(pair.are_connected());
}

/// A connected call survives whatever reaches it in plaintext.
#[test]
fn forged_records_do_not_close_a_call() {
    let mut pair = Pair::connected();
    let mut alert = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    let mut encrypted = [&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64][..], &[7; 64]].concat();
    let change_cipher = [20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    for n in 0..1000u16 {
        alert[9..11].copy_from_slice(&n.to_be_bytes());
        encrypted[9..11].copy_from_slice(&n.to_be_bytes());
        for datagram in [&alert[..], &encrypted, &change_cipher] {
            let _ = receive(&mut pair, datagram);
        }
        let _ = receive(&mut pair, &hello_record(n, 1000, 0, &[0; 1000]));
    }
    pair.passive.collect_events();
    assert_eq!(pair.passive.events, [Event::Connected]);
    pair.active.transport.close();
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events.last(), Some(&Event::Closed(CloseReason::DtlsClosed)));
}

/// Every length and every flipped byte of every datagram of a handshake, through the public entry:
/// the side that gets it may fail, and never panics.
#[test]
fn cut_and_flipped_datagrams_are_survived() {
    let (_, record) = recorded_handshake();
    let is_alive = |transport: &Transport| transport.next_timeout().is_some();
    for (_, datagram) in record.iter().filter(|(to_passive, _)| *to_passive) {
        let mut pair = waiting();
        for len in 0..datagram.len() {
            if !is_alive(&pair.passive.transport) {
                pair = waiting();
            }
            let _ = receive(&mut pair, &datagram[..len]);
        }
        for at in 0..datagram.len() {
            if !is_alive(&pair.passive.transport) {
                pair = waiting();
            }
            let mut flipped = datagram.clone();
            flipped[at] ^= 0xff;
            let _ = receive(&mut pair, &flipped);
        }
    }
    let mut pair = waiting();
    assert_eq!(receive(&mut pair, &[22; MAX_DATAGRAM]), Err(Rejected::BadDtls));
}
