//! What one peer, or strangers, may take of a shard is bounded, and the others lose nothing by it.

use std::net::SocketAddr;
use std::time::Duration;

use shardcast::room::{Drop, Limits};
use shardcast::wire::stun::TransactionId;
use shardcast::wire::stun::write::{BindingRequest, Role, request};

use crate::network::Weather;
use crate::world::World;

fn world(limits: Limits) -> World {
    let mut world = World::new(7, 1, Weather::CALM);
    world.shards[0].engine.set_limits(limits);
    world
}

fn dropped(world: &World, reason: Drop) -> u64 {
    world.shards[0].engine.counters().dropped(reason)
}

#[test]
fn a_producer_sends_no_more_than_it_may() {
    let limits = Limits { producer_bitrate: Some(100_000), ..Limits::default() };
    let mut world = world(limits);
    let (greedy, viewer) = (world.join(0), world.join(0));
    let (audio, video) = world.publish_both(greedy);
    let (_, audio) = world.consume(viewer, audio);
    world.consume(viewer, video);
    world.run(Duration::from_secs(5));
    assert!(dropped(&world, Drop::ProducerBitrate) > 100, "its video is far above the limit");
    // Another producer has a budget of its own.
    assert_eq!(world.peers[viewer].sinks[&audio].missing(), 0);
}

#[test]
fn strangers_checks_are_looked_at_so_often_and_peers_go_on() {
    let limits = Limits { stranger_checks: 100, ..Limits::default() };
    let mut world = world(limits);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let (audio, video) = world.publish_both(publisher);
    world.consume(viewer, audio);
    world.consume(viewer, video);
    world.run(Duration::from_secs(2));
    // Someone who knows a user name, and not the password.
    let username = format!("{}:me", world.peers[viewer].ice.ufrag);
    let check = BindingRequest {
        transaction_id: TransactionId([7; 12]),
        username: username.as_bytes(),
        priority: 1,
        role: Role::Controlling(1),
        use_candidate: true,
    };
    let mut buffer = [0; 256];
    let len = request(&mut buffer, &check, b"a guess").unwrap();
    for port in 1..=2000 {
        let stranger = SocketAddr::from(([10, 9, 9, 9], port));
        world.inject(0, stranger, &buffer[..len]);
    }
    assert_eq!(dropped(&world, Drop::BadStun), 100);
    assert_eq!(dropped(&world, Drop::TooManyStrangers), 1900);
    world.run(Duration::from_secs(2));
    let sinks = world.peers.iter().flat_map(|peer| peer.sinks.values());
    assert_eq!(sinks.map(|sink| sink.missing()).sum::<u64>(), 0);
    assert_eq!(
        dropped(&world, Drop::TooManyStrangers),
        1900,
        "who has passed a check is no stranger"
    );
}
