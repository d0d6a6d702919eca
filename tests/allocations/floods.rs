//! What floods make an engine keep, in bytes: of strangers nothing, of peers no more than their bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardcast::id::{MediaKind, ShardId, TransportId};
use shardcast::room::parcel::Parcel;
use shardcast::room::spec::Command;
use shardcast::room::{DATAGRAM_ROOM, Datagram, Drop, Engine, Outbox};
use shardcast::transport::dtls::{Identity, Peer, Role};
use shardcast::transport::ice::Credentials;
use shardcast::transport::srtp::{MAX_RTP_OVERHEAD, MAX_SSRCS, Profile, Sender};
use shardcast::wire::seq::SeqNo;
use shardcast::wire::stun::TransactionId;
use shardcast::wire::stun::write::{self, BindingRequest, request};
use uuid::Uuid;

use crate::growth;
use crate::rig::{add_producer, add_transport, keys};

const PROFILE: Profile = Profile::AeadAes128Gcm;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5000);
/// Datagrams until every table has its size.
const FIRST: u32 = 20_000;
const FLOOD: u32 = 100_000;

/// Counts what is sent.
struct Sink {
    room: Box<[u8; DATAGRAM_ROOM]>,
    sent: usize,
}

impl Outbox for Sink {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.room[..])
    }

    fn send(&mut self, _: usize, _: SocketAddr) {
        self.sent += 1;
    }

    fn hand_over(&mut self, _: ShardId, _: &mut dyn FnMut(&mut Parcel)) -> bool {
        false
    }
}

/// An engine with one peer that publishes video.
struct Server {
    engine: Engine,
    out: Sink,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let (engine, now) = (Engine::new(ShardId(0), identity), Instant::now());
        let mut server =
            Self { engine, out: Sink { room: Box::new([0; DATAGRAM_ROOM]), sent: 0 }, now };
        server.command(add_transport(0, PEER, PROFILE));
        server.command(add_producer(0, 0, MediaKind::Video));
        server
    }

    fn command(&mut self, command: Command) {
        self.engine.command(self.now, command, &mut self.out);
    }

    fn receive(&mut self, from: SocketAddr, bytes: &mut [u8]) {
        let datagram = Datagram { from, received_at: self.now, bytes };
        self.engine.receive(self.now, &mut [datagram], &mut self.out);
        while self.engine.poll_event().is_some() {}
    }
}

/// One of a million addresses.
fn stranger(n: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 + n), 1024 + (n % 50_000) as u16).into()
}

fn check(ufrag: &str, password: &str) -> Vec<u8> {
    let username = format!("{ufrag}:peer");
    let check = BindingRequest {
        transaction_id: TransactionId([1; 12]),
        username: username.as_bytes(),
        priority: 1,
        role: write::Role::Controlling(1),
        use_candidate: true,
    };
    let mut buffer = [0; 200];
    let len = request(&mut buffer, &check, password.as_bytes()).expect("it fits");
    buffer[..len].to_vec()
}

/// A plaintext record with a fragment of a ClientHello of 16,000 bytes.
fn fragment(record: u32, offset: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
    bytes.extend(record.to_be_bytes());
    bytes.extend((12 + body.len() as u16).to_be_bytes());
    bytes.extend([1, 0, 0x3e, 0x80, 0, 0]);
    bytes.extend(&offset.to_be_bytes()[1..]);
    bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
    bytes.extend(body);
    bytes
}

#[test]
fn strangers_leave_nothing_behind() {
    let mut server = Server::new();
    let password = "q".repeat(22);
    let kinds = [
        vec![0xff; 40],
        check("nobody", &password),
        check("ufrag0", &password),
        fragment(0, 0, &[0; 500]),
        [&[0x80, 96, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9][..], &[0x55; 600]].concat(),
        [&[0x80, 200, 0, 6][..], &[7; 60]].concat(),
    ];
    let mut flood = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            let mut datagram = [0; 700];
            let kind = &kinds[n as usize % kinds.len()];
            datagram[..kind.len()].copy_from_slice(kind);
            server.receive(stranger(n), &mut datagram[..kind.len()]);
        }
    };
    flood(0..FIRST);
    assert_eq!(growth(|| flood(FIRST..FIRST + FLOOD)), 0);
    assert_eq!(server.engine.counters().dropped_in_all(), u64::from(FIRST + FLOOD));
    assert_eq!(server.out.sent, 0, "and nobody gets an answer");
}

/// Anybody who holds a transport's password may check from everywhere.
#[test]
fn a_peer_of_many_addresses_is_remembered_at_a_few() {
    let mut server = Server::new();
    let check = check("ufrag0", &"p".repeat(22));
    let mut datagram = [0; 200];
    let mut flood = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            datagram[..check.len()].copy_from_slice(&check);
            // As slowly as checks of new addresses are looked at.
            server.now += Duration::from_millis(1);
            server.receive(stranger(n), &mut datagram[..check.len()]);
        }
    };
    flood(0..FIRST);
    let growth = growth(|| flood(FIRST..FIRST + FLOOD));
    println!("{FLOOD} addresses of one peer: {growth} bytes");
    assert!(growth <= 4096, "{growth}");
    assert_eq!(server.engine.counters().dropped_in_all(), 0);
}

#[test]
fn fragments_are_kept_within_a_bound() {
    let mut server = Server::new();
    for is_told in [false, true] {
        let id = TransportId(Uuid::from_u128(9 + u128::from(is_told)));
        let (ufrag, password) = (format!("new{is_told}"), "p".repeat(22));
        let (from, ice) =
            (stranger(u32::from(is_told)), Credentials { ufrag: ufrag.clone(), password });
        server.command(Command::AddTransport { id, ice });
        server.receive(from, &mut check(&ufrag, &"p".repeat(22)));
        if is_told {
            let peer = Peer { role: Role::Passive, fingerprints: Vec::new() };
            server.command(Command::ConnectTransport { id, peer });
        }
        let mut most = 0;
        let held = growth(|| {
            for n in 0..10_000 {
                // As long as a datagram may be, and with gaps throughout.
                most = most.max(growth(|| {
                    server.receive(from, &mut fragment(n, n % 14_000 * 2, &[0; 1400]))
                }));
            }
        });
        println!(
            "10,000 fragments of 1,400 bytes, told {is_told}: {held} bytes are kept, {most} at once"
        );
        assert!(held <= 128 << 10, "{held}");
    }
}

/// Only a peer with keys can name SSRCs, and only so many.
#[test]
fn ssrcs_are_remembered_within_a_bound() {
    let mut server = Server::new();
    let sender = Sender::new(&keys(0, PROFILE).swapped());
    let held = growth(|| {
        for ssrc in 0..FIRST {
            let mut packet = [0; 40 + MAX_RTP_OVERHEAD];
            packet[..4].copy_from_slice(&[0x80, 96, 0, 1]);
            packet[8..12].copy_from_slice(&(1_000_000 + ssrc).to_be_bytes());
            let len = sender.seal_rtp(SeqNo(1), &mut packet, 40).expect("room for the tag");
            server.receive(PEER, &mut packet[..len]);
        }
    });
    println!("{FIRST} SSRCs of one peer: {held} bytes are kept");
    assert!(held <= 512 << 10, "{held}");
    let refused = server.engine.counters().dropped(Drop::TooManySsrcs);
    assert_eq!(refused, u64::from(FIRST) - MAX_SSRCS as u64);
}
