//! Bounds of rooms and of what is in them.

use std::time::Duration;

use clap::Args;

use super::{Unusable, number};

/// What clients may make the server keep at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Rooms at a time: REST makes them without a peer, so their number needs an end.
    pub rooms: usize,
    /// Of these, rooms without peers that REST keeps.
    pub empty_rooms: usize,
    /// How long a room without peers is kept; `None`: for ever.
    pub empty_for: Option<Duration>,
    /// Peers of one room, if it is not capped lower.
    pub peers: usize,
    /// Transports of one peer.
    pub transports: usize,
    /// Producers of one peer.
    pub producers: usize,
    /// Consumers of one peer.
    pub consumers: usize,
    /// Longest `appData`, in bytes of JSON.
    pub app_data: usize,
}

impl RoomLimits {
    /// What holds if nothing is set.
    pub const DEFAULT: Self = Self {
        rooms: 10_000,
        // So many that strangers who make rooms leave most of the places to those who join.
        empty_rooms: 1_000,
        empty_for: Some(Duration::from_secs(3600)),
        // Everybody is told of everybody.
        peers: 2_000,
        // A peer needs two, and a third while it replaces one.
        transports: 8,
        // Camera, microphone, screens.
        producers: 64,
        // A few producers of everyone in a room of hundreds, and all that one line is shared out among.
        consumers: 2_048,
        // Everyone in a room gets everyone's.
        app_data: 16 * 1024,
    };
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Seconds that a room without peers is kept, as text.
const EMPTY_FOR: &str = "3600";

// As clap reads them. (A `///` here would become the head of `--help`.)
#[derive(Args)]
pub(super) struct RoomSettings {
    /// Rooms at a time, 1 to 1000000.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.rooms.to_string())]
    max_rooms: String,
    /// Rooms without peers that REST keeps at a time, 0 to 1000000.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.empty_rooms.to_string())]
    max_empty_rooms: String,
    /// Seconds after which a room without peers is closed, 1 to 31536000; 0: never.
    #[arg(long, env, default_value = EMPTY_FOR)]
    empty_room_timeout: String,
    /// Peers of one room, 1 to 100000.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.peers.to_string())]
    max_peers_per_room: String,
    /// Transports of one peer, 2 to 64.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.transports.to_string())]
    max_transports_per_peer: String,
    /// Producers of one peer, 1 to 1024.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.producers.to_string())]
    max_producers_per_peer: String,
    /// Consumers of one peer, 1 to 2048.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.consumers.to_string())]
    max_consumers_per_peer: String,
    /// Longest appData of a peer or a producer, in bytes of JSON, 2 to 65536.
    #[arg(long, env, default_value_t = RoomLimits::DEFAULT.app_data.to_string())]
    max_app_data: String,
}

impl RoomSettings {
    pub(super) fn validate(&self) -> Result<RoomLimits, Unusable> {
        let empty_for = number("EMPTY_ROOM_TIMEOUT", &self.empty_room_timeout, 0..=31_536_000)?;
        Ok(RoomLimits {
            rooms: number("MAX_ROOMS", &self.max_rooms, 1..=1_000_000)?,
            empty_rooms: number("MAX_EMPTY_ROOMS", &self.max_empty_rooms, 0..=1_000_000)?,
            empty_for: (empty_for > 0).then_some(Duration::from_secs(empty_for)),
            peers: number("MAX_PEERS_PER_ROOM", &self.max_peers_per_room, 1..=100_000)?,
            transports: number("MAX_TRANSPORTS_PER_PEER", &self.max_transports_per_peer, 2..=64)?,
            producers: number("MAX_PRODUCERS_PER_PEER", &self.max_producers_per_peer, 1..=1024)?,
            consumers: number("MAX_CONSUMERS_PER_PEER", &self.max_consumers_per_peer, 1..=2048)?,
            app_data: number("MAX_APP_DATA", &self.max_app_data, 2..=65_536)?,
        })
    }
}
