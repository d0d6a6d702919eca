//! Strangers beside the load: datagrams that nobody asked for, at a steady rate, from many addresses, to see what
//! they cost those who behave. Only ever within 127.0.0.0/8.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::ice::{Agent, Remote};
use crate::peer::random;
use crate::sys::SendBatch;

/// Source addresses, each with a socket of its own.
const SOURCES: usize = 64;
/// Different datagrams, sent in turn.
const TEMPLATES: usize = 256;
/// Time between two portions.
const TICK: Duration = Duration::from_millis(1);
/// What could not be sent within this time is left out.
const MAX_BEHIND: u64 = 20 * clock::MS;
/// Bytes of a datagram of media.
const MEDIA_LEN: usize = 1200;
/// The longest junk.
const MAX_JUNK: usize = 1200;

/// What strangers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Random bytes of random lengths
    Junk,
    /// ICE checks that name transports of the server, with a wrong password
    Stun,
    /// Chromium's DTLS ClientHello
    Hello,
    /// RTP of ever new SSRCs
    Rtp,
}

/// A flood that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Of what.
    pub kind: Kind,
    /// Datagrams per second.
    pub rate: u32,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    kind: Kind,
    /// Datagrams that the kernel took.
    datagrams: u64,
    per_second: f64,
    bits_per_second: f64,
    /// Datagrams that it refused.
    refused: u64,
}

/// A flood that goes on.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

impl Flood {
    /// Starts it towards these transports of the server, on `core`.
    pub fn start(self, targets: &[Remote], core: Option<usize>) -> Result<Running, String> {
        let sockets = sources(targets).map_err(|error| format!("flood: {error}"))?;
        let templates = self.templates(targets)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let begin = move || {
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            crate::sys::wake_precisely();
            self.run(&sockets, templates, &stopped)
        };
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(begin);
        Ok(Running { stop, thread: thread.map_err(|error| format!("flood: {error}"))? })
    }

    fn templates(self, targets: &[Remote]) -> Result<Vec<Vec<u8>>, String> {
        let hello = include_str!("../../../tests/fixtures/browsers/chromium-clienthello-0.json");
        let mut agents = targets
            .iter()
            .cycle()
            .map(|target| Agent::new(&Remote { password: "w".repeat(24), ..target.clone() }, 1));
        (0..TEMPLATES)
            .map(|_| match self.kind {
                Kind::Junk => Ok(junk()),
                Kind::Stun => {
                    let mut agent = agents.next().ok_or("flood: there is no transport to name")?;
                    agent.check().map_err(|error| format!("flood: {error}"))
                }
                Kind::Hello => client_hello(hello).ok_or_else(|| "flood: no hello".to_owned()),
                Kind::Rtp => Ok(media()),
            })
            .collect()
    }

    fn run(self, sockets: &[UdpSocket], mut templates: Vec<Vec<u8>>, stop: &AtomicBool) -> Sent {
        let (began, mut batch) = (clock::now(), SendBatch::new());
        let (mut planned, mut turn) = (0, 0usize);
        let (mut datagrams, mut bytes, mut refused) = (0, 0, 0);
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let elapsed = clock::now() - began;
            let due = self.due(elapsed);
            // What there was no time for is not made up for all at once.
            planned = planned.max(self.due(elapsed.saturating_sub(MAX_BEHIND)));
            let count = due - planned;
            for _ in 0..count {
                turn += 1;
                let template = &mut templates[turn % TEMPLATES];
                self.renew(template, turn);
                bytes += template.len() as u64;
                batch.push(template);
            }
            planned = due;
            let lost = batch.send(sockets[turn % sockets.len()].as_fd()) as u64;
            (datagrams, refused) = (datagrams + count - lost, refused + lost);
        }
        let seconds = (clock::now() - began) as f64 / clock::SECOND as f64;
        let (per_second, bits_per_second) =
            (datagrams as f64 / seconds, bytes as f64 * 8.0 / seconds);
        Sent { kind: self.kind, datagrams, per_second, bits_per_second, refused }
    }

    /// Datagrams that are to have left after so many nanoseconds.
    fn due(self, elapsed: u64) -> u64 {
        (u128::from(elapsed) * u128::from(self.rate) / u128::from(clock::SECOND)) as u64
    }

    /// No two datagrams are the same.
    fn renew(self, datagram: &mut [u8], turn: usize) {
        let count = (turn as u32).to_be_bytes();
        let at = match self.kind {
            // Behind the first byte, which says what it is.
            Kind::Junk => 1,
            // In the transaction id, which the wrong integrity does not protect.
            Kind::Stun => 8,
            // In the client's random.
            Kind::Hello => 40,
            Kind::Rtp => 8,
        };
        if let Some(place) = datagram.get_mut(at..at + 4) {
            place.copy_from_slice(&count);
        }
    }
}

impl Running {
    /// Ends it.
    pub fn stop(self) -> Option<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        // A panic has been printed where it happened.
        self.thread.join().ok()
    }
}

impl Sent {
    /// For people.
    pub fn line(&self) -> String {
        let Self { kind, datagrams, per_second, bits_per_second, refused } = self;
        let (kind, megabits) = (format!("{kind:?}").to_lowercase(), bits_per_second / 1e6);
        format!(
            "{kind}: {datagrams} datagrams, {per_second:.0}/s, {megabits:.1} Mbit/s; {refused} refused"
        )
    }
}

/// Sockets with addresses all over 127.0.0.0/8, connected to the shards in turn.
fn sources(targets: &[Remote]) -> io::Result<Vec<UdpSocket>> {
    let mut addresses: Vec<SocketAddr> = targets.iter().map(|target| target.address).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() || !addresses.iter().all(|address| is_ours(address.ip())) {
        return Err(io::Error::other("only towards transports in 127.0.0.0/8"));
    }
    let socket = |address: &SocketAddr| {
        let [a, b, c] = random();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0))?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    addresses.iter().cycle().take(SOURCES).map(socket).collect()
}

fn is_ours(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 127)
}

fn junk() -> Vec<u8> {
    let len = 1 + usize::from(u16::from_be_bytes(random())) % MAX_JUNK;
    let mut bytes = vec![0; len];
    bytes.chunks_mut(12).for_each(|chunk| chunk.copy_from_slice(&random::<12>()[..chunk.len()]));
    bytes
}

fn media() -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(random::<10>());
    packet.resize(MEDIA_LEN, 0x55);
    packet
}

/// A recorded ClientHello in one record (RFC 6347 §4.2.2).
fn client_hello(fixture: &str) -> Option<Vec<u8>> {
    let fixture: serde_json::Value = serde_json::from_str(fixture).ok()?;
    let hex = fixture["raw_hex"].as_str()?;
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let body: Vec<u8> = (0..hex.len()).step_by(2).map(pair).collect::<Option<_>>()?;
    let len = u16::try_from(body.len()).ok()?;
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend((len + 12).to_be_bytes());
    let [high, low] = len.to_be_bytes();
    record.extend([1, 0, high, low, 0, 0, 0, 0, 0, 0, high, low]);
    record.extend(body);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: [u8; 4]) -> Remote {
        let (ufrag, password) = ("ufrag".to_owned(), "p".repeat(24));
        Remote { address: (address, 9).into(), ufrag, password }
    }

    #[test]
    fn strangers_never_leave_loopback() {
        for target in [target([192, 0, 2, 1]), target([10, 0, 0, 1])] {
            let flood = Flood { kind: Kind::Junk, rate: 1000 };
            assert!(flood.start(&[target], None).is_err());
        }
        assert!(Flood { kind: Kind::Junk, rate: 1000 }.start(&[], None).is_err());
    }

    #[test]
    fn each_kind_is_what_it_says() {
        let of = |kind| {
            let templates = Flood { kind, rate: 1 }.templates(&[target([127, 0, 0, 1])]);
            templates.expect("templates")
        };
        assert!(of(Kind::Stun).iter().all(|check| crate::ice::is_stun(check)));
        assert!(of(Kind::Hello).iter().all(|hello| hello[0] == 22 && hello[13] == 1));
        assert!(of(Kind::Rtp).iter().all(|packet| packet[0] == 0x80 && packet.len() == MEDIA_LEN));
        assert!(of(Kind::Junk).iter().all(|junk| (1..=MAX_JUNK).contains(&junk.len())));
    }

    #[test]
    fn the_rate_is_kept() {
        let flood = Flood { kind: Kind::Junk, rate: 50_000 };
        assert_eq!((flood.due(0), flood.due(clock::SECOND), flood.due(clock::MS)), (0, 50_000, 50));
    }
}
