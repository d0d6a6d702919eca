//! Joining, leaving, replacing, closing; REST's view of it.

use std::num::NonZeroU8;

use serde_json::{Value, json};
use tokio::sync::oneshot::error::TryRecvError;

use super::lab::{Client, Lab, OPUS, QUEUE, text, two_shards};
use crate::config::RoomLimits;
use crate::control::refusal::Refusal;
use crate::control::rest::Call;
use crate::control::rooms::RoomOptions;
use crate::control::session::End;
use crate::id::RoomId;

fn room(id: &str) -> RoomId {
    RoomId::new(id).unwrap()
}

fn show(lab: &mut Lab, id: &str) -> Result<Value, Refusal> {
    lab.rooms.rest(Call::ShowRoom(room(id)))
}

fn join_as(room: &str, peer: &str) -> Value {
    json!({ "roomId": room, "peerId": peer })
}

pub fn ended(client: &mut Client) -> Option<End> {
    match client.line.end.try_recv() {
        Ok(end) => Some(end),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => panic!("the session was dropped without a word"),
    }
}

#[test]
fn peers_learn_of_each_other() {
    let mut lab = Lab::new(1);
    let mut ada = lab.connect();
    let data = json!({ "roomId": "r", "peerId": "ada", "appData": { "name": "Ada" } });
    assert_eq!(lab.ask(&mut ada, "joinRoom", data), Ok(json!({ "peers": [] })));
    let producer = lab.produce(&mut ada, OPUS);

    let mut bob = lab.connect();
    let present = lab.ask(&mut bob, "joinRoom", join_as("r", "bob")).unwrap();
    let producers =
        json!([{ "producerId": producer, "kind": "audio", "appData": { "source": "test" } }]);
    let there = json!([{ "peerId": "ada", "appData": { "name": "Ada" }, "producers": producers }]);
    assert_eq!(present, json!({ "peers": there }));
    assert_eq!(ada.news(), [("newPeer", json!({ "peerId": "bob", "appData": {} }))]);

    assert_eq!(lab.ask(&mut bob, "leaveRoom", json!({})), Ok(json!({})));
    assert_eq!(ada.news(), [("peerLeft", json!({ "peerId": "bob" }))]);
    assert_eq!(bob.news(), []);
}

#[test]
fn other_rooms_hear_nothing() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut eve = lab.join("s", "eve");
    lab.produce(&mut ada, OPUS);
    assert_eq!(eve.news(), []);
}

#[test]
fn a_room_made_by_a_join_goes_with_its_last_peer() {
    let mut lab = Lab::new(1);
    let ada = lab.join("r", "ada");
    assert_eq!(show(&mut lab, "r").unwrap()["peersCount"], 1);
    lab.rooms.close(ada.id);
    assert_eq!(show(&mut lab, "r").unwrap_err().status, 404);
}

#[test]
fn a_room_made_by_rest_stays_until_it_is_deleted() {
    let mut lab = Lab::new(1);
    lab.rooms.rest(Call::CreateRoom(room("r"), RoomOptions::default())).unwrap();
    let ada = lab.join("r", "ada");
    lab.rooms.close(ada.id);
    assert_eq!(show(&mut lab, "r").unwrap()["peersCount"], 0);
    lab.rooms.rest(Call::DeleteRoom(room("r"))).unwrap();
    assert_eq!(show(&mut lab, "r").unwrap_err().status, 404);
}

#[test]
fn a_room_can_be_limited_to_its_loudest() {
    let mut lab = Lab::new(2);
    let loudest = RoomOptions { loudest: NonZeroU8::new(3), ..RoomOptions::default() };
    let made = lab.rooms.rest(Call::CreateRoom(room("r"), loudest)).unwrap();
    assert_eq!(made["loudest"], 3);
    assert!(lab.commands(0).is_empty(), "nobody is there to be heard");
    let ada = lab.join("r", "ada");
    lab.join("r", "bob");
    assert_eq!(lab.commands(0), ["ForwardLoudest 0 Some(3)"]);
    assert!(lab.commands(1).is_empty(), "the home shard alone decides");
    lab.rooms.close(ada.id);
    lab.rooms.rest(Call::DeleteRoom(room("r"))).unwrap();
    assert_eq!(lab.commands(0), ["ForwardLoudest 0 None"]);
    lab.join("s", "ada");
    assert_eq!(show(&mut lab, "s").unwrap()["loudest"], Value::Null);
}

#[test]
fn a_second_peer_with_the_same_id_is_refused() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut again = lab.connect();
    assert_eq!(lab.refusal(&mut again, "joinRoom", join_as("r", "ada")).status, 409);
    assert_eq!(ended(&mut ada), None);
    // The same name in another room is another peer.
    lab.ask(&mut again, "joinRoom", join_as("s", "ada")).unwrap();
}

#[test]
fn a_peer_whose_connection_missed_its_ping_is_replaced() {
    let mut lab = Lab::new(1);
    let mut bob = lab.join("r", "bob");
    let mut old = lab.join("r", "ada");
    lab.rooms.set_missed_ping(old.id, true);
    bob.news();

    let mut new = lab.connect();
    let present = lab.ask(&mut new, "joinRoom", join_as("r", "ada")).unwrap();
    assert_eq!(present["peers"][0]["peerId"], "bob");
    assert_eq!(present["peers"].as_array().unwrap().len(), 1);
    assert_eq!(ended(&mut old), Some(End::Replaced));
    let left = ("peerLeft", json!({ "peerId": "ada" }));
    let came = ("newPeer", json!({ "peerId": "ada", "appData": {} }));
    assert_eq!(bob.news(), [left, came]);

    // The end of the old connection must not take the new peer along.
    lab.rooms.close(old.id);
    assert_eq!(show(&mut lab, "r").unwrap()["peersCount"], 2);
}

#[test]
fn the_only_peer_of_a_room_can_be_replaced() {
    let mut lab = Lab::new(1);
    let old = lab.join("r", "ada");
    lab.rooms.set_missed_ping(old.id, true);
    let _new = lab.join("r", "ada");
    assert_eq!(show(&mut lab, "r").unwrap()["peersCount"], 1);
}

#[test]
fn a_connection_that_is_heard_of_again_is_not_replaced() {
    let mut lab = Lab::new(1);
    let ada = lab.join("r", "ada");
    lab.rooms.set_missed_ping(ada.id, true);
    lab.rooms.set_missed_ping(ada.id, false);
    let mut again = lab.connect();
    assert_eq!(lab.refusal(&mut again, "joinRoom", join_as("r", "ada")).status, 409);
}

#[test]
fn joining_twice_is_a_conflict_until_the_peer_has_left() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    assert_eq!(lab.refusal(&mut ada, "joinRoom", join_as("s", "ada")).status, 409);
    lab.ask(&mut ada, "leaveRoom", Value::Null).unwrap();
    lab.ask(&mut ada, "joinRoom", join_as("s", "ada")).unwrap();
}

#[test]
fn only_peers_may_call() {
    let mut lab = Lab::new(1);
    let mut nobody = lab.connect();
    for method in ["createWebRtcTransport", "leaveRoom"] {
        assert_eq!(lab.refusal(&mut nobody, method, json!({})).status, 403, "{method}");
    }
    let capabilities = lab.ask(&mut nobody, "getRouterRtpCapabilities", Value::Null).unwrap();
    assert_eq!(capabilities["codecs"][0]["mimeType"], "audio/opus");
}

#[test]
fn malformed_requests_name_the_field() {
    let mut lab = Lab::new(1);
    let mut ada = lab.connect();
    let long = "x".repeat(129);
    let cases = [
        ("joinRoom", json!({}), "roomId"),
        ("joinRoom", json!({ "roomId": "r" }), "peerId"),
        ("joinRoom", json!({ "roomId": 5, "peerId": "p" }), "roomId: invalid type"),
        ("joinRoom", json!({ "roomId": "r", "peerId": "" }), "peerId: must be 1 to 128"),
        ("joinRoom", json!({ "roomId": long, "peerId": "p" }), "roomId: must be"),
        ("joinRoom", json!({ "roomId": "r", "peerId": "p", "appData": 1 }), "appData: invalid"),
        ("joinRoom", json!([]), "must be an object"),
        ("joinRoom", json!("r"), "must be an object"),
        ("pauseProducer", json!({ "producerId": 1 }), "producerId: invalid type"),
        ("connectTransport", json!({ "transportId": "x" }), "missing field `dtlsParameters`"),
        (
            "connectTransport",
            json!({ "transportId": "x", "dtlsParameters": { "role": "boss", "fingerprints": [] } }),
            "dtlsParameters.role: unknown variant",
        ),
        ("produce", json!({ "transportId": "x", "kind": "smell" }), "kind: unknown variant"),
        (
            "produce",
            json!({ "transportId": "x", "kind": "audio", "rtpParameters": { "codecs": [{}] } }),
            "rtpParameters.codecs[0].",
        ),
    ];
    for (method, data, expected) in cases {
        let refusal = lab.refusal(&mut ada, method, data.clone());
        assert_eq!(refusal.status, 400, "{method} {data}");
        assert!(refusal.reason.contains(expected), "{method} {data}: {}", refusal.reason);
        assert!(!refusal.reason.contains("rtpParameters: rtpParameters"), "{}", refusal.reason);
    }
}

/// An empty list killed mediasoup's worker (#537): a peer without a certificate's hash is nobody.
#[test]
fn mediasoup_537_empty_fingerprints_are_refused() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let transport = lab.transport(&mut ada);
    lab.forget_commands();
    for role in ["server", "client", "auto"] {
        let dtls = json!({ "role": role, "fingerprints": [] });
        let call = json!({ "transportId": transport, "dtlsParameters": dtls });
        let refusal = lab.refusal(&mut ada, "connectTransport", call);
        assert_eq!(refusal.status, 400);
        assert!(refusal.reason.contains("dtlsParameters.fingerprints"), "{}", refusal.reason);
    }
    assert_eq!(lab.commands(0), [""; 0]);
}

#[test]
fn a_method_that_does_not_exist_is_a_404() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    assert_eq!(lab.refusal(&mut ada, "makeCoffee", json!({})).status, 404);
}

#[test]
fn deleting_a_room_tells_its_peers_once_and_lets_them_stay_connected() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, OPUS);
    lab.transport(&mut bob);
    lab.consume(&mut bob, &producer);
    ada.news();
    bob.news();

    lab.rooms.rest(Call::DeleteRoom(room("r"))).unwrap();
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.news(), [("roomClosed", json!({ "roomId": "r" }))]);
        assert_eq!(ended(client), None);
    }
    assert_eq!(lab.rooms.rest(Call::Stats).unwrap()["totalPeers"], 0);
    lab.ask(&mut ada, "joinRoom", join_as("r", "ada")).unwrap();
}

#[test]
fn empty_rooms_do_not_keep_peers_from_joining() {
    let mut lab = Lab::new(1);
    for number in 0..RoomLimits::DEFAULT.empty_rooms {
        let id = room(&number.to_string());
        lab.rooms.rest(Call::CreateRoom(id, RoomOptions::default())).unwrap();
    }
    let one_more =
        |lab: &mut Lab| lab.rooms.rest(Call::CreateRoom(room("one more"), RoomOptions::default()));
    assert_eq!(one_more(&mut lab).unwrap_err().status, 503);
    lab.join("a new room", "ada");
    // A room in use is no empty one.
    lab.join("0", "bob");
    one_more(&mut lab).unwrap();
}

#[test]
fn long_app_data_and_malformed_rooms_are_refused_by_name() {
    let mut lab = Lab::new(1);
    let mut ada = lab.connect();
    let mut data = join_as("r", "ada");
    let empty = json!({ "pad": "" }).to_string().len();
    let most = RoomLimits::DEFAULT.app_data;
    data["appData"] = json!({ "pad": "x".repeat(most - empty + 1) });
    let refusal = lab.refusal(&mut ada, "joinRoom", data.clone());
    assert!(refusal.status == 400 && refusal.reason.starts_with("appData: "), "{refusal}");
    data["appData"] = json!({ "pad": "x".repeat(most - empty) });
    lab.ask(&mut ada, "joinRoom", data).unwrap();

    let method = "getRouterRtpCapabilities";
    let refusal = lab.refusal(&mut ada, method, json!({ "roomId": "" }));
    assert!(refusal.status == 400 && refusal.reason.starts_with("roomId: "), "{refusal}");
    lab.ask(&mut ada, method, json!({ "roomId": "unknown" })).unwrap();
    lab.ask(&mut ada, method, Value::Null).unwrap();
}

#[test]
fn shutting_down_tells_everyone_and_ends_every_session() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut nobody = lab.connect();
    lab.rooms.shut_down("2030-01-02T03:04:05.0067Z".parse().unwrap());
    let draining = ("draining", json!({ "deadline": "2030-01-02T03:04:05.006Z" }));
    assert_eq!(ada.news(), [draining.clone(), ("roomClosed", json!({ "roomId": "r" }))]);
    assert_eq!(nobody.news(), [draining]);
    assert_eq!(ended(&mut ada), Some(End::ShuttingDown));
    assert_eq!(ended(&mut nobody), Some(End::ShuttingDown));
    assert!(lab.rooms.sessions().is_empty());
}

#[test]
fn a_client_that_does_not_read_is_ended_and_its_peer_leaves() {
    let mut lab = Lab::new(1);
    let mut slow = lab.join("r", "slow");
    let mut ada = lab.join("r", "ada");
    for _ in 0..QUEUE {
        lab.ask(&mut ada, "leaveRoom", Value::Null).unwrap();
        lab.ask(&mut ada, "joinRoom", join_as("r", "ada")).unwrap();
    }
    assert_eq!(ended(&mut slow), Some(End::TooSlow));
    let shown = show(&mut lab, "r").unwrap();
    assert_eq!((&shown["peersCount"], &shown["peers"][0]["peerId"]), (&json!(1), &json!("ada")));
}

#[test]
fn rest_shows_the_truth() {
    let (mut lab, mut ada, _bob, producer, consumer) = two_shards(OPUS);
    lab.ask(&mut ada, "pauseProducer", json!({ "producerId": producer })).unwrap();

    let shown = show(&mut lab, "r").unwrap();
    let [first, second] = &shown["peers"].as_array().unwrap()[..] else { panic!("{shown}") };
    assert_eq!((&first["peerId"], &first["shard"]), (&json!("ada"), &json!(0)));
    assert_eq!((&second["peerId"], &second["shard"]), (&json!("bob"), &json!(1)));
    let made = &first["producers"][0];
    assert_eq!((&made["producerId"], &made["paused"]), (&json!(producer), &json!(true)));
    assert_eq!((&made["kind"], &made["type"]), (&json!("audio"), &json!("simple")));
    let taken = &second["consumers"][0];
    assert_eq!((&taken["consumerId"], &taken["paused"]), (&json!(consumer), &json!(false)));
    assert_eq!((&taken["producerId"], &taken["producerPaused"]), (&json!(producer), &json!(true)));

    let listed = lab.rooms.rest(Call::ListRooms).unwrap();
    assert_eq!(listed["rooms"][0]["roomId"], "r");
    assert_eq!(listed["rooms"][0]["peersCount"], 2);
    text(&listed["rooms"][0]["createdAt"]).parse::<jiff::Timestamp>().unwrap();
    let stats = lab.rooms.rest(Call::Stats).unwrap();
    let counts = json!({ "totalRooms": 1, "totalPeers": 2, "workersCount": 2, "routersCount": 1 });
    assert_eq!(stats, counts);
}
