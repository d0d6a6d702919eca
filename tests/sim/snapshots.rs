//! What an engine counts is what has happened: packets and bytes are those that passed its border.

use std::time::Duration;

use shardcast::room::Drop;
use shardcast::room::snapshot::{Flow, Snapshot};
use shardcast::room::spec::Command;
use shardcast::transport::CloseReason;

use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// The sum over all shards.
fn sum(world: &World, of: impl Fn(&Snapshot) -> Flow) -> Flow {
    let mut sum = Flow::default();
    world.shards.iter().for_each(|shard| sum += of(&shard.engine.snapshot()));
    sum
}

fn sum_up(flows: [Flow; 3]) -> Flow {
    let [mut sum, second, third] = flows;
    sum += second;
    sum += third;
    sum
}

fn assert_counts(world: &World) {
    let media_sent = sum(world, |s| {
        let flows = s.flows;
        sum_up([flows.rtp_sent, flows.rtx_sent, flows.probes_sent])
    });
    assert_eq!([media_sent, sum(world, |s| s.flows.rtcp_sent)], world.left);
    let received =
        sum(world, |s| sum_up([s.flows.rtp_received, s.flows.rtx_received, s.flows.rtcp_received]));
    let refused = |s: &Snapshot| {
        let reasons = [Drop::UnknownAddress, Drop::Replayed, Drop::UnknownSsrc, Drop::Closed];
        reasons.iter().map(|why| s.counters.dropped(*why)).sum::<u64>()
    };
    let refused: u64 = world.shards.iter().map(|shard| refused(&shard.engine.snapshot())).sum();
    let reached = world.reached[0].packets + world.reached[1].packets;
    assert_eq!(received.packets + refused, reached);
}

#[test]
fn packets_and_bytes_are_those_that_passed_over_two_shards_and_a_bad_network() {
    let mut world = World::new(60, 2, Weather::ROUGH);
    let peers: Vec<usize> = (0..4).map(|index| world.join(index % 2)).collect();
    let published: Vec<_> = peers.iter().map(|peer| world.publish_both(*peer)).collect();
    for (viewer, (audio, video)) in peers.iter().rev().zip(&published) {
        world.consume(*viewer, *audio);
        world.consume(*viewer, *video);
    }
    world.run(5 * SECOND);
    assert_counts(&world);
    let first = world.shards[0].engine.snapshot();
    assert_eq!((first.transports, first.connected), (2, 2));
    assert_eq!((first.producers, first.replicas, first.consumers), (4, 4, 4));
    assert!(first.history_packets > 0 && first.history_bytes > 0);
    assert!(first.measured_lines > 0 && first.estimated_bitrate > 0);
    assert!(first.counters.asked.nack_packets >= first.counters.asked.nacks);
    assert!(first.counters.asked.nacks > 0 && first.counters.asking.nacks > 0);
    let asking = first.counters.asking;
    assert_eq!(asking.plis + asking.firs, first.counters.key_frame_requests);

    // What was counted stays counted when everybody has gone.
    for &peer in &peers {
        let (id, shard) = (world.peers[peer].id, world.peers[peer].shard);
        world.command(shard, Command::RemoveTransport(id));
    }
    for index in 0..world.producers.len() {
        let id = world.producers[index].id;
        (0..2).for_each(|shard| world.command(shard, Command::RemoveProducer(id)));
    }
    world.run(SECOND);
    let after = world.shards[0].engine.snapshot();
    assert!(after.flows.rtp_sent.packets >= first.flows.rtp_sent.packets);
    let held = (after.transports, after.producers, after.replicas, after.consumers);
    assert_eq!((held, after.history_packets, after.history_bytes), ((0, 0, 0, 0), 0, 0));
    assert_eq!(after.counters.closed(CloseReason::ConsentExpired), 0);
}
