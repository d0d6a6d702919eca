//! Who speaks, and how loud everyone is.
//!
//! A room's home shard decides both over all of the room's producers; here producers become peers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::control::refusal::Refusal;
use crate::control::requests::SubscribeAudioLevels;
use crate::control::rooms::Rooms;
use crate::control::session::SessionId;
use crate::id::{PeerId, ProducerId, RoomId, RoomKey};
use crate::shard::mailbox::Command;

/// Shortest time between two lists of levels: a meter need not move faster, and a list goes to
/// each subscriber.
pub const MIN_LEVELS_INTERVAL: Duration = Duration::from_millis(100);
/// Longest, as in mediasoup.
pub const MAX_LEVELS_INTERVAL: Duration = Duration::from_millis(5000);

/// Who of a room wants audio levels.
#[derive(Default)]
pub(super) struct Listeners {
    by_session: BTreeMap<SessionId, Listener>,
    /// What the room's home shard was asked for.
    asked: Option<Duration>,
}

struct Listener {
    interval: Duration,
    /// Since its last list, in steps of what the shard was asked for.
    waited: Duration,
}

impl Listeners {
    fn shortest(&self) -> Option<Duration> {
        self.by_session.values().map(|listener| listener.interval).min()
    }

    /// A list has come: those whose turn it is.
    fn due(&mut self) -> Vec<SessionId> {
        let Some(step) = self.asked else { return Vec::new() };
        let mut due = Vec::new();
        for (session, listener) in &mut self.by_session {
            listener.waited += step;
            if listener.waited >= listener.interval {
                listener.waited -= listener.interval;
                due.push(*session);
            }
        }
        due
    }
}

impl Rooms {
    /// `subscribeAudioLevels`
    pub(super) fn subscribe_levels(
        &mut self,
        session: SessionId,
        call: &SubscribeAudioLevels,
    ) -> Result<(), Refusal> {
        let peer = self.peer(session)?;
        peer.grants.subscribe()?;
        let id = peer.room.clone();
        let Some(room) = self.rooms.get_mut(&id) else { return Ok(()) };
        match call.interval {
            None | Some(0) => {
                room.listeners.by_session.remove(&session);
            }
            Some(milliseconds) => {
                let interval = Duration::from_millis(milliseconds)
                    .clamp(MIN_LEVELS_INTERVAL, MAX_LEVELS_INTERVAL);
                let listener = Listener { interval, waited: Duration::ZERO };
                room.listeners.by_session.insert(session, listener);
            }
        }
        self.ask_for_levels(&id);
        Ok(())
    }

    /// Who speaks has changed, says the room's home shard.
    pub(super) fn speaker_changed(&mut self, key: RoomKey, producer: Option<ProducerId>) {
        let Some(room) = self.room_keys.get(&key).cloned() else { return };
        let speaker = producer.and_then(|id| self.sender_in(&room, id));
        self.set_speaker(&room, speaker);
    }

    /// Tells a peer that has just joined who speaks.
    pub(super) fn greet_with_speaker(&mut self, session: SessionId) {
        let Ok(peer) = self.peer(session) else { return };
        let speaker = self.rooms.get(&peer.room).and_then(|room| room.speaker.clone());
        if let Some(speaker) = speaker {
            self.notify(&[session], CHANGED, json!({ "activeSpeakerId": speaker }));
        }
    }

    /// A peer is gone from its room: it neither speaks nor listens any more.
    pub(super) fn forget_voice(&mut self, room: &RoomId, peer: &PeerId, session: SessionId) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        let spoke = entry.speaker.as_ref() == Some(peer);
        if entry.listeners.by_session.remove(&session).is_some() {
            self.ask_for_levels(room);
        }
        if spoke {
            self.set_speaker(room, None);
        }
    }

    /// The room closes: nobody listens any more.
    pub(super) fn forget_listeners(&mut self, room: &RoomId) {
        if let Some(entry) = self.rooms.get_mut(room) {
            entry.listeners.by_session.clear();
            self.ask_for_levels(room);
        }
    }

    /// How loud a room's producers are.
    pub(super) fn levels(&mut self, key: RoomKey, levels: &[(ProducerId, i8)]) {
        let Some(id) = self.room_keys.get(&key).cloned() else { return };
        let mut loudest: BTreeMap<PeerId, i8> = BTreeMap::new();
        for (producer, level) in levels {
            let Some(peer) = self.sender_in(&id, *producer) else { continue };
            let known = loudest.entry(peer).or_insert(*level);
            *known = (*known).max(*level);
        }
        let mut list: Vec<(PeerId, i8)> = loudest.into_iter().collect();
        list.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let due = room.listeners.due();
        let show = |(peer, level): &(PeerId, i8)| json!({ "peerId": peer, "level": level });
        let levels: Vec<_> = list.iter().map(show).collect();
        self.notify(&due, "audioLevels", json!({ "levels": levels }));
    }

    /// Asks the home shard for levels as often as the most eager listener wants them.
    fn ask_for_levels(&mut self, id: &RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let interval = room.listeners.shortest();
        let Some(home) = room.home.filter(|_| room.listeners.asked != interval) else { return };
        room.listeners.asked = interval;
        let command = Command::SubscribeLevels { room: room.key, interval };
        self.tell(home, command);
    }

    /// The home shard has forgotten what it was asked.
    pub(super) fn ask_for_levels_anew(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.listeners.asked = None;
            self.ask_for_levels(id);
        }
    }

    /// Tells everyone in the room who speaks, if that has changed.
    pub(super) fn set_speaker(&mut self, id: &RoomId, speaker: Option<PeerId>) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.speaker == speaker {
            return;
        }
        room.speaker = speaker;
        let news = json!({ "activeSpeakerId": room.speaker });
        let everyone: Vec<SessionId> = room.peers.values().copied().collect();
        self.notify(&everyone, CHANGED, news);
    }

    /// The peer of a room that sends a producer; `None` if it is gone or of another room.
    fn sender_in(&self, room: &RoomId, producer: ProducerId) -> Option<PeerId> {
        let owner = self.producers.get(&producer)?.owner;
        let peer = self.peer(owner).ok()?;
        (peer.room == *room).then(|| peer.id.clone())
    }
}

const CHANGED: &str = "activeSpeakerChanged";

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(intervals: &[u64]) -> Listeners {
        let mut listeners = Listeners::default();
        for (id, interval) in intervals.iter().enumerate() {
            let interval = Duration::from_millis(*interval);
            let listener = Listener { interval, waited: Duration::ZERO };
            listeners.by_session.insert(SessionId(id as u64), listener);
        }
        listeners.asked = listeners.shortest();
        listeners
    }

    #[test]
    fn each_listener_gets_its_own_pace_from_the_fastest() {
        let mut listeners = listeners(&[100, 250]);
        let lists: Vec<usize> = (0..10).map(|_| listeners.due().len()).collect();
        assert_eq!(lists, [1, 1, 2, 1, 2, 1, 1, 2, 1, 2]);
    }

    #[test]
    fn nobody_is_due_without_listeners() {
        assert!(listeners(&[]).due().is_empty());
    }
}
