//! Rooms and peers: what control knows, and what follows when somebody comes or goes.
//!
//! One [`Rooms`] for the process, owned by the hub's task: no locks. It never waits. What peers send and
//! receive is in [`super::streams`], the calls in `calls`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config::RoomLimits;
use crate::control::failures::ShardFaults;
use crate::control::identity::{Grants, Identity, Sources};
use crate::control::idle::EmptyRooms;
use crate::control::limits::{Limit, LimitsMet};
use crate::control::metrics::Scrapes;
use crate::control::placement::{Load, least_loaded};
use crate::control::questions::Questions;
use crate::control::refusal::Refusal;
use crate::control::requests::{AppData, DtlsFingerprint, JoinRoom};
use crate::control::secrets::Secrets;
use crate::control::session::{Caller, End, Link, Outgoing, SessionId};
use crate::control::speakers::Listeners;
use crate::control::streams::{Consumer, Producer, Transport};
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, RoomKey, ShardId, TransportId};
use crate::shard::mailbox::{Command, Mailbox};

/// Everything that control knows.
pub struct Rooms {
    pub(super) identity: Identity,
    pub(super) limits: RoomLimits,
    /// How often these and other limits were met.
    pub(super) limits_met: Arc<LimitsMet>,
    pub(super) announced: Announced,
    pub(super) shards: Vec<Mailbox>,
    pub(super) loads: Vec<Load>,
    pub(super) faults: ShardFaults,
    /// Boxed, since the tree's nodes are half empty.
    pub(super) sessions: BTreeMap<SessionId, Box<Session>>,
    pub(super) rooms: BTreeMap<RoomId, Room>,
    pub(super) transports: HashMap<TransportId, Transport>,
    pub(super) producers: HashMap<ProducerId, Producer>,
    pub(super) consumers: HashMap<ConsumerId, Consumer>,
    pub(super) secrets: Secrets,
    pub(super) questions: Questions,
    pub(super) scrapes: Scrapes,
    /// The rooms by what the shards call them.
    pub(super) room_keys: BTreeMap<RoomKey, RoomId>,
    pub(super) empty_rooms: EmptyRooms,
    next_room: u64,
    /// Nobody comes in any more.
    pub(super) draining: bool,
    /// Sessions that cannot be written to; ended when the call at hand is done.
    doomed: Vec<SessionId>,
}

/// What whoever makes a room wants of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomOptions {
    /// How many of its loudest audio producers are forwarded; `None`: all.
    pub loudest: Option<NonZeroU8>,
    /// How many peers may be in it; `None`: as many as in any.
    pub max_peers: Option<NonZeroU32>,
}

/// What every transport tells its client.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Address or host name of the candidates.
    pub address: String,
    /// Our certificate's hash.
    pub fingerprint: DtlsFingerprint,
}

/// One connection, and the peer that it is once it has joined.
pub(super) struct Session {
    link: Link,
    caller: Caller,
    missed_ping: bool,
    pub(super) peer: Option<Peer>,
}

/// A room.
pub(super) struct Room {
    /// Its name to the shards.
    pub(super) key: RoomKey,
    /// The shard of its first peer: it alone decides who speaks, for as long as the room exists.
    pub(super) home: Option<ShardId>,
    /// Who speaks, as everyone was told.
    pub(super) speaker: Option<PeerId>,
    pub(super) listeners: Listeners,
    /// How many of its loudest audio producers are forwarded; `None`: all.
    pub(super) loudest: Option<u8>,
    /// How many peers may be in it; `None`: as many as in any.
    pub(super) max_peers: Option<NonZeroU32>,
    created_at: Timestamp,
    /// Rooms made by REST stay when their last peer leaves; those made by a join go with it.
    stays: bool,
    /// Since when nobody is in it; `None`: somebody is.
    pub(super) empty_since: Option<Instant>,
    pub(super) peers: BTreeMap<PeerId, SessionId>,
}

/// A session that has joined a room.
pub(super) struct Peer {
    pub(super) room: RoomId,
    pub(super) id: PeerId,
    pub(super) grants: Grants,
    pub(super) app_data: Arc<AppData>,
    pub(super) shard: ShardId,
    /// For the producers whose client gives no CNAME: one per peer, so that lips stay in sync.
    pub(super) cname: String,
    /// What it sends of these is muted, also what it begins to send.
    pub(super) muted: Sources,
    pub(super) transports: Vec<TransportId>,
    pub(super) producers: Vec<ProducerId>,
    pub(super) consumers: Vec<ConsumerId>,
}

/// What a peer brings with it.
struct Newcomer {
    id: PeerId,
    grants: Grants,
    app_data: Arc<AppData>,
}

impl Rooms {
    /// No rooms yet, and these shards, in the order of their ids.
    pub fn new(
        identity: Identity,
        limits: RoomLimits,
        announced: Announced,
        shards: Vec<Mailbox>,
    ) -> Self {
        Self {
            identity,
            limits,
            limits_met: Arc::default(),
            announced,
            scrapes: Scrapes::new(shards.len()),
            loads: vec![Load::default(); shards.len()],
            faults: ShardFaults::default(),
            shards,
            sessions: BTreeMap::new(),
            rooms: BTreeMap::new(),
            transports: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            secrets: Secrets::default(),
            questions: Questions::default(),
            room_keys: BTreeMap::new(),
            empty_rooms: EmptyRooms::new(),
            next_room: 0,
            draining: false,
            doomed: Vec::new(),
        }
    }

    /// The bounds that were met; the connections count theirs here, too.
    pub fn limits_met(&self) -> Arc<LimitsMet> {
        self.limits_met.clone()
    }

    /// A client has connected.
    pub fn open(&mut self, session: SessionId, link: Link, caller: Caller) {
        let entry = Session { link, caller, missed_ping: false, peer: None };
        self.sessions.insert(session, Box::new(entry));
    }

    /// A client has gone: its peer leaves.
    pub fn close(&mut self, session: SessionId) {
        self.leave(session);
        self.sessions.remove(&session);
        self.end_doomed();
    }

    /// A client's connection missed its ping, or was heard of again.
    pub fn set_missed_ping(&mut self, session: SessionId, missed: bool) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.missed_ping = missed;
        }
    }

    /// Every connected client.
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// Makes a room that stays until [`Self::close_room`].
    pub fn create_room(&mut self, id: RoomId, options: RoomOptions) -> Result<(), Refusal> {
        self.lets_in()?;
        if self.rooms.contains_key(&id) {
            return Err(Refusal::conflict("this room exists already"));
        }
        let most = self.limits.empty_rooms;
        if self.empty_rooms.len() >= most {
            self.limits_met.count(Limit::EmptyRooms);
            return Err(Refusal::new(503, format!("there are {most} empty rooms already")));
        }
        self.add_room(id, true, options)
    }

    /// Tells a room's peers, and removes it with everything in it. Their connections stay.
    pub fn close_room(&mut self, id: &RoomId) -> Result<(), Refusal> {
        let Some(room) = self.rooms.get_mut(id) else {
            return Err(Refusal::no_such("room"));
        };
        // Nobody is left to be told of the others' leaving: `roomClosed` says it all.
        let sessions: Vec<SessionId> = std::mem::take(&mut room.peers).into_values().collect();
        self.notify(&sessions, "roomClosed", json!({ "roomId": id }));
        self.forget_listeners(id);
        let peers: Vec<Peer> = sessions.into_iter().filter_map(|it| self.take_peer(it)).collect();
        for peer in &peers {
            self.remove_streams(peer);
        }
        self.remove_room(id);
        self.end_doomed();
        Ok(())
    }

    /// Lets a session join; the answer lists who is there already.
    pub(super) fn join(&mut self, session: SessionId, join: JoinRoom) -> Result<Value, Refusal> {
        let caller = self.session(session)?;
        if caller.peer.is_some() {
            return Err(Refusal::conflict("this connection has joined a room already"));
        }
        let room = join.room_id.map(|id| id.0).or_else(|| caller.caller.room.clone());
        let room = room.ok_or_else(|| Refusal::new(400, "missing field `roomId`"))?;
        let id = join.peer_id.map(|id| id.0).or_else(|| caller.caller.peer.clone());
        let id = id.ok_or_else(|| Refusal::new(400, "missing field `peerId`"))?;
        let token = join.token.as_ref().or(caller.caller.token.as_ref());
        let grants = self.identity.check(token)?;
        grants.join(&room, &id)?;
        let app_data = join.app_data.unwrap_or_default();
        self.fits(&app_data)?;

        self.lets_in()?;
        self.a_shard_lives()?;
        self.has_place(&room, &id)?;
        self.make_way(&room, &id)?;
        if !self.rooms.contains_key(&room) {
            self.add_room(room.clone(), false, RoomOptions::default())?;
        }
        let present = self.describe_peers(&room);
        let others = self.sessions_of(&room);
        let app_data = Arc::new(app_data);
        let shard = self.enter(session, room, Newcomer { id, grants, app_data }, &others);
        self.load(shard).peers += 1;
        Ok(json!({ "peers": present }))
    }

    /// Puts a session into an existing room, and tells the `others`.
    fn enter(
        &mut self,
        session: SessionId,
        room: RoomId,
        peer: Newcomer,
        others: &[SessionId],
    ) -> ShardId {
        let Newcomer { id, grants, app_data } = peer;
        let shard = least_loaded(&self.loads);
        info!(room = %room, peer = %id, shard = shard.0, "Peer joined");
        self.notify(others, "newPeer", json!({ "peerId": id, "appData": *app_data }));
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.peers.insert(id.clone(), session);
            if entry.home.is_none() {
                self.set_home(&room, shard);
            }
        }
        self.note_whether_empty(&room);
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.peer = Some(Peer {
                room,
                id,
                grants,
                app_data,
                shard,
                cname: super::secrets::cname(),
                muted: Sources::default(),
                transports: Vec::new(),
                producers: Vec::new(),
                consumers: Vec::new(),
            });
        }
        shard
    }

    /// Takes a session's peer, if it is one, out of its room.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.leave_because(session, None);
    }

    fn leave_because(&mut self, session: SessionId, reason: Option<&str>) {
        let Some(peer) = self.take_peer(session) else { return };
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.peers.remove(&peer.id);
        }
        self.remove_streams(&peer);
        let others = self.sessions_of(&peer.room);
        let mut news = json!({ "peerId": peer.id });
        if let Some(reason) = reason {
            news["reason"] = reason.into();
        }
        self.notify(&others, "peerLeft", news);
        info!(room = %peer.room, peer = %peer.id, "Peer left");
        let empty = |room: &Room| room.peers.is_empty() && !room.stays;
        self.forget_voice(&peer.room, &peer.id, session);
        if self.rooms.get(&peer.room).is_some_and(empty) {
            self.remove_room(&peer.room);
        } else {
            self.note_whether_empty(&peer.room);
        }
    }

    /// Sends the response to a request.
    pub(super) fn answer(&mut self, session: SessionId, tag: u64, result: Result<Value, Refusal>) {
        self.deliver(session, Outgoing::Response { tag, result });
        self.end_doomed();
    }

    /// Tells these sessions something.
    pub(super) fn notify(&mut self, to: &[SessionId], method: &'static str, data: Value) {
        let data = Arc::new(data);
        for session in to {
            self.deliver(*session, Outgoing::Notification { method, data: data.clone() });
        }
    }

    /// Asks something of a shard; nothing of one that is known to have failed.
    pub(super) fn tell(&self, shard: ShardId, command: Command) {
        let index = usize::from(shard.0);
        if self.loads.get(index).is_some_and(|load| load.failed) {
            return;
        }
        let sent = self.shards.get(index).is_some_and(|to| to.send(command));
        if !sent {
            warn!(shard = shard.0, "Shard is gone, a command to it is lost");
        }
    }

    /// What a shard carries.
    pub(super) fn load(&mut self, shard: ShardId) -> &mut Load {
        &mut self.loads[usize::from(shard.0)]
    }

    /// The session's peer; 403 before it has joined.
    pub(super) fn peer(&self, session: SessionId) -> Result<&Peer, Refusal> {
        let peer = self.sessions.get(&session).and_then(|session| session.peer.as_ref());
        peer.ok_or_else(|| Refusal::new(403, "join a room first"))
    }

    /// The session's peer, if it has joined.
    pub(super) fn peer_mut(&mut self, session: SessionId) -> Option<&mut Peer> {
        self.sessions.get_mut(&session)?.peer.as_mut()
    }

    /// The sessions of everyone in the session's room but itself.
    pub(super) fn others(&self, session: SessionId) -> Vec<SessionId> {
        let Ok(peer) = self.peer(session) else { return Vec::new() };
        let mut sessions = self.sessions_of(&peer.room);
        sessions.retain(|other| *other != session);
        sessions
    }

    /// A room's age, for REST.
    pub(super) fn created_at(room: &Room) -> String {
        to_milliseconds(room.created_at).to_string()
    }

    fn session(&self, session: SessionId) -> Result<&Session, Refusal> {
        self.sessions
            .get(&session)
            .map(|it| &**it)
            .ok_or_else(|| Refusal::new(403, "this connection has ended"))
    }

    pub(super) fn sessions_of(&self, room: &RoomId) -> Vec<SessionId> {
        self.rooms.get(room).map(|room| room.peers.values().copied().collect()).unwrap_or_default()
    }

    /// Frees a peer's id if its connection looks dead; 409 if it does not.
    fn make_way(&mut self, room: &RoomId, id: &PeerId) -> Result<(), Refusal> {
        let Some(&holder) = self.rooms.get(room).and_then(|room| room.peers.get(id)) else {
            return Ok(());
        };
        if !self.session(holder)?.missed_ping {
            return Err(Refusal::conflict("a peer with this id is in the room already"));
        }
        info!(room = %room, peer = %id, "Peer replaced: its connection missed a ping");
        self.end(holder, End::Replaced);
        Ok(())
    }

    /// 503 if a room is full. Who comes back as a peer that is there takes that one's place.
    fn has_place(&self, id: &RoomId, peer: &PeerId) -> Result<(), Refusal> {
        let Some(room) = self.rooms.get(id) else { return Ok(()) };
        let cap = room.max_peers.map_or(usize::MAX, |most| most.get() as usize);
        let most = cap.min(self.limits.peers);
        if room.peers.len() < most || room.peers.contains_key(peer) {
            return Ok(());
        }
        self.limits_met.count(Limit::Peers);
        Err(Refusal::new(503, format!("the room is full: {most} peers at most")))
    }

    fn add_room(&mut self, id: RoomId, stays: bool, options: RoomOptions) -> Result<(), Refusal> {
        let most = self.limits.rooms;
        if self.rooms.len() >= most {
            self.limits_met.count(Limit::Rooms);
            return Err(Refusal::new(503, format!("there are {most} rooms already")));
        }
        info!(room = %id, "Room created");
        let key = RoomKey(self.next_room);
        self.next_room += 1;
        let (created_at, peers) = (Timestamp::now(), BTreeMap::new());
        let (home, speaker, listeners) = (None, None, Listeners::default());
        let RoomOptions { loudest, max_peers } = options;
        let loudest = loudest.map(NonZeroU8::get);
        let room = Room {
            key,
            home,
            speaker,
            listeners,
            loudest,
            max_peers,
            created_at,
            stays,
            empty_since: None,
            peers,
        };
        self.room_keys.insert(key, id.clone());
        self.rooms.insert(id.clone(), room);
        self.note_whether_empty(&id);
        Ok(())
    }

    /// This shard decides from now on who speaks in a room, and who is heard.
    pub(super) fn set_home(&mut self, id: &RoomId, home: ShardId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.home = Some(home);
        if let Some(count) = room.loudest {
            let command = Command::ForwardLoudest { room: room.key, count: Some(count) };
            self.tell(home, command);
        }
    }

    pub(super) fn remove_room(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.remove(id) {
            if let Some(since) = room.empty_since {
                self.empty_rooms.remove(&(since, id.clone()));
            }
            self.room_keys.remove(&room.key);
            if let (Some(_), Some(home)) = (room.loudest, room.home) {
                self.tell(home, Command::ForwardLoudest { room: room.key, count: None });
            }
            info!(room = %id, "Room closed");
        }
    }

    fn take_peer(&mut self, session: SessionId) -> Option<Peer> {
        let peer = self.sessions.get_mut(&session)?.peer.take()?;
        self.load(peer.shard).peers -= 1;
        Some(peer)
    }

    /// `joinRoom`'s list of who is there, with what they send.
    fn describe_peers(&self, room: &RoomId) -> Vec<Value> {
        let sessions = self.sessions_of(room);
        let peers = sessions.iter().filter_map(|session| self.peer(*session).ok());
        peers
            .map(|peer| {
                let producers = peer.producers.iter().filter_map(|id| {
                    let producer = self.producers.get(id)?;
                    let (kind, app_data) = (producer.spec.kind, &*producer.app_data);
                    Some(json!({ "producerId": id, "kind": kind, "appData": app_data }))
                });
                let producers: Vec<Value> = producers.collect();
                json!({ "peerId": peer.id, "appData": *peer.app_data, "producers": producers })
            })
            .collect()
    }

    fn deliver(&mut self, session: SessionId, outgoing: Outgoing) {
        let Some(entry) = self.sessions.get(&session) else { return };
        if entry.link.outgoing.try_send(Box::new(outgoing)).is_err() {
            self.doomed.push(session);
        }
    }

    /// Ends a session from our side; its peer leaves.
    pub(super) fn end(&mut self, session: SessionId, why: End) {
        self.leave_because(session, (why == End::Removed).then_some("removed"));
        if let Some(entry) = self.sessions.remove(&session) {
            debug!(session = session.0, ?why, "Session ended");
            if why == End::TooSlow {
                self.limits_met.count(Limit::SlowReaders);
            }
            // The connection may be gone already, which is what we want.
            let _ = entry.link.end.send(why);
        }
    }

    /// Telling the others of a leaving peer may find more who do not read: hence the loop.
    pub(super) fn end_doomed(&mut self) {
        while let Some(session) = self.doomed.pop() {
            self.end(session, End::TooSlow);
        }
    }
}

/// Nobody needs a room's age in nanoseconds.
pub(super) fn to_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
