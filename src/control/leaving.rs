//! How the server leaves: first nobody new comes, and those who are here are told; then all is closed.

use jiff::Timestamp;
use serde_json::json;
use tracing::info;

use crate::control::refusal::Refusal;
use crate::control::rooms::{Rooms, to_milliseconds};
use crate::control::session::{End, SessionId};
use crate::id::RoomId;

/// Whether the server can be used, as orchestrators ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It can.
    Ok,
    /// It lets nobody in any more.
    Draining,
    /// No shard is left to carry media.
    NoShards,
}

impl Condition {
    /// Its name in the health answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Draining => "draining",
            Self::NoShards => "noShards",
        }
    }
}

impl Rooms {
    /// Whether the server can be used.
    pub fn condition(&self) -> Condition {
        if self.draining {
            Condition::Draining
        } else if self.a_shard_lives().is_err() {
            Condition::NoShards
        } else {
            Condition::Ok
        }
    }

    /// From now on nobody joins; everyone is told that the server stops at `deadline`.
    pub fn drain(&mut self, deadline: Timestamp) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let deadline = to_milliseconds(deadline).to_string();
        info!(peers = self.peers(), %deadline, "Draining: no new peers");
        let everyone: Vec<SessionId> = self.sessions.keys().copied().collect();
        self.notify(&everyone, "draining", json!({ "deadline": deadline }));
        self.end_doomed();
    }

    /// Peers in all rooms.
    pub fn peers(&self) -> usize {
        self.rooms.values().map(|room| room.peers.len()).sum()
    }

    /// 503 while nobody may come.
    pub(super) fn lets_in(&self) -> Result<(), Refusal> {
        if self.draining { Err(Refusal::draining()) } else { Ok(()) }
    }

    /// The server stops at `deadline`: tells every client who does not know yet, closes every room, and ends
    /// every session.
    pub fn shut_down(&mut self, deadline: Timestamp) {
        self.drain(deadline);
        let rooms: Vec<RoomId> = self.rooms.keys().cloned().collect();
        for room in rooms {
            let _ = self.close_room(&room);
        }
        for session in self.sessions() {
            self.end(session, End::ShuttingDown);
        }
    }
}
