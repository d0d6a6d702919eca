//! Transports, producers and consumers: exact commands, exact notifications.

use serde_json::{Value, json};

use super::lab::{
    FINGERPRINT, Lab, OPUS, VP8, consume_request, fixture, produce_request, text, two_shards,
};
use crate::config::RoomLimits;
use crate::control::calls::MAX_FINGERPRINTS;
use crate::shard::mailbox::{CloseReason, Command, Event, ShardId};

fn connect(transport: &str, role: &str) -> Value {
    let fingerprints = json!([{ "algorithm": "sha-256", "value": FINGERPRINT }]);
    json!({
        "transportId": transport,
        "dtlsParameters": { "role": role, "fingerprints": fingerprints },
    })
}

fn of_producer(id: &str) -> Value {
    json!({ "producerId": id })
}

fn of_consumer(id: &str) -> Value {
    json!({ "consumerId": id })
}

#[test]
fn a_transport_tells_what_a_browser_needs() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let made = lab.ask(&mut ada, "createWebRtcTransport", json!({ "producing": true })).unwrap();
    let [Command::AddTransport { id, ice }] = &lab.raw_commands(0)[..] else { panic!() };
    assert_eq!(made["id"], json!(id));
    let parameters =
        json!({ "usernameFragment": ice.ufrag, "password": ice.password, "iceLite": true });
    assert_eq!(made["iceParameters"], parameters);
    // 2130706431: host, only interface, RTP (RFC 8445 §5.1.2.1).
    let candidate = json!({
        "foundation": "udpcandidate", "priority": 2_130_706_431_u32, "ip": "192.0.2.7",
        "address": "192.0.2.7", "protocol": "udp", "port": 10_000, "type": "host",
    });
    assert_eq!(made["iceCandidates"], json!([candidate]));
    let dtls = json!({
        "role": "auto",
        "fingerprints": [{ "algorithm": "sha-256", "value": FINGERPRINT }],
    });
    assert_eq!(made["dtlsParameters"], dtls);
}

#[test]
fn we_take_the_other_dtls_role() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    for (role, ours) in [("auto", "Passive"), ("client", "Passive"), ("server", "Active")] {
        let id = lab.transport(&mut ada);
        lab.forget_commands();
        assert_eq!(lab.ask(&mut ada, "connectTransport", connect(&id, role)), Ok(json!({})));
        assert_eq!(lab.commands(0), [format!("ConnectTransport {id} {ours}")]);
    }
}

#[test]
fn a_transport_connects_once() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let id = lab.transport(&mut ada);
    lab.ask(&mut ada, "connectTransport", connect(&id, "client")).unwrap();
    assert_eq!(lab.refusal(&mut ada, "connectTransport", connect(&id, "client")).status, 409);
}

#[test]
fn fingerprints_are_checked() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let id = lab.transport(&mut ada);
    let good = json!({ "algorithm": "sha-256", "value": FINGERPRINT });
    let old = json!({ "algorithm": "sha-1", "value": "00" });
    let wrong = [
        (json!([]), "fingerprints: one of"),
        (json!([old]), "fingerprints: one of"),
        (json!([good, { "algorithm": "sha-256", "value": "00:11" }]), "fingerprints[1]: must be"),
        (json!([{ "algorithm": "md5", "value": FINGERPRINT }]), "fingerprints[0]: must be"),
        (json!([{ "algorithm": "sha-256" }]), "fingerprints[0]: missing field `value`"),
        (json!(vec![good.clone(); MAX_FINGERPRINTS + 1]), "fingerprints: more than"),
    ];
    for (fingerprints, reason) in wrong {
        let mut request = connect(&id, "auto");
        request["dtlsParameters"]["fingerprints"] = fingerprints;
        let refusal = lab.refusal(&mut ada, "connectTransport", request);
        assert_eq!(refusal.status, 400);
        assert!(refusal.reason.contains(reason), "{}", refusal.reason);
    }
    // What was refused has not used up the one call.
    let mut request = connect(&id, "auto");
    request["dtlsParameters"]["fingerprints"] = json!([old, good]);
    lab.ask(&mut ada, "connectTransport", request).unwrap();
}

#[test]
fn restarting_ice_gives_new_credentials() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let id = lab.transport(&mut ada);
    lab.forget_commands();
    let answer = lab.ask(&mut ada, "restartIce", json!({ "transportId": id })).unwrap();
    let [Command::RestartIce { ice, .. }] = &lab.raw_commands(0)[..] else { panic!() };
    let parameters =
        json!({ "usernameFragment": ice.ufrag, "password": ice.password, "iceLite": true });
    assert_eq!(answer, json!({ "iceParameters": parameters }));
}

#[test]
fn a_peer_has_a_bounded_number_of_transports() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    for _ in 0..RoomLimits::DEFAULT.transports {
        let transport = lab.transport(&mut ada);
        lab.ask(&mut ada, "connectTransport", connect(&transport, "client")).unwrap();
    }
    assert_eq!(lab.refusal(&mut ada, "createWebRtcTransport", json!({})).status, 429);
}

#[test]
fn a_transport_that_was_never_connected_makes_way_for_a_new_one() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let transports: Vec<_> =
        (0..RoomLimits::DEFAULT.transports).map(|_| lab.transport(&mut ada)).collect();
    lab.ask(&mut ada, "connectTransport", connect(&transports[0], "client")).unwrap();
    lab.forget_commands();
    let new = lab.transport(&mut ada);
    let told = json!({ "transportId": transports[1], "reason": "replaced" });
    assert_eq!(ada.news(), [("transportClosed", told)]);
    let commands = lab.commands(0);
    assert_eq!(commands[0], format!("RemoveTransport {}", transports[1]));
    assert!(commands[1].contains(&new), "{commands:?}");
}

#[test]
fn on_one_shard_there_is_no_replica() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    ada.news();
    lab.forget_commands();
    let producer = lab.produce(&mut ada, OPUS);
    let news = json!({
        "peerId": "ada", "producerId": producer, "kind": "audio", "appData": { "source": "test" },
    });
    assert_eq!(bob.news(), [("newProducer", news)]);
    lab.transport(&mut bob);
    let consumer = text(&lab.consume(&mut bob, &producer)["id"]);
    let commands = lab.commands(0);
    let [first, second, third, fourth] = &commands[..] else { panic!("{commands:?}") };
    assert!(first.starts_with("AddTransport") && third.starts_with("AddTransport"));
    assert_eq!(second, &format!("AddProducer {producer}"));
    assert_eq!(fourth, &format!("AddConsumer {consumer} {producer} false"));

    lab.ask(&mut bob, "closeConsumer", of_consumer(&consumer)).unwrap();
    assert_eq!(lab.commands(0), [format!("RemoveConsumer {consumer}")]);
    assert_eq!(ada.news(), []);
}

#[test]
fn a_replica_lives_as_long_as_its_shard_has_consumers() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, OPUS);
    lab.transport(&mut bob);
    lab.forget_commands();

    let one = text(&lab.consume(&mut bob, &producer)["id"]);
    assert_eq!(lab.commands(0), [format!("Lend {producer} 1")]);
    let made = [format!("AddReplica {producer} 0"), format!("AddConsumer {one} {producer} false")];
    assert_eq!(lab.commands(1), made);

    let two = text(&lab.consume(&mut bob, &producer)["id"]);
    assert_eq!(lab.commands(0), [""; 0]);
    assert_eq!(lab.commands(1), [format!("AddConsumer {two} {producer} false")]);

    lab.ask(&mut bob, "closeConsumer", of_consumer(&one)).unwrap();
    assert_eq!(lab.commands(1), [format!("RemoveConsumer {one}")]);
    lab.ask(&mut bob, "closeConsumer", of_consumer(&two)).unwrap();
    assert_eq!(lab.commands(0), [format!("Withdraw {producer} 1")]);
    let gone = [format!("RemoveConsumer {two}"), format!("RemoveProducer {producer}")];
    assert_eq!(lab.commands(1), gone);

    // And from the start.
    let three = text(&lab.consume(&mut bob, &producer)["id"]);
    assert_eq!(lab.commands(0), [format!("Lend {producer} 1")]);
    assert_eq!(lab.commands(1)[1], format!("AddConsumer {three} {producer} false"));
}

#[test]
fn pausing_a_producer_reaches_every_shard_and_everyone_concerned() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(OPUS);

    for (method, paused, to_room, to_consumer) in [
        ("pauseProducer", true, "producerPaused", "consumerPaused"),
        ("resumeProducer", false, "producerResumed", "consumerResumed"),
    ] {
        lab.ask(&mut ada, method, of_producer(&producer)).unwrap();
        let whose = json!({ "producerId": producer, "peerId": "ada" });
        let expected = [(to_room, whose), (to_consumer, of_consumer(&consumer))];
        assert_eq!(bob.news(), expected);
        for shard in 0..2 {
            let asked = format!("SetProducerPaused {producer} {paused}");
            assert_eq!(lab.commands(shard), [asked]);
        }
        // Again is no change.
        lab.ask(&mut ada, method, of_producer(&producer)).unwrap();
        assert_eq!(bob.news(), []);
        assert_eq!(lab.commands(0), [""; 0]);
    }
    assert_eq!(ada.news(), []);
}

#[test]
fn a_replica_of_a_paused_producer_starts_paused() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, OPUS);
    lab.ask(&mut ada, "pauseProducer", of_producer(&producer)).unwrap();
    lab.transport(&mut bob);
    lab.forget_commands();
    assert_eq!(lab.consume(&mut bob, &producer)["producerPaused"], true);
    let commands = lab.raw_commands(1);
    assert!(matches!(&commands[0], Command::AddReplica { producer, .. } if producer.paused));
}

#[test]
fn consumers_are_paused_resumed_and_refreshed() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, VP8);
    lab.transport(&mut bob);
    lab.forget_commands();
    let mut request = consume_request(&producer);
    request["paused"] = true.into();
    let id = text(&lab.ask(&mut bob, "consume", request).unwrap()["id"]);
    assert_eq!(lab.commands(0), [format!("AddConsumer {id} {producer} true")]);
    let steps = [
        ("resumeConsumer", format!("SetConsumerPaused {id} false")),
        ("requestConsumerKeyFrame", format!("RequestKeyFrame {id}")),
        ("pauseConsumer", format!("SetConsumerPaused {id} true")),
    ];
    for (method, command) in steps {
        assert_eq!(lab.ask(&mut bob, method, of_consumer(&id)), Ok(json!({})));
        assert_eq!(lab.commands(0), [command]);
    }
    assert_eq!(ada.news().len(), 1, "ada hears only that bob came");
}

#[test]
fn consumers_have_mids_ssrcs_and_cnames() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let mut nameless = fixture(VP8);
    nameless["rtpParameters"]["rtcp"] = json!({});
    let audio = lab.produce(&mut ada, OPUS);
    let video = lab.produce(&mut ada, &nameless.to_string());
    lab.transport(&mut bob);
    let one = lab.consume(&mut bob, &audio);
    let two = lab.consume(&mut bob, &video);
    assert_eq!((&one["kind"], &one["type"]), (&json!("audio"), &json!("simple")));
    assert_eq!((&two["kind"], &two["producerId"]), (&json!("video"), &json!(video)));
    let (one, two) = (&one["rtpParameters"], &two["rtpParameters"]);
    assert_eq!((&one["mid"], &two["mid"]), (&json!("0"), &json!("1")));
    assert_ne!(one["encodings"][0]["ssrc"], two["encodings"][0]["ssrc"]);
    assert_eq!(one["rtcp"]["cname"], fixture(OPUS)["rtpParameters"]["rtcp"]["cname"]);
    assert_eq!(text(&two["rtcp"]["cname"]).len(), 16, "one is invented");
}

#[test]
fn without_a_name_the_consuming_transport_is_taken() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let producer = lab.produce(&mut ada, OPUS);
    let mut bob = lab.join("r", "bob");
    let refusal = lab.refusal(&mut bob, "consume", consume_request(&producer));
    assert_eq!(refusal.status, 404);
    let sending = json!({ "producing": true });
    lab.ask(&mut bob, "createWebRtcTransport", sending.clone()).unwrap();
    assert_eq!(lab.refusal(&mut bob, "consume", consume_request(&producer)).status, 404);

    let receiving = json!({ "producing": false, "consuming": true });
    let made = lab.ask(&mut bob, "createWebRtcTransport", receiving).unwrap();
    lab.transport(&mut bob);
    lab.forget_commands();
    lab.consume(&mut bob, &producer);
    let [Command::AddConsumer(spec)] = &lab.raw_commands(0)[..] else { panic!() };
    assert_eq!(json!(spec.transport), made["id"]);
}

#[test]
fn what_the_peer_cannot_decode_is_refused() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, VP8);
    lab.transport(&mut bob);
    lab.forget_commands();
    let mut request = consume_request(&producer);
    let audio_only = |codec: &Value| codec["kind"] == "audio";
    let codecs = request["rtpCapabilities"]["codecs"].as_array_mut().unwrap();
    codecs.retain(audio_only);
    let refusal = lab.refusal(&mut bob, "consume", request);
    assert_eq!(refusal.status, 400);
    assert!(refusal.reason.starts_with("rtpCapabilities"), "{}", refusal.reason);
    assert_eq!((lab.commands(0), lab.commands(1)), (vec![], vec![]));
}

#[test]
fn two_producers_of_a_transport_cannot_share_mid_or_ssrc() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let transport = lab.transport(&mut ada);
    let request = produce_request(&transport, OPUS);
    let first = text(&lab.ask(&mut ada, "produce", request.clone()).unwrap()["id"]);
    let refusal = lab.refusal(&mut ada, "produce", request.clone());
    assert_eq!(refusal.status, 400);
    assert!(refusal.reason.starts_with("rtpParameters.mid"), "{}", refusal.reason);
    let mut other = request.clone();
    other["rtpParameters"]["mid"] = "7".into();
    let refusal = lab.refusal(&mut ada, "produce", other);
    assert!(refusal.reason.starts_with("rtpParameters.encodings"), "{}", refusal.reason);
    lab.ask(&mut ada, "closeProducer", of_producer(&first)).unwrap();
    lab.ask(&mut ada, "produce", request).unwrap();
}

#[test]
fn closing_a_producer_closes_its_consumers_everywhere() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(OPUS);
    lab.ask(&mut ada, "closeProducer", of_producer(&producer)).unwrap();
    assert_eq!(lab.commands(0), [format!("RemoveProducer {producer}")]);
    assert_eq!(lab.commands(1), [format!("RemoveProducer {producer}")]);
    let closed = ("producerClosed", json!({ "producerId": producer, "peerId": "ada" }));
    assert_eq!(bob.news(), [("consumerClosed", of_consumer(&consumer)), closed]);
    assert_eq!(lab.refusal(&mut bob, "pauseConsumer", of_consumer(&consumer)).status, 404);
    assert_eq!(lab.refusal(&mut bob, "consume", consume_request(&producer)).status, 404);
}

#[test]
fn leaving_takes_everything_along() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let produced = lab.transport(&mut ada);
    let request = produce_request(&produced, OPUS);
    let from_ada = text(&lab.ask(&mut ada, "produce", request).unwrap()["id"]);
    let from_bob = lab.produce(&mut bob, OPUS);
    let at_ada = text(&lab.consume(&mut ada, &from_bob)["id"]);
    let at_bob = text(&lab.consume(&mut bob, &from_ada)["id"]);
    lab.forget_commands();
    ada.news();
    bob.news();

    lab.ask(&mut ada, "leaveRoom", json!({})).unwrap();
    assert_eq!(ada.news(), []);
    let closed = ("consumerClosed", of_consumer(&at_bob));
    assert_eq!(bob.news(), [closed, ("peerLeft", json!({ "peerId": "ada" }))]);
    let home = [
        format!("RemoveConsumer {at_ada}"),
        format!("RemoveProducer {from_bob}"),
        format!("RemoveProducer {from_ada}"),
        format!("RemoveTransport {produced}"),
    ];
    assert_eq!(lab.commands(0), home);
    let away = [format!("Withdraw {from_bob} 0"), format!("RemoveProducer {from_ada}")];
    assert_eq!(lab.commands(1), away);

    // Both shards are free of her: the next peers go there in turn.
    assert_eq!(lab.rooms.loads.iter().map(|load| load.streams).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn ids_of_others_are_forbidden_and_unknown_ones_not_found() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let transport = lab.transport(&mut ada);
    let producer = lab.produce(&mut ada, OPUS);
    let receiving = lab.transport(&mut bob);
    let consumer = text(&lab.consume(&mut bob, &producer)["id"]);
    let unknown = "7b7f2a55-2f3e-4a63-9a9e-0c6f1c7f5a10";

    for (id, status) in [(transport.as_str(), 403), (unknown, 404), ("nonsense", 404)] {
        for (method, request) in [
            ("restartIce", json!({ "transportId": id })),
            ("connectTransport", connect(id, "auto")),
            ("produce", produce_request(id, OPUS)),
        ] {
            assert_eq!(lab.refusal(&mut bob, method, request).status, status, "{method} {id}");
        }
        let mut request = consume_request(&producer);
        request["transportId"] = id.into();
        assert_eq!(lab.refusal(&mut bob, "consume", request).status, status);
    }
    for (id, status) in [(producer.as_str(), 403), (unknown, 404), ("nonsense", 404)] {
        for method in ["pauseProducer", "resumeProducer", "closeProducer"] {
            assert_eq!(lab.refusal(&mut bob, method, of_producer(id)).status, status);
        }
    }
    for (id, status) in [(consumer.as_str(), 403), (unknown, 404), ("nonsense", 404)] {
        for method in
            ["pauseConsumer", "resumeConsumer", "closeConsumer", "requestConsumerKeyFrame"]
        {
            assert_eq!(lab.refusal(&mut ada, method, of_consumer(id)).status, status);
        }
    }
    // Another room's producers are not there.
    let mut eve = lab.join("s", "eve");
    lab.transport(&mut eve);
    assert_eq!(lab.refusal(&mut eve, "consume", consume_request(&producer)).status, 404);
    assert!(!receiving.is_empty());
}

#[test]
fn a_dead_transport_is_told_and_takes_its_streams_along() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let transport = lab.transport(&mut ada);
    let request = produce_request(&transport, OPUS);
    let producer = text(&lab.ask(&mut ada, "produce", request.clone()).unwrap()["id"]);
    let from_bob = lab.produce(&mut bob, OPUS);
    lab.consume(&mut ada, &from_bob);
    let consumer = text(&lab.consume(&mut bob, &producer)["id"]);
    lab.forget_commands();
    ada.news();
    bob.news();

    let id = transport.parse().unwrap();
    lab.rooms.shard_event(
        ShardId(0),
        Event::TransportClosed { id, reason: CloseReason::ConsentExpired },
    );
    let told = json!({ "transportId": transport, "reason": "consentExpired" });
    assert_eq!(ada.news(), [("transportClosed", told)]);
    let closed = ("producerClosed", json!({ "producerId": producer, "peerId": "ada" }));
    assert_eq!(bob.news(), [("consumerClosed", of_consumer(&consumer)), closed]);
    let away = [format!("Withdraw {from_bob} 0"), format!("RemoveProducer {producer}")];
    assert_eq!(lab.commands(1), away);
    assert_eq!(lab.refusal(&mut ada, "produce", request).status, 404);

    // A late word of a transport that is gone changes nothing.
    lab.rooms
        .shard_event(ShardId(0), Event::TransportClosed { id, reason: CloseReason::DtlsClosed });
    lab.rooms.shard_event(ShardId(0), Event::TransportConnected(id));
    assert_eq!((ada.news(), bob.news()), (vec![], vec![]));
}

/// A new packet under an old SSRC and key would repeat a keystream (RFC 3711 §9.1).
#[test]
fn a_transport_never_sees_an_ssrc_again() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, OPUS);
    let transport = lab.transport(&mut bob).parse().unwrap();
    for _ in 0..3 {
        let consumer = text(&lab.consume(&mut bob, &producer)["id"]);
        lab.ask(&mut bob, "closeConsumer", of_consumer(&consumer)).unwrap();
    }
    let used = lab.rooms.transports[&transport].ssrcs.concat();
    assert!(used.len() == 6 && used.iter().all(|ssrc| lab.rooms.secrets.is_taken(*ssrc)));
    lab.ask(&mut bob, "leaveRoom", json!({})).unwrap();
    assert!(!used.iter().any(|ssrc| lab.rooms.secrets.is_taken(*ssrc)));
}

#[test]
fn peers_go_to_the_least_loaded_shard() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    lab.produce(&mut ada, OPUS);
    lab.produce(&mut ada, VP8);
    let bob = lab.join("r", "bob");
    let cid = lab.join("r", "cid");
    let shard = |lab: &Lab, client: &super::lab::Client| lab.rooms.peer(client.id).unwrap().shard.0;
    assert_eq!((shard(&lab, &ada), shard(&lab, &bob), shard(&lab, &cid)), (0, 1, 1));
}
