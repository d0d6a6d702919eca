//! What administrators do, over REST and over signaling: mute, remove, close, and cap a room.

use std::num::NonZeroU32;

use serde_json::json;
use tracing::info;

use crate::control::refusal::Refusal;
use crate::control::requests::Named;
use crate::control::rooms::Rooms;
use crate::control::session::{End, SessionId};
use crate::id::{PeerId, ProducerId, RoomId};

impl Rooms {
    /// The room of a session that may manage it.
    pub(super) fn administered(&self, session: SessionId) -> Result<RoomId, Refusal> {
        let peer = self.peer(session)?;
        peer.grants.administer(&peer.room)?;
        Ok(peer.room.clone())
    }

    /// Mutes a producer of this room, or lifts that. Its peer cannot: until then, it stays paused, and what
    /// its peer begins to send of the same source begins muted. Everyone in the room is told.
    pub(super) fn mute(
        &mut self,
        room: &RoomId,
        id: Named<ProducerId>,
        muted: bool,
    ) -> Result<(), Refusal> {
        let in_room = |owner| self.peer(owner).is_ok_and(|peer| peer.room == *room);
        let owner = |id: &ProducerId| self.producers.get(id).map(|it| it.owner);
        let id = id.0.filter(|id| owner(id).is_some_and(in_room));
        let id = id.ok_or_else(|| Refusal::no_such("producer"))?;
        let Some(producer) = self.producers.get_mut(&id) else { return Ok(()) };
        if producer.muted == muted {
            return Ok(());
        }
        producer.muted = muted;
        let (source, owner) = (producer.source, producer.owner);
        if let Some(peer) = self.peer_mut(owner) {
            match muted {
                true => peer.muted.insert(source),
                false => peer.muted.remove(source),
            }
            info!(room = %room, peer = %peer.id, producer = %id, muted, "Producer muted or unmuted");
        }
        self.tell_of_mute(id);
        self.apply_pause(id);
        Ok(())
    }

    /// Tells a producer's room, its owner included, whether it is muted and whether it is paused.
    pub(super) fn tell_of_mute(&mut self, id: ProducerId) {
        let Some(producer) = self.producers.get(&id) else { return };
        let Ok(peer) = self.peer(producer.owner) else { return };
        let mut data = json!({ "producerId": id, "peerId": peer.id });
        if producer.muted {
            data["muted"] = true.into();
        }
        let method = if producer.is_paused() { "producerPaused" } else { "producerResumed" };
        let everyone = self.sessions_of(&peer.room);
        self.notify(&everyone, method, data);
    }

    /// A peer by its name; 404 if it is not in the room.
    pub(super) fn session_of(&self, room: &RoomId, peer: &PeerId) -> Result<SessionId, Refusal> {
        let found = self.rooms.get(room).and_then(|room| room.peers.get(peer));
        found.copied().ok_or_else(|| Refusal::no_such("peer"))
    }

    /// Takes a peer out of a room and ends its connection.
    pub(super) fn remove_peer(&mut self, room: &RoomId, peer: &PeerId) -> Result<(), Refusal> {
        let session = self.session_of(room, peer)?;
        info!(room = %room, peer = %peer, "Peer removed by an administrator");
        // The others are told by its leaving.
        self.notify(&[session], "peerLeft", json!({ "peerId": peer, "reason": "removed" }));
        self.end(session, End::Removed);
        self.end_doomed();
        Ok(())
    }

    /// At most so many peers may be in a room; who is there stays. `None`: as many as in any room.
    pub(super) fn cap_peers(
        &mut self,
        id: &RoomId,
        most: Option<NonZeroU32>,
    ) -> Result<(), Refusal> {
        let room = self.rooms.get_mut(id).ok_or_else(|| Refusal::no_such("room"))?;
        room.max_peers = most;
        info!(room = %id, most, "Room capped");
        Ok(())
    }
}
