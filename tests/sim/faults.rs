//! A panic costs those whom it was about, and nobody else.

use std::collections::BTreeSet;
use std::time::Duration;

use shardcast::id::{ConsumerId, ProducerId, Ssrc, TransportId};
use shardcast::room::Spot;
use shardcast::room::spec::{Command, Event};
use shardcast::transport::CloseReason;

use crate::network::Weather;
use crate::world::World;

/// Two rooms' worth of peers on two shards: everyone publishes and sees the next two.
struct Scene {
    world: World,
    watched: Vec<Watched>,
}

/// One consumer: who sees whom.
#[derive(Clone, Copy)]
struct Watched {
    viewer: usize,
    publisher: usize,
    producer: ProducerId,
    consumer: ConsumerId,
    ssrc: Ssrc,
}

const PEERS: usize = 6;

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2, Weather::CALM);
        world.shards.iter_mut().for_each(|shard| shard.engine.contain_faults());
        let peers: Vec<usize> = (0..PEERS).map(|index| world.join(index % 2)).collect();
        let published: Vec<_> = peers.iter().map(|peer| world.publish_both(*peer)).collect();
        let mut watched = Vec::new();
        for &viewer in &peers {
            for publisher in [(viewer + 1) % PEERS, (viewer + 2) % PEERS] {
                let (audio, video) = published[publisher];
                for index in [audio, video] {
                    let producer = world.producers[index].id;
                    let (consumer, ssrc) = world.consume(viewer, index);
                    watched.push(Watched { viewer, publisher, producer, consumer, ssrc });
                }
            }
        }
        world.run(Duration::from_secs(2));
        Self { world, watched }
    }

    /// Lets a panic come when `spot` is passed for the `nth` time on shard 0, and does what control does about
    /// it. Returns whose transports have closed.
    fn spring(&mut self, spot: Spot, nth: u32) -> BTreeSet<usize> {
        self.world.events.clear();
        self.world.shards[0].engine.set_trap(spot, nth);
        if spot == Spot::Command {
            let on_shard = |it: &&Watched| self.world.peers[it.viewer].shard == 0;
            let id = self.watched.iter().find(on_shard).unwrap().consumer;
            for paused in [true, false].repeat(nth as usize) {
                self.world.command(0, Command::SetConsumerPaused { id, paused });
            }
        }
        self.world.run(Duration::from_millis(500));
        let panics = |shard: usize| self.world.shards[shard].engine.counters().panics;
        assert_eq!((panics(0), panics(1)), (1, 0), "{spot:?} {nth}");
        let events = std::mem::take(&mut self.world.events);
        let mut lost: BTreeSet<TransportId> = BTreeSet::new();
        for event in &events {
            match event {
                Event::TransportClosed { id, reason } => {
                    assert_eq!(*reason, CloseReason::Fault);
                    lost.insert(*id);
                }
                Event::ProducerFailed(id) => {
                    lost.insert(self.transport_of(*id));
                }
                _ => {}
            }
        }
        let peers = self.world.peers.iter().enumerate();
        let closed = peers.filter(|(_, peer)| lost.contains(&peer.id)).map(|(index, _)| index);
        let closed: BTreeSet<usize> = closed.collect();
        self.follow(&closed);
        closed
    }

    fn transport_of(&self, producer: ProducerId) -> TransportId {
        let publisher = self.watched.iter().find(|it| it.producer == producer).unwrap().publisher;
        self.world.peers[publisher].id
    }

    /// What control tells the shards about peers whose transports have closed.
    fn follow(&mut self, closed: &BTreeSet<usize>) {
        let gone = |it: &Watched| closed.contains(&it.viewer) || closed.contains(&it.publisher);
        let (ended, left): (Vec<_>, Vec<_>) = self.watched.iter().copied().partition(gone);
        for it in ended {
            let shard = self.world.peers[it.viewer].shard;
            self.world.command(shard, Command::RemoveConsumer(it.consumer));
            if closed.contains(&it.publisher) {
                for shard in 0..2 {
                    self.world.command(shard, Command::RemoveProducer(it.producer));
                }
            }
            self.world.peers[it.viewer].sinks.remove(&it.ssrc);
        }
        for &peer in closed {
            let (shard, id) = (self.world.peers[peer].shard, self.world.peers[peer].id);
            self.world.command(shard, Command::RemoveTransport(id));
        }
        self.watched = left;
    }

    /// Everyone else gets everything that is sent, from before the panic on.
    fn check_others(&mut self, closed: &BTreeSet<usize>) {
        let count =
            |scene: &Self, it: &Watched| scene.world.peers[it.viewer].sinks[&it.ssrc].packets.len();
        let before: Vec<usize> = self.watched.iter().map(|it| count(self, it)).collect();
        let silent: Vec<_> =
            closed.iter().map(|peer| self.world.bytes_to.get(peer).copied()).collect();
        self.world.run(Duration::from_secs(2));
        self.world.check_sinks();
        for (it, before) in self.watched.iter().zip(before) {
            let sink = &self.world.peers[it.viewer].sinks[&it.ssrc];
            let who = format!("{} to {}", it.publisher, it.viewer);
            assert!(sink.packets.len() > before + 50, "{who} goes on");
            assert_eq!(sink.missing(), 0, "{who} loses nothing");
        }
        let now: Vec<_> =
            closed.iter().map(|peer| self.world.bytes_to.get(peer).copied()).collect();
        assert_eq!(silent, now, "nothing is sent again under a closed transport's keys");
    }
}

/// `most_closed`: fewer where what went wrong was a room's affair.
fn check(spot: Spot, times: impl Iterator<Item = u32>, most_closed: usize) {
    for nth in times {
        let mut scene = Scene::new(u64::from(nth));
        let closed = scene.spring(spot, nth);
        assert!(closed.len() <= most_closed, "{spot:?} {nth}: {closed:?} closed");
        scene.check_others(&closed);
    }
}

#[test]
fn a_panic_at_a_datagram_closes_its_sender_alone() {
    check(Spot::Datagram, 1..=20, 1);
}

/// The publisher, with all of its consumers, and the viewer that was being written to.
#[test]
fn a_panic_in_a_fan_out_closes_the_publisher_and_who_was_written_to() {
    let mut both = 0;
    for nth in 1..=20 {
        let mut scene = Scene::new(u64::from(nth));
        let closed = scene.spring(Spot::Forward, nth);
        both += usize::from(closed.len() == 2);
        assert!((1..=2).contains(&closed.len()), "{closed:?}");
        scene.check_others(&closed);
    }
    assert_eq!(both, 20, "nobody here sees itself");
}

/// Its publisher, on the other shard.
#[test]
fn a_panic_at_a_parcel_closes_its_publisher_alone() {
    check(Spot::Parcel, 1..=20, 1);
}

#[test]
fn a_panic_at_a_command_closes_whom_it_was_about() {
    check(Spot::Command, 1..=3, 1);
}

#[test]
fn a_panic_at_a_timer_closes_whose_it_was() {
    check(Spot::Timer, 1..=20, 1);
}

/// Those who look for panics see them.
#[test]
#[should_panic(expected = "a trap of a test")]
fn an_engine_that_was_not_told_to_contain_them_does_not() {
    let mut world = World::new(1, 1, Weather::CALM);
    world.shards[0].engine.set_trap(Spot::Command, 1);
    world.join(0);
}
