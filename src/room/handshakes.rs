//! Handshakes wait for media: their datagrams are kept and worked off one at a time.
//!
//! The public-key arithmetic of one handshake takes a few tenths of a millisecond, as long as forwarding a
//! hundred packets. So a drain only takes DTLS in; each call of [`Engine::handle_timeout`] works off one
//! datagram, and media that comes meanwhile is served before the next.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::id::TransportId;
use crate::room::inbound::reason;
use crate::room::{Drop, Engine, Outbox};

/// Datagrams that wait at most, of all transports: a flight each of 500 peers who join in the same moment; 3 MB
/// if all are as long as can be. Others are dropped; the peer sends them again.
const MAX_WAITING: usize = 2048;

/// Datagrams of one transport that wait at most: twice the largest flight.
const MAX_PER_TRANSPORT: u8 = 16;

/// Datagrams of handshakes, in order of arrival.
#[derive(Default)]
pub(super) struct Handshakes {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: TransportId,
    from: SocketAddr,
    since: Instant,
    datagram: Box<[u8]>,
}

impl Handshakes {
    /// When the next one is to be worked off: at once.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since)
    }
}

impl Engine {
    /// Keeps a DTLS datagram from a checked address.
    pub(super) fn keep_dtls(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(key) = self.directory.by_address(from) else {
            return self.counters.drop(Drop::UnknownAddress);
        };
        let path = &mut self.paths[key];
        let waiting = &mut self.handshakes.waiting;
        if waiting.len() >= MAX_WAITING || path.waiting_dtls >= MAX_PER_TRANSPORT {
            return self.counters.drop(Drop::HandshakeQueueFull);
        }
        path.waiting_dtls += 1;
        waiting.push_back(Waiting { id: path.id, from, since: now, datagram: datagram.into() });
    }

    /// Works off the datagram that has waited longest.
    pub(super) fn advance_handshakes(&mut self, now: Instant, out: &mut impl Outbox) {
        let Some(Waiting { id, from, since, datagram }) = self.handshakes.waiting.pop_front()
        else {
            return;
        };
        let Some(&key) = self.path_keys.get(&id) else { return };
        self.begin_work(key);
        let path = &mut self.paths[key];
        path.waiting_dtls -= 1;
        match path.transport.receive_dtls(now, from, &datagram) {
            Ok(()) if path.handshake_began.is_none() => {
                path.handshake_began = Some(since);
                self.counters.handshakes_begun += 1;
            }
            Ok(()) => {}
            Err(rejected) => self.counters.drop(reason(rejected)),
        }
        self.settle(now, key, out);
    }
}
