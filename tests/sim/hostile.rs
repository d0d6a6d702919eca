//! Whatever arrives, the engine counts it and goes on, and other peers notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use shardcast::id::{ShardId, Ssrc};
use shardcast::room::Drop;
use shardcast::room::parcel::Note;
use shardcast::room::spec::Event;
use shardcast::wire::seq::SeqNo;

use crate::network::Weather;
use crate::world::World;

/// A publisher and a viewer who behave, and the victim whose datagrams are tampered with.
struct Scene {
    world: World,
    victim: usize,
}

const STRANGER: &str = "10.9.9.9:999";

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2, Weather::CALM);
        let (publisher, viewer, victim) = (world.join(0), world.join(1), world.join(0));
        let (audio, video) = world.publish_both(publisher);
        for producer in [audio, video] {
            world.consume(viewer, producer);
            world.consume(victim, producer);
        }
        world.publish_both(victim);
        world.run(Duration::from_secs(2));
        Self { world, victim }
    }

    /// Real datagrams of the victim, one of each kind, not yet delivered.
    fn datagrams(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        let now = self.world.now;
        let hello =
            [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 1, 0, 0, 28][..], &[0; 36]].concat();
        let peer = &mut self.world.peers[self.victim];
        vec![
            ("STUN", peer.check()),
            ("DTLS", hello),
            ("SRTP", peer.pad(1, now)),
            ("SRTCP", peer.ask_key_frame(Ssrc(1))),
        ]
    }

    fn inject(&mut self, datagram: &[u8]) {
        let from = self.world.peers[self.victim].address;
        self.world.inject(0, from, datagram);
    }

    fn dropped(&self) -> u64 {
        self.world.shards[0].engine.counters().dropped_in_all()
    }

    fn dropped_for(&self, reason: Drop) -> u64 {
        self.world.shards[0].engine.counters().dropped(reason)
    }

    /// Time goes on; everybody still gets everything, victim included.
    fn check_that_all_is_well(&mut self) {
        let before = self.received();
        self.world.run(Duration::from_secs(2));
        self.world.check_sinks();
        for (before, after) in before.iter().zip(self.received()) {
            assert!(after > before + 50, "streams go on");
        }
        let sinks = self.world.peers.iter().flat_map(|peer| peer.sinks.values());
        assert_eq!(sinks.map(|sink| sink.missing()).sum::<u64>(), 0);
        let died = |event: &Event| matches!(event, Event::TransportClosed { .. });
        assert!(!self.world.events.iter().any(died), "no transport died: {:?}", self.world.events);
    }

    fn received(&self) -> Vec<usize> {
        let mut streams: Vec<(usize, Ssrc, usize)> = Vec::new();
        for (index, peer) in self.world.peers.iter().enumerate() {
            streams.extend(peer.sinks.iter().map(|(ssrc, s)| (index, *ssrc, s.packets.len())));
        }
        streams.sort();
        streams.into_iter().map(|(_, _, count)| count).collect()
    }
}

#[test]
fn every_length_of_every_packet_kind_is_counted_and_harmless() {
    let mut scene = Scene::new(1);
    for (kind, datagram) in scene.datagrams() {
        for len in 0..datagram.len() {
            let before = scene.dropped();
            scene.inject(&datagram[..len]);
            assert_eq!(scene.dropped(), before + 1, "{kind} cut to {len} bytes");
        }
    }
    scene.check_that_all_is_well();
}

#[test]
fn every_flipped_byte_of_every_packet_kind_is_counted_and_harmless() {
    let mut scene = Scene::new(2);
    for (kind, datagram) in scene.datagrams() {
        for at in 0..datagram.len() {
            // With another type, FINGERPRINT is an attribute behind MESSAGE-INTEGRITY, to be ignored
            // (RFC 8489 §14.5): the check is as authentic as before.
            if kind == "STUN" && [8, 7].contains(&(datagram.len() - at)) {
                continue;
            }
            let mut flipped = datagram.clone();
            flipped[at] ^= 1 << (at % 8);
            let before = scene.dropped();
            scene.inject(&flipped);
            assert_eq!(scene.dropped(), before + 1, "{kind} with byte {at} flipped");
        }
    }
    scene.check_that_all_is_well();
}

/// A parcel's packet was read by the shard that sent it; the one that takes it relies on nothing.
#[test]
fn every_length_and_flip_of_a_parcels_packet_is_harmless() {
    let mut scene = Scene::new(7);
    let id = scene.world.producers[1].id;
    let mut packet = vec![0x90, 0xe0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 2];
    packet.extend([
        0x10, 0x31, 0x22, 1, 2, 3, 0, 0, 0x90, 0x80, 0x80, 5, 0, 0, 0, 0x9d, 1, 0x2a, 0, 1, 0, 1,
    ]);
    for encoding in [0, 1, 255] {
        let now = scene.world.now;
        let mut note = |seq, bytes: &[u8]| {
            let (seq, replayed) = (SeqNo(seq), seq % 3 == 0);
            let note = Note::Media { producer: id, encoding, seq, received_at: now, replayed };
            scene.world.hand_over(1, ShardId(0), &[(note, bytes)]);
        };
        for len in 0..=packet.len() {
            note(len as u64, &packet[..len]);
        }
        for at in 0..packet.len() {
            let mut flipped = packet.clone();
            flipped[at] ^= 1 << (at % 8);
            note(u64::MAX - at as u64, &flipped);
        }
    }
}

#[test]
fn strangers_are_counted_by_reason() {
    let mut scene = Scene::new(3);
    let stranger: SocketAddr = STRANGER.parse().expect("an address");
    for (_, datagram) in scene.datagrams() {
        scene.world.inject(0, stranger, &datagram);
    }
    // The check is the victim's own, so its new address is believed; the rest came from there too, and
    // the order of kinds puts the check first. The hello is refused: this handshake is over.
    let stranger: SocketAddr = "10.9.9.10:999".parse().expect("an address");
    let before = scene.dropped_for(Drop::UnknownAddress);
    for (kind, datagram) in scene.datagrams() {
        if kind != "STUN" {
            scene.world.inject(0, stranger, &datagram);
        }
    }
    assert_eq!(scene.dropped_for(Drop::UnknownAddress), before + 3);
    scene.world.inject(0, stranger, &[0xff; 40]);
    assert_eq!(scene.dropped_for(Drop::UnknownProtocol), 1);
}

/// RFC 3711 §3.3.2: a packet counts once.
#[test]
fn replayed_packets_are_counted_and_not_forwarded() {
    let mut scene = Scene::new(4);
    for (kind, datagram) in scene.datagrams() {
        scene.inject(&datagram);
        if matches!(kind, "SRTP" | "SRTCP") {
            let before = scene.dropped_for(Drop::Replayed);
            scene.inject(&datagram);
            assert_eq!(scene.dropped_for(Drop::Replayed), before + 1, "{kind}");
        }
    }
    scene.check_that_all_is_well();
}

/// Checks with a wrong password never make an address known (RFC 8445 §7.3).
#[test]
fn an_unauthenticated_check_opens_nothing() {
    let mut scene = Scene::new(5);
    let password = "not-the-password-at-all".to_owned();
    let own = std::mem::replace(&mut scene.world.peers[scene.victim].ice.password, password);
    let check = scene.world.peers[scene.victim].check();
    scene.world.peers[scene.victim].ice.password = own;
    let stranger: SocketAddr = STRANGER.parse().expect("an address");
    scene.world.inject(0, stranger, &check);
    assert_eq!(scene.dropped_for(Drop::BadStun), 1);
    let media = scene.datagrams().remove(2).1;
    scene.world.inject(0, stranger, &media);
    assert_eq!(scene.dropped_for(Drop::UnknownAddress), 1);
    scene.check_that_all_is_well();
}

/// A peer may claim any source address in a check of its own. Its victim's next check takes it back.
#[test]
fn a_stolen_address_is_soon_its_owners_again() {
    let mut scene = Scene::new(6);
    let thief = scene.world.join(0);
    let stolen = scene.world.peers[scene.victim].address;
    let claim = scene.world.peers[thief].check();
    scene.world.inject(0, stolen, &claim);
    scene.world.run(Duration::from_secs(3));
    let before = scene.received();
    scene.world.run(Duration::from_secs(2));
    for (before, after) in before.iter().zip(scene.received()) {
        assert!(after > before + 50, "streams go on");
    }
}
