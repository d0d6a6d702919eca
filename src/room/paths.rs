//! The shard's transports, and how a datagram finds its own: by ufrag first, then by address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::id::{ExtensionMap, Ssrc, TransportId};
use crate::media::arrivals::Arrivals;
use crate::media::bandwidth::ReceiveBound;
use crate::media::budget::Budget;
use crate::room::figures::PathMeters;
use crate::room::line::Line;
use crate::room::pacer::Pacer;
use crate::room::producer::{Route, Stream};
use crate::transport::Transport;
use crate::wire::seq::SeqNo;

/// SSRCs that were given up for others, whose last packets may still come: more changes within a round trip
/// than any browser makes.
const MAX_RETIRED: usize = 16;

/// What a receiver's streams are taken for, in bit/s, before they have been measured.
const INITIAL_BITRATE: u64 = 1_000_000;

/// A smoothed round-trip time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// Longest round trip that is believed.
    const MAX: Duration = Duration::from_secs(2);
    /// What it is taken for before it has been measured.
    const UNKNOWN: Duration = Duration::from_millis(100);

    /// One measurement; weighs an eighth (RFC 6298 §2).
    pub(super) fn sample(&mut self, sample: Duration) {
        if sample <= Self::MAX {
            let smoothed = self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8);
            self.smoothed = Some(smoothed);
        }
    }

    /// The round-trip time, once measured.
    pub(super) fn measured(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The round-trip time, or what it is taken for.
    pub(super) fn or_guess(&self) -> Duration {
        self.smoothed.unwrap_or(Self::UNKNOWN)
    }
}

/// A transport and what the room knows of it.
pub(super) struct Path {
    pub(super) id: TransportId,
    pub(super) transport: Transport,
    /// Element ids in what the peer sends: the union of its producers' (one bundle, one meaning).
    pub(super) extensions: ExtensionMap,
    /// Incoming SSRCs.
    pub(super) routes: FxHashMap<Ssrc, Route>,
    /// SSRCs that others have taken the place of, newest last.
    retired: VecDeque<Ssrc>,
    /// Keys of the producers that arrive here.
    pub(super) producers: Vec<usize>,
    /// Keys of the consumers that leave here, by SSRC.
    pub(super) consumers: FxHashMap<Ssrc, usize>,
    /// Made when the first packet with a transport-wide number comes in.
    pub(super) arrivals: Option<Arrivals>,
    /// What the peer may send, if it understands REMB only.
    pub(super) bound: Option<ReceiveBound>,
    /// DTLS datagrams that wait to be worked off.
    pub(super) waiting_dtls: u8,
    /// Counts our transport-wide feedback.
    pub(super) feedback_count: u8,
    /// How long a packet and its answer take.
    pub(super) rtt: RoundTrip,
    /// What may be sent again, whoever asks for it how often.
    pub(super) resends: Budget,
    /// Bytes from histories that are yet to be sent to its consumers.
    pub(super) replaying: usize,
    /// What its line carries, once it is sent video.
    pub(super) line: Option<Box<Line>>,
    /// What waits for its turn beside live media.
    pub(super) pacer: Pacer,
    /// Media bytes sent since they were looked at last.
    pub(super) sent_bytes: usize,
    /// Reports in a row without anything new about its streams.
    pub(super) steady_reports: u8,
    /// A request for a lost packet whose answer will tell the round trip: its producer, encoding, number,
    /// and when it was sent.
    pub(super) asked: Option<(usize, u8, SeqNo, Instant)>,
    /// When the first datagram of DTLS came.
    pub(super) handshake_began: Option<Instant>,
    /// Its traffic, for statistics.
    pub(super) meters: PathMeters,
    /// Our own SSRC in receiver reports and feedback.
    pub(super) own_ssrc: Ssrc,
    created: Instant,
    /// When `sent_bytes` was emptied.
    measured_at: Option<Instant>,
    transport_wide_sequence: u16,
    /// Under what the directory lists this path, and as of which of the transport's generations.
    ufrags: Vec<Box<[u8]>>,
    addresses: Vec<SocketAddr>,
    listed: Option<u32>,
}

// There is one per transport, connected or not.
const _: () = assert!(size_of::<Path>() <= 1664);

/// What is sent is measured over at least this long.
const MEASURE_MILLIS: u128 = 500;

impl Path {
    pub(super) fn new(id: TransportId, transport: Transport, now: Instant) -> Self {
        Self {
            id,
            transport,
            extensions: ExtensionMap::default(),
            routes: FxHashMap::default(),
            retired: VecDeque::new(),
            producers: Vec::new(),
            consumers: FxHashMap::default(),
            arrivals: None,
            bound: None,
            waiting_dtls: 0,
            feedback_count: 0,
            rtt: RoundTrip::default(),
            resends: Budget::for_resends(INITIAL_BITRATE),
            replaying: 0,
            line: None,
            pacer: Pacer::default(),
            sent_bytes: 0,
            steady_reports: 0,
            asked: None,
            handshake_began: None,
            meters: PathMeters::default(),
            // Random enough, since the id is; never 0, which some receivers treat as unset.
            own_ssrc: Ssrc(id.0.as_u128() as u32 | 1),
            created: now,
            measured_at: None,
            transport_wide_sequence: 0,
            ufrags: Vec::new(),
            addresses: Vec::new(),
            listed: None,
        }
    }

    /// A stream comes from `ssrc` from now on. What led there before leads nowhere any more, and neither do the
    /// retransmissions of media that came from elsewhere: their numbers mean other packets.
    pub(super) fn set_route(&mut self, ssrc: Ssrc, route: Route) {
        let Self { routes, retired, .. } = self;
        let ends_all = route.stream == Stream::Media && routes.values().any(|old| *old == route);
        routes.retain(|ssrc, old| {
            let is_encodings = (old.producer, old.encoding) == (route.producer, route.encoding);
            let ends = *old == route || ends_all && is_encodings;
            if ends {
                retired.push_back(*ssrc);
            }
            !ends
        });
        let excess = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..excess);
        self.routes.insert(ssrc, route);
    }

    /// Whether another SSRC has taken the place of this one, whose late packets must not take it back.
    pub(super) fn is_retired(&self, ssrc: Ssrc) -> bool {
        self.retired.contains(&ssrc)
    }

    /// Time since the transport was made.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    /// Whether anything is sent or received on it, or may be.
    pub(super) fn has_media(&self) -> bool {
        !(self.producers.is_empty() && self.consumers.is_empty())
    }

    /// What is sent is measured from now on.
    pub(super) fn measure_sent_bytes(&mut self, now: Instant) {
        (self.measured_at, self.sent_bytes) = (Some(now), 0);
    }

    /// Lets the budget for retransmissions follow what was sent since it did so last, if that is long enough ago.
    pub(super) fn follow_sent_bytes(&mut self, now: Instant) {
        let since = self.measured_at.unwrap_or(self.created);
        let millis = now.saturating_duration_since(since).as_millis();
        if millis < MEASURE_MILLIS {
            return;
        }
        self.measured_at = Some(now);
        let bits = std::mem::take(&mut self.sent_bytes) as u128 * 8;
        self.resends.follow((bits * 1000 / millis) as u64, now);
    }

    /// The number of the next outgoing packet, over all of the transport's streams.
    pub(super) fn next_transport_wide_sequence(&mut self) -> u16 {
        self.transport_wide_sequence = self.transport_wide_sequence.wrapping_add(1);
        self.transport_wide_sequence
    }
}

/// Which path answers to which ufrag and address.
#[derive(Default)]
pub(super) struct Directory {
    ufrags: FxHashMap<Box<[u8]>, usize>,
    addresses: FxHashMap<SocketAddr, usize>,
}

impl Directory {
    /// How many ufrags and addresses are known.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.ufrags.len(), self.addresses.len())
    }

    /// The path that a STUN check names.
    pub(super) fn by_ufrag(&self, ufrag: &[u8]) -> Option<usize> {
        self.ufrags.get(ufrag).copied()
    }

    /// The path that has `address` among its checked ones.
    pub(super) fn by_address(&self, address: SocketAddr) -> Option<usize> {
        self.addresses.get(&address).copied()
    }

    /// Follows the transport's ufrags and checked addresses, where they have changed.
    pub(super) fn follow(&mut self, key: usize, path: &mut Path) {
        let generation = path.transport.routes_generation();
        if path.listed.replace(generation) == Some(generation) {
            return;
        }
        self.remove(key, path);
        path.ufrags = path.transport.ufrags().map(|ufrag| ufrag.as_bytes().into()).collect();
        path.addresses = path.transport.remotes().collect();
        for ufrag in &path.ufrags {
            self.ufrags.insert(ufrag.clone(), key);
        }
        for address in &path.addresses {
            self.addresses.insert(*address, key);
        }
    }

    /// `path` has passed a check from `address`. If another path had that address it is this path's now: the
    /// latest authenticated check counts, so a peer that claims another's address loses it again soon.
    pub(super) fn checked(&mut self, key: usize, path: &mut Path, address: SocketAddr) {
        if self.by_address(address) != Some(key) {
            path.listed = None;
        }
        self.follow(key, path);
    }

    /// Forgets the paths of which `is_there` says that they are not there.
    pub(super) fn retain(&mut self, is_there: impl Fn(usize) -> bool) {
        self.ufrags.retain(|_, key| is_there(*key));
        self.addresses.retain(|_, key| is_there(*key));
    }

    /// Forgets a path.
    pub(super) fn remove(&mut self, key: usize, path: &Path) {
        for ufrag in &path.ufrags {
            self.ufrags.remove(ufrag);
        }
        for address in &path.addresses {
            if self.addresses.get(address) == Some(&key) {
                self.addresses.remove(address);
            }
        }
    }
}
