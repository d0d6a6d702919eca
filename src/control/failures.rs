//! What follows when a shard fails: its peers lose their paths, and find new ones on another shard.

use tracing::warn;

use crate::control::placement::least_loaded;
use crate::control::refusal::Refusal;
use crate::control::rooms::Rooms;
use crate::control::session::SessionId;
use crate::id::{RoomId, ShardId, TransportId};

/// Why a transport closed, as clients are told.
const SHARD_FAILED: &str = "shardFailed";

impl Rooms {
    /// A shard is gone. Its peers are told that their transports are closed, shards that lend to it stop,
    /// and its peers and rooms move to others, where their next transports are made.
    pub fn shard_failed(&mut self, shard: ShardId) {
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
        if self.a_shard_lives().is_err() {
            return;
        }
        for session in self.peers_on(shard) {
            let to = least_loaded(&self.loads);
            self.load(shard).peers -= 1;
            self.load(to).peers += 1;
            if let Some(peer) = self.peer_mut(session) {
                peer.shard = to;
            }
        }
        let home = least_loaded(&self.loads);
        let homeless = self.rooms.iter().filter(|(_, room)| room.home == Some(shard));
        let homeless: Vec<RoomId> = homeless.map(|(id, _)| id.clone()).collect();
        for room in homeless {
            self.set_home(&room, home);
        }
    }

    /// 503 if no shard is left.
    pub(super) fn a_shard_lives(&self) -> Result<(), Refusal> {
        let lives = self.loads.iter().any(|load| !load.failed);
        lives.then_some(()).ok_or_else(|| Refusal::new(503, "no media can be served any more"))
    }

    fn peers_on(&self, shard: ShardId) -> Vec<SessionId> {
        let on_it = |session: &SessionId| self.peer(*session).is_ok_and(|it| it.shard == shard);
        self.sessions.keys().copied().filter(on_it).collect()
    }
}
