//! Two transports and a network between them, under a virtual clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::transport::{Event, Transport, dtls, ice};
use crate::wire::MAX_DATAGRAM;
use crate::wire::stun::{TransactionId, write};

/// One way through the network takes this long at least.
const DELAY: Duration = Duration::from_millis(10);

/// A transport, where it sits, and what it told.
pub struct Side {
    pub transport: Transport,
    pub addr: SocketAddr,
    pub credentials: ice::Credentials,
    pub events: Vec<Event>,
}

/// A passive side (the server's) and an active one.
pub struct Pair {
    pub now: Instant,
    pub passive: Side,
    pub active: Side,
    /// Part of the datagrams that get lost.
    pub loss: f64,
    network: StdRng,
    /// Arrival time, whether for the passive side, and the bytes.
    flying: VecDeque<(Instant, bool, Vec<u8>)>,
}

/// Two certificates for all tests: making one takes a while.
pub fn identities() -> &'static [Arc<dtls::Identity>; 2] {
    static IDENTITIES: OnceLock<[Arc<dtls::Identity>; 2]> = OnceLock::new();
    IDENTITIES.get_or_init(|| [(); 2].map(|()| Arc::new(dtls::Identity::generate().unwrap())))
}

impl Side {
    fn new(port: u16, identity: &Arc<dtls::Identity>) -> Self {
        let credentials = ice::Credentials::random();
        Self {
            transport: Transport::new(credentials.clone(), identity.clone()),
            addr: SocketAddr::from(([192, 0, 2, 1], port)),
            credentials,
            events: Vec::new(),
        }
    }

    /// A check from `from` to this side.
    pub fn check(&mut self, now: Instant, from: SocketAddr, nominate: bool) {
        let mut answer = [0; MAX_DATAGRAM];
        let check = check(&self.credentials, nominate);
        let len = self.transport.receive_stun(now, from, &check, &mut answer).unwrap();
        assert_ne!(len, 0);
    }

    pub fn collect_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.transport.poll_event()));
    }

    /// Everything that it wants to send.
    pub fn outgoing(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; MAX_DATAGRAM];
        std::iter::from_fn(|| {
            self.transport.poll_transmit(&mut buffer).map(|len| buffer[..len].to_vec())
        })
        .collect()
    }
}

/// A check as a controlling peer sends it.
pub fn check(to: &ice::Credentials, nominate: bool) -> Vec<u8> {
    let username = format!("{}:peer", to.ufrag);
    let request = write::BindingRequest {
        transaction_id: TransactionId([7; 12]),
        username: username.as_bytes(),
        priority: 1,
        role: write::Role::Controlling(1),
        use_candidate: nominate,
    };
    let mut buffer = [0; 256];
    let len = write::request(&mut buffer, &request, to.password.as_bytes()).unwrap();
    buffer[..len].to_vec()
}

impl Pair {
    /// Two sides that know nothing of each other.
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        let [server, client] = identities();
        Self {
            now,
            passive: Side::new(1, server),
            active: Side::new(2, client),
            loss: 0.0,
            network: StdRng::seed_from_u64(seed),
            flying: VecDeque::new(),
        }
    }

    /// Both exchange checks and are told of each other.
    pub fn connect(&mut self) {
        self.check();
        self.tell_passive(identities()[1].fingerprint());
        self.tell_active(identities()[0].fingerprint());
    }

    pub fn check(&mut self) {
        self.passive.check(self.now, self.active.addr, true);
        self.active.check(self.now, self.passive.addr, true);
    }

    pub fn tell_passive(&mut self, fingerprint: dtls::Fingerprint) {
        let peer = dtls::Peer { role: dtls::Role::Passive, fingerprints: vec![fingerprint] };
        self.passive.transport.connect(self.now, peer);
    }

    pub fn tell_active(&mut self, fingerprint: dtls::Fingerprint) {
        let peer = dtls::Peer { role: dtls::Role::Active, fingerprints: vec![fingerprint] };
        self.active.transport.connect(self.now, peer);
    }

    /// A pair whose handshake is done.
    pub fn connected() -> Self {
        let mut pair = Self::new(0);
        pair.connect();
        pair.run_for(Duration::from_secs(1));
        assert!(pair.are_connected());
        pair
    }

    pub fn are_connected(&self) -> bool {
        self.passive.transport.is_connected() && self.active.transport.is_connected()
    }

    /// Lets time pass until `deadline` from now.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver();
            let sides = [&self.passive, &self.active];
            let timeout = sides.iter().filter_map(|side| side.transport.next_timeout()).min();
            let arrival = self.flying.front().map(|(arrival, ..)| *arrival);
            let Some(next) = timeout.into_iter().chain(arrival).min().filter(|next| *next <= end)
            else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "time went backwards");
            self.now = next;
            for side in [&mut self.passive, &mut self.active] {
                side.transport.handle_timeout(next);
                let after = side.transport.next_timeout();
                assert!(after.is_none_or(|after| after > next), "a deadline that never passes");
            }
        }
    }

    /// Hands over what has arrived and launches what the sides want to send.
    fn deliver(&mut self) {
        loop {
            while let Some((_, to_passive, bytes)) =
                self.flying.pop_front_if(|(arrival, ..)| *arrival <= self.now)
            {
                let (side, from) = if to_passive {
                    (&mut self.passive, self.active.addr)
                } else {
                    (&mut self.active, self.passive.addr)
                };
                // Refusals show in what the sides become.
                let _ = side.transport.receive_dtls(self.now, from, &bytes);
            }
            self.passive.collect_events();
            self.active.collect_events();
            let mut sent =
                self.passive.outgoing().into_iter().map(|bytes| (false, bytes)).collect::<Vec<_>>();
            sent.extend(self.active.outgoing().into_iter().map(|bytes| (true, bytes)));
            if sent.is_empty() {
                return;
            }
            for (to_passive, bytes) in sent {
                assert!(bytes.len() <= dtls::MTU);
                if !self.network.random_bool(self.loss) {
                    // Up to 20 ms of jitter, so that datagrams overtake each other.
                    let jitter = Duration::from_millis(self.network.random_range(0..20));
                    self.flying.push_back((self.now + DELAY + jitter, to_passive, bytes));
                }
            }
            self.flying.make_contiguous().sort_by_key(|(arrival, ..)| *arrival);
        }
    }
}
