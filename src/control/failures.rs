//! What follows when a shard fails: its peers lose their paths, and find new ones on another shard, or on
//! the same one when it works again.

use tracing::warn;

use crate::control::placement::least_loaded;
use crate::control::refusal::Refusal;
use crate::control::rooms::Rooms;
use crate::control::session::SessionId;
use crate::id::{ProducerId, RoomId, ShardId, TransportId};
use crate::shard::mailbox::{CloseReason, Command, Mailbox};

/// Why a transport closed, as clients are told.
const SHARD_FAILED: &str = "shardFailed";

/// What happened to shards so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardFaults {
    /// Shards that failed or were given up.
    pub failed: u64,
    /// Shards that work again.
    pub restarted: u64,
    /// Times that a shard stood still.
    pub stuck: u64,
}

impl Rooms {
    /// A shard is gone. Its peers are told that their transports are closed, shards that lend to it stop,
    /// and its peers move to others, where their next transports are made. Rooms keep it as their home, for
    /// producers elsewhere go on telling it how loud they are.
    pub fn shard_failed(&mut self, shard: ShardId) {
        self.faults.failed += 1;
        self.load(shard).failed = true;
        self.scraped_shard_failed(shard);
        let lost: Vec<TransportId> = self
            .transports
            .iter()
            .filter_map(|(id, transport)| (transport.shard == shard).then_some(*id))
            .collect();
        warn!(shard = shard.0, transports = lost.len(), "Shard failed: its peers move");
        for transport in lost {
            self.close_transport(transport, SHARD_FAILED);
        }
        for room in self.at_home_on(shard) {
            self.set_speaker(&room, None);
        }
        self.leave_failed_shards();
        self.end_doomed();
    }

    /// A shard works again, empty, behind a new mailbox.
    pub fn shard_restarted(&mut self, mailbox: Mailbox) {
        let shard = mailbox.shard;
        self.faults.restarted += 1;
        self.shards[usize::from(shard.0)] = mailbox;
        (self.load(shard).failed, self.load(shard).stuck) = (false, false);
        for room in self.at_home_on(shard) {
            self.set_home(&room, shard);
            self.ask_for_levels_anew(&room);
        }
        // Of another one that failed, its peers had nowhere to go until now.
        self.leave_failed_shards();
    }

    /// What a producer sends cannot be handled on another shard than its own: its transport closes.
    pub(super) fn producer_failed(&mut self, id: ProducerId) {
        let Some(producer) = self.producers.get(&id) else { return };
        let (transport, home) = (producer.spec.transport, producer.shard);
        self.tell(home, Command::RemoveTransport(transport));
        self.close_transport(transport, CloseReason::Fault.name());
    }

    /// A shard stands still. It may go on: nothing is lost yet, but nobody new should wait for it.
    pub fn shard_stuck(&mut self, shard: ShardId) {
        self.faults.stuck += 1;
        self.load(shard).stuck = true;
    }

    /// A shard that stood still goes on.
    pub fn shard_turns_again(&mut self, shard: ShardId) {
        self.load(shard).stuck = false;
    }

    /// 503 if no shard is left.
    pub(super) fn a_shard_lives(&self) -> Result<(), Refusal> {
        let lives = self.loads.iter().any(|load| !load.failed);
        lives.then_some(()).ok_or_else(|| Refusal::new(503, "no media can be served at the moment"))
    }

    /// Peers of failed shards make their next transports on others, if there are any.
    fn leave_failed_shards(&mut self) {
        if self.a_shard_lives().is_err() {
            return;
        }
        let failed = (0..).map(ShardId).zip(&self.loads).filter(|(_, load)| load.failed);
        let failed: Vec<ShardId> = failed.map(|(shard, _)| shard).collect();
        for shard in failed {
            for session in self.peers_on(shard) {
                self.move_peer(session, shard);
            }
        }
    }

    /// The peer makes its next transports on the shard that carries least.
    fn move_peer(&mut self, session: SessionId, from: ShardId) {
        let to = least_loaded(&self.loads);
        self.load(from).peers -= 1;
        self.load(to).peers += 1;
        if let Some(peer) = self.peer_mut(session) {
            peer.shard = to;
        }
    }

    fn at_home_on(&self, shard: ShardId) -> Vec<RoomId> {
        let rooms = self.rooms.iter().filter(|(_, room)| room.home == Some(shard));
        rooms.map(|(id, _)| id.clone()).collect()
    }

    fn peers_on(&self, shard: ShardId) -> Vec<SessionId> {
        let on_it = |session: &SessionId| self.peer(*session).is_ok_and(|it| it.shard == shard);
        self.sessions.keys().copied().filter(on_it).collect()
    }
}
