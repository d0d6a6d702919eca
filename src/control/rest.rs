//! `/api`: what HTTP clients can ask, and how the answers look.

use std::num::NonZeroU8;
use std::time::Instant;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::hub::Hub;
use crate::control::refusal::Refusal;
use crate::control::requests::{Text, parse};
use crate::control::rooms::{Peer, Room, Rooms};
use crate::control::session::percent_decode;
use crate::id::RoomId;

/// A REST call that needs the rooms.
pub enum Call {
    /// How many of everything.
    Stats,
    /// All rooms.
    ListRooms,
    /// A new room, and how many of its loudest are heard (all if it does not say).
    CreateRoom(RoomId, Option<u8>),
    /// One room with its peers.
    ShowRoom(RoomId),
    /// Close a room.
    DeleteRoom(RoomId),
}

/// Answers `method` on `path`, which starts with `/api/`; `body` is the request's, whole.
///
/// The value is the response's body; none goes with 204.
pub async fn answer(
    hub: &Hub,
    started: Instant,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<(StatusCode, Value), Refusal> {
    let not_allowed = || Refusal::new(405, format!("{method} is not allowed here"));
    match path.trim_start_matches("/api/").split('/').collect::<Vec<_>>()[..] {
        ["health"] => match *method {
            Method::GET => Ok((StatusCode::OK, health(hub.rest(Call::Stats).await?, started))),
            _ => Err(not_allowed()),
        },
        ["rooms"] => match *method {
            Method::GET => Ok((StatusCode::OK, hub.rest(Call::ListRooms).await?)),
            Method::POST => {
                let (room, loudest) = new_room(body)?;
                Ok((StatusCode::CREATED, hub.rest(Call::CreateRoom(room, loudest)).await?))
            }
            _ => Err(not_allowed()),
        },
        ["rooms", id] => {
            // An id that cannot be is one that is not there.
            let id = percent_decode(id).and_then(|id| RoomId::new(&id));
            let id = || id.ok_or_else(|| Refusal::no_such("room"));
            match *method {
                Method::GET => Ok((StatusCode::OK, hub.rest(Call::ShowRoom(id()?)).await?)),
                Method::DELETE => {
                    Ok((StatusCode::NO_CONTENT, hub.rest(Call::DeleteRoom(id()?)).await?))
                }
                _ => Err(not_allowed()),
            }
        }
        _ => Err(Refusal::no_such("path")),
    }
}

/// The methods that `path` knows, for the `Allow` header (RFC 9110 §10.2.1).
pub fn allowed(path: &str) -> &'static str {
    match path {
        "/api/rooms" => "GET, POST",
        path if path.starts_with("/api/rooms/") => "GET, DELETE",
        _ => "GET",
    }
}

fn new_room(body: &[u8]) -> Result<(RoomId, Option<u8>), Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        room_id: Text<RoomId>,
        loudest: Option<NonZeroU8>,
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("the body is not JSON: {error}")))?;
    if !body.is_object() {
        return Err(Refusal::new(400, "the body must be an object with a roomId"));
    }
    let body = parse::<Body>(body)?;
    Ok((body.room_id.0, body.loudest.map(NonZeroU8::get)))
}

fn health(stats: Value, started: Instant) -> Value {
    let now = Timestamp::now();
    let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    json!({
        "status": "ok",
        "timestamp": now.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": started.elapsed().as_secs_f64(),
        "stats": stats,
    })
}

impl Rooms {
    /// Carries out a REST call.
    pub fn rest(&mut self, call: Call) -> Result<Value, Refusal> {
        match call {
            Call::Stats => Ok(self.stats()),
            Call::ListRooms => {
                let rooms = self.rooms.iter().map(|(id, room)| summary(id, room));
                Ok(json!({ "rooms": rooms.collect::<Vec<_>>() }))
            }
            Call::CreateRoom(id, loudest) => {
                self.create_room(id.clone(), loudest)?;
                self.show_room(&id)
            }
            Call::ShowRoom(id) => self.show_room(&id),
            Call::DeleteRoom(id) => self.close_room(&id).map(|()| Value::Null),
        }
    }

    /// The original had a router per room.
    fn stats(&self) -> Value {
        json!({
            "totalRooms": self.rooms.len(),
            "totalPeers": self.rooms.values().map(|room| room.peers.len()).sum::<usize>(),
            "workersCount": self.shards.len(),
            "routersCount": self.rooms.len(),
        })
    }

    fn show_room(&self, id: &RoomId) -> Result<Value, Refusal> {
        let room = self.rooms.get(id).ok_or_else(|| Refusal::no_such("room"))?;
        let peers = room.peers.values().filter_map(|session| self.peer(*session).ok());
        let mut shown = summary(id, room);
        shown["peers"] = peers.map(|peer| self.show_peer(peer)).collect();
        Ok(shown)
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
    })
}
