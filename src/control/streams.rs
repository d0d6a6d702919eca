//! What peers send and receive, and on which shards.
//!
//! A producer lives on its peer's shard, its *home*. The first consumer on another shard makes a replica
//! there, which home lends the packets to; the last one takes it away again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::control::identity::Source;
use crate::control::quality::Wanted;
use crate::control::refusal::Refusal;
use crate::control::requests::{AppData, Named};
use crate::control::rooms::{Peer, Rooms};
use crate::control::session::SessionId;
use crate::id::{ConsumerId, ProducerId, ShardId, Ssrc, TransportId};
use crate::ortc::{ProducerType, Producible};
use crate::shard::mailbox::{Command, ConsumerSpec, Event, ProducerSpec};

/// One ICE and DTLS path of a peer.
pub(super) struct Transport {
    pub(super) owner: SessionId,
    pub(super) shard: ShardId,
    pub(super) ufrag: String,
    pub(super) produces: bool,
    pub(super) consumes: bool,
    /// `connectTransport` was called.
    pub(super) connect_called: bool,
    /// ICE and DTLS are done.
    pub(super) connected: bool,
    /// The MID of the next consumer on it.
    pub(super) next_mid: u32,
    /// The SSRCs of all consumers that it ever had: the same keys protect them as long as it lives, and
    /// a keystream must not be used twice (RFC 3711 §9.1).
    pub(super) ssrcs: Vec<[Ssrc; 2]>,
}

/// One track that a peer sends.
pub(super) struct Producer {
    pub(super) owner: SessionId,
    pub(super) shard: ShardId,
    pub(super) source: Source,
    /// Its owner has paused it.
    pub(super) wants_pause: bool,
    /// An administrator has muted it.
    pub(super) muted: bool,
    /// Says paused if either is so.
    pub(super) spec: ProducerSpec,
    pub(super) producible: Producible,
    pub(super) cname: String,
    pub(super) app_data: Arc<AppData>,
    pub(super) consumers: Vec<ConsumerId>,
    /// Other shards with consumers, and how many.
    pub(super) replicas: BTreeMap<ShardId, usize>,
    pub(super) wanted: Wanted,
}

/// One producer's track on its way to one peer.
pub(super) struct Consumer {
    pub(super) owner: SessionId,
    pub(super) shard: ShardId,
    pub(super) transport: TransportId,
    pub(super) producer: ProducerId,
    pub(super) consumer_type: ProducerType,
    pub(super) paused: bool,
}

impl Rooms {
    /// What a shard has to tell.
    pub fn shard_event(&mut self, shard: ShardId, event: Event) {
        match event {
            Event::TransportConnected(id) => self.transport_connected(id),
            Event::TransportClosed { id, reason } => self.close_transport(id, reason.name()),
            Event::ProducerFailed(id) => self.producer_failed(id),
            Event::LayersChanged { id, layers } => self.layers_changed(id, layers),
            Event::ConsumerScore { id, score, producer_score, producer_scores } => {
                self.consumer_scored(id, score, producer_score, &producer_scores);
            }
            Event::ProducerScore { id, scores } => self.producer_scored(id, &scores),
            Event::LayersWanted { id, spatial } => self.layers_wanted(shard, id, spatial),
            Event::ActiveSpeaker { room, producer } => self.speaker_changed(room, producer),
            Event::Levels { room, levels } => self.levels(room, &levels),
            Event::Stats { token, report } => self.stats_came(token, report.as_deref()),
        }
        self.end_doomed();
    }

    /// A peer's own transport; 404 if there is none, 403 if it is another's.
    pub(super) fn own_transport(
        &self,
        session: SessionId,
        id: Named<TransportId>,
    ) -> Result<TransportId, Refusal> {
        let owner = |id: &TransportId| self.transports.get(id).map(|it| it.owner);
        self.own(session, "transport", id, owner)
    }

    /// A peer's own producer; errors as for transports.
    pub(super) fn own_producer(
        &self,
        session: SessionId,
        id: Named<ProducerId>,
    ) -> Result<ProducerId, Refusal> {
        let owner = |id: &ProducerId| self.producers.get(id).map(|it| it.owner);
        self.own(session, "producer", id, owner)
    }

    /// A peer's own consumer; errors as for transports.
    pub(super) fn own_consumer(
        &self,
        session: SessionId,
        id: Named<ConsumerId>,
    ) -> Result<ConsumerId, Refusal> {
        let owner = |id: &ConsumerId| self.consumers.get(id).map(|it| it.owner);
        self.own(session, "consumer", id, owner)
    }

    fn own<T>(
        &self,
        session: SessionId,
        what: &str,
        id: Named<T>,
        owner: impl Fn(&T) -> Option<SessionId>,
    ) -> Result<T, Refusal> {
        self.peer(session)?;
        let id = id.0.ok_or_else(|| Refusal::no_such(what))?;
        match owner(&id) {
            Some(owner) if owner == session => Ok(id),
            Some(_) => Err(Refusal::not_yours(what)),
            None => Err(Refusal::no_such(what)),
        }
    }

    /// Takes a new producer into its shard and tells the room.
    pub(super) fn add_producer(&mut self, producer: Producer) {
        let (owner, shard) = (producer.owner, producer.shard);
        let id = producer.spec.id;
        self.tell(shard, Command::AddProducer(Box::new(producer.spec.clone())));
        self.load(shard).streams += 1;
        let Some(peer) = self.peer_mut(owner) else { return };
        peer.producers.push(id);
        let news = json!({
            "peerId": peer.id,
            "producerId": id,
            "kind": producer.spec.kind,
            "appData": *producer.app_data,
        });
        tracing::info!(room = %peer.room, peer = %peer.id, producer = %id,
            kind = ?producer.spec.kind, "Peer produces");
        self.producers.insert(id, producer);
        let others = self.others(owner);
        self.notify(&others, "newProducer", news);
    }

    /// Takes a new consumer into its shard, with a replica of its producer if that lives elsewhere.
    pub(super) fn add_consumer(&mut self, consumer: Consumer, spec: ConsumerSpec) {
        let (id, owner, shard) = (spec.id, consumer.owner, consumer.shard);
        let Some(producer) = self.producers.get_mut(&consumer.producer) else { return };
        producer.consumers.push(id);
        let home = producer.shard;
        if shard != home {
            let users = producer.replicas.entry(shard).or_default();
            *users += 1;
            if *users == 1 {
                let (producer, lent) = (Box::new(producer.spec.clone()), producer.spec.id);
                // The replica first: home's packets must find it.
                self.tell(shard, Command::AddReplica { producer, home });
                self.tell(home, Command::Lend { producer: lent, to: shard });
            }
        }
        self.tell(shard, Command::AddConsumer(Box::new(spec)));
        self.load(shard).streams += 1;
        self.consumers.insert(id, consumer);
        if let Some(peer) = self.peer_mut(owner) {
            peer.consumers.push(id);
        }
    }

    /// Pauses or resumes a producer for its owner, and tells who has to know; 403 while it is muted.
    pub(super) fn set_producer_paused(
        &mut self,
        id: ProducerId,
        paused: bool,
    ) -> Result<(), Refusal> {
        let Some(producer) = self.producers.get_mut(&id) else { return Ok(()) };
        if producer.muted && !paused {
            return Err(Refusal::forbidden("an administrator has muted this producer"));
        }
        producer.wants_pause = paused;
        if producer.is_paused() == producer.spec.paused {
            return Ok(());
        }
        let owner = producer.owner;
        let news = if paused { "producerPaused" } else { "producerResumed" };
        self.notify_room_of_producer(owner, news, id);
        self.apply_pause(id);
        Ok(())
    }

    /// Tells the shards that have a producer, and those who consume it, if it has come to be paused or
    /// resumed.
    pub(super) fn apply_pause(&mut self, id: ProducerId) {
        let Some(producer) = self.producers.get_mut(&id) else { return };
        let paused = producer.is_paused();
        if producer.spec.paused == paused {
            return;
        }
        producer.spec.paused = paused;
        let shards = producer.shards();
        let consumers = producer.consumers.clone();
        for shard in shards {
            self.tell(shard, Command::SetProducerPaused { id, paused });
        }
        let to_consumer = if paused { "consumerPaused" } else { "consumerResumed" };
        for consumer in consumers {
            let Some(receiver) = self.consumers.get(&consumer).map(|it| it.owner) else { continue };
            self.notify(&[receiver], to_consumer, json!({ "consumerId": consumer }));
        }
    }

    /// Pauses or resumes one consumer.
    pub(super) fn set_consumer_paused(&mut self, id: ConsumerId, paused: bool) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        if consumer.paused == paused {
            return;
        }
        consumer.paused = paused;
        let shard = consumer.shard;
        self.tell(shard, Command::SetConsumerPaused { id, paused });
    }

    /// Closes a producer, with its consumers, and tells the room.
    pub(super) fn close_producer(&mut self, id: ProducerId) {
        let Some(owner) = self.producers.get(&id).map(|it| it.owner) else { return };
        self.remove_producer(id);
        self.notify_room_of_producer(owner, "producerClosed", id);
    }

    /// Removes a consumer, and the replica that was there for it alone. Nobody is told.
    pub(super) fn remove_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.forget_consumer(id) else { return };
        self.tell(consumer.shard, Command::RemoveConsumer(id));
        let Some(producer) = self.producers.get_mut(&consumer.producer) else { return };
        producer.consumers.retain(|other| *other != id);
        let (lent, home) = (producer.spec.id, producer.shard);
        if let Some(users) = producer.replicas.get_mut(&consumer.shard) {
            *users -= 1;
            if *users == 0 {
                producer.replicas.remove(&consumer.shard);
                producer.wanted.forget(consumer.shard);
                self.tell(home, Command::Withdraw { producer: lent, from: consumer.shard });
                self.tell(consumer.shard, Command::RemoveProducer(lent));
            }
        }
        self.tell_wanted(lent);
    }

    /// Removes all that a peer, gone already, sent and received.
    pub(super) fn remove_streams(&mut self, peer: &Peer) {
        for id in &peer.consumers {
            self.remove_consumer(*id);
        }
        for id in &peer.producers {
            self.remove_producer(*id);
        }
        for id in &peer.transports {
            if let Some(transport) = self.forget_transport(*id) {
                self.tell(transport.shard, Command::RemoveTransport(*id));
            }
        }
    }

    /// Removes a producer from all of its shards; its consumers' peers are told.
    fn remove_producer(&mut self, id: ProducerId) {
        let Some(producer) = self.producers.remove(&id) else { return };
        for shard in producer.shards() {
            self.tell(shard, Command::RemoveProducer(id));
        }
        self.load(producer.shard).streams -= 1;
        if let Some(peer) = self.peer_mut(producer.owner) {
            peer.producers.retain(|other| *other != id);
        }
        for id in producer.consumers {
            let Some(consumer) = self.forget_consumer(id) else { continue };
            // Who is leaving at this moment knows.
            if self.peer(consumer.owner).is_ok() {
                self.notify(&[consumer.owner], "consumerClosed", json!({ "consumerId": id }));
            }
        }
    }

    fn transport_connected(&mut self, id: TransportId) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        transport.connected = true;
        let owner = transport.owner;
        if let Ok(peer) = self.peer(owner) {
            tracing::info!(room = %peer.room, peer = %peer.id, transport = %id,
                "Peer's transport connected");
        }
    }

    /// Lets go of a path that has ended, for a `reason` as clients are told, and of all that was on it.
    pub(super) fn close_transport(&mut self, id: TransportId, reason: &'static str) {
        let Some(transport) = self.forget_transport(id) else { return };
        let owner = transport.owner;
        let Some(peer) = self.peer_mut(owner) else { return };
        peer.transports.retain(|other| *other != id);
        tracing::info!(room = %peer.room, peer = %peer.id, transport = %id, reason,
            "Peer's transport closed");
        let (consumers, producers) = (peer.consumers.clone(), peer.producers.clone());
        for consumer in consumers {
            if self.consumers.get(&consumer).is_some_and(|it| it.transport == id) {
                self.remove_consumer(consumer);
            }
        }
        for producer in producers {
            if self.producers.get(&producer).is_some_and(|it| it.spec.transport == id) {
                self.close_producer(producer);
            }
        }
        let data = json!({ "transportId": id, "reason": reason });
        self.notify(&[owner], "transportClosed", data);
    }

    fn forget_transport(&mut self, id: TransportId) -> Option<Transport> {
        let transport = self.transports.remove(&id)?;
        self.secrets.release_ufrag(&transport.ufrag);
        self.secrets.release_ssrcs(transport.ssrcs.as_flattened());
        Some(transport)
    }

    /// Removes a consumer from everything but its producer and its shard.
    fn forget_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        self.load(consumer.shard).streams -= 1;
        if let Some(peer) = self.peer_mut(consumer.owner) {
            peer.consumers.retain(|other| *other != id);
        }
        Some(consumer)
    }

    fn notify_room_of_producer(&mut self, owner: SessionId, method: &'static str, id: ProducerId) {
        let Ok(peer) = self.peer(owner) else { return };
        let data = json!({ "producerId": id, "peerId": peer.id });
        let others = self.others(owner);
        self.notify(&others, method, data);
    }
}

impl Producer {
    /// Whether somebody wants it silent.
    pub(super) fn is_paused(&self) -> bool {
        self.wants_pause || self.muted
    }

    /// Every shard that has it: home first, then those with replicas.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        [self.shard].into_iter().chain(self.replicas.keys().copied()).collect()
    }
}
