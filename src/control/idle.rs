//! Rooms that nobody is in: bounded in number, and closed after a time.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::control::limits::Limit;
use crate::control::rooms::Rooms;
use crate::id::RoomId;

/// Those rooms, the one that has been empty for longest first.
pub(super) type EmptyRooms = BTreeSet<(Instant, RoomId)>;

impl Rooms {
    /// Takes note of whether anybody is in a room.
    pub(super) fn note_whether_empty(&mut self, id: &RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let is_empty = room.peers.is_empty();
        if is_empty == room.empty_since.is_some() {
            return;
        }
        match room.empty_since.take() {
            Some(since) => {
                self.empty_rooms.remove(&(since, id.clone()));
            }
            None => {
                let now = Instant::now();
                room.empty_since = Some(now);
                self.empty_rooms.insert((now, id.clone()));
            }
        }
    }

    /// When the next of them is to be closed.
    pub(super) fn next_empty_room(&self) -> Option<Instant> {
        let (since, _) = self.empty_rooms.first()?;
        since.checked_add(self.limits.empty_for?)
    }

    /// Closes those that have been empty for too long.
    pub(super) fn close_empty_rooms(&mut self, now: Instant) {
        while self.next_empty_room().is_some_and(|deadline| deadline <= now) {
            let Some((_, id)) = self.empty_rooms.pop_first() else { return };
            self.limits_met.count(Limit::EmptyRoomTimeout);
            self.remove_room(&id);
        }
    }
}
