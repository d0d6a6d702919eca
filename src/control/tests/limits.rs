//! Every bound of rooms and peers: what is said when it is met, and that it is counted.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::lab::{Lab, OPUS, consume_request, produce_request};
use crate::config::RoomLimits;
use crate::control::limits::Limit;
use crate::control::rest::Call;
use crate::control::rooms::RoomOptions;
use crate::id::RoomId;

const LIMITS: RoomLimits = RoomLimits {
    rooms: 3,
    empty_rooms: 1,
    empty_for: Some(Duration::from_secs(60)),
    peers: 2,
    transports: 2,
    producers: 1,
    consumers: 1,
    app_data: 40,
};

fn times(lab: &Lab, limit: Limit) -> u64 {
    lab.rooms.limits_met.times(limit)
}

fn create(lab: &mut Lab, room: &str) -> Option<u16> {
    let call = Call::CreateRoom(RoomId::new(room).unwrap(), RoomOptions::default());
    lab.rooms.rest(call).err().map(|refusal| refusal.status)
}

#[test]
fn rooms_and_their_peers_are_bounded() {
    let mut lab = Lab::limited(LIMITS);
    assert_eq!(create(&mut lab, "empty"), None);
    assert_eq!(create(&mut lab, "another"), Some(503));
    assert_eq!(times(&lab, Limit::EmptyRooms), 1);
    let _peers = [lab.join("r", "ada"), lab.join("r", "bob"), lab.join("s", "ada")];
    let mut cid = lab.connect();
    let refusal = lab.refusal(&mut cid, "joinRoom", json!({ "roomId": "t", "peerId": "cid" }));
    assert!(refusal.status == 503 && refusal.reason.contains("3 rooms"), "{refusal}");
    assert_eq!(times(&lab, Limit::Rooms), 1);
    let refusal = lab.refusal(&mut cid, "joinRoom", json!({ "roomId": "r", "peerId": "cid" }));
    assert!(refusal.status == 503 && refusal.reason.contains("2 peers at most"), "{refusal}");
    assert_eq!(times(&lab, Limit::Peers), 1);
    lab.join("empty", "cid");
}

#[test]
fn what_a_peer_has_is_bounded() {
    let mut lab = Lab::limited(LIMITS);
    let (mut ada, mut bob) = (lab.join("r", "ada"), lab.join("r", "bob"));
    let producer = lab.produce(&mut ada, OPUS);
    let transport = lab.transport(&mut ada);
    let request = produce_request(&transport, OPUS);
    assert_eq!(lab.refusal(&mut ada, "produce", request).status, 429);
    assert_eq!(times(&lab, Limit::Producers), 1);

    for _ in 0..2 {
        let id = lab.transport(&mut bob);
        let fingerprints = json!([{ "algorithm": "sha-256", "value": super::lab::FINGERPRINT }]);
        let dtls = json!({ "fingerprints": fingerprints });
        let connect = json!({ "transportId": id, "dtlsParameters": dtls });
        lab.ask(&mut bob, "connectTransport", connect).unwrap();
    }
    assert_eq!(lab.refusal(&mut bob, "createWebRtcTransport", json!({})).status, 429);
    assert_eq!(times(&lab, Limit::Transports), 1);

    lab.consume(&mut bob, &producer);
    let refusal = lab.refusal(&mut bob, "consume", consume_request(&producer));
    assert!(refusal.status == 429 && refusal.reason.contains("1 consumers"), "{refusal}");
    assert_eq!(times(&lab, Limit::Consumers), 1);
}

#[test]
fn app_data_is_bounded() {
    let mut lab = Lab::limited(LIMITS);
    let mut ada = lab.connect();
    let long = json!({ "pad": "x".repeat(40) });
    let join = json!({ "roomId": "r", "peerId": "ada", "appData": long });
    let refusal = lab.refusal(&mut ada, "joinRoom", join);
    assert!(refusal.status == 400 && refusal.reason.starts_with("appData: "), "{refusal}");
    let mut ada = lab.join("r", "ada");
    let mut request = produce_request(&lab.transport(&mut ada), OPUS);
    request["appData"] = long;
    assert_eq!(lab.refusal(&mut ada, "produce", request).status, 400);
    assert_eq!(times(&lab, Limit::AppData), 2);
}

#[test]
fn a_room_that_nobody_comes_to_is_closed_after_a_time() {
    let mut lab = Lab::limited(LIMITS);
    assert_eq!(lab.rooms.next_deadline(), None);
    assert_eq!(create(&mut lab, "r"), None);
    let deadline = lab.rooms.next_deadline().expect("a deadline");
    // Nobody is asked to leave.
    let ada = lab.join("r", "ada");
    assert_eq!(lab.rooms.next_deadline(), None);
    lab.rooms.expire(deadline);
    lab.rooms.close(ada.id);

    let deadline = lab.rooms.next_deadline().expect("a deadline");
    lab.rooms.expire(deadline - Duration::from_millis(1));
    assert_eq!(create(&mut lab, "r"), Some(409), "it is there still");
    lab.rooms.expire(deadline);
    assert_eq!(times(&lab, Limit::EmptyRoomTimeout), 1);
    assert_eq!(lab.rooms.next_deadline(), None);
    assert_eq!(create(&mut lab, "r"), None);
    // What is deleted leaves no deadline behind.
    lab.rooms.rest(Call::DeleteRoom(RoomId::new("r").unwrap())).unwrap();
    assert_eq!(lab.rooms.next_deadline(), None);
}

#[test]
fn empty_rooms_can_stay_for_ever() {
    let mut lab = Lab::limited(RoomLimits { empty_for: None, ..LIMITS });
    assert_eq!(create(&mut lab, "r"), None);
    assert_eq!(lab.rooms.next_deadline(), None);
    lab.rooms.expire(Instant::now() + Duration::from_secs(86_400));
    assert_eq!(create(&mut lab, "r"), Some(409));
}
