//! The calls of signaling, one function each: check everything, then change something.

use std::sync::Arc;

use serde_json::{Value, json};
use tracing::debug;

use crate::control::identity::Source;
use crate::control::limits::Limit;
use crate::control::refusal::Refusal;
use crate::control::requests::{
    AppData, ConnectTransport, Consume, CreateTransport, DtlsFingerprint, DtlsParameters, DtlsRole,
    OfTransport, Produce, Request,
};
use crate::control::rooms::Rooms;
use crate::control::session::SessionId;
use crate::control::specs::{self, Origin};
use crate::control::streams::{Consumer, Producer, Transport};
use crate::id::{ConsumerId, Mid, ProducerId, TransportId};
use crate::ortc;
use crate::shard::mailbox::dtls::{self, Fingerprint};
use crate::shard::mailbox::{Command, ProducerSpec, ice};

/// Consumers of one transport in its life, closed ones too: their SSRCs stay taken.
pub const MAX_CONSUMED: u32 = 65_536;
/// Fingerprints of one `connectTransport`: one per hash function that exists.
pub const MAX_FINGERPRINTS: usize = 16;
/// A host candidate of the only component and address there is (RFC 8445 §5.1.2.1).
const CANDIDATE_PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

impl Rooms {
    /// Carries out one request of a client and queues its response.
    pub fn request(&mut self, session: SessionId, tag: u64, method: &str, data: Value) {
        let joins = method == "joinRoom";
        let parsed = Request::parse(method, data);
        let result = parsed.and_then(|request| self.carry_out(session, tag, request));
        if let Err(refusal) = &result {
            let peer = self.peer(session).ok();
            debug!(
                room = peer.map(|peer| tracing::field::display(&peer.room)),
                peer = peer.map(|peer| tracing::field::display(&peer.id)),
                session = session.0,
                status = refusal.status,
                reason = refusal.reason,
                method,
                "Request refused"
            );
        }
        let Some(result) = result.transpose() else { return };
        let joined = joins && result.is_ok();
        self.answer(session, tag, result);
        if joined {
            self.greet_with_speaker(session);
            self.end_doomed();
        }
    }

    /// `None`: the answer comes later.
    fn carry_out(
        &mut self,
        session: SessionId,
        tag: u64,
        request: Request,
    ) -> Result<Option<Value>, Refusal> {
        match request {
            Request::JoinRoom(join) => {
                return self.join(session, join).map(Some);
            }
            Request::RouterRtpCapabilities => {
                return to_json(ortc::router_capabilities()).map(Some);
            }
            Request::CreateTransport(wish) => {
                return self.create_transport(session, &wish).map(Some);
            }
            Request::ConnectTransport(call) => self.connect_transport(session, call)?,
            Request::RestartIce(call) => return self.restart_ice(session, &call).map(Some),
            Request::Produce(call) => return self.produce(session, *call).map(Some),
            Request::Consume(call) => return self.consume(session, &call).map(Some),
            Request::PauseProducer(call) => {
                let id = self.own_producer(session, call.producer_id)?;
                self.set_producer_paused(id, true)?;
            }
            Request::ResumeProducer(call) => {
                let id = self.own_producer(session, call.producer_id)?;
                self.set_producer_paused(id, false)?;
            }
            Request::CloseProducer(call) => {
                let id = self.own_producer(session, call.producer_id)?;
                self.close_producer(id);
            }
            Request::PauseConsumer(call) => {
                let id = self.own_consumer(session, call.consumer_id)?;
                self.set_consumer_paused(id, true);
            }
            Request::ResumeConsumer(call) => {
                let id = self.own_consumer(session, call.consumer_id)?;
                self.set_consumer_paused(id, false);
            }
            Request::CloseConsumer(call) => {
                let id = self.own_consumer(session, call.consumer_id)?;
                self.remove_consumer(id);
            }
            Request::RequestKeyFrame(call) => {
                let id = self.own_consumer(session, call.consumer_id)?;
                let shard = self.peer(session)?.shard;
                self.tell(shard, Command::RequestKeyFrame(id));
            }
            Request::SetPreferredLayers(call) => self.set_preferred_layers(session, &call)?,
            Request::SetPriority(call) => self.set_priority(session, &call)?,
            Request::TransportStats(call) => {
                return self.transport_stats(session, tag, &call).map(|()| None);
            }
            Request::ProducerStats(call) => {
                return self.producer_stats(session, tag, &call).map(|()| None);
            }
            Request::ConsumerStats(call) => {
                return self.consumer_stats(session, tag, &call).map(|()| None);
            }
            Request::SubscribeAudioLevels(call) => self.subscribe_levels(session, &call)?,
            Request::LeaveRoom => {
                self.peer(session)?;
                self.leave(session);
            }
            Request::GetRoom => {
                let room = self.administered(session)?;
                return self.show_room(&room).map(Some);
            }
            Request::MuteProducer(call) => {
                let room = self.administered(session)?;
                self.mute(&room, call.producer_id, true)?;
            }
            Request::UnmuteProducer(call) => {
                let room = self.administered(session)?;
                self.mute(&room, call.producer_id, false)?;
            }
            Request::RemovePeer(call) => {
                let room = self.administered(session)?;
                self.remove_peer(&room, &call.peer_id.0)?;
            }
            Request::SetMaxPeers(call) => {
                let room = self.administered(session)?;
                self.cap_peers(&room, call.max_peers)?;
            }
            Request::CloseRoom => {
                let room = self.administered(session)?;
                self.close_room(&room)?;
            }
        }
        Ok(Some(json!({})))
    }

    fn create_transport(
        &mut self,
        session: SessionId,
        wish: &CreateTransport,
    ) -> Result<Value, Refusal> {
        let peer = self.peer(session)?;
        peer.grants.connect()?;
        let shard = peer.shard;
        if peer.transports.len() >= self.limits.transports {
            // The oldest that was never connected makes way.
            let unused =
                |id: &&TransportId| self.transports.get(id).is_some_and(|it| !it.connect_called);
            let Some(&oldest) = peer.transports.iter().find(unused) else {
                return Err(self.too_many(Limit::Transports, "transports", self.limits.transports));
            };
            self.close_transport(oldest, "replaced");
            self.tell(shard, Command::RemoveTransport(oldest));
        }
        self.a_shard_lives()?;
        let Some(port) = self.shards.get(usize::from(shard.0)).map(|shard| shard.port) else {
            return Err(Refusal::new(503, "the shard of this peer is being started anew"));
        };
        let id = TransportId::random();
        let ice = self.secrets.credentials();
        let dtls = DtlsParameters {
            role: DtlsRole::Auto,
            fingerprints: vec![self.announced.fingerprint.clone()],
        };
        let answer = json!({
            "id": id,
            "iceParameters": ice_parameters(&ice),
            "iceCandidates": [candidate(&self.announced.address, port)],
            "dtlsParameters": to_json(&dtls)?,
        });
        let transport = Transport {
            owner: session,
            shard,
            ufrag: ice.ufrag.clone(),
            produces: wish.produces(),
            consumes: wish.consumes(),
            connect_called: false,
            connected: false,
            next_mid: 0,
            ssrcs: Vec::new(),
        };
        self.transports.insert(id, transport);
        if let Some(peer) = self.peer_mut(session) {
            peer.transports.push(id);
        }
        self.tell(shard, Command::AddTransport { id, ice });
        Ok(answer)
    }

    fn connect_transport(
        &mut self,
        session: SessionId,
        call: ConnectTransport,
    ) -> Result<(), Refusal> {
        let id = self.own_transport(session, call.transport_id)?;
        let fingerprints = fingerprints(&call.dtls_parameters.fingerprints)?;
        let Some(transport) = self.transports.get_mut(&id) else { return Ok(()) };
        if transport.connect_called {
            return Err(Refusal::conflict("connectTransport was called already"));
        }
        transport.connect_called = true;
        let shard = transport.shard;
        // The client's role is named; ours is the other one.
        let role = match call.dtls_parameters.role {
            DtlsRole::Server => dtls::Role::Active,
            DtlsRole::Auto | DtlsRole::Client => dtls::Role::Passive,
        };
        let peer = dtls::Peer { role, fingerprints };
        self.tell(shard, Command::ConnectTransport { id, peer });
        Ok(())
    }

    fn restart_ice(&mut self, session: SessionId, call: &OfTransport) -> Result<Value, Refusal> {
        let id = self.own_transport(session, call.transport_id)?;
        let ice = self.secrets.credentials();
        let Some(transport) = self.transports.get_mut(&id) else {
            return Err(Refusal::no_such("transport"));
        };
        let old = std::mem::replace(&mut transport.ufrag, ice.ufrag.clone());
        let shard = transport.shard;
        self.secrets.release_ufrag(&old);
        let answer = json!({ "iceParameters": ice_parameters(&ice) });
        self.tell(shard, Command::RestartIce { id, ice });
        Ok(answer)
    }

    fn produce(&mut self, session: SessionId, call: Produce) -> Result<Value, Refusal> {
        let app_data = call.app_data.unwrap_or_default();
        let source = Source::of(call.kind, &app_data);
        let peer = self.peer(session)?;
        peer.grants.publish(source)?;
        self.fits(&app_data)?;
        let transport = self.own_transport(session, call.transport_id)?;
        if peer.producers.len() >= self.limits.producers {
            return Err(self.too_many(Limit::Producers, "producers", self.limits.producers));
        }
        let room = self.rooms.get(&peer.room).ok_or_else(|| Refusal::no_such("room"))?;
        let (wants_pause, muted) = (call.paused.unwrap_or(false), peer.muted.contains(source));
        let origin = Origin {
            transport,
            room: room.key,
            home: room.home.unwrap_or(peer.shard),
            is_screen: source == Source::Screen,
            paused: wants_pause || muted,
        };
        let producible = ortc::produce(call.kind, call.rtp_parameters)?;
        let cname = match producible.rtp.rtcp.cname.as_str() {
            "" => peer.cname.clone(),
            own => own.to_owned(),
        };
        let id = ProducerId::random();
        let spec = specs::producer_spec(id, &origin, &producible);
        self.check_free(&peer.producers, &spec)?;
        let producer = Producer {
            owner: session,
            shard: peer.shard,
            source,
            wants_pause,
            muted,
            spec,
            producible,
            cname,
            app_data: Arc::new(app_data),
            consumers: Vec::new(),
            replicas: Default::default(),
            wanted: Default::default(),
        };
        self.add_producer(producer);
        if muted {
            self.tell_of_mute(id);
        }
        Ok(json!({ "id": id }))
    }

    /// Packets are told apart by SSRC and MID: two producers of one transport cannot share them.
    fn check_free(&self, producers: &[ProducerId], new: &ProducerSpec) -> Result<(), Refusal> {
        let ssrcs = |spec: &ProducerSpec| -> Vec<_> {
            spec.encodings.iter().flat_map(|it| [it.ssrc, it.rtx_ssrc]).flatten().collect()
        };
        let taken = ssrcs(new);
        let on_transport = producers.iter().filter_map(|id| self.producers.get(id));
        for old in on_transport.filter(|old| old.spec.transport == new.transport) {
            if new.mid.is_some() && old.spec.mid == new.mid {
                let why = "another producer of this transport has it";
                return Err(Refusal::field("rtpParameters.mid", why));
            }
            if ssrcs(&old.spec).iter().any(|ssrc| taken.contains(ssrc)) {
                let why = "another producer of this transport has this SSRC";
                return Err(Refusal::field("rtpParameters.encodings", why));
            }
        }
        Ok(())
    }

    fn consume(&mut self, session: SessionId, call: &Consume) -> Result<Value, Refusal> {
        self.peer(session)?.grants.subscribe()?;
        let transport_id = match call.transport_id {
            Some(id) => self.own_transport(session, id)?,
            None => self.consuming_transport(session)?,
        };
        let peer = self.peer(session)?;
        let shard = peer.shard;
        if peer.consumers.len() >= self.limits.consumers {
            return Err(self.too_many(Limit::Consumers, "consumers", self.limits.consumers));
        }
        let producer = call.producer_id.0.and_then(|id| self.producers.get(&id));
        // What another room's peers send is not there for this one.
        let same_room = |it: &&Producer| self.peer(it.owner).is_ok_and(|it| it.room == peer.room);
        let producer = producer.filter(same_room).ok_or_else(|| Refusal::no_such("producer"))?;
        let next_mid = self.transports.get(&transport_id).map_or(0, |it| it.next_mid);
        if next_mid >= MAX_CONSUMED {
            let why = format!("a transport may have at most {MAX_CONSUMED} consumers in its life");
            return Err(Refusal::new(429, why));
        }
        let Some(mid) = Mid::new(next_mid.to_string().as_bytes()) else {
            return Err(Refusal::no_such("transport"));
        };

        let ssrcs = [self.secrets.ssrc(), self.secrets.ssrc()];
        let [ssrc, rtx_ssrc] = ssrcs;
        let (producible, cname) = (&producer.producible, producer.cname.as_str());
        let wanted = &call.rtp_capabilities;
        let consumable = match ortc::consume(producible, wanted, mid, ssrc, rtx_ssrc, cname) {
            Ok(consumable) => consumable,
            Err(invalid) => {
                self.secrets.release_ssrcs(&ssrcs);
                return Err(invalid.into());
            }
        };
        let id = ConsumerId::random();
        let producer_id = producer.spec.id;
        let paused = call.paused.unwrap_or(false);
        let spec =
            specs::consumer_spec(id, transport_id, producer_id, producible, &consumable, paused);
        let answer = json!({
            "id": id,
            "producerId": producer_id,
            "kind": producible.kind,
            "type": consumable.consumer_type,
            "rtpParameters": to_json(&consumable.rtp)?,
            "producerPaused": producer.spec.paused,
        });
        let consumer = Consumer {
            owner: session,
            shard,
            transport: transport_id,
            producer: producer_id,
            consumer_type: consumable.consumer_type,
            paused,
        };
        if let Some(transport) = self.transports.get_mut(&transport_id) {
            transport.next_mid += 1;
            transport.ssrcs.push(ssrcs);
        }
        self.add_consumer(consumer, spec);
        Ok(answer)
    }

    /// 429: a peer has as many of these as it may have.
    fn too_many(&self, limit: Limit, what: &str, most: usize) -> Refusal {
        self.limits_met.count(limit);
        Refusal::too_many(what, most)
    }

    /// 400 if `appData` is too long.
    pub(super) fn fits(&self, app_data: &AppData) -> Result<(), Refusal> {
        let most = self.limits.app_data;
        if serde_json::to_vec(app_data).is_ok_and(|json| json.len() <= most) {
            return Ok(());
        }
        self.limits_met.count(Limit::AppData);
        let why = format!("must not be longer than {most} bytes of JSON");
        Err(Refusal::field("appData", why))
    }

    /// The transport for a `consume` that names none: one that only consumes before one that serves
    /// both ways, the newest of equals.
    fn consuming_transport(&self, session: SessionId) -> Result<TransportId, Refusal> {
        let own = self.peer(session)?.transports.iter().rev();
        let consuming = own.filter_map(|id| Some((id, self.transports.get(id)?)));
        let consuming = consuming.filter(|(_, transport)| transport.consumes);
        let best = consuming.min_by_key(|(_, transport)| transport.produces);
        best.map(|(id, _)| *id).ok_or_else(|| Refusal::new(404, "there is no consuming transport"))
    }
}

/// Of the hash functions that clients may name, those that we cannot check are passed over.
fn fingerprints(given: &[DtlsFingerprint]) -> Result<Vec<Fingerprint>, Refusal> {
    const FIELD: &str = "dtlsParameters.fingerprints";
    const UNCHECKED: [&str; 2] = ["sha-1", "sha-224"];
    if given.len() > MAX_FINGERPRINTS {
        return Err(Refusal::field(FIELD, format!("more than {MAX_FINGERPRINTS}")));
    }
    let mut usable = Vec::new();
    for (index, DtlsFingerprint { algorithm, value }) in given.iter().enumerate() {
        if UNCHECKED.contains(&algorithm.as_str()) {
            continue;
        }
        let Some(fingerprint) = Fingerprint::parse(algorithm, value) else {
            let field = format!("{FIELD}[{index}]");
            let why =
                "must be {algorithm, value} of sha-256, sha-384 or sha-512 in hex with colons";
            return Err(Refusal::field(&field, why));
        };
        usable.push(fingerprint);
    }
    if usable.is_empty() {
        return Err(Refusal::field(FIELD, "one of sha-256, sha-384 or sha-512 is needed"));
    }
    Ok(usable)
}

fn ice_parameters(ice: &ice::Credentials) -> Value {
    json!({ "usernameFragment": ice.ufrag, "password": ice.password, "iceLite": true })
}

/// A candidate in mediasoup's shape: `ip` for old clients, `address` for new ones.
fn candidate(address: &str, port: u16) -> Value {
    json!({
        "foundation": "udpcandidate",
        "priority": CANDIDATE_PRIORITY,
        "ip": address,
        "address": address,
        "protocol": "udp",
        "port": port,
        "type": "host",
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|_| Refusal::new(500, "the answer cannot be written"))
}
