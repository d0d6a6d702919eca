//! Muting, removing, closing and capping, by administrators in the room and over REST.

use std::slice;

use serde_json::{Value, json};

use super::lab::{Lab, OPUS, VP8, produce_request, two};
use super::rooms::ended;
use crate::control::refusal::Refusal;
use crate::control::requests::Named;
use crate::control::rest::Call;
use crate::control::session::End;
use crate::id::{PeerId, ProducerId, RoomId};

fn room() -> RoomId {
    RoomId::new("r").unwrap()
}

fn of(producer: &str) -> Value {
    json!({ "producerId": producer })
}

fn mute(lab: &mut Lab, producer: &str, muted: bool) -> Result<Value, Refusal> {
    lab.rooms.rest(Call::Mute(room(), Named(producer.parse().ok()), muted))
}

#[test]
fn a_muted_producer_stays_so_whatever_its_owner_asks() {
    let mut lab = Lab::new(1);
    let (mut ada, producer, mut bob, consumer) = two(&mut lab, OPUS);
    lab.ask(&mut bob, "muteProducer", of(&producer)).unwrap();
    assert_eq!(lab.commands(0), [format!("SetProducerPaused {producer} true")]);
    let muted = json!({ "producerId": producer, "peerId": "ada", "muted": true });
    let paused = ("consumerPaused", json!({ "consumerId": consumer }));
    assert_eq!(ada.news(), [("producerPaused", muted.clone())]);
    assert_eq!(bob.news(), [("producerPaused", muted), paused]);
    // A second time changes nothing.
    mute(&mut lab, &producer, true).unwrap();

    assert_eq!(lab.refusal(&mut ada, "resumeProducer", of(&producer)).status, 403);
    lab.ask(&mut ada, "pauseProducer", of(&producer)).unwrap();
    assert_eq!(lab.refusal(&mut ada, "resumeProducer", of(&producer)).status, 403);
    assert!(lab.commands(0).is_empty());
    assert_eq!((ada.news(), bob.news()), (vec![], vec![]));

    // Whoever unmutes does not switch on a microphone that its owner has switched off.
    mute(&mut lab, &producer, false).unwrap();
    let plain = json!({ "producerId": producer, "peerId": "ada" });
    assert_eq!(ada.news(), [("producerPaused", plain.clone())]);
    assert_eq!(bob.news(), [("producerPaused", plain.clone())]);
    assert!(lab.commands(0).is_empty());
    lab.ask(&mut ada, "resumeProducer", of(&producer)).unwrap();
    assert_eq!(lab.commands(0), [format!("SetProducerPaused {producer} false")]);
    let resumed = ("consumerResumed", json!({ "consumerId": consumer }));
    assert_eq!(bob.news(), [("producerResumed", plain), resumed]);
    assert_eq!(ada.news(), []);
}

#[test]
fn unmuting_resumes_what_its_owner_had_not_paused() {
    let mut lab = Lab::new(1);
    let (mut ada, producer, mut bob, _) = two(&mut lab, OPUS);
    mute(&mut lab, &producer, true).unwrap();
    let shown = lab.rooms.rest(Call::ShowPeer(room(), PeerId::new("ada").unwrap())).unwrap();
    let made = &shown["producers"][0];
    assert_eq!((&made["paused"], &made["muted"]), (&json!(true), &json!(true)));
    let taken = lab.consume(&mut bob, &producer);
    assert_eq!(taken["producerPaused"], true);
    ada.news();
    lab.forget_commands();

    lab.ask(&mut bob, "unmuteProducer", of(&producer)).unwrap();
    assert_eq!(lab.commands(0), [format!("SetProducerPaused {producer} false")]);
    let plain = json!({ "producerId": producer, "peerId": "ada" });
    assert_eq!(ada.news(), [("producerResumed", plain)]);
}

#[test]
fn a_new_producer_of_a_muted_source_begins_muted() {
    let mut lab = Lab::new(1);
    let (mut ada, first, mut bob, _) = two(&mut lab, OPUS);
    mute(&mut lab, &first, true).unwrap();
    lab.ask(&mut ada, "closeProducer", of(&first)).unwrap();
    ada.news();
    bob.news();

    let second = lab.produce(&mut ada, OPUS);
    let muted = ("producerPaused", json!({ "producerId": second, "peerId": "ada", "muted": true }));
    assert_eq!(ada.news(), slice::from_ref(&muted));
    let news = bob.news();
    assert_eq!((news[0].0, &news[1..]), ("newProducer", &[muted][..]));
    assert_eq!(lab.refusal(&mut ada, "resumeProducer", of(&second)).status, 403);
    // Pictures are another source.
    let camera = lab.produce(&mut ada, VP8);
    lab.ask(&mut ada, "resumeProducer", of(&camera)).unwrap();

    mute(&mut lab, &second, false).unwrap();
    let transport = lab.transport(&mut ada);
    ada.news();
    lab.ask(&mut ada, "produce", produce_request(&transport, OPUS)).unwrap();
    assert_eq!(ada.news(), []);
}

#[test]
fn a_removed_peer_is_told_why_and_its_connection_ends() {
    let mut lab = Lab::new(1);
    let (mut ada, producer, mut bob, _) = two(&mut lab, OPUS);
    lab.ask(&mut bob, "removePeer", json!({ "peerId": "ada" })).unwrap();
    let left = ("peerLeft", json!({ "peerId": "ada", "reason": "removed" }));
    assert_eq!(ada.news(), slice::from_ref(&left));
    assert_eq!(ended(&mut ada), Some(End::Removed));
    assert_eq!(bob.news().last(), Some(&left));
    assert!(lab.commands(0).contains(&format!("RemoveProducer {producer}")));
    assert_eq!(lab.refusal(&mut bob, "removePeer", json!({ "peerId": "ada" })).status, 404);
}

#[test]
fn rest_removes_shows_and_lists_peers() {
    let mut lab = Lab::new(1);
    let (mut ada, ..) = two(&mut lab, OPUS);
    let listed = lab.rooms.rest(Call::ListPeers(room())).unwrap();
    let names: Vec<&Value> =
        listed["peers"].as_array().unwrap().iter().map(|peer| &peer["peerId"]).collect();
    assert_eq!(names, ["ada", "bob"]);
    let peer = || PeerId::new("ada").unwrap();
    lab.rooms.rest(Call::RemovePeer(room(), peer())).unwrap();
    assert_eq!(ended(&mut ada), Some(End::Removed));
    for call in [Call::RemovePeer(room(), peer()), Call::ShowPeer(room(), peer())] {
        assert_eq!(lab.rooms.rest(call).unwrap_err().status, 404);
    }
    let elsewhere = || RoomId::new("s").unwrap();
    assert_eq!(lab.rooms.rest(Call::ListPeers(elsewhere())).unwrap_err().status, 404);
}

#[test]
fn what_is_in_another_room_is_not_there() {
    let mut lab = Lab::new(1);
    let (_ada, producer, ..) = two(&mut lab, OPUS);
    let mut eve = lab.join("s", "eve");
    assert_eq!(lab.refusal(&mut eve, "muteProducer", of(&producer)).status, 404);
    assert_eq!(lab.refusal(&mut eve, "removePeer", json!({ "peerId": "ada" })).status, 404);
    let id = Named(producer.parse::<ProducerId>().ok());
    let call = Call::Mute(RoomId::new("s").unwrap(), id, true);
    assert_eq!(lab.rooms.rest(call).unwrap_err().status, 404);
    assert_eq!(mute(&mut lab, "no id", true).unwrap_err().status, 404);
}

#[test]
fn a_room_can_be_closed_from_within() {
    let mut lab = Lab::new(1);
    let (mut ada, _, mut bob, _) = two(&mut lab, OPUS);
    lab.ask(&mut bob, "closeRoom", json!({})).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(ada.news().last(), Some(&("roomClosed", json!({ "roomId": "r" }))));
    assert_eq!(ended(&mut ada), None);
    assert_eq!(lab.refusal(&mut bob, "getRoom", json!({})).status, 403);
}

#[test]
fn a_capped_room_lets_in_so_many_and_nobody_is_thrown_out() {
    let mut lab = Lab::new(1);
    let (ada, _, mut bob, _) = two(&mut lab, OPUS);
    lab.ask(&mut bob, "setMaxPeers", json!({ "maxPeers": 1 })).unwrap();
    assert_eq!(lab.ask(&mut bob, "getRoom", json!({})).unwrap()["maxPeers"], 1);
    let mut cid = lab.connect();
    let join = json!({ "roomId": "r", "peerId": "cid" });
    assert_eq!(lab.refusal(&mut cid, "joinRoom", join.clone()).status, 503);
    assert_eq!(lab.refusal(&mut bob, "setMaxPeers", json!({ "maxPeers": 0 })).status, 400);
    // Who comes back for a connection that looks dead takes no place of another.
    lab.rooms.set_missed_ping(ada.id, true);
    lab.join("r", "ada");
    lab.ask(&mut bob, "setMaxPeers", json!({})).unwrap();
    lab.ask(&mut cid, "joinRoom", join).unwrap();
}
