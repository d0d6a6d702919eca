//! Shards that fail or stand still: who is told, and where they go.

use serde_json::json;

use super::lab::{Lab, OPUS, two_shards};
use crate::shard::mailbox::{Command, Event, ShardId};

#[test]
fn peers_of_a_failed_shard_are_told_and_start_again_on_another() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let from_bob = lab.produce(&mut bob, OPUS);
    let transport = lab.transport(&mut ada);
    lab.consume(&mut ada, &from_bob);
    lab.forget_commands();
    ada.news();

    lab.rooms.shard_failed(ShardId(0));
    let told = json!({ "transportId": transport, "reason": "shardFailed" });
    assert_eq!(ada.news(), [("transportClosed", told)]);
    assert_eq!(lab.commands(1), [format!("Withdraw {from_bob} 0")]);
    assert_eq!(bob.news(), []);

    lab.transport(&mut ada);
    lab.consume(&mut ada, &from_bob);
    lab.join("s", "cid");
    assert_eq!(lab.commands(0), [""; 0]);
    let loads = &lab.rooms.loads;
    assert_eq!((loads[0].peers, loads[0].streams, loads[1].peers), (0, 0, 3));

    lab.rooms.shard_failed(ShardId(1));
    let mut dan = lab.connect();
    let join = json!({ "roomId": "r", "peerId": "dan" });
    assert_eq!(lab.refusal(&mut dan, "joinRoom", join).status, 503);
    assert_eq!(lab.refusal(&mut ada, "createWebRtcTransport", json!({})).status, 503);
}

#[test]
fn a_shard_that_works_again_is_told_anew_and_gets_peers() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    lab.transport(&mut ada);
    lab.ask(&mut ada, "subscribeAudioLevels", json!({ "interval": 500 })).unwrap();
    lab.rooms.shard_failed(ShardId(0));
    assert_eq!(lab.refusal(&mut ada, "createWebRtcTransport", json!({})).status, 503);
    lab.forget_commands();

    let commands = lab.restart(0);
    let transport = lab.transport(&mut ada);
    let key = lab.rooms.rooms.values().next().unwrap().key.0;
    let asked: Vec<_> = commands.try_iter().collect();
    let asked: Vec<String> = asked.iter().map(super::lab::shorthand).collect();
    let levels = format!("SubscribeLevels {key} Some(500ms)");
    assert_eq!(asked, [levels, format!("AddTransport {transport}")]);
    // The old mailbox leads nowhere.
    assert_eq!(lab.commands(0), [""; 0]);
    assert_eq!((lab.rooms.faults.failed, lab.rooms.faults.restarted), (1, 1));
}

#[test]
fn of_two_failed_shards_the_first_that_works_again_gets_the_peers() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    lab.rooms.shard_failed(ShardId(1));
    lab.rooms.shard_failed(ShardId(0));
    let asked = lab.restart(1);
    lab.transport(&mut ada);
    assert!(matches!(asked.try_recv(), Ok(Command::AddTransport { .. })));
    assert_eq!(lab.rooms.loads[1].peers, 1);
}

/// Nothing is lost yet for those who are on it.
#[test]
fn a_shard_that_stands_still_gets_nobody_new() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    lab.rooms.shard_stuck(ShardId(0));
    let _others = ["bob", "cid"].map(|peer| lab.join("r", peer));
    let peers = |lab: &Lab| [lab.rooms.loads[0].peers, lab.rooms.loads[1].peers];
    assert_eq!(peers(&lab), [1, 2]);
    lab.transport(&mut ada);
    assert!(matches!(lab.raw_commands(0)[..], [Command::AddTransport { .. }]));
    lab.rooms.shard_turns_again(ShardId(0));
    let _dan = lab.join("r", "dan");
    assert_eq!(peers(&lab), [2, 2]);

    lab.rooms.shard_stuck(ShardId(1));
    lab.rooms.shard_failed(ShardId(1));
    assert_eq!(peers(&lab), [4, 0]);
    let _asked = lab.restart(1);
    let _eve = lab.join("r", "eve");
    assert_eq!(peers(&lab), [4, 1]);
}

/// Wherever its packets do harm, it is the publisher's transport that closes.
#[test]
fn a_producer_that_fails_elsewhere_takes_its_transport_along() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(OPUS);
    let (id, it) = lab.rooms.producers.iter().next().unwrap();
    let (id, transport) = (*id, it.spec.transport);

    lab.rooms.shard_event(ShardId(1), Event::ProducerFailed(id));
    let told = json!({ "transportId": transport, "reason": "internalError" });
    assert_eq!(ada.news(), [("transportClosed", told)]);
    let closed = json!({ "producerId": producer, "peerId": "ada" });
    let consumer = json!({ "consumerId": consumer });
    assert_eq!(bob.news(), [("consumerClosed", consumer), ("producerClosed", closed)]);
    let asked = [format!("RemoveTransport {transport}"), format!("RemoveProducer {producer}")];
    assert_eq!(lab.commands(0), asked);
    assert_eq!(lab.commands(1), [format!("RemoveProducer {producer}")]);
}
