//! What control asks, carried out.

use std::time::Instant;

use crate::id::{ConsumerId, Extension, ProducerId, ShardId, TransportId};
use crate::room::consumer::Consumer;
use crate::room::faults::Spot;
use crate::room::limits::producer_budget;
use crate::room::paths::Path;
use crate::room::producer::{Producer, Route, Source};
use crate::room::spec::{Command, ConsumerSpec, Event, ProducerSpec, What, Why};
use crate::room::timers::Timer;
use crate::room::wants::Borrower;
use crate::room::{Engine, Outbox};
use crate::transport::{Transport, ice};
use crate::wire::seq::SeqNo;

impl Engine {
    /// Carries out a command of control. [`Command::Shutdown`] closes every transport.
    pub fn command(&mut self, now: Instant, command: Command, out: &mut impl Outbox) {
        self.guarded(now, out, |engine, out| {
            engine.work.about = engine.about_command(&command);
            engine.work.pass(Spot::Command);
            engine.carry_out(now, command, out);
        });
    }

    fn carry_out(&mut self, now: Instant, command: Command, out: &mut impl Outbox) {
        match command {
            Command::AddTransport { id, ice } => {
                let (identity, limits) = (self.identity.clone(), self.limits.transport);
                let transport = Transport::new(ice, identity).with_limits(limits);
                self.add_path(now, id, transport, out);
            }
            Command::AddPresetTransport { id, ice, remote, keys } => {
                let identity = self.identity.clone();
                let transport = Transport::preset(now, ice, identity, remote, &keys);
                self.add_path(now, id, transport, out);
            }
            Command::ConnectTransport { id, peer } => {
                if let Some(&key) = self.path_keys.get(&id) {
                    self.paths[key].transport.connect(now, peer);
                    self.settle(now, key, out);
                }
            }
            Command::RestartIce { id, ice } => self.restart_ice(now, id, ice, out),
            Command::RemoveTransport(id) => {
                if let Some(&key) = self.path_keys.get(&id) {
                    self.close_path(now, key, out);
                }
            }
            Command::AddProducer(spec) => self.add_producer(now, &spec),
            Command::AddReplica { producer, home } => {
                self.insert_producer(now, &producer, Source::Shard(home));
            }
            Command::Lend { producer, to } => self.add_borrower(now, producer, to, out),
            Command::Withdraw { producer, from } => {
                if let Some(&key) = self.producer_keys.get(&producer) {
                    self.producers[key].borrowers.retain(|own| own.shard != from);
                }
            }
            Command::SetProducerPaused { id, paused } => {
                self.set_producer_paused(now, id, paused, out);
            }
            Command::RemoveProducer(id) => {
                if let Some(&key) = self.producer_keys.get(&id) {
                    self.remove_producer(now, key, out);
                }
            }
            Command::AddConsumer(spec) => self.add_consumer(now, &spec, out),
            Command::SetConsumerPaused { id, paused } => {
                self.set_consumer_paused(now, id, paused, out);
            }
            Command::RequestKeyFrame(id) => {
                if let Some(&key) = self.consumer_keys.get(&id) {
                    self.wish_key_frame_for(now, key, Why::Client, out);
                }
            }
            Command::RemoveConsumer(id) => {
                if let Some(&key) = self.consumer_keys.get(&id) {
                    self.remove_consumer(now, key);
                }
            }
            Command::SetPreferredLayers { id, spatial, temporal } => {
                if let Some(&key) = self.consumer_keys.get(&id) {
                    self.consumers[key].prefer(spatial, temporal);
                    self.wants_changed(now, self.consumers[key].producer);
                    self.allot_and_ask(now, self.consumers[key].transport, out);
                }
            }
            Command::SetPriority { id, priority } => {
                if let Some(&key) = self.consumer_keys.get(&id) {
                    self.consumers[key].priority = priority;
                    self.allot_and_ask(now, self.consumers[key].transport, out);
                }
            }
            Command::Stats { token, of } => {
                let report = self.report(now, of).map(Box::new);
                self.events.push_back(Event::Stats { token, report });
            }
            // The shard's own affair: it counts too.
            Command::Snapshot { .. } => {}
            Command::SubscribeLevels { room, interval } => {
                self.subscribe_levels(now, room, interval);
            }
            Command::ForwardLoudest { room, count } => {
                self.forward_loudest(now, room, count, out);
            }
            Command::Shutdown => {
                let keys: Vec<usize> = self.paths.iter().map(|(key, _)| key).collect();
                keys.into_iter().for_each(|key| self.close_path(now, key, out));
            }
        }
    }

    fn add_path(
        &mut self,
        now: Instant,
        id: TransportId,
        transport: Transport,
        out: &mut impl Outbox,
    ) {
        let key = self.paths.insert(Path::new(id, transport, now));
        self.path_keys.insert(id, key);
        self.directory.follow(key, &mut self.paths[key]);
        self.settle(now, key, out);
    }

    fn restart_ice(
        &mut self,
        now: Instant,
        id: TransportId,
        ice: ice::Credentials,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.path_keys.get(&id) else { return };
        self.paths[key].transport.restart_ice(ice);
        self.directory.follow(key, &mut self.paths[key]);
        self.settle(now, key, out);
    }

    /// Says goodbye to the peer (RFC 5246 §7.2.1) and removes its transport.
    fn close_path(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.paths[key].transport.close();
        self.transmit(key, out);
        self.remove_path(now, key, out);
    }

    /// Removes a transport with everything on it.
    pub(super) fn remove_path(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let consumers: Vec<usize> = self.paths[key].consumers.values().copied().collect();
        consumers.into_iter().for_each(|consumer| self.remove_consumer(now, consumer));
        let producers = std::mem::take(&mut self.paths[key].producers);
        producers.into_iter().for_each(|producer| self.remove_producer(now, producer, out));
        let path = self.paths.remove(key);
        self.departed += path.meters.flows();
        self.directory.remove(key, &path);
        self.path_keys.remove(&path.id);
        for timer in
            [Timer::Path, Timer::Feedback, Timer::Reports, Timer::Allot, Timer::Line, Timer::Pace]
        {
            self.timers.cancel(timer(key));
        }
        self.timers.cancel(Timer::Replay(key));
    }

    /// A transport has become connected: its consumers can begin.
    pub(super) fn begin_media(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.begin_reports(now, key);
        self.allot_and_ask(now, key, out);
    }

    fn add_producer(&mut self, now: Instant, spec: &ProducerSpec) {
        let Some(&path_key) = self.path_keys.get(&spec.transport) else { return };
        let key = self.insert_producer(now, spec, Source::Transport(path_key));
        self.producers[key].budget = self.limits.producer_bitrate.map(producer_budget);
        let path = &mut self.paths[path_key];
        path.producers.push(key);
        for extension in Extension::ALL {
            if let Some(id) = spec.extensions.id(extension) {
                path.extensions.set(extension, id);
            }
        }
        for (ssrc, encoding, stream) in self.producers[key].announced() {
            path.routes.insert(ssrc, Route { producer: key, encoding, stream });
        }
        self.begin_reports(now, path_key);
    }

    fn insert_producer(&mut self, now: Instant, spec: &ProducerSpec, source: Source) -> usize {
        let key = self.producers.insert(Producer::new(spec, source, now));
        self.producer_keys.insert(spec.id, key);
        self.wants_changed(now, key);
        key
    }

    fn add_borrower(
        &mut self,
        now: Instant,
        producer: ProducerId,
        to: ShardId,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.producer_keys.get(&producer) else { return };
        if self.producers[key].borrowers.iter().all(|own| own.shard != to) {
            self.producers[key].borrowers.push(Borrower::new(to));
            self.lend_clocks(key, to, out);
            self.begin_hand_over(now, key, to, None, out);
        }
    }

    fn set_producer_paused(
        &mut self,
        now: Instant,
        id: ProducerId,
        paused: bool,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.producer_keys.get(&id) else { return };
        let was_paused = std::mem::replace(&mut self.producers[key].paused, paused);
        // Its home hands over no more of what it has.
        self.producers[key].is_handed = false;
        if paused {
            self.silence(now, key, out);
        } else if was_paused {
            // Nobody may be sent what came during the pause.
            let encodings = self.producers[key].encodings.iter_mut();
            encodings.for_each(|encoding| encoding.history.clear());
        }
        let consumers = self.producers[key].consumers.clone();
        for consumer in consumers {
            let what = if paused { What::Pause } else { What::Resume };
            self.consumers[consumer].note(what, Why::Producer, now);
            if paused {
                self.consumers[consumer].interrupt();
            } else {
                self.allot_and_ask(now, self.consumers[consumer].transport, out);
            }
        }
    }

    pub(super) fn remove_producer(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.silence(now, key, out);
        let consumers = std::mem::take(&mut self.producers[key].consumers);
        consumers.into_iter().for_each(|consumer| self.remove_consumer(now, consumer));
        let producer = self.producers.remove(key);
        self.producer_keys.remove(&producer.id);
        self.timers.cancel(Timer::KeyFrame(key));
        self.timers.cancel(Timer::Repair(key));
        self.timers.cancel(Timer::Loudness(key));
        self.timers.cancel(Timer::History(key));
        self.timers.cancel(Timer::HandOver(key));
        self.timers.cancel(Timer::Wants(key));
        if let Source::Transport(path_key) = producer.source
            && let Some(path) = self.paths.get_mut(path_key)
        {
            path.producers.retain(|own| *own != key);
            path.routes.retain(|_, route| route.producer != key);
        }
    }

    fn add_consumer(&mut self, now: Instant, spec: &ConsumerSpec, out: &mut impl Outbox) {
        let Some(&path_key) = self.path_keys.get(&spec.transport) else { return };
        let Some(&producer_key) = self.producer_keys.get(&spec.producer) else { return };
        let (source, first) = (&mut self.producers[producer_key], first_seq(spec.id));
        if source.cname.is_empty() {
            source.cname = spec.cname.as_str().into();
        }
        let consumer = Consumer::new(spec, path_key, producer_key, source, first, now);
        let key = self.consumers.insert(consumer);
        self.consumer_keys.insert(spec.id, key);
        self.producers[producer_key].consumers.push(key);
        self.paths[path_key].consumers.insert(spec.ssrc, key);
        self.begin_reports(now, path_key);
        self.wants_changed(now, producer_key);
        self.allot_and_ask(now, path_key, out);
    }

    fn set_consumer_paused(
        &mut self,
        now: Instant,
        id: ConsumerId,
        paused: bool,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.consumer_keys.get(&id) else { return };
        let consumer = &mut self.consumers[key];
        if consumer.paused != paused {
            let what = if paused { What::Pause } else { What::Resume };
            consumer.note(what, Why::Client, now);
        }
        consumer.paused = paused;
        self.wants_changed(now, self.consumers[key].producer);
        if paused {
            self.consumers[key].interrupt();
        }
        // What it does not take any more is there for others.
        self.allot_and_ask(now, self.consumers[key].transport, out);
    }

    fn remove_consumer(&mut self, now: Instant, key: usize) {
        let consumer = self.consumers.remove(key);
        self.consumer_keys.remove(&consumer.id);
        if let Some(producer) = self.producers.get_mut(consumer.producer) {
            producer.consumers.retain(|own| *own != key);
            self.wants_changed(now, consumer.producer);
        }
        if let Some(path) = self.paths.get_mut(consumer.transport) {
            path.consumers.remove(&consumer.ssrc);
            path.pacer.forget(key);
        }
    }
}

/// A consumer's first sequence number: not guessable (RFC 3550 §5.1), since its id is random; in the lower
/// half, so that early loss cannot make the receiver's rollover count start wrong (RFC 3711 §3.3.1).
fn first_seq(id: ConsumerId) -> SeqNo {
    SeqNo(u64::from(id.0.as_u128() as u16 & 0x7fff))
}
