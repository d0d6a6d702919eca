//! Whole transports against a DTLS client, under virtual time.

mod hostile;
mod pair;

use std::time::Duration;

use super::*;
use crate::wire::MAX_DATAGRAM;
use pair::{Pair, identities};

const SECOND: Duration = Duration::from_secs(1);

/// An RTP packet with this sequence number, sealed by `from`.
fn sealed_rtp(from: &Transport, sequence: u16) -> Option<Vec<u8>> {
    let mut buffer = [0; 200];
    buffer[..12].copy_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
    buffer[12..112].fill(0x55);
    let len = from.seal_rtp(SeqNo(sequence.into()), &mut buffer, 112)?;
    Some(buffer[..len].to_vec())
}

fn assert_media_flows(pair: &mut Pair) {
    let (passive, active) = (&mut pair.passive.transport, &mut pair.active.transport);
    assert_opens(passive, sealed_rtp(active, 7).unwrap());
    assert_opens(active, sealed_rtp(passive, 7).unwrap());
    // An empty receiver report (RFC 3550 §6.4.2).
    let mut buffer = [0; 100];
    buffer[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
    let len = passive.seal_rtcp(&mut buffer, 8).unwrap();
    assert_eq!(active.open_rtcp(&mut buffer[..len]), Ok(8));
}

fn assert_opens(to: &mut Transport, mut packet: Vec<u8>) {
    assert!(!packet.windows(8).any(|window| window == [0x55; 8]), "the payload is encrypted");
    let opened = to.open_rtp(&mut packet).unwrap();
    assert_eq!((opened.len, opened.header.sequence), (112, 7));
    assert_eq!(packet[12..112], [0x55; 100]);
}

#[test]
fn two_sides_connect_and_exchange_media() {
    let mut pair = Pair::new(0);
    pair.connect();
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events, [Event::Connected]);
    assert_eq!(pair.active.events, [Event::Connected]);
    assert_media_flows(&mut pair);
    // The last flight is answered only when it is asked for: what is left is consent.
    let consent = pair.passive.transport.next_timeout().unwrap();
    assert!(consent > pair.now + 28 * SECOND);
}

/// RFC 6347 §4.2.4: flights are sent again until the peer's answer shows that they came through.
#[test]
fn every_handshake_survives_twenty_percent_loss_both_ways() {
    let mut slowest = Duration::ZERO;
    for seed in 0..300 {
        let mut pair = Pair::new(seed);
        pair.loss = 0.2;
        let start = pair.now;
        pair.connect();
        while !pair.are_connected() && pair.now < start + dtls::HANDSHAKE_TIMEOUT {
            pair.check();
            pair.run_for(Duration::from_millis(50));
        }
        assert!(pair.are_connected(), "network seed {seed}: {:?}", pair.passive.events);
        assert_media_flows(&mut pair);
        slowest = slowest.max(pair.now - start);
    }
    println!("slowest of 300 handshakes at 20 % loss: {slowest:?}");
}

#[test]
fn order_of_check_connect_and_hello_does_not_matter() {
    let [server, client] = identities();
    // Signaling first on both sides, checks later.
    let mut pair = Pair::new(1);
    pair.tell_passive(client.fingerprint());
    pair.tell_active(server.fingerprint());
    pair.run_for(SECOND);
    assert!(pair.active.outgoing().is_empty(), "there is nobody to greet");
    pair.check();
    pair.run_for(SECOND);
    assert!(pair.are_connected());
    // A hello before signaling has reached the passive side: kept, and answered at once.
    let mut pair = Pair::new(2);
    pair.check();
    pair.tell_active(server.fingerprint());
    pair.run_for(Duration::from_millis(50));
    assert!(pair.passive.outgoing().is_empty());
    pair.tell_passive(client.fingerprint());
    assert!(!pair.passive.outgoing().is_empty());
    // These datagrams are lost, and both sides recover.
    pair.run_for(2 * SECOND);
    assert!(pair.are_connected());
}

#[test]
fn a_second_connect_is_ignored() {
    let mut pair = Pair::connected();
    pair.tell_passive(identities()[0].fingerprint());
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events, [Event::Connected]);
    assert_media_flows(&mut pair);
}

/// RFC 5763 §5: the certificate is bound to what signaling said.
#[test]
fn a_wrong_fingerprint_closes_before_any_media() {
    let mismatch = Event::Closed(CloseReason::FingerprintMismatch);
    for is_passive_wrong in [true, false] {
        let [server, client] = identities();
        let mut pair = Pair::new(3);
        pair.check();
        let expected = |right: bool| if right { (client, server) } else { (server, client) };
        pair.tell_passive(expected(!is_passive_wrong).0.fingerprint());
        pair.tell_active(expected(is_passive_wrong).1.fingerprint());
        pair.run_for(2 * SECOND);
        let (wrong, other) = if is_passive_wrong {
            (&mut pair.passive, &mut pair.active)
        } else {
            (&mut pair.active, &mut pair.passive)
        };
        assert_eq!(wrong.events, [mismatch]);
        assert!(!wrong.transport.is_connected() && !other.transport.is_connected());
        assert_eq!(sealed_rtp(&wrong.transport, 1), None);
        assert_eq!(wrong.transport.open_rtp(&mut [0x80; 64]), Err(Rejected::Closed));
    }
}

#[test]
fn nothing_is_opened_or_sealed_before_keys() {
    let mut pair = Pair::new(4);
    pair.check();
    let transport = &mut pair.passive.transport;
    assert_eq!(transport.open_rtp(&mut [0x80; 64]), Err(Rejected::NoKeys));
    assert_eq!(transport.open_rtcp(&mut [0x80; 64]), Err(Rejected::NoKeys));
    assert_eq!(sealed_rtp(transport, 1), None);
    assert_eq!(transport.seal_rtcp(&mut [0; 64], 8), None);
}

#[test]
fn a_goodbye_closes_the_other_side() {
    let mut pair = Pair::connected();
    pair.active.transport.close();
    pair.run_for(SECOND);
    assert_eq!(pair.active.events, [Event::Connected]);
    assert_eq!(pair.passive.events, [Event::Connected, Event::Closed(CloseReason::DtlsClosed)]);
}

#[test]
fn a_handshake_without_answer_fails_after_thirty_seconds() {
    let mut pair = Pair::new(5);
    pair.loss = 1.0;
    pair.connect();
    for _ in 0..29 {
        pair.run_for(SECOND);
        pair.check();
    }
    assert_eq!(pair.active.events, []);
    pair.run_for(2 * SECOND);
    assert_eq!(pair.active.events, [Event::Closed(CloseReason::DtlsFailed)]);
    // The passive side has seen no hello: its handshake has not begun.
    assert_eq!(pair.passive.events, []);
}

/// RFC 7675 §5.1, and clients that make a transport long before they use it.
#[test]
fn consent_expires_only_after_a_first_check() {
    let mut pair = Pair::new(6);
    pair.run_for(3600 * SECOND);
    assert_eq!(pair.passive.events, []);
    pair.connect();
    pair.run_for(29 * SECOND);
    assert!(pair.are_connected());
    pair.passive.check(pair.now, pair.active.addr, false);
    pair.run_for(29 * SECOND);
    assert!(pair.passive.transport.is_connected());
    assert_eq!(pair.active.events.last(), Some(&Event::Closed(CloseReason::ConsentExpired)));
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events.last(), Some(&Event::Closed(CloseReason::ConsentExpired)));
    assert_eq!(pair.passive.transport.remote(), None);
}

#[test]
fn a_closed_transport_refuses_everything_and_sleeps() {
    let mut pair = Pair::connected();
    let check = pair::check(&pair.passive.credentials, true);
    let (from, media) = (pair.active.addr, sealed_rtp(&pair.active.transport, 9).unwrap());
    pair.run_for(31 * SECOND);
    let transport = &mut pair.passive.transport;
    let mut buffer = [0; MAX_DATAGRAM];
    assert_eq!(transport.receive_stun(pair.now, from, &check, &mut buffer), Err(Rejected::Closed));
    assert_eq!(transport.receive_dtls(pair.now, from, &[22; 64]), Err(Rejected::Closed));
    assert_eq!(transport.open_rtp(&mut media.clone()), Err(Rejected::Closed));
    assert_eq!(transport.open_rtcp(&mut media.clone()), Err(Rejected::Closed));
    assert_eq!(transport.poll_transmit(&mut buffer), None);
    assert_eq!((transport.next_timeout(), transport.poll_event()), (None, None));
    assert!(!transport.is_connected());
    transport.handle_timeout(pair.now + 100 * SECOND);
    assert_eq!(transport.poll_event(), None);
}

#[test]
fn the_peer_changes_its_network_while_a_call_runs() {
    let mut pair = Pair::connected();
    let before = pair.passive.transport.routes_generation();
    pair.active.addr.set_port(4000);
    pair.passive.check(pair.now, pair.active.addr, true);
    assert_eq!(pair.passive.transport.remote(), Some(pair.active.addr));
    assert_eq!(pair.passive.transport.remotes().count(), 2);
    assert_ne!(pair.passive.transport.routes_generation(), before);
    assert_media_flows(&mut pair);
    // DTLS follows: the goodbye comes from the new address.
    pair.active.transport.close();
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events.last(), Some(&Event::Closed(CloseReason::DtlsClosed)));
}

/// RFC 8445 §9: media goes on through a restart, with the same keys.
#[test]
fn a_restart_keeps_the_call() {
    let mut pair = Pair::connected();
    let old = std::mem::replace(&mut pair.passive.credentials, ice::Credentials::random());
    pair.passive.transport.restart_ice(pair.passive.credentials.clone());
    assert_eq!(pair.passive.transport.remote(), Some(pair.active.addr));
    let ufrags =
        |pair: &Pair| pair.passive.transport.ufrags().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ufrags(&pair), [old.ufrag.clone(), pair.passive.credentials.ufrag.clone()]);
    let before = pair.passive.transport.routes_generation();
    pair.check();
    assert_eq!(ufrags(&pair), [pair.passive.credentials.ufrag.clone()]);
    assert_ne!(pair.passive.transport.routes_generation(), before);
    let stale = pair::check(&old, true);
    let mut answer = [0; MAX_DATAGRAM];
    let refused =
        pair.passive.transport.receive_stun(pair.now, pair.active.addr, &stale, &mut answer);
    assert_eq!(refused, Err(Rejected::BadStun));
    pair.run_for(SECOND);
    assert_eq!(pair.passive.events, [Event::Connected]);
    assert_media_flows(&mut pair);
}

#[test]
fn a_preset_transport_is_connected_until_consent_expires() {
    let profile = srtp::Profile::AeadAes128Gcm;
    let material: Vec<u8> = (0..profile.material_len() as u8).collect();
    let keys = |is_client| srtp::Keys::from_dtls(profile, &material, is_client).unwrap();
    let now = Instant::now();
    let [identity, _] = identities();
    let remote = SocketAddr::from(([192, 0, 2, 1], 1));
    let preset = |is_client| {
        let credentials = ice::Credentials::random();
        Transport::preset(now, credentials, identity.clone(), remote, &keys(is_client))
    };
    let (mut server, client) = (preset(false), preset(true));
    assert_eq!(server.poll_event(), Some(Event::Connected));
    assert!(server.is_connected());
    assert_eq!(server.remotes().collect::<Vec<_>>(), [remote]);
    assert!(server.open_rtp(&mut sealed_rtp(&client, 1).unwrap()).is_ok());
    assert_eq!(server.receive_dtls(now, remote, &[22; 64]), Err(Rejected::BadDtls));
    assert_eq!(server.next_timeout(), Some(now + ice::CONSENT_TIMEOUT));
    server.handle_timeout(now + ice::CONSENT_TIMEOUT);
    assert_eq!(server.poll_event(), Some(Event::Closed(CloseReason::ConsentExpired)));
}

/// The shard keeps thousands of transports in one table.
#[test]
fn a_transport_is_small() {
    assert!(size_of::<Transport>() <= 256, "{} bytes", size_of::<Transport>());
}
