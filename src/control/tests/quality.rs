//! Layers, scores, speakers and stats: what shards are asked, and what becomes of what they tell.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::lab::{Client, Lab, OPUS, QUEUE, VP8, mailbox, rooms, text, two_shards};
use crate::control::hub;
use crate::control::questions::{ANSWER_WITHIN, MAX_QUESTIONS};
use crate::control::session::{Caller, Outgoing};
use crate::control::speakers::{MAX_LEVELS_INTERVAL, MIN_LEVELS_INTERVAL};
use crate::id::{Codec, MediaKind, ProducerId, Rid, RoomKey, Ssrc};
use crate::shard::mailbox::{
    Command, ConsumerStats, EncodingScore, Event, ShardId, StatsReport, StreamStats, TransportStats,
};

const HOME: ShardId = ShardId(0);
const AWAY: ShardId = ShardId(1);

fn wants(lab: &mut Lab, shard: ShardId, producer: &str, spatial: Option<u8>) {
    let id = producer.parse().expect("an id");
    lab.rooms.shard_event(shard, Event::LayersWanted { id, spatial });
}

fn wanted(producer: &str, spatial: Option<u8>) -> Vec<(&'static str, Value)> {
    let data = json!({ "producerId": producer, "spatialLayer": spatial });
    vec![("producerLayersWanted", data)]
}

fn speaks(lab: &mut Lab, room: u64, producer: Option<&str>) {
    let producer = producer.map(|id| id.parse().expect("an id"));
    lab.rooms.shard_event(HOME, Event::ActiveSpeaker { room: RoomKey(room), producer });
}

fn speaker(peer: Option<&str>) -> Vec<(&'static str, Value)> {
    vec![("activeSpeakerChanged", json!({ "activeSpeakerId": peer }))]
}

#[test]
fn wishes_go_to_the_consumers_shard() {
    let (mut lab, _ada, mut bob, _, consumer) = two_shards(VP8);
    let layers = json!({ "consumerId": consumer, "spatialLayer": 1, "temporalLayer": 0 });
    assert_eq!(lab.ask(&mut bob, "setConsumerPreferredLayers", layers), Ok(json!({})));
    let spatial = json!({ "consumerId": consumer, "spatialLayer": 2 });
    assert_eq!(lab.ask(&mut bob, "setConsumerPreferredLayers", spatial), Ok(json!({})));
    let priority = json!({ "consumerId": consumer, "priority": 255 });
    assert_eq!(lab.ask(&mut bob, "setConsumerPriority", priority), Ok(json!({})));
    let expected = [
        format!("SetPreferredLayers {consumer} 1 Some(0)"),
        format!("SetPreferredLayers {consumer} 2 None"),
        format!("SetPriority {consumer} 255"),
    ];
    assert_eq!(lab.commands(1), expected);
    assert_eq!(lab.commands(0), [""; 0]);
}

#[test]
fn wishes_that_cannot_be_name_their_field() {
    let (mut lab, mut ada, mut bob, _, consumer) = two_shards(VP8);
    let layers = |spatial: Value, temporal: Value| json!({ "consumerId": consumer, "spatialLayer": spatial, "temporalLayer": temporal });
    let cases = [
        ("setConsumerPreferredLayers", json!({ "consumerId": consumer }), "`spatialLayer`"),
        ("setConsumerPreferredLayers", json!({ "spatialLayer": 1 }), "`consumerId`"),
        ("setConsumerPreferredLayers", layers(json!(-1), json!(0)), "spatialLayer: "),
        ("setConsumerPreferredLayers", layers(json!("high"), json!(0)), "spatialLayer: "),
        ("setConsumerPreferredLayers", layers(json!(0), json!(256)), "temporalLayer: "),
        ("setConsumerPriority", json!({ "consumerId": consumer }), "`priority`"),
        ("setConsumerPriority", json!({ "consumerId": consumer, "priority": 0 }), "priority: "),
        ("setConsumerPriority", json!({ "consumerId": consumer, "priority": 256 }), "priority: "),
        ("subscribeAudioLevels", json!({ "interval": -1 }), "interval: "),
        ("subscribeAudioLevels", json!({ "interval": "often" }), "interval: "),
    ];
    for (method, data, field) in cases {
        let refusal = lab.refusal(&mut bob, method, data.clone());
        assert_eq!(refusal.status, 400, "{method} {data}");
        assert!(refusal.reason.contains(field), "{method} {data}: {}", refusal.reason);
    }
    let others = json!({ "consumerId": consumer, "spatialLayer": 0, "priority": 1 });
    for method in ["setConsumerPreferredLayers", "setConsumerPriority", "getConsumerStats"] {
        assert_eq!(lab.refusal(&mut ada, method, others.clone()).status, 403, "{method}");
    }
    assert_eq!((lab.commands(0), lab.commands(1)), (vec![], vec![]));
}

#[test]
fn receivers_learn_of_layers_and_scores() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(VP8);
    let id = consumer.parse().unwrap();
    lab.rooms.shard_event(AWAY, Event::LayersChanged { id, layers: Some((2, 1)) });
    lab.rooms.shard_event(AWAY, Event::LayersChanged { id, layers: None });
    let producer_scores = [10, 9, 0].into_iter().collect();
    let (score, producer_score) = (7, 9);
    let scored = Event::ConsumerScore { id, score, producer_score, producer_scores };
    lab.rooms.shard_event(AWAY, scored);
    let layers = |spatial, temporal| json!({ "consumerId": consumer, "spatialLayer": spatial, "temporalLayer": temporal });
    // As mediasoup's `ConsumerScore`.
    let score = json!({ "score": 7, "producerScore": 9, "producerScores": [10, 9, 0] });
    let expected = [
        ("consumerLayersChanged", layers(Some(2), Some(1))),
        ("consumerLayersChanged", layers(None, None)),
        ("consumerScore", json!({ "consumerId": consumer, "score": score })),
    ];
    assert_eq!(bob.news(), expected);

    let id = producer.parse().unwrap();
    let score = |encoding, rid| EncodingScore { encoding, ssrc: Ssrc(5), rid, score: 8 };
    let scores = vec![score(0, Rid::new(b"r0")), score(1, None)];
    lab.rooms.shard_event(HOME, Event::ProducerScore { id, scores });
    // As mediasoup's `ProducerScore`.
    let scores = json!([
        { "encodingIdx": 0, "ssrc": 5, "rid": "r0", "score": 8 },
        { "encodingIdx": 1, "ssrc": 5, "score": 8 },
    ]);
    let told = json!({ "producerId": producer, "score": scores });
    assert_eq!(ada.news(), [("producerScore", told)]);
    assert_eq!(bob.news(), []);
}

#[test]
fn a_late_word_of_a_closed_consumer_is_for_nobody() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(VP8);
    lab.ask(&mut ada, "closeProducer", json!({ "producerId": producer })).unwrap();
    bob.news();
    let id = consumer.parse().unwrap();
    lab.rooms.shard_event(AWAY, Event::LayersChanged { id, layers: None });
    let id = producer.parse().unwrap();
    lab.rooms.shard_event(HOME, Event::ProducerScore { id, scores: Vec::new() });
    wants(&mut lab, AWAY, &producer, Some(0));
    assert_eq!((ada.news(), bob.news()), (vec![], vec![]));
}

#[test]
fn the_publisher_is_told_what_all_shards_together_want() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(VP8);
    // Nobody consumes at home, so that home's silence does not count.
    wants(&mut lab, AWAY, &producer, Some(1));
    assert_eq!(ada.news(), wanted(&producer, Some(1)));
    wants(&mut lab, AWAY, &producer, Some(1));
    wants(&mut lab, HOME, &producer, None);
    wants(&mut lab, HOME, &producer, Some(0));
    assert_eq!(ada.news(), [], "still 1");
    wants(&mut lab, HOME, &producer, Some(2));
    assert_eq!(ada.news(), wanted(&producer, Some(2)));
    wants(&mut lab, HOME, &producer, None);
    assert_eq!(ada.news(), wanted(&producer, Some(1)));

    // With its last consumer a replica goes, and what it wanted.
    lab.ask(&mut bob, "closeConsumer", json!({ "consumerId": consumer })).unwrap();
    assert_eq!(ada.news(), wanted(&producer, None));
    wants(&mut lab, AWAY, &producer, Some(2));
    assert_eq!(ada.news(), [], "a late word");
    assert_eq!(bob.news(), []);
}

#[test]
fn a_shard_that_has_not_said_may_want_everything() {
    let (mut lab, mut ada, bob, producer, _) = two_shards(VP8);
    // Both shards carry as much now: Cid comes to the first.
    let mut cid = lab.join("r", "cid");
    lab.transport(&mut cid);
    let at_home = text(&lab.consume(&mut cid, &producer)["id"]);
    let shards = [&bob, &cid].map(|client| lab.rooms.peer(client.id).unwrap().shard);
    assert_eq!(shards, [AWAY, HOME]);
    ada.news();
    wants(&mut lab, AWAY, &producer, Some(0));
    assert_eq!(ada.news(), []);
    lab.ask(&mut cid, "closeConsumer", json!({ "consumerId": at_home })).unwrap();
    assert_eq!(ada.news(), wanted(&producer, Some(0)));
}

#[test]
fn everyone_learns_who_speaks_and_only_changes() {
    let (mut lab, mut ada, mut bob, producer, _) = two_shards(OPUS);
    speaks(&mut lab, 0, Some(&producer));
    assert_eq!((ada.news(), bob.news()), (speaker(Some("ada")), speaker(Some("ada"))));
    let second = lab.produce(&mut ada, OPUS);
    bob.news();
    speaks(&mut lab, 0, Some(&second));
    assert_eq!(bob.news(), [], "the same peer");
    speaks(&mut lab, 0, None);
    assert_eq!(bob.news(), speaker(None));
    speaks(&mut lab, 0, Some(&ProducerId::random().to_string()));
    speaks(&mut lab, 7, Some(&producer));
    assert_eq!(bob.news(), [], "neither is there");
}

#[test]
fn another_rooms_producer_speaks_in_its_own_room_only() {
    let mut lab = Lab::new(1);
    let mut ada = lab.join("r", "ada");
    let mut eve = lab.join("s", "eve");
    let producer = lab.produce(&mut eve, OPUS);
    speaks(&mut lab, 0, Some(&producer));
    assert_eq!((ada.news(), eve.news()), (vec![], vec![]));
    speaks(&mut lab, 1, Some(&producer));
    assert_eq!((ada.news(), eve.news()), (vec![], speaker(Some("eve"))));
}

#[test]
fn who_joins_learns_who_speaks_behind_the_answer() {
    let (mut lab, mut ada, mut bob, producer, _) = two_shards(OPUS);
    speaks(&mut lab, 0, Some(&producer));
    let mut cid = lab.join("r", "cid");
    assert_eq!(cid.news(), speaker(Some("ada")));
    ada.news();
    bob.news();

    lab.rooms.close(ada.id);
    assert_eq!(
        cid.news(),
        [vec![("peerLeft", json!({ "peerId": "ada" }))], speaker(None)].concat()
    );
    speaks(&mut lab, 0, None);
    assert_eq!(cid.news(), [], "told already");
}

#[test]
fn a_producer_knows_its_rooms_home_and_whether_it_is_a_screen() {
    let mut lab = Lab::new(2);
    let ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    // The first peer's shard stays the room's home when that peer has left.
    lab.rooms.close(ada.id);
    lab.produce(&mut bob, VP8);
    let transport = lab.transport(&mut bob);
    let mut request = super::lab::produce_request(&transport, VP8);
    request["appData"] = json!({ "source": "screen" });
    lab.ask(&mut bob, "produce", request).unwrap();
    let specs = lab.raw_commands(1).into_iter().filter_map(|command| match command {
        Command::AddProducer(spec) => Some((spec.room, spec.home, spec.is_screen)),
        _ => None,
    });
    let specs: Vec<_> = specs.collect();
    assert_eq!(specs, [(RoomKey(0), HOME, false), (RoomKey(0), HOME, true)]);
}

#[test]
fn levels_are_asked_of_the_home_shard_as_often_as_anyone_wants() {
    let mut lab = Lab::new(2);
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let subscribe = |lab: &mut Lab, client: &mut Client, interval: Value| {
        lab.ask(client, "subscribeAudioLevels", json!({ "interval": interval })).unwrap();
        lab.commands(0)
    };
    assert_eq!(subscribe(&mut lab, &mut bob, json!(500)), ["SubscribeLevels 0 Some(500ms)"]);
    assert_eq!(subscribe(&mut lab, &mut ada, json!(800)), [""; 0]);
    assert_eq!(subscribe(&mut lab, &mut ada, json!(1)), [asked(Some(MIN_LEVELS_INTERVAL))]);
    assert_eq!(subscribe(&mut lab, &mut ada, json!(null)), ["SubscribeLevels 0 Some(500ms)"]);
    assert_eq!(subscribe(&mut lab, &mut bob, json!(u64::MAX)), [asked(Some(MAX_LEVELS_INTERVAL))]);
    assert_eq!(subscribe(&mut lab, &mut bob, json!(0)), [asked(None)]);
    assert_eq!(subscribe(&mut lab, &mut bob, json!(0)), [""; 0]);

    subscribe(&mut lab, &mut bob, json!(300));
    lab.rooms.close(bob.id);
    assert_eq!(lab.commands(0), [asked(None)], "who leaves listens no more");
    subscribe(&mut lab, &mut ada, json!(300));
    lab.rooms.close_room(&crate::id::RoomId::new("r").unwrap()).unwrap();
    assert_eq!(lab.commands(0), [asked(None)]);
    assert_eq!(lab.commands(1), [""; 0]);
}

fn asked(interval: Option<Duration>) -> String {
    format!("SubscribeLevels 0 {interval:?}")
}

#[test]
fn levels_are_per_peer_loudest_first_and_for_subscribers_only() {
    let (mut lab, mut ada, mut bob, producer, _) = two_shards(OPUS);
    let second = lab.produce(&mut ada, OPUS);
    let from_bob = lab.produce(&mut bob, OPUS);
    lab.ask(&mut bob, "subscribeAudioLevels", json!({ "interval": 500 })).unwrap();
    ada.news();
    bob.news();
    let heard = [(&producer, -60), (&second, -50), (&from_bob, -20)];
    let mut levels: Vec<_> =
        heard.iter().map(|(id, level)| (id.parse().unwrap(), *level)).collect();
    levels.push((ProducerId::random(), -1));
    lab.rooms.shard_event(HOME, Event::Levels { room: RoomKey(0), levels });
    let list = json!([{ "peerId": "bob", "level": -20 }, { "peerId": "ada", "level": -50 }]);
    assert_eq!(bob.news(), [("audioLevels", json!({ "levels": list }))]);
    assert_eq!(ada.news(), []);
}

#[test]
fn stats_are_answered_when_the_shard_answers() {
    let (mut lab, _ada, mut bob, _, consumer) = two_shards(VP8);
    let first = lab.send(&mut bob, "getConsumerStats", json!({ "consumerId": consumer }));
    let transport = lab.transport(&mut bob);
    let second = lab.send(&mut bob, "getTransportStats", json!({ "transportId": transport }));
    let tokens = lab.tokens(1);
    assert_eq!(bob.responses(), []);

    // In any order, and each question its own answer.
    let report = StatsReport::Transport(TransportStats::default());
    lab.answer(AWAY, tokens[1], Some(report));
    let [(tag, Ok(stats))] = &bob.responses()[..] else { panic!("one answer") };
    assert_eq!((*tag, &stats[0]["transportId"]), (second, &json!(transport)));
    assert_eq!(stats[0]["type"], "webrtc-transport");
    let report = StatsReport::Consumer(ConsumerStats {
        outbound: StreamStats::new(Ssrc(9), MediaKind::Video, Codec::Vp8),
        inbound: None,
        layers: None,
        target_layers: None,
        reasons: Vec::new(),
        events: Vec::new(),
    });
    lab.answer(AWAY, tokens[0], Some(report.clone()));
    let [(tag, Ok(stats))] = &bob.responses()[..] else { panic!("one answer") };
    assert_eq!((*tag, &stats[0]["ssrc"]), (first, &json!(9)));

    // A token is good for one answer.
    lab.answer(AWAY, tokens[0], Some(report));
    assert_eq!(bob.responses(), []);
    assert_eq!(lab.rooms.next_deadline(), None);
}

#[test]
fn stats_of_what_is_gone_on_the_shard_are_a_404() {
    let (mut lab, mut ada, _bob, producer, _) = two_shards(VP8);
    let tag = lab.send(&mut ada, "getProducerStats", json!({ "producerId": producer }));
    let token = lab.tokens(0)[0];
    lab.answer(HOME, token, None);
    let [(answered, Err(refusal))] = &ada.responses()[..] else { panic!("one refusal") };
    assert_eq!((*answered, refusal.status), (tag, 404));
    assert!(refusal.reason.contains("producer"));
}

#[test]
fn a_shard_that_does_not_answer_costs_a_504() {
    let (mut lab, mut ada, _bob, producer, _) = two_shards(VP8);
    let asked = Instant::now();
    let tag = lab.send(&mut ada, "getProducerStats", json!({ "producerId": producer }));
    let token = lab.tokens(0)[0];
    assert!(lab.rooms.next_deadline().is_some_and(|at| at >= asked + ANSWER_WITHIN));
    lab.rooms.expire(asked);
    assert_eq!(ada.responses(), []);
    lab.rooms.expire(lab.rooms.next_deadline().unwrap());
    let [(answered, Err(refusal))] = &ada.responses()[..] else { panic!("one refusal") };
    assert_eq!((*answered, refusal.status, refusal.code()), (tag, 504, "TIMEOUT"));
    assert_eq!(lab.rooms.next_deadline(), None);
    lab.answer(HOME, token, None);
    assert_eq!(ada.responses(), [], "too late");
}

/// The hub wakes up for a deadline though nobody sends it anything.
#[tokio::test]
async fn the_hub_gives_up_on_a_silent_shard_by_itself() {
    let (mailbox, _silent) = mailbox(0);
    let (hub, inbox) = hub::new(QUEUE);
    let (_events, events) = mpsc::unbounded_channel();
    let running = tokio::spawn(inbox.run(rooms(vec![mailbox]), events));
    let (id, mut line) = hub.open(Caller::default()).await.unwrap();
    let mut ask = async |tag, method: &str, data| {
        hub.request(id, tag, method.to_owned(), data).await;
        let outgoing = timeout(5 * ANSWER_WITHIN, line.outgoing.recv()).await.expect("in time");
        match outgoing.map(|it| *it) {
            Some(Outgoing::Response { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    };
    ask(1, "joinRoom", json!({ "roomId": "r", "peerId": "p" })).await.unwrap();
    let transport = ask(2, "createWebRtcTransport", json!({})).await.unwrap()["id"].clone();
    let refusal = ask(3, "getTransportStats", json!({ "transportId": transport })).await;
    assert_eq!(refusal.unwrap_err().status, 504);
    hub.stop().await;
    hub.closed(id).await;
    running.await.unwrap();
}

#[test]
fn a_session_may_have_only_so_many_questions() {
    let (mut lab, mut ada, mut bob, producer, consumer) = two_shards(VP8);
    let of_producer = json!({ "producerId": producer });
    for _ in 0..MAX_QUESTIONS {
        lab.send(&mut ada, "getProducerStats", of_producer.clone());
    }
    assert_eq!(ada.responses(), []);
    assert_eq!(lab.refusal(&mut ada, "getProducerStats", of_producer.clone()).status, 429);
    // Others are not hindered, and each answer makes room.
    lab.send(&mut bob, "getConsumerStats", json!({ "consumerId": consumer }));
    assert_eq!(bob.responses(), []);
    let token = lab.tokens(0)[0];
    lab.answer(HOME, token, None);
    ada.responses();
    lab.send(&mut ada, "getProducerStats", of_producer);
    assert_eq!(ada.responses(), []);
}

#[test]
fn an_answer_for_who_has_gone_is_dropped() {
    let (mut lab, ada, mut bob, producer, _) = two_shards(VP8);
    let mut ada = ada;
    lab.send(&mut ada, "getProducerStats", json!({ "producerId": producer }));
    let token = lab.tokens(0)[0];
    lab.rooms.close(ada.id);
    bob.news();
    lab.answer(HOME, token, None);
    assert_eq!(lab.rooms.next_deadline(), None);
    assert_eq!((bob.news(), bob.responses()), (vec![], vec![]));
}
