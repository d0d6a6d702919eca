//! `/api`: what HTTP clients can ask, and how the answers look.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Instant;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::hub::Hub;
use crate::control::identity::Token;
use crate::control::leaving::Condition;
use crate::control::refusal::Refusal;
use crate::control::requests::{MaxPeers, Named, Text, parse};
use crate::control::rooms::{Peer, Room, RoomOptions, Rooms};
use crate::control::session::percent_decode;
use crate::id::{PeerId, ProducerId, RoomId};

/// A REST call that needs the rooms.
pub enum Call {
    /// How many of everything.
    Stats,
    /// Whether the server can be used, in a word.
    Condition,
    /// All rooms.
    ListRooms,
    /// A new room.
    CreateRoom(RoomId, RoomOptions),
    /// One room with its peers.
    ShowRoom(RoomId),
    /// Cap the peers of a room.
    CapPeers(RoomId, Option<NonZeroU32>),
    /// Close a room.
    DeleteRoom(RoomId),
    /// The peers of a room.
    ListPeers(RoomId),
    /// One of them.
    ShowPeer(RoomId, PeerId),
    /// Take a peer out of a room.
    RemovePeer(RoomId, PeerId),
    /// Mute a room's producer, or lift that.
    Mute(RoomId, Named<ProducerId>, bool),
}

/// One HTTP request.
pub struct Ask<'a> {
    /// HEAD counts as GET.
    pub method: Method,
    /// Starts with `/api/`.
    pub path: &'a str,
    /// Of the `Authorization` header.
    pub token: Option<Token>,
    /// The whole of it.
    pub body: Vec<u8>,
}

/// Carries out a request. The value is the response's body; none goes with 204.
pub async fn answer(
    hub: &Hub,
    started: Instant,
    ask: Ask<'_>,
) -> Result<(StatusCode, Value), Refusal> {
    let (status, call) = route(&ask)?;
    let probe = ask.path.trim_start_matches("/api/health");
    match call {
        Call::Stats => {
            let condition = hub.rest(None, Call::Condition).await?;
            let stats = hub.rest(ask.token, call).await?;
            Ok((status, health(condition, stats, started)))
        }
        Call::Condition => {
            let condition = hub.rest(ask.token, call).await?;
            let usable = probe == "/live" || condition == Condition::Ok.name();
            let status = if usable { status } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok((status, json!({ "status": condition })))
        }
        call => Ok((status, hub.rest(ask.token, call).await?)),
    }
}

/// What is asked, and the status if it succeeds; 404, 405 or 400 if nothing can be.
fn route(ask: &Ask<'_>) -> Result<(StatusCode, Call), Refusal> {
    let method = &ask.method;
    let parts: Vec<&str> = ask.path.trim_start_matches("/api/").split('/').collect();
    Ok(match (&parts[..], method) {
        (["health"], &Method::GET) => (StatusCode::OK, Call::Stats),
        (["health", "live" | "ready"], &Method::GET) => (StatusCode::OK, Call::Condition),
        (["rooms"], &Method::GET) => (StatusCode::OK, Call::ListRooms),
        (["rooms"], &Method::POST) => {
            let (room, options) = new_room(&ask.body)?;
            (StatusCode::CREATED, Call::CreateRoom(room, options))
        }
        (["rooms", id], &Method::GET) => (StatusCode::OK, Call::ShowRoom(room(id)?)),
        (["rooms", id], &Method::PATCH) => {
            let cap: MaxPeers = parse(object(&ask.body)?)?;
            (StatusCode::OK, Call::CapPeers(room(id)?, cap.max_peers))
        }
        (["rooms", id], &Method::DELETE) => (StatusCode::NO_CONTENT, Call::DeleteRoom(room(id)?)),
        (["rooms", id, "peers"], &Method::GET) => (StatusCode::OK, Call::ListPeers(room(id)?)),
        (["rooms", id, "peers", name], &Method::GET) => {
            (StatusCode::OK, Call::ShowPeer(room(id)?, peer(name)?))
        }
        (["rooms", id, "peers", name], &Method::DELETE) => {
            (StatusCode::NO_CONTENT, Call::RemovePeer(room(id)?, peer(name)?))
        }
        (["rooms", id, "producers", named, verb @ ("mute" | "unmute")], &Method::POST) => {
            let producer = Named(named.parse().ok());
            (StatusCode::NO_CONTENT, Call::Mute(room(id)?, producer, *verb == "mute"))
        }
        _ if allowed(ask.path).is_some() => {
            return Err(Refusal::new(405, format!("{method} is not allowed here")));
        }
        _ => return Err(Refusal::no_such("path")),
    })
}

/// The methods that `path` knows, for the `Allow` header (RFC 9110 §10.2.1).
pub fn allowed(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.trim_start_matches("/api/").split('/').collect();
    match parts[..] {
        ["health"] | ["health", "live" | "ready"] | ["rooms", _, "peers"] => Some("GET"),
        ["rooms"] => Some("GET, POST"),
        ["rooms", _] => Some("GET, PATCH, DELETE"),
        ["rooms", _, "peers", _] => Some("GET, DELETE"),
        ["rooms", _, "producers", _, "mute" | "unmute"] => Some("POST"),
        _ => None,
    }
}

/// An id that cannot be is one that is not there.
fn room(text: &str) -> Result<RoomId, Refusal> {
    percent_decode(text).and_then(|id| RoomId::new(&id)).ok_or_else(|| Refusal::no_such("room"))
}

/// As for rooms.
fn peer(text: &str) -> Result<PeerId, Refusal> {
    percent_decode(text).and_then(|id| PeerId::new(&id)).ok_or_else(|| Refusal::no_such("peer"))
}

fn object(body: &[u8]) -> Result<Value, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("the body is not JSON: {error}")))?;
    if body.is_object() { Ok(body) } else { Err(Refusal::new(400, "the body must be an object")) }
}

fn new_room(body: &[u8]) -> Result<(RoomId, RoomOptions), Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        room_id: Text<RoomId>,
        loudest: Option<NonZeroU8>,
        max_peers: Option<NonZeroU32>,
    }
    let Body { room_id, loudest, max_peers } = parse(object(body)?)?;
    Ok((room_id.0, RoomOptions { loudest, max_peers }))
}

fn health(status: Value, stats: Value, started: Instant) -> Value {
    let now = Timestamp::now();
    let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    json!({
        "status": status,
        "timestamp": now.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": started.elapsed().as_secs_f64(),
        "stats": stats,
    })
}

impl Rooms {
    /// 401 or 403 if `token` does not allow `call`. Whether a room exists is told to nobody else.
    pub fn authorize(&self, token: Option<&Token>, call: &Call) -> Result<(), Refusal> {
        match call {
            Call::Stats | Call::Condition => Ok(()),
            Call::ListRooms => self.identity.check(token)?.administer_all(),
            Call::CreateRoom(room, _)
            | Call::ShowRoom(room)
            | Call::CapPeers(room, _)
            | Call::DeleteRoom(room)
            | Call::ListPeers(room)
            | Call::ShowPeer(room, _)
            | Call::RemovePeer(room, _)
            | Call::Mute(room, ..) => self.identity.check(token)?.administer(room),
        }
    }

    /// Carries out a REST call.
    pub fn rest(&mut self, call: Call) -> Result<Value, Refusal> {
        match call {
            Call::Stats => Ok(self.stats()),
            Call::Condition => Ok(self.condition().name().into()),
            Call::ListRooms => {
                let rooms = self.rooms.iter().map(|(id, room)| summary(id, room));
                Ok(json!({ "rooms": rooms.collect::<Vec<_>>() }))
            }
            Call::CreateRoom(id, options) => {
                self.create_room(id.clone(), options)?;
                self.show_room(&id)
            }
            Call::ShowRoom(id) => self.show_room(&id),
            Call::CapPeers(id, most) => {
                self.cap_peers(&id, most)?;
                self.show_room(&id)
            }
            Call::DeleteRoom(id) => self.close_room(&id).map(|()| Value::Null),
            Call::ListPeers(id) => Ok(json!({ "peers": self.show_peers(&id)? })),
            Call::ShowPeer(id, peer) => {
                let session = self.session_of(&id, &peer)?;
                Ok(self.show_peer(self.peer(session)?))
            }
            Call::RemovePeer(id, peer) => self.remove_peer(&id, &peer).map(|()| Value::Null),
            Call::Mute(id, producer, muted) => {
                self.mute(&id, producer, muted)?;
                self.end_doomed();
                Ok(Value::Null)
            }
        }
    }

    /// The original had a router per room.
    fn stats(&self) -> Value {
        json!({
            "totalRooms": self.rooms.len(),
            "totalPeers": self.peers(),
            "workersCount": self.shards.len(),
            "routersCount": self.rooms.len(),
        })
    }

    /// A room with its peers.
    pub(super) fn show_room(&self, id: &RoomId) -> Result<Value, Refusal> {
        let room = self.rooms.get(id).ok_or_else(|| Refusal::no_such("room"))?;
        let mut shown = summary(id, room);
        shown["peers"] = self.show_peers(id)?;
        Ok(shown)
    }

    fn show_peers(&self, id: &RoomId) -> Result<Value, Refusal> {
        let room = self.rooms.get(id).ok_or_else(|| Refusal::no_such("room"))?;
        let peers = room.peers.values().filter_map(|session| self.peer(*session).ok());
        Ok(peers.map(|peer| self.show_peer(peer)).collect())
    }

    fn show_peer(&self, peer: &Peer) -> Value {
        let transports = peer.transports.iter().filter_map(|id| {
            let transport = self.transports.get(id)?;
            Some(json!({ "transportId": id, "connected": transport.connected }))
        });
        let producers = peer.producers.iter().filter_map(|id| {
            let producer = self.producers.get(id)?;
            Some(json!({
                "producerId": id,
                "kind": producer.spec.kind,
                "type": producer.producible.producer_type,
                "paused": producer.spec.paused,
                "muted": producer.muted,
                "appData": *producer.app_data,
            }))
        });
        let consumers = peer.consumers.iter().filter_map(|id| {
            let consumer = self.consumers.get(id)?;
            let producer = self.producers.get(&consumer.producer)?;
            Some(json!({
                "consumerId": id,
                "producerId": consumer.producer,
                "kind": producer.spec.kind,
                "type": consumer.consumer_type,
                "paused": consumer.paused,
                "producerPaused": producer.spec.paused,
            }))
        });
        json!({
            "peerId": peer.id,
            "appData": *peer.app_data,
            "shard": peer.shard.0,
            "transports": transports.collect::<Vec<_>>(),
            "producers": producers.collect::<Vec<_>>(),
            "consumers": consumers.collect::<Vec<_>>(),
        })
    }
}

fn summary(id: &RoomId, room: &Room) -> Value {
    json!({
        "roomId": id,
        "createdAt": Rooms::created_at(room),
        "peersCount": room.peers.len(),
        "loudest": room.loudest,
        "maxPeers": room.max_peers,
    })
}
