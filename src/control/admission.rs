//! Who may connect and ask: bounds in all and per address, kept before anything is read.
//!
//! The book-keeping is shared by all connections, behind one lock that is held for a few instructions and
//! never across a wait.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Limits;
use crate::control::limits::{Limit, LimitsMet};
use crate::control::rate::{Buckets, Rate};
use crate::control::refusal::Refusal;

/// Connections above the bounds that are told so at a time; more are closed without a word.
const REFUSALS: usize = 64;
/// Addresses whose requests are counted, in each of two generations: 64,000 in all take 4 MB.
const REMEMBERED: usize = 32_000;
/// The requests of this long may come at once.
const BURST: Duration = Duration::from_secs(5);

/// The front door.
pub struct Admission {
    per_address: u32,
    half_open: usize,
    seats: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    met: Arc<LimitsMet>,
    book: Arc<Mutex<Book>>,
}

struct Book {
    /// Connections per address; none is 0.
    places: HashMap<IpAddr, u32>,
    requests: Buckets<IpAddr>,
    /// Connections without a whole request, oldest first.
    half_open: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// A connection that may go on.
pub struct Admitted {
    /// To be kept as long as the connection lives.
    pub seat: Seat,
    /// To be settled when a whole request has come.
    pub half_open: HalfOpen,
    /// The answer to whatever it asks, if it is one too many.
    pub refusal: Option<Refusal>,
}

/// One of the connections in all, and one of its address'. Travels with each request, so that a WebSocket keeps
/// it after the upgrade, and Engine.IO, which keeps a session's first request, as long as the session lives.
#[derive(Clone)]
pub struct Seat(#[expect(dead_code, reason = "held, not read")] Arc<(OwnedSemaphorePermit, Place)>);

/// One of an address' connections; free again when it is dropped.
pub struct Place {
    of: Option<IpAddr>,
    book: Arc<Mutex<Book>>,
}

/// A connection that has not sent a whole request.
pub struct HalfOpen {
    number: u64,
    evicted: Arc<Notify>,
    book: Arc<Mutex<Book>>,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(limits: &Limits, met: Arc<LimitsMet>) -> Self {
        let book = Book {
            places: HashMap::new(),
            requests: Buckets::new(Rate::new(limits.requests_per_second, BURST), REMEMBERED),
            half_open: BTreeMap::new(),
            next: 0,
        };
        Self {
            per_address: limits.connections_per_address,
            half_open: limits.half_open as usize,
            seats: Arc::new(Semaphore::new(limits.connections as usize)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            met,
            book: Arc::new(Mutex::new(book)),
        }
    }

    /// A connection from `address`, whose own connections count if it is one client's; `None`: it is to be
    /// closed at once.
    pub fn connection(&self, address: Option<IpAddr>) -> Option<Admitted> {
        let seat = self.seats.clone().try_acquire_owned();
        let seat = seat.map_err(|_| {
            self.met.count(Limit::Connections);
            Refusal::new(503, "there are too many connections")
        });
        let admitted = seat.and_then(|seat| Ok((seat, self.place(address)?)));
        let (seat, refusal) = match admitted {
            Ok(seat) => (seat, None),
            Err(refusal) => {
                let seat = self.refusals.clone().try_acquire_owned().ok()?;
                ((seat, Place { of: None, book: self.book.clone() }), Some(refusal))
            }
        };
        Some(Admitted { seat: Seat(Arc::new(seat)), half_open: self.half_open(), refusal })
    }

    /// A place among the connections of `address`; 429 if all are taken.
    pub fn place(&self, address: Option<IpAddr>) -> Result<Place, Refusal> {
        let of = address.and_then(party);
        if let Some(party) = of {
            let mut book = lock(&self.book);
            let taken = book.places.get(&party).copied().unwrap_or_default();
            if taken >= self.per_address {
                self.met.count(Limit::ConnectionsPerAddress);
                let why = "there are too many connections from this address";
                return Err(Refusal::new(429, why));
            }
            book.places.insert(party, taken + 1);
        }
        Ok(Place { of, book: self.book.clone() })
    }

    /// 429 if `address` asks too often.
    pub fn request(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let Some(party) = party(address) else { return Ok(()) };
        if lock(&self.book).requests.allows(party, now) {
            return Ok(());
        }
        self.met.count(Limit::Requests);
        Err(Refusal::new(429, "there are too many requests from this address"))
    }

    /// One more; if they are too many, the oldest has to go. So those who mean to ask, who need a moment only,
    /// come through however many do not.
    fn half_open(&self) -> HalfOpen {
        let mut book = lock(&self.book);
        if book.half_open.len() >= self.half_open
            && let Some((_, oldest)) = book.half_open.pop_first()
        {
            self.met.count(Limit::HalfOpen);
            oldest.notify_one();
        }
        let (number, evicted) = (book.next, Arc::new(Notify::new()));
        book.next += 1;
        book.half_open.insert(number, evicted.clone());
        HalfOpen { number, evicted, book: self.book.clone() }
    }
}

impl HalfOpen {
    /// Returns when the connection has to go.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Whether no whole request has come yet.
    pub fn is_open(&self) -> bool {
        lock(&self.book).half_open.contains_key(&self.number)
    }

    /// A whole request has come.
    pub fn settle(&self) {
        lock(&self.book).half_open.remove(&self.number);
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(party) = self.of else { return };
        let mut book = lock(&self.book);
        match book.places.get_mut(&party) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(book.places.remove(&party)),
        }
    }
}

/// Nothing that holds the lock can panic half-way.
fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, all of whose addresses one customer has
/// (RFC 6177). `None` for loopback, which is not bounded.
fn party(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => Some(IpAddr::from((address.to_bits() >> 64 << 64).to_be_bytes())),
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: &Limits) -> Admission {
        Admission::new(limits, Arc::default())
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn status(admitted: &Option<Admitted>) -> Option<u16> {
        admitted.as_ref().map(|it| it.refusal.as_ref().map_or(200, |refusal| refusal.status))
    }

    #[test]
    fn an_address_has_so_many_places_and_a_network_of_64_bits_as_many() {
        let door = admission(&Limits { connections_per_address: 2, ..Limits::DEFAULT });
        for [one, same, other] in [
            ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"],
        ] {
            let first = door.connection(address(one));
            let _second = door.connection(address(same));
            assert_eq!(status(&door.connection(address(one))), Some(429));
            assert_eq!(status(&door.connection(address(other))), Some(200));
            drop(first);
            assert_eq!(status(&door.connection(address(one))), Some(200));
        }
        assert_eq!(door.met.times(Limit::ConnectionsPerAddress), 2);
        let all: Vec<_> = (0..9).map(|_| door.connection(address("127.0.0.1"))).collect();
        assert!(all.iter().all(|it| status(it) == Some(200)), "loopback is not bounded");
        drop(all);
        assert!(lock(&door.book).places.len() <= 2, "those who left are forgotten");
    }

    #[test]
    fn above_the_bound_some_are_told_and_the_rest_closed() {
        let door = admission(&Limits { connections: 1, ..Limits::DEFAULT });
        let _only = door.connection(address("192.0.2.1"));
        let refused: Vec<_> = (0..100).map(|_| door.connection(address("192.0.2.1"))).collect();
        assert_eq!(refused.iter().filter(|it| status(it) == Some(503)).count(), REFUSALS);
        assert_eq!(refused.iter().filter(|it| it.is_none()).count(), 100 - REFUSALS);
        assert_eq!(door.met.times(Limit::Connections), 100);
    }

    #[test]
    fn requests_per_address_are_bounded() {
        let door = admission(&Limits { requests_per_second: 2, ..Limits::DEFAULT });
        let (one, now) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        let allowed = (0..50).filter(|_| door.request(one, now).is_ok()).count();
        assert_eq!(allowed, 10);
        assert_eq!(door.met.times(Limit::Requests), 40);
        assert!(door.request(IpAddr::from([192, 0, 2, 2]), now).is_ok());
        assert!(door.request(one, now + Duration::from_millis(500)).is_ok());
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_half_open_connections_goes() {
        let door = admission(&Limits { half_open: 2, ..Limits::DEFAULT });
        let open = || door.connection(address("192.0.2.1")).unwrap().half_open;
        let (first, second, _third) = (open(), open(), open());
        first.evicted().await;
        second.settle();
        let _fourth = open();
        assert_eq!(door.met.times(Limit::HalfOpen), 1, "the second has asked");
    }
}
