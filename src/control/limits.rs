//! Which bounds were met, and how often: one counter each, from the start of the process.
//!
//! What a bound is, and what happens when it is met, stands with the code that keeps it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bound that somebody outside can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `MAX_ROOMS`: a room was not made.
    Rooms,
    /// `MAX_EMPTY_ROOMS`: a room was not made.
    EmptyRooms,
    /// `EMPTY_ROOM_TIMEOUT`: a room without peers was closed.
    EmptyRoomTimeout,
    /// `MAX_PEERS_PER_ROOM`, or the room's own cap: a peer was not let in.
    Peers,
    /// `MAX_TRANSPORTS_PER_PEER`: a transport was not made.
    Transports,
    /// `MAX_PRODUCERS_PER_PEER`: a producer was not made.
    Producers,
    /// `MAX_CONSUMERS_PER_PEER`: a consumer was not made.
    Consumers,
    /// `MAX_APP_DATA`: a peer or a producer was refused for its `appData`.
    AppData,
    /// `MAX_CONNECTIONS`: a connection was refused.
    Connections,
    /// `MAX_CONNECTIONS_PER_ADDRESS`: a connection was refused.
    ConnectionsPerAddress,
    /// The process' limit of open descriptors: a connection was refused.
    Descriptors,
    /// `MAX_HALF_OPEN`: the oldest connection without a request was closed.
    HalfOpen,
    /// `HTTP_TIMEOUT`: a TLS handshake, a request's head or its body took too long.
    HttpTimeout,
    /// A request's head was above 16 kB or 100 fields.
    HeadSize,
    /// `MAX_MESSAGE_BYTES`: a request's body was above it.
    BodySize,
    /// `REQUESTS_PER_SECOND`: a request was refused.
    Requests,
    /// `MESSAGES_PER_SECOND`: a message was refused.
    Messages,
    /// `MAX_MESSAGE_BYTES`: a message was above it.
    MessageSize,
    /// `MAX_QUEUED_MESSAGES`: a client that does not read was closed.
    SlowReaders,
}

/// Each limit and its name in what is exported.
const NAMES: [(Limit, &str); 19] = [
    (Limit::Rooms, "rooms"),
    (Limit::EmptyRooms, "empty_rooms"),
    (Limit::EmptyRoomTimeout, "empty_room_timeout"),
    (Limit::Peers, "peers_per_room"),
    (Limit::Transports, "transports_per_peer"),
    (Limit::Producers, "producers_per_peer"),
    (Limit::Consumers, "consumers_per_peer"),
    (Limit::AppData, "app_data"),
    (Limit::Connections, "connections"),
    (Limit::ConnectionsPerAddress, "connections_per_address"),
    (Limit::Descriptors, "descriptors"),
    (Limit::HalfOpen, "half_open"),
    (Limit::HttpTimeout, "http_timeout"),
    (Limit::HeadSize, "head_size"),
    (Limit::BodySize, "body_size"),
    (Limit::Requests, "requests"),
    (Limit::Messages, "messages"),
    (Limit::MessageSize, "message_size"),
    (Limit::SlowReaders, "slow_readers"),
];

/// How often each [`Limit`] was met.
#[derive(Debug, Default)]
pub struct LimitsMet([AtomicU64; NAMES.len()]);

impl LimitsMet {
    /// Counts one more.
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this one was met.
    pub fn times(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().map(|(limit, name)| (*name, self.times(*limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_counter_of_its_own() {
        let met = LimitsMet::default();
        for (index, (limit, name)) in NAMES.into_iter().enumerate() {
            assert_eq!(limit as usize, index, "{name}");
            met.count(limit);
            assert_eq!(met.times(limit), 1);
        }
        assert!(met.all().all(|(_, times)| times == 1));
    }
}
