//! Who may do what: every method of signaling and every REST call, with every kind of token.

use serde_json::{Value, json};

use super::lab::{
    CAPABILITIES, Client, FINGERPRINT, Lab, OPUS, VP8, consume_request, fixture, produce_request,
    text,
};
use crate::control::identity::Token;
use crate::control::identity::tests::{Issuer, identity};
use crate::control::refusal::Refusal;
use crate::control::requests::Named;
use crate::control::rest::Call;
use crate::control::rooms::RoomOptions;
use crate::id::{PeerId, RoomId};

/// A token that grants everything in one room.
fn everything_in(room: &str) -> Value {
    json!({ "room": room, "publish": true, "subscribe": true, "administer": true })
}

struct Guarded {
    lab: Lab,
    issuer: Issuer,
}

impl Guarded {
    fn new() -> Self {
        let issuer = Issuer::hs256("k");
        Self { lab: Lab::guarded(identity(&[&issuer])), issuer }
    }

    /// `claims` as text, as clients send it.
    fn token(&self, claims: Value) -> Value {
        json!(self.issuer.sign(claims).as_str())
    }

    fn join(&mut self, room: &str, peer: &str, claims: Value) -> Client {
        let mut client = self.lab.connect();
        let data = json!({ "roomId": room, "peerId": peer, "token": self.token(claims) });
        self.lab.ask(&mut client, "joinRoom", data).unwrap();
        client
    }

    fn rest(&mut self, token: Option<Value>, call: Call) -> Result<Value, Refusal> {
        let token = token.map(|claims| self.issuer.sign(claims));
        self.lab.rooms.authorize(token.as_ref(), &call)?;
        self.lab.rooms.rest(call)
    }
}

/// What a peer of a room has, for others to reach for.
struct Belongings {
    peer: &'static str,
    transport: String,
    producer: String,
    consumer: String,
}

/// Every method of signaling, with data that is right for whoever owns `of`.
fn every_method(of: &Belongings) -> Vec<(&'static str, Value)> {
    let (transport, producer, consumer) = (&of.transport, &of.producer, &of.consumer);
    let of_transport = json!({ "transportId": transport });
    let of_producer = json!({ "producerId": producer });
    let of_consumer = json!({ "consumerId": consumer });
    let fingerprints = json!([{ "algorithm": "sha-256", "value": FINGERPRINT }]);
    let dtls = json!({ "role": "client", "fingerprints": fingerprints });
    let consume = json!({
        "producerId": producer, "transportId": transport, "rtpCapabilities": fixture(CAPABILITIES),
    });
    vec![
        ("createWebRtcTransport", json!({})),
        ("connectTransport", json!({ "transportId": transport, "dtlsParameters": dtls })),
        ("restartIce", of_transport.clone()),
        ("produce", produce_request(transport, OPUS)),
        ("consume", consume),
        ("pauseProducer", of_producer.clone()),
        ("resumeProducer", of_producer.clone()),
        ("closeProducer", of_producer.clone()),
        ("pauseConsumer", of_consumer.clone()),
        ("resumeConsumer", of_consumer.clone()),
        ("closeConsumer", of_consumer.clone()),
        ("requestConsumerKeyFrame", of_consumer.clone()),
        ("setConsumerPreferredLayers", json!({ "consumerId": consumer, "spatialLayer": 0 })),
        ("setConsumerPriority", json!({ "consumerId": consumer, "priority": 1 })),
        ("getTransportStats", of_transport),
        ("getProducerStats", of_producer.clone()),
        ("getConsumerStats", of_consumer),
        ("subscribeAudioLevels", json!({ "interval": 1000 })),
        ("getRoom", json!({})),
        ("muteProducer", of_producer.clone()),
        ("unmuteProducer", of_producer),
        ("removePeer", json!({ "peerId": of.peer })),
        ("setMaxPeers", json!({ "maxPeers": 1 })),
        ("closeRoom", json!({})),
    ]
}

/// Those that need no grant, or only concern oneself.
const OTHERS: [&str; 3] = ["joinRoom", "getRouterRtpCapabilities", "leaveRoom"];

/// Those that name nothing of another's.
const OF_ONESELF: [&str; 5] =
    ["createWebRtcTransport", "subscribeAudioLevels", "getRoom", "setMaxPeers", "closeRoom"];

/// Ada in room `r`, who sends, and receives from Bob.
fn ada(guarded: &mut Guarded) -> (Client, Client, Belongings) {
    let mut bob = guarded.join("r", "bob", everything_in("r"));
    let sent = guarded.lab.produce(&mut bob, OPUS);
    let mut ada = guarded.join("r", "ada", everything_in("r"));
    let transport = guarded.lab.transport(&mut ada);
    let request = produce_request(&transport, OPUS);
    let producer = text(&guarded.lab.ask(&mut ada, "produce", request).unwrap()["id"]);
    let consumer = text(&guarded.lab.consume(&mut ada, &sent)["id"]);
    guarded.lab.forget_commands();
    (ada, bob, Belongings { peer: "ada", transport, producer, consumer })
}

/// A method that is added must be tried here too.
#[test]
fn every_method_is_walked_through() {
    let named = include_str!("../requests.rs").lines().filter_map(|line| {
        let (name, arm) = line.trim().strip_prefix('"')?.split_once('"')?;
        let is_method = name.chars().all(char::is_alphanumeric);
        (is_method && arm.starts_with(" => ")).then_some(name)
    });
    let nothing = || String::new();
    let of =
        Belongings { peer: "p", transport: nothing(), producer: nothing(), consumer: nothing() };
    let tried: Vec<&str> = every_method(&of).iter().map(|(method, _)| *method).collect();
    let mut count = 0;
    for name in named {
        assert!(tried.contains(&name) || OTHERS.contains(&name), "{name} is not tried");
        count += 1;
    }
    assert_eq!(count, tried.len() + OTHERS.len());
}

#[test]
fn who_has_not_joined_can_do_nothing() {
    let mut guarded = Guarded::new();
    let (_ada, _bob, belongings) = ada(&mut guarded);
    let mut eve = guarded.lab.connect();
    for (method, data) in every_method(&belongings) {
        assert_eq!(guarded.lab.refusal(&mut eve, method, data).status, 403, "{method}");
    }
    assert_eq!(guarded.lab.refusal(&mut eve, "leaveRoom", json!({})).status, 403);
    assert!(guarded.lab.commands(0).is_empty());
}

#[test]
fn nothing_reaches_across_rooms() {
    let mut guarded = Guarded::new();
    let (mut ada, _bob, belongings) = ada(&mut guarded);
    let mut eve = guarded.join("s", "eve", everything_in("s"));
    guarded.lab.transport(&mut eve);
    ada.news();
    guarded.lab.forget_commands();
    for (method, data) in every_method(&belongings) {
        if OF_ONESELF.contains(&method) {
            continue;
        }
        let status = guarded.lab.refusal(&mut eve, method, data).status;
        assert!([403, 404].contains(&status), "{method}: {status}");
    }
    // Nor with a transport of her own.
    let consume = consume_request(&belongings.producer);
    assert_eq!(guarded.lab.refusal(&mut eve, "consume", consume).status, 404);
    assert!(guarded.lab.commands(0).is_empty(), "no shard was asked anything");
    assert_eq!(ada.news(), []);
}

#[test]
fn a_peer_without_grants_can_do_nothing_to_others_or_itself() {
    let mut guarded = Guarded::new();
    let (mut ada, _bob, belongings) = ada(&mut guarded);
    let mut eve = guarded.join("r", "eve", json!({ "room": "r", "sub": "eve" }));
    ada.news();
    guarded.lab.forget_commands();
    for (method, data) in every_method(&belongings) {
        assert_eq!(guarded.lab.refusal(&mut eve, method, data).status, 403, "{method}");
    }
    assert!(guarded.lab.commands(0).is_empty(), "no shard was asked anything");
    assert_eq!(ada.news(), []);
    guarded.lab.ask(&mut eve, "leaveRoom", json!({})).unwrap();
}

#[test]
fn each_source_needs_its_own_grant() {
    let screen = json!({ "source": "screen" });
    let tried = [
        ("audio", OPUS, json!({})),
        // Sound is sound, whatever it is said to be.
        ("audio", OPUS, screen.clone()),
        ("video", VP8, json!({ "source": "camera" })),
        ("screen", VP8, screen),
    ];
    for granted in ["audio", "video", "screen"] {
        let mut guarded = Guarded::new();
        let mut eve = guarded.join("r", "eve", json!({ "room": "r", "publish": [granted] }));
        for (needed, recorded, app_data) in &tried {
            let transport = guarded.lab.transport(&mut eve);
            let mut request = produce_request(&transport, recorded);
            request["appData"] = app_data.clone();
            let result = guarded.lab.ask(&mut eve, "produce", request);
            let status = result.err().map(|refusal| refusal.status);
            let expected = if *needed == granted { None } else { Some(403) };
            assert_eq!(status, expected, "{granted} for {needed} {app_data}");
        }
        let consume = consume_request("00000000-0000-4000-8000-000000000000");
        assert_eq!(guarded.lab.refusal(&mut eve, "consume", consume).status, 403);
    }
}

#[test]
fn joining_takes_a_token_for_this_room_and_peer() {
    let mut guarded = Guarded::new();
    let join = |guarded: &mut Guarded, token: Value| {
        let mut eve = guarded.lab.connect();
        let data = json!({ "roomId": "r", "peerId": "eve", "token": token });
        guarded.lab.ask(&mut eve, "joinRoom", data).err().map(|refusal| refusal.status)
    };
    for (claims, status) in [
        (json!({ "room": "r", "sub": "eve" }), None),
        (json!({ "anyRoom": true }), Some(409)),
        (json!({ "room": "s", "sub": "eve" }), Some(403)),
        (json!({ "room": "r", "sub": "ada" }), Some(403)),
        (json!({ "room": "r", "exp": 1 }), Some(401)),
        (json!({ "room": "r", "exp": null }), Some(401)),
    ] {
        let token = guarded.token(claims.clone());
        assert_eq!(join(&mut guarded, token), status, "{claims}");
    }
    assert_eq!(join(&mut guarded, Value::Null), Some(401));
    assert_eq!(join(&mut guarded, json!("a.b.c")), Some(401));
    assert_eq!(join(&mut guarded, json!(5)), Some(400));
}

/// A token for one peer must not push another one out.
#[test]
fn nobody_replaces_a_peer_without_its_token() {
    let mut guarded = Guarded::new();
    let ada = guarded.join("r", "ada", everything_in("r"));
    guarded.lab.rooms.set_missed_ping(ada.id, true);
    let mut eve = guarded.lab.connect();
    let token = guarded.token(json!({ "room": "r", "sub": "eve" }));
    let data = json!({ "roomId": "r", "peerId": "ada", "token": token });
    assert_eq!(guarded.lab.refusal(&mut eve, "joinRoom", data).status, 403);
    assert!(guarded.lab.rooms.sessions().contains(&ada.id));
}

/// Every REST call, on room `r`, its peer `ada` and this producer of hers.
fn every_call(producer: &str) -> Vec<Call> {
    let room = || RoomId::new("r").unwrap();
    let ada = || PeerId::new("ada").unwrap();
    let producer = producer.parse().ok();
    vec![
        Call::ListRooms,
        Call::ShowRoom(room()),
        Call::CapPeers(room(), None),
        Call::ListPeers(room()),
        Call::ShowPeer(room(), ada()),
        Call::Mute(room(), Named(producer), true),
        Call::Mute(room(), Named(producer), false),
        Call::RemovePeer(room(), ada()),
        Call::CreateRoom(RoomId::new("new").unwrap(), RoomOptions::default()),
        Call::DeleteRoom(room()),
    ]
}

#[test]
fn rest_takes_an_administrators_token_for_the_room() {
    let mut guarded = Guarded::new();
    let (_ada, _bob, belongings) = ada(&mut guarded);
    let calls = || every_call(&belongings.producer);
    for (claims, status) in [
        (None, 401),
        (Some(json!({ "anyRoom": true, "administer": true, "exp": 1 })), 401),
        (Some(json!({ "anyRoom": true, "publish": true, "subscribe": true })), 403),
        (Some(everything_in("s")), 403),
    ] {
        for call in calls() {
            assert_eq!(guarded.rest(claims.clone(), call).unwrap_err().status, status);
        }
        guarded.rest(None, Call::Stats).expect("health is for everybody");
    }
    let forged = Token::from("a.b.c".to_owned());
    for call in calls() {
        let refusal = guarded.lab.rooms.authorize(Some(&forged), &call).unwrap_err();
        assert_eq!(refusal.status, 401);
    }
    let any = json!({ "anyRoom": true, "administer": true });
    for call in calls() {
        guarded.rest(Some(any.clone()), call).unwrap();
    }
}

/// Who may manage a room learns nothing of others, not even whether they are there.
#[test]
fn an_administrator_of_one_room_manages_that_one() {
    let mut guarded = Guarded::new();
    let room = |id: &str| RoomId::new(id).unwrap();
    let mine = everything_in("r");
    guarded.rest(Some(mine.clone()), Call::CreateRoom(room("r"), RoomOptions::default())).unwrap();
    guarded.rest(Some(mine.clone()), Call::ShowRoom(room("r"))).unwrap();
    let status = |result: Result<Value, Refusal>| result.unwrap_err().status;
    assert_eq!(status(guarded.rest(Some(mine.clone()), Call::ListRooms)), 403);
    assert_eq!(status(guarded.rest(Some(mine.clone()), Call::ShowRoom(room("not there")))), 403);
    guarded.rest(Some(mine), Call::DeleteRoom(room("r"))).unwrap();
}
