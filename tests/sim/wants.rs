//! Layers that nobody wants: control is told, and they are not handed to other shards.

use std::collections::BTreeMap;
use std::time::Duration;

use shardcast::id::{ConsumerId, Ssrc};
use shardcast::media::allocation::PAUSE_HOLD;
use shardcast::room::spec::{Command, Event};

use crate::media::Source;
use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// A publisher with three encodings on shard 0, and one viewer on shard 1.
struct Call {
    world: World,
    video: usize,
    viewer: usize,
    consumer: ConsumerId,
    ssrc: Ssrc,
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2, Weather::CALM);
        let (publisher, viewer) = (world.join(0), world.join(1));
        let encodings = ["r0", "r1", "r2"].into_iter().zip(5000..);
        let sources = encodings.map(|(rid, ssrc)| {
            let mut source = Source::video(500, ssrc, "1", Some(rid), world.now);
            source.payload_len = 300 * (ssrc as usize - 4999);
            source
        });
        let sources = sources.collect();
        let video = world.publish(publisher, sources);
        let (consumer, ssrc) = world.consume(viewer, video);
        Self { world, video, viewer, consumer, ssrc }
    }

    fn prefer(&mut self, spatial: u8) {
        let id = self.consumer;
        self.world.command(1, Command::SetPreferredLayers { id, spatial, temporal: None });
    }

    fn pause(&mut self, paused: bool) {
        let id = self.consumer;
        self.world.command(1, Command::SetConsumerPaused { id, paused });
    }

    /// The encodings that are handed over during `duration`.
    fn lent_during(&mut self, duration: Duration) -> Vec<u8> {
        let before = self.world.lent.clone();
        self.world.run(duration);
        let is_more = |encoding: &u8| self.world.lent[encoding] > count(&before, *encoding);
        self.world.lent.keys().copied().filter(is_more).collect()
    }

    /// What the shards said that they want, since the last call.
    fn said(&mut self) -> Vec<Option<u8>> {
        let id = self.world.producers[self.video].id;
        let wants = self.world.events.drain(..).filter_map(|event| match event {
            Event::LayersWanted { id: of, spatial } if of == id => Some(spatial),
            _ => None,
        });
        wants.collect()
    }

    /// Bytes of payload of the viewer's newest packet, which tell its encoding, and when it was captured.
    fn newest(&self) -> (usize, Duration) {
        let sink = &self.world.peers[self.viewer].sinks[&self.ssrc];
        let newest = sink.packets.values().last().expect("packets");
        (newest.len, Duration::from_micros(newest.stamp.captured))
    }

    fn age_of_newest(&self) -> Duration {
        self.world.now - self.world.start - self.newest().1
    }
}

fn count(lent: &BTreeMap<u8, u64>, encoding: u8) -> u64 {
    lent.get(&encoding).copied().unwrap_or(0)
}

#[test]
fn encodings_that_nobody_wants_are_not_handed_over() {
    let mut call = Call::new(30);
    assert_eq!(call.lent_during(3 * SECOND), [0, 1, 2]);
    call.prefer(0);
    call.world.run(PAUSE_HOLD + SECOND / 10);
    assert_eq!(call.lent_during(3 * SECOND), [0]);
    assert_eq!(call.newest().0, 300, "the lowest encoding");
    assert!(call.age_of_newest() < SECOND / 10);

    call.prefer(1);
    assert_eq!(call.lent_during(3 * SECOND), [0, 1]);
    assert_eq!(call.newest().0, 600, "the middle one");
    call.prefer(7);
    assert_eq!(call.lent_during(3 * SECOND), [0, 1, 2]);
    assert_eq!(call.newest().0, 900, "the highest one");
    call.world.check_sinks();
    assert_eq!(call.world.peers[call.viewer].sinks[&call.ssrc].missing(), 0);
}

#[test]
fn nothing_is_handed_over_for_paused_consumers_until_they_resume() {
    let mut call = Call::new(31);
    call.world.run(3 * SECOND);
    call.pause(true);
    call.world.run(PAUSE_HOLD + SECOND / 10);
    assert!(call.lent_during(3 * SECOND).is_empty());
    call.pause(false);
    call.world.run(SECOND / 2);
    assert!(call.age_of_newest() < SECOND / 10, "the picture is back within half a second");
    assert_eq!(call.lent_during(SECOND), [0, 1, 2]);
    call.world.check_sinks();
}

#[test]
fn control_is_told_at_once_of_more_and_after_the_hold_of_less() {
    let mut call = Call::new(32);
    call.world.run(SECOND / 100);
    assert_eq!(call.said(), [Some(2)], "the first consumer's shard");
    call.world.run(PAUSE_HOLD);
    assert_eq!(call.said(), [None], "the home shard, where nobody consumes");

    call.prefer(0);
    call.world.run(PAUSE_HOLD - SECOND / 10);
    assert_eq!(call.said(), [], "not yet");
    call.world.run(SECOND / 5);
    assert_eq!(call.said(), [Some(0)]);
    call.prefer(1);
    call.world.run(SECOND / 100);
    assert_eq!(call.said(), [Some(1)]);

    call.pause(true);
    call.world.run(PAUSE_HOLD + SECOND / 10);
    assert_eq!(call.said(), [None]);
    call.pause(false);
    call.world.run(SECOND / 100);
    assert_eq!(call.said(), [Some(1)]);
    call.world.command(1, Command::RemoveConsumer(call.consumer));
    call.world.run(PAUSE_HOLD + SECOND / 10);
    assert_eq!(call.said(), [None]);
}

/// A wish that comes and goes costs the publisher's encoder nothing.
#[test]
fn a_short_pause_is_no_news() {
    let mut call = Call::new(33);
    call.world.run(2 * PAUSE_HOLD);
    call.said();
    for _ in 0..10 {
        call.pause(true);
        call.world.run(SECOND);
        call.pause(false);
        call.world.run(SECOND);
    }
    assert_eq!(call.said(), []);
}

/// The queue between two shards may be full when the replica's word changes.
#[test]
fn a_lost_word_is_repeated() {
    let mut call = Call::new(34);
    call.world.run(SECOND);
    call.prefer(0);
    call.world.run(PAUSE_HOLD + SECOND);
    assert_eq!(call.lent_during(SECOND), [0]);
    call.world.words_to_lose = 1;
    call.prefer(2);
    call.world.run(SECOND / 10);
    assert_eq!(call.world.words_to_lose, 0);
    call.world.run(SECOND);
    assert_eq!(call.lent_during(SECOND), [0, 1, 2]);
}
