//! A panic costs those whom it was about, and nobody else.
//!
//! [`Engine::contain_faults`] turns it on. What is being worked on is noted on the way, one store at a time;
//! when a panic comes, the transport whose input it was is closed, and so is the one that was being written
//! to: numbers may have been used that nobody wrote down, and nothing is ever sent again under its keys. With
//! a publisher go all of its consumers, those too that had their share of the fan-out already. A second panic,
//! while this is cleared away, is not contained: it ends the shard, which begins anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::id::{ConsumerId, ProducerId, RoomKey, TransportId};
use crate::room::producer::Source;
use crate::room::spec::{Command, Event};
use crate::room::timers::{Of, Timer};
use crate::room::{Engine, Outbox};
use crate::transport::CloseReason;

/// What is being worked on, in case that it goes wrong.
#[derive(Default)]
pub(super) struct Work {
    contained: bool,
    /// Whose input it is.
    pub(super) about: About,
    /// The transport that is being written to.
    pub(super) writing: Option<usize>,
    #[cfg(feature = "test-hooks")]
    trap: Option<(Spot, u32)>,
}

/// Whose input, or whose deadline, is being handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum About {
    /// A stranger's, of which nothing is kept.
    #[default]
    Nobody,
    /// A transport's.
    Path(usize),
    /// That of a transport which may not be in the tables yet.
    NewPath(TransportId),
    /// A producer's whose packets come from another shard.
    Replica(ProducerId),
    /// A room's.
    Room(RoomKey),
}

/// Where a test can set a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// A datagram of a known transport is about to be read.
    Datagram,
    /// A packet is about to be forwarded to a consumer.
    Forward,
    /// A parcel is about to be read.
    Parcel,
    /// A command is being carried out.
    Command,
    /// A deadline is being met.
    Timer,
}

impl Work {
    /// Panics if a trap is set here, and its time has come.
    #[inline]
    pub(super) fn pass(&mut self, spot: Spot) {
        #[cfg(feature = "test-hooks")]
        if let Some((at, left)) = &mut self.trap
            && *at == spot
        {
            *left -= 1;
            if *left == 0 {
                self.trap = None;
                panic!("a trap of a test at {spot:?}");
            }
        }
        #[cfg(not(feature = "test-hooks"))]
        let _ = spot;
    }
}

impl Engine {
    /// From now on a panic is contained. Without this call it unwinds out of the engine, as those want it
    /// who look for panics.
    pub fn contain_faults(&mut self) {
        self.work.contained = true;
    }

    /// Panics when `spot` is passed for the `nth` time from now on.
    #[cfg(feature = "test-hooks")]
    pub fn set_trap(&mut self, spot: Spot, nth: u32) {
        self.work.trap = Some((spot, nth));
    }

    /// Does a part of the engine's work.
    pub(super) fn guarded<O: Outbox>(
        &mut self,
        now: Instant,
        out: &mut O,
        work: impl FnOnce(&mut Self, &mut O),
    ) {
        if !self.work.contained {
            return work(self, out);
        }
        // What is shared is mended by `contain`; what was half done is thrown away there.
        if catch_unwind(AssertUnwindSafe(|| work(self, out))).is_err() {
            self.contain(now, out);
        }
        (self.work.about, self.work.writing) = (About::Nobody, None);
    }

    /// Whose input the packets of a producer are.
    pub(super) fn about_producer(&self, key: usize) -> About {
        self.producers.get(key).map_or(About::Nobody, |producer| match producer.source {
            Source::Transport(path) => About::Path(path),
            Source::Shard(_) => About::Replica(producer.id),
        })
    }

    /// As [`Self::about_producer`], by what control calls it.
    pub(super) fn about_producer_named(&self, id: ProducerId) -> About {
        self.producer_keys.get(&id).map_or(About::Nobody, |key| self.about_producer(*key))
    }

    /// Whose affair a command is.
    pub(super) fn about_command(&self, command: &Command) -> About {
        match command {
            Command::AddTransport { id, .. }
            | Command::AddPresetTransport { id, .. }
            | Command::ConnectTransport { id, .. }
            | Command::RestartIce { id, .. }
            | Command::RemoveTransport(id) => About::NewPath(*id),
            Command::AddProducer(spec) => About::NewPath(spec.transport),
            Command::AddReplica { producer, .. } => About::Replica(producer.id),
            Command::Lend { producer: id, .. }
            | Command::Withdraw { producer: id, .. }
            | Command::SetProducerPaused { id, .. }
            | Command::RemoveProducer(id) => self.about_producer_named(*id),
            Command::AddConsumer(spec) => About::NewPath(spec.transport),
            Command::SetConsumerPaused { id, .. }
            | Command::RequestKeyFrame(id)
            | Command::SetPreferredLayers { id, .. }
            | Command::SetPriority { id, .. }
            | Command::RemoveConsumer(id) => self.about_consumer(*id),
            Command::SubscribeLevels { room, .. } | Command::ForwardLoudest { room, .. } => {
                About::Room(*room)
            }
            Command::Stats { .. } | Command::Snapshot { .. } | Command::Shutdown => About::Nobody,
        }
    }

    /// Whose deadline a timer is.
    pub(super) fn about_timer(&self, timer: Timer) -> About {
        match timer.of() {
            Of::Path(key) => About::Path(key),
            Of::Producer(key) => self.about_producer(key),
            Of::Room(room) => About::Room(room),
        }
    }

    fn about_consumer(&self, id: ConsumerId) -> About {
        let consumer = self.consumer_keys.get(&id).and_then(|key| self.consumers.get(*key));
        consumer.map_or(About::Nobody, |consumer| About::Path(consumer.transport))
    }

    /// Clears away what a panic has left behind.
    #[cold]
    fn contain(&mut self, now: Instant, out: &mut impl Outbox) {
        self.counters.panics += 1;
        let (about, writing) = (self.work.about, self.work.writing);
        if about == About::Nobody && writing.is_none() {
            return;
        }
        let named = match about {
            About::Path(key) => self.paths.get(key).map(|path| path.id),
            About::NewPath(id) => Some(id),
            _ => None,
        };
        let written = writing.and_then(|key| self.paths.get(key)).map(|path| path.id);
        let lost = [named, written.filter(|id| Some(*id) != named)];
        for key in lost.iter().flatten().filter_map(|id| self.path_keys.get(id)) {
            if let Some(path) = self.paths.get_mut(*key) {
                path.transport.abandon();
            }
        }
        self.mend_tables();
        for id in lost.into_iter().flatten() {
            self.lose_path(now, id, out);
        }
        match about {
            About::Replica(id) => self.lose_replica(now, id, out),
            About::Room(room) => self.lose_voices(room),
            About::Nobody | About::Path(_) | About::NewPath(_) => {}
        }
    }

    fn lose_path(&mut self, now: Instant, id: TransportId, out: &mut impl Outbox) {
        if let Some(&key) = self.path_keys.get(&id) {
            self.remove_path(now, key, out);
        }
        // Control may know of it all the same.
        self.events.push_back(Event::TransportClosed { id, reason: CloseReason::Fault });
    }

    fn lose_replica(&mut self, now: Instant, id: ProducerId, out: &mut impl Outbox) {
        if let Some(&key) = self.producer_keys.get(&id) {
            self.remove_producer(now, key, out);
        }
        self.events.push_back(Event::ProducerFailed(id));
    }

    fn lose_voices(&mut self, room: RoomKey) {
        self.voices.remove(&room);
        self.timers.cancel(Timer::Speaker(room));
        self.timers.cancel(Timer::Levels(room));
    }

    /// Takes out of the tables what refers to something that is not there, or that nothing refers to: a
    /// change may have been left half done.
    fn mend_tables(&mut self) {
        let Self { paths, producers, consumers, .. } = self;
        paths.retain(|key, path| self.path_keys.get(&path.id) == Some(&key));
        producers.retain(|key, producer| {
            let has_source = match producer.source {
                Source::Transport(path) => paths.contains(path),
                Source::Shard(_) => true,
            };
            has_source && self.producer_keys.get(&producer.id) == Some(&key)
        });
        consumers.retain(|key, consumer| {
            let path = paths.get(consumer.transport);
            let producer = producers.get(consumer.producer);
            self.consumer_keys.get(&consumer.id) == Some(&key)
                && path.is_some_and(|path| path.consumers.get(&consumer.ssrc) == Some(&key))
                && producer.is_some_and(|producer| producer.consumers.contains(&key))
        });
        self.path_keys.retain(|id, key| paths.get(*key).is_some_and(|path| path.id == *id));
        self.producer_keys.retain(|id, key| producers.get(*key).is_some_and(|it| it.id == *id));
        self.consumer_keys.retain(|id, key| consumers.get(*key).is_some_and(|it| it.id == *id));
        for (key, path) in paths.iter_mut() {
            let is_own = |own: &usize| {
                producers.get(*own).is_some_and(|it| it.source == Source::Transport(key))
            };
            path.producers.retain(is_own);
            path.routes.retain(|_, route| is_own(&route.producer));
            path.consumers.retain(|_, own| consumers.contains(*own));
        }
        for (_, producer) in producers.iter_mut() {
            producer.consumers.retain(|own| consumers.contains(*own));
        }
        self.directory.retain(|key| paths.contains(key));
        self.timers.retain(|timer| match timer.of() {
            Of::Path(key) => paths.contains(key),
            Of::Producer(key) => producers.contains(key),
            Of::Room(_) => true,
        });
    }
}
