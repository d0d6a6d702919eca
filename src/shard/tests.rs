//! Both backends against real sockets: what [`super::io`] promises, kept by each of them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::clock::Moment;
use super::counters::Counters;
use super::io::{ARENA_LEN, Io, MAX_BATCH, MAX_DRAIN, Transmit};
use super::mmsg::Mmsg;
use super::socket::Socket;
use super::sys::{self, SendQueue};
use super::uring::Uring;
use super::wake::Waker;
use crate::room::DATAGRAM_ROOM;
use crate::wire::MAX_DATAGRAM;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Set on a machine that forbids io_uring, so that its tests pass without having run. Without it
/// they fail there.
const WITHOUT_URING: &str = "SHARDCAST_TEST_WITHOUT_URING";

/// One test per backend.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod mmsg {
            $(#[test] fn $test() { super::$test(super::Mmsg::new); })*
        }
        mod uring {
            $(#[test] fn $test() {
                if std::env::var_os(super::WITHOUT_URING).is_some() {
                    println!("not run: {} is set", super::WITHOUT_URING);
                    return;
                }
                super::$test(super::Uring::new);
            })*
        }
    };
}

for_both!(
    a_full_send_buffer_drops_and_mixes_nothing,
    refused_addresses_are_counted,
    too_long_datagrams_are_dropped_and_counted,
    a_burst_beyond_all_buffers_is_survived,
    trains_arrive_as_what_they_are_made_of,
    a_refused_train_leaves_in_its_parts,
    an_ipv6_socket_speaks_ipv4_too,
    the_bell_ends_a_wait,
    a_timeout_ends_a_wait,
    a_nap_hears_the_bell_and_no_datagram,
);

trait Open<B>: FnOnce(Socket, Arc<Waker>) -> std::io::Result<B> + Send + 'static {}
impl<B, F: FnOnce(Socket, Arc<Waker>) -> std::io::Result<B> + Send + 'static> Open<B> for F {}

/// A backend and what goes with it.
struct Bench<B> {
    io: B,
    waker: Arc<Waker>,
    counters: Counters,
    queue: SendQueue,
}

impl<B: Io> Bench<B> {
    fn new(socket: Socket, open: impl Open<B>) -> Self {
        let waker = Arc::new(Waker::new().unwrap());
        let queue = SendQueue::new(MAX_BATCH, ARENA_LEN, socket.traits).unwrap();
        let io = open(socket, waker.clone())
            .unwrap_or_else(|error| panic!("{error}; set {WITHOUT_URING} to go without io_uring"));
        Self { io, waker, counters: Counters::default(), queue }
    }

    /// On a free port of `ip`'s loopback.
    fn bound(ip: IpAddr, open: impl Open<B>) -> (Self, u16) {
        // A range beside the ephemeral ports; taken ones are skipped.
        let mut ports = 20_000..=30_000;
        let (socket, port) = Socket::bind_next(ip, &mut ports).unwrap().unwrap();
        (Self::new(socket, open), port)
    }

    /// Queues one datagram with these bytes.
    fn queue(&mut self, bytes: &[u8], to: SocketAddr) {
        self.queue.room(DATAGRAM_ROOM).unwrap()[..bytes.len()].copy_from_slice(bytes);
        self.queue.push(bytes.len(), to);
    }

    fn transmit(&mut self) {
        self.io.sender().transmit(&mut self.queue, &mut self.counters).unwrap();
    }

    /// Waits for one drain and copies it; empty when `timeout` was over first.
    fn drain(&mut self, timeout: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut drained = Vec::new();
        self.io.wait(Some(timeout), &mut self.counters).unwrap();
        let take = |drain: &mut [crate::room::Datagram<'_>],
                    _: &mut B::Sender,
                    _: &mut Counters| {
            assert!(drain.len() <= MAX_DRAIN);
            drained.extend(drain.iter().map(|datagram| (datagram.from, datagram.bytes.to_vec())));
        };
        self.io.drain(&Moment::read(), &mut self.counters, take).unwrap();
        drained
    }

    /// Drains until `enough` says so, or fails.
    fn drain_until(
        &mut self,
        enough: impl Fn(&[(SocketAddr, Vec<u8>)], &Counters) -> bool,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while !enough(&all, &self.counters) {
            assert!(Instant::now() < deadline, "got {} and {:?}", all.len(), self.counters);
            all.extend(self.drain(Duration::from_millis(100)));
        }
        all
    }
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// Every send ends within its submit, taken or dropped, so the arena may be written at once: what
/// arrives is whole, in order, and exactly what was counted as sent.
fn a_full_send_buffer_drops_and_mixes_nothing<B: Io>(open: impl Open<B>) {
    const ROUNDS: u32 = 20;
    const BATCH: u32 = 100;
    const LEN: usize = 1200;
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let (done, is_done) = mpsc::channel();
    // On its own thread, so that a backend that waits for the full buffer fails the test instead of
    // hanging it.
    std::thread::spawn(move || {
        let socket = Socket::paired(ours);
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 1).unwrap();
        let mut bench = Bench::new(socket, open);
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut received = Vec::new();
        for round in 0..ROUNDS {
            for index in 0..BATCH {
                // Each datagram consists of its own number.
                let number = round * BATCH + index;
                let bytes: Vec<u8> = number.to_ne_bytes().repeat(LEN / 4);
                bench.queue(&bytes, nobody);
            }
            bench.transmit();
            assert_eq!(bench.queue.len(), 0);
            if round % 3 == 2 {
                received.extend(take_all(&theirs));
            }
        }
        received.extend(take_all(&theirs));
        let _ = done.send((bench.counters, received));
    });
    let (counters, received) =
        is_done.recv_timeout(PATIENCE).expect("a send neither ended nor failed");

    assert_eq!(counters.sent, received.len() as u64);
    assert!(counters.sent > 0 && counters.send_drops.full > 0, "{counters:?}");
    assert_eq!(counters.sent + counters.send_drops.full, u64::from(ROUNDS * BATCH));
    let mut last = None;
    for datagram in received {
        let number = u32::from_ne_bytes(*datagram.first_chunk().unwrap());
        assert_eq!(datagram, number.to_ne_bytes().repeat(LEN / 4), "another datagram's bytes");
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
    }
    assert_eq!(counters.late_sends, 0);
}

fn take_all(socket: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => all.push(buffer[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

fn refused_addresses_are_counted<B: Io>(open: impl Open<B>) {
    let (mut bench, _) = Bench::bound(loopback(), open);
    let peer = UdpSocket::bind((loopback(), 0)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    bench.queue(b"before", peer.local_addr().unwrap());
    bench.queue(b"an IPv6 address on an IPv4 socket", (Ipv6Addr::LOCALHOST, 9).into());
    bench.queue(b"a port that does not exist", (Ipv4Addr::LOCALHOST, 0).into());
    bench.queue(b"behind", peer.local_addr().unwrap());
    bench.transmit();
    assert_eq!((bench.counters.sent, bench.counters.send_drops.total()), (2, 2));
    let mut buffer = [0; 64];
    for expected in [&b"before"[..], b"behind"] {
        let len = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expected);
    }
}

fn too_long_datagrams_are_dropped_and_counted<B: Io>(open: impl Open<B>) {
    let (mut bench, port) = Bench::bound(loopback(), open);
    let peer = UdpSocket::bind((loopback(), 0)).unwrap();
    let lengths = [0, 1, MAX_DATAGRAM, MAX_DATAGRAM + 1, 2048, 60_000, 2];
    for len in lengths {
        peer.send_to(&vec![7; len], (loopback(), port)).unwrap();
    }
    let received =
        bench.drain_until(|all, _| all.last().is_some_and(|(_, bytes)| bytes.len() == 2));
    let kept: Vec<_> = received.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(kept, [0, 1, MAX_DATAGRAM, 2]);
    assert!(received.iter().all(|(from, _)| *from == peer.local_addr().unwrap()));
    assert_eq!((bench.counters.received, bench.counters.truncated), (4, 3));
}

fn a_burst_beyond_all_buffers_is_survived<B: Io>(open: impl Open<B>) {
    const BURST: u32 = 5120;
    let (mut bench, port) = Bench::bound(loopback(), open);
    let peer = UdpSocket::bind((loopback(), 0)).unwrap();
    for number in 0..BURST {
        peer.send_to(&number.to_be_bytes(), (loopback(), port)).unwrap();
    }
    // Busy: turns without a drain, until no buffer is left to a backend that fills them meanwhile.
    for _ in 0..100 {
        bench.io.wait(Some(Duration::ZERO), &mut bench.counters).unwrap();
    }
    // The socket itself holds as much as the system allows; what it took must come out in order.
    // The last one is repeated until it gets through.
    let mut received = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while received.last() != Some(&u32::MAX) {
        assert!(Instant::now() < deadline, "{} received, {:?}", received.len(), bench.counters);
        let drained = bench.drain(Duration::from_millis(10));
        if drained.is_empty() {
            peer.send_to(&u32::MAX.to_be_bytes(), (loopback(), port)).unwrap();
        }
        received.extend(
            drained.iter().map(|(_, bytes)| u32::from_be_bytes(*bytes.first_chunk().unwrap())),
        );
    }
    assert!(received.len() > MAX_DRAIN);
    assert!(received.is_sorted(), "out of order");
    assert_eq!(bench.counters.receive_errors, 0);
}

/// Runs of lengths to two peers, in turn, with what tells them apart.
const RUNS: [&[usize]; 4] = [&[1200; 9], &[1200, 1199, 40], &[700, 700, 701, 701, 3], &[100; 70]];

/// Queues the runs, each once to either peer; returns what each must get.
fn queue_runs<B: Io>(bench: &mut Bench<B>, peers: &[UdpSocket; 2]) -> Vec<Vec<u8>> {
    let mut expected = Vec::new();
    for (number, run) in RUNS.iter().enumerate() {
        let datagrams = run.iter().enumerate().map(|(i, len)| vec![(16 * number + i) as u8; *len]);
        let datagrams: Vec<_> = datagrams.collect();
        for peer in peers {
            let to = peer.local_addr().unwrap();
            datagrams.iter().for_each(|bytes| bench.queue(bytes, to));
        }
        expected.extend(datagrams);
    }
    expected
}

fn two_peers() -> [UdpSocket; 2] {
    [(); 2].map(|()| {
        let peer = UdpSocket::bind((loopback(), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    })
}

fn assert_receives(peer: &UdpSocket, expected: &[Vec<u8>]) {
    for bytes in expected {
        assert_eq!(&receive(peer), bytes);
    }
}

fn trains_arrive_as_what_they_are_made_of<B: Io>(open: impl Open<B>) {
    let (mut bench, _) = Bench::bound(loopback(), open);
    let peers = two_peers();
    let expected = queue_runs(&mut bench, &peers);
    // 9 | 2+1 | 2+3 | 64+6, twice; 1200 and 1199 are one train, and 40 alone is none.
    let trains = 2 * 6;
    assert_eq!(bench.queue.len(), trains + 2);
    bench.transmit();
    peers.iter().for_each(|peer| assert_receives(peer, &expected));
    let counters = &bench.counters;
    assert_eq!(counters.sent, 2 * expected.len() as u64);
    assert_eq!((counters.trains, counters.sent_in_trains), (trains as u64, counters.sent - 2));
    assert_eq!((counters.trains_refused, counters.send_drops.total()), (0, 0));
}

/// The kernel makes no trains for a socket without checksums (`EINVAL`), as on a path whose MTU is
/// below the segments.
fn a_refused_train_leaves_in_its_parts<B: Io>(open: impl Open<B>) {
    let mut ports = 20_000..=30_000;
    let (socket, _) = Socket::bind_next(loopback(), &mut ports).unwrap().unwrap();
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let mut bench = Bench::new(socket, open);
    let peers = two_peers();
    for round in 1..=3 {
        let expected = queue_runs(&mut bench, &peers);
        bench.transmit();
        let counters = &bench.counters;
        assert_eq!(counters.sent, round * 2 * expected.len() as u64, "{counters:?}");
        assert_eq!((counters.trains, counters.send_drops.total()), (0, 0));
        assert_eq!(counters.trains_refused, 2 * 6, "none is tried a second time");
        for peer in &peers {
            // Parts of a refused train may leave behind the others of their batch.
            let mut received: Vec<_> = expected.iter().map(|_| receive(peer)).collect();
            let mut expected = expected.clone();
            received.sort_unstable();
            expected.sort_unstable();
            assert_eq!(received, expected);
        }
    }
}

fn receive(peer: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let len = peer.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn an_ipv6_socket_speaks_ipv4_too<B: Io>(open: impl Open<B>) {
    let (mut bench, port) = Bench::bound(Ipv6Addr::UNSPECIFIED.into(), open);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let Ok(peer) = UdpSocket::bind((ip, 0)) else {
            assert!(ip.is_ipv6());
            println!("no {ip} on this machine");
            continue;
        };
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.send_to(b"there", (ip, port)).unwrap();
        let received = bench.drain_until(|all, _| !all.is_empty());
        assert_eq!(received, [(peer.local_addr().unwrap(), b"there".to_vec())]);
        bench.queue(b"back", received[0].0);
        bench.transmit();
        let mut buffer = [0; 64];
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"back"[..], SocketAddr::from((ip, port))));
    }
}

fn the_bell_ends_a_wait<B: Io>(open: impl Open<B>) {
    const TIMES: usize = 3;
    let rung = Arc::new(AtomicBool::new(false));
    let (asleep, falls_asleep) = mpsc::channel();
    let (awake, wakes_up) = mpsc::channel();
    let seen = rung.clone();
    std::thread::spawn(move || {
        let (mut bench, _) = Bench::bound(loopback(), open);
        bench.drain(Duration::ZERO);
        for _ in 0..TIMES {
            bench.waker.about_to_sleep();
            asleep.send(bench.waker.clone()).unwrap();
            bench.io.wait(None, &mut bench.counters).unwrap();
            awake.send(seen.swap(false, Ordering::SeqCst)).unwrap();
        }
    });
    for _ in 0..TIMES {
        let waker: Arc<Waker> = falls_asleep.recv_timeout(PATIENCE).unwrap();
        rung.store(true, Ordering::SeqCst);
        waker.wake();
        let by_the_bell = wakes_up.recv_timeout(PATIENCE).expect("slept on");
        assert!(by_the_bell, "woke up by itself");
    }
}

fn a_timeout_ends_a_wait<B: Io>(open: impl Open<B>) {
    let (mut bench, _) = Bench::bound(loopback(), open);
    let start = Instant::now();
    let timeout = Duration::from_millis(20);
    bench.drain(Duration::ZERO);
    bench.io.wait(Some(timeout), &mut bench.counters).unwrap();
    assert!(start.elapsed() >= timeout, "ended early");
}

fn a_nap_hears_the_bell_and_no_datagram<B: Io>(open: impl Open<B>) {
    let (mut bench, port) = Bench::bound(loopback(), open);
    bench.drain(Duration::ZERO);
    let peer = UdpSocket::bind((loopback(), 0)).unwrap();
    peer.send_to(b"check", (loopback(), port)).unwrap();
    let (start, length) = (Instant::now(), Duration::from_millis(20));
    bench.io.nap(length).unwrap();
    assert!(start.elapsed() >= length, "ended early");
    bench.waker.about_to_sleep();
    bench.waker.wake();
    bench.io.nap(PATIENCE).unwrap();
    assert!(start.elapsed() < PATIENCE, "slept on");
    let received = bench.drain_until(|all, _| !all.is_empty());
    assert_eq!(received[0].1, b"check");
}

#[test]
fn uring_reports_exhausted_buffers_and_recovers() {
    if std::env::var_os(WITHOUT_URING).is_some() {
        println!("not run: {WITHOUT_URING} is set");
        return;
    }
    let (mut bench, port) = Bench::bound(loopback(), Uring::new);
    let peer = UdpSocket::bind((loopback(), 0)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0_u32;
    while bench.counters.buffers_exhausted == 0 {
        assert!(Instant::now() < deadline, "{:?}", bench.counters);
        peer.send_to(&number.to_be_bytes(), (loopback(), port)).unwrap();
        number += 1;
        bench.io.wait(Some(Duration::ZERO), &mut bench.counters).unwrap();
    }
    // No room: more turns neither spin on the empty ring nor lose what waits in the socket.
    for _ in 0..10 {
        bench.io.wait(Some(Duration::ZERO), &mut bench.counters).unwrap();
    }
    assert_eq!(bench.counters.buffers_exhausted, 1);
    let received = bench.drain_until(|all, _| all.len() == number as usize);
    let numbers =
        received.iter().map(|(_, bytes)| u32::from_be_bytes(*bytes.first_chunk().unwrap()));
    assert!(numbers.eq(0..number));
}
