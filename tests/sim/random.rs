//! Random sessions: whatever peers do, receivers never see a broken stream.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardcast::id::{ConsumerId, Ssrc};
use shardcast::room::spec::Command;

use crate::network::Weather;
use crate::world::World;

const RUNS: u64 = 60;
const STEPS: usize = 40;
const SHARDS: usize = 3;

struct Session {
    world: World,
    rng: StdRng,
    /// Peer, consumer, and what it is sent as.
    consumers: Vec<(usize, ConsumerId, Ssrc)>,
}

impl Session {
    fn new(seed: u64) -> Self {
        let weather = if seed.is_multiple_of(2) { Weather::CALM } else { Weather::ROUGH };
        let world = World::new(seed, SHARDS, weather);
        Self { world, rng: StdRng::seed_from_u64(seed), consumers: Vec::new() }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0 | 1 if self.world.peers.len() < 12 => self.join(),
            2 => self.leave(),
            3 | 4 => self.consume(),
            5 => self.pause_consumer(),
            6 => self.pause_producer(),
            7 => self.close_consumer(),
            8 => self.ask_key_frame(),
            _ => {}
        }
        let millis = self.rng.random_range(1..400);
        self.world.run(Duration::from_millis(millis));
    }

    fn join(&mut self) {
        let shard = self.rng.random_range(0..SHARDS);
        let peer = self.world.join(shard);
        self.world.publish_both(peer);
    }

    fn leave(&mut self) {
        let Some(peer) = self.any(self.world.peers.len()) else { return };
        let (id, shard) = (self.world.peers[peer].id, self.world.peers[peer].shard);
        self.world.peers[peer].alive = false;
        self.world.command(shard, Command::RemoveTransport(id));
        // Control closes its producers' replicas everywhere.
        for index in 0..self.world.producers.len() {
            if self.world.producers[index].peer == peer {
                let id = self.world.producers[index].id;
                (0..SHARDS).for_each(|s| self.world.command(s, Command::RemoveProducer(id)));
            }
        }
    }

    fn consume(&mut self) {
        let (peers, producers) = (self.world.peers.len(), self.world.producers.len());
        let (Some(peer), Some(producer)) = (self.any(peers), self.any(producers)) else { return };
        let owner = self.world.producers[producer].peer;
        if owner != peer && self.world.peers[owner].alive && self.world.peers[peer].alive {
            let (id, ssrc) = self.world.consume(peer, producer);
            self.consumers.push((peer, id, ssrc));
        }
    }

    fn pause_consumer(&mut self) {
        let Some(index) = self.any(self.consumers.len()) else { return };
        let (peer, id, _) = self.consumers[index];
        let paused = self.rng.random();
        let shard = self.world.peers[peer].shard;
        self.world.command(shard, Command::SetConsumerPaused { id, paused });
    }

    fn pause_producer(&mut self) {
        let Some(index) = self.any(self.world.producers.len()) else { return };
        let id = self.world.producers[index].id;
        let paused = self.rng.random();
        (0..SHARDS)
            .for_each(|shard| self.world.command(shard, Command::SetProducerPaused { id, paused }));
    }

    fn close_consumer(&mut self) {
        let Some(index) = self.any(self.consumers.len()) else { return };
        let (peer, id, ssrc) = self.consumers.swap_remove(index);
        let shard = self.world.peers[peer].shard;
        self.world.command(shard, Command::RemoveConsumer(id));
        let peer = &mut self.world.peers[peer];
        peer.closed_sinks.extend(peer.sinks.remove(&ssrc));
    }

    fn ask_key_frame(&mut self) {
        let Some(index) = self.any(self.consumers.len()) else { return };
        let (peer, _, ssrc) = self.consumers[index];
        if self.world.peers[peer].alive {
            let wish = self.world.peers[peer].ask_key_frame(ssrc);
            self.world.send(peer, &wish);
        }
    }

    fn any(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.rng.random_range(0..count))
    }
}

/// Prints the seed of the run that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing run's seed is {}", self.0);
        }
    }
}

#[test]
fn random_sessions_never_break_a_stream() {
    for seed in 0..RUNS {
        let _seed = Seed(seed);
        let mut session = Session::new(seed);
        (0..3).for_each(|_| session.join());
        (0..STEPS).for_each(|_| session.step());
        session.world.check_sinks();
    }
}

/// The same seed gives the same run, or a failure could not be repeated.
#[test]
fn a_seed_repeats_its_run() {
    let run = |seed| {
        let mut session = Session::new(seed);
        (0..3).for_each(|_| session.join());
        (0..20).for_each(|_| session.step());
        let world = session.world;
        let counters: Vec<_> = world.shards.iter().map(|s| s.engine.counters().clone()).collect();
        (counters, world.network.lost, world.now - world.start)
    };
    assert_eq!(run(7), run(7));
}
