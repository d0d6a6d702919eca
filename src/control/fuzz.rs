//! The body of signaling's fuzz target: clients of two rooms, and what they write, line by line.

use std::collections::BTreeMap;
use std::sync::mpsc;

use serde_json::Value;

use super::identity::Identity;
use super::protoo::{self, Frame};
use super::requests::DtlsFingerprint;
use super::rooms::{Announced, Rooms};
use super::session::{self, Caller, End, Line, Outgoing, SessionId};
use crate::config::RoomLimits;
use crate::shard::mailbox::{Command, Mailbox, ShardId, dtls};

const SHARDS: u16 = 2;
const CLIENTS: usize = 4;
/// Lines of one run that are read.
const MAX_LINES: usize = 200;
/// So low that runs reach them.
const LIMITS: RoomLimits =
    RoomLimits { transports: 4, producers: 4, consumers: 4, ..RoomLimits::DEFAULT };
/// Messages that may wait for a client, who takes them after each request.
const QUEUE: usize = 1024;

/// Control without a network, and shards that only take note.
struct World {
    rooms: Rooms,
    shards: Vec<mpsc::Receiver<Command>>,
    clients: Vec<Client>,
    /// What was made, in this order: a line names it by `$T`, `$P` or `$C` and a digit.
    made: BTreeMap<char, Vec<String>>,
}

struct Client {
    id: SessionId,
    line: Line,
    /// Requests whose answer may come later.
    pending: usize,
}

/// Takes each line of `data` as a client's name (its first byte) and what it writes.
///
/// # Panics
/// When a request gets no answer or two, when an answer is no protoo, or when a bound is exceeded.
pub fn signaling(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut world = World::new();
    for line in text.lines().take(MAX_LINES) {
        let mut letters = line.chars();
        let Some(first) = letters.next() else { continue };
        world.hear(first as usize % CLIENTS, letters.as_str());
    }
}

impl World {
    fn new() -> Self {
        let (mailboxes, shards) = (0..SHARDS).map(mailbox).unzip();
        let fingerprint = "00:".repeat(31) + "00";
        let fingerprint = DtlsFingerprint { algorithm: "sha-256".to_owned(), value: fingerprint };
        let announced = Announced { address: "192.0.2.7".to_owned(), fingerprint };
        let mut rooms = Rooms::new(Identity::default(), LIMITS, announced, mailboxes);
        let clients = (0..CLIENTS).map(|index| connect(&mut rooms, index)).collect();
        Self { rooms, shards, clients, made: BTreeMap::new() }
    }

    fn hear(&mut self, client: usize, text: &str) {
        let text = self.fill_in(text);
        let _ = protoo::first_id(&text);
        let Frame::Request { tag, method, data } = protoo::parse(&text) else { return };
        let joined_before = self.room_of(client);
        let producer = data.get("producerId").and_then(Value::as_str).map(str::to_owned);
        let owner = producer.as_deref().and_then(|id| self.room_of_producer(id));
        self.clients[client].pending += 1;
        self.rooms.request(self.clients[client].id, tag, &method, data);
        for index in 0..CLIENTS {
            let answers = self.listen(index);
            assert!(index == client || answers.is_empty(), "another client's answer");
            for (own, result) in answers {
                assert_eq!(own, tag);
                self.note(&method, &result);
                if method == "consume" && result.is_some() {
                    assert!(owner.is_some() && owner == joined_before, "media of another room");
                }
            }
        }
        self.check_bounds();
    }

    /// What a client was sent: the data of its answers, `None` for a refusal.
    fn listen(&mut self, index: usize) -> Vec<(u64, Option<Value>)> {
        let client = &mut self.clients[index];
        let mut answers = Vec::new();
        while let Ok(outgoing) = client.line.outgoing.try_recv() {
            if let Outgoing::Response { tag, result } = &*outgoing {
                assert!(client.pending > 0, "answered twice");
                client.pending -= 1;
                if let Err(refusal) = result {
                    assert!((400..600).contains(&refusal.status) && !refusal.reason.is_empty());
                    assert_ne!(refusal.code(), "INTERNAL_ERROR", "{refusal}");
                }
                answers.push((*tag, result.as_ref().ok().cloned()));
            }
            let frame = protoo::frame(*outgoing);
            assert!(
                serde_json::from_str::<Value>(&frame.to_string()).is_ok_and(|same| same == frame)
            );
        }
        // Statistics wait for their shard, which does not answer here.
        assert!(client.pending <= MAX_LINES);
        if client.line.end.try_recv().is_ok_and(|end| end == End::Replaced) {
            self.clients[index] = connect(&mut self.rooms, index);
        }
        answers
    }

    fn note(&mut self, method: &str, result: &Option<Value>) {
        let kind = match method {
            "createWebRtcTransport" => 'T',
            "produce" => 'P',
            "consume" => 'C',
            _ => return,
        };
        if let Some(id) = result.as_ref().and_then(|data| data["id"].as_str()) {
            self.made.entry(kind).or_default().push(id.to_owned());
        }
    }

    /// Puts ids where `$T0` and the like stand.
    fn fill_in(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (kind, ids) in &self.made {
            for (index, id) in ids.iter().take(10).enumerate() {
                filled = filled.replace(&format!("${kind}{index}"), id);
            }
        }
        filled
    }

    fn room_of(&self, client: usize) -> Option<String> {
        let peer = self.rooms.peer(self.clients[client].id).ok()?;
        Some(peer.room.as_str().to_owned())
    }

    fn room_of_producer(&self, id: &str) -> Option<String> {
        let id = id.parse().ok()?;
        let owns = |client: &&Client| {
            self.rooms.peer(client.id).is_ok_and(|peer| peer.producers.contains(&id))
        };
        let owner = self.clients.iter().find(owns)?;
        Some(self.rooms.peer(owner.id).ok()?.room.as_str().to_owned())
    }

    fn check_bounds(&mut self) {
        for client in &self.clients {
            let Ok(peer) = self.rooms.peer(client.id) else { continue };
            assert!(peer.transports.len() <= LIMITS.transports);
            assert!(peer.producers.len() <= LIMITS.producers);
            assert!(peer.consumers.len() <= LIMITS.consumers);
        }
        // Nothing is left of those who left.
        let peers = self.clients.iter().filter_map(|client| self.rooms.peer(client.id).ok());
        let (mut transports, mut producers, mut consumers) = (0, 0, 0);
        for peer in peers {
            transports += peer.transports.len();
            producers += peer.producers.len();
            consumers += peer.consumers.len();
        }
        assert_eq!(self.rooms.transports.len(), transports);
        assert_eq!(self.rooms.producers.len(), producers);
        assert_eq!(self.rooms.consumers.len(), consumers);
        for shard in &self.shards {
            for command in shard.try_iter() {
                if let Command::ConnectTransport { peer: dtls::Peer { fingerprints, .. }, .. } =
                    command
                {
                    assert!(!fingerprints.is_empty(), "nobody can be anybody");
                }
            }
        }
    }
}

fn connect(rooms: &mut Rooms, index: usize) -> Client {
    let (id, (link, line)) = (SessionId(index as u64), session::pair(QUEUE));
    rooms.open(id, link, Caller::default());
    Client { id, line, pending: 0 }
}

fn mailbox(shard: u16) -> (Mailbox, mpsc::Receiver<Command>) {
    let (commands, asked) = mpsc::channel();
    let mailbox = Mailbox::new(ShardId(shard), None, 10_000 + shard, commands, Box::new(|| ()));
    (mailbox, asked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::control::requests::Request;
    use crate::wire::fuzz::seeds;

    #[test]
    fn the_seeds_break_nothing() {
        seeds::of("signaling").iter().for_each(|seed| signaling(seed));
    }

    /// Every length and a flipped bit of every byte of every request.
    #[test]
    fn damaged_requests_are_refused_with_a_reason() {
        let read = |line: &[u8]| {
            let Some(text) = line.get(1..).and_then(|text| std::str::from_utf8(text).ok()) else {
                return;
            };
            let _ = protoo::first_id(text);
            let Frame::Request { method, data, .. } = protoo::parse(text) else { return };
            if let Err(refusal) = Request::parse(&method, data) {
                assert!(matches!(refusal.status, 400 | 404) && !refusal.reason.is_empty());
            }
        };
        let seeds = seeds::of("signaling");
        let lines: BTreeSet<_> =
            seeds.iter().flat_map(|seed| seed.split(|b| *b == b'\n')).collect();
        // Those above hold capabilities, which have tests of their own.
        let short = lines.iter().filter(|line| line.len() <= 2000);
        short.for_each(|line| seeds::damage(line, 1, read));
    }
}
