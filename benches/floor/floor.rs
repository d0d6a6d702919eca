//! The work itself and nothing else: receive, open, and per receiver copy, seal and send. With feedback,
//! receive and open that, too.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustc_hash::FxBuildHasher;
use socket2::{Domain, Protocol, Type};

use crate::kernel::{Incoming, MAX_DRAIN, Outgoing, Ring, Sending, Train, poll, set_option};
use crate::latency::Journeys;
use crate::load::{Answer, Load, Scenario, Target, Write};

/// Bytes of an RTP header without extensions.
pub const HEADER: usize = 12;
pub const TAG: usize = 16;

/// Feedback is taken in this often while awake, and at least so often, as the shards do.
const FEEDBACK_WAITS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(40)];

/// One way to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub send: Sending,
    /// The server's own sockets take trains whole.
    pub gro: bool,
    /// The receivers are not on loopback.
    pub outside: bool,
    /// The receivers tell what arrives.
    pub twcc: bool,
}

/// The key of a peer, in both directions.
fn key(peer: usize) -> LessSafeKey {
    let mut bytes = [0x5a; 16];
    bytes[..8].copy_from_slice(&peer.to_le_bytes());
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &bytes).expect("16 bytes"))
}

fn nonce(packet: &[u8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&packet[..12]);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals in place.
pub fn seal(key: &LessSafeKey, packet: &mut [u8]) {
    let nonce = nonce(packet);
    let (header, rest) = packet.split_at_mut(HEADER);
    let (text, tag) = rest.split_at_mut(rest.len() - TAG);
    key.seal_in_place_scatter(nonce, Aad::from(header), text, &[], tag).expect("fits");
}

fn open(key: &LessSafeKey, packet: &mut [u8]) -> bool {
    let nonce = nonce(packet);
    let (header, rest) = packet.split_at_mut(HEADER);
    let (text, tag) = rest.split_at_mut(rest.len() - TAG);
    key.open_in_place_separate_tag(nonce, Aad::from(header), tag, text).is_ok()
}

/// Writes the senders' packets.
pub fn writer(scenario: Scenario) -> Write {
    let mut streams: Vec<_> = (0..scenario.total()).map(|peer| (key(peer), 0u16)).collect();
    Box::new(move |sender, index, room| {
        let (key, sequence) = &mut streams[sender];
        let packet = &mut room[..scenario.len_of(index)];
        packet.fill(0x42);
        packet[..2].copy_from_slice(&[0x80, 96]);
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&(sender as u32).to_be_bytes());
        *sequence = sequence.wrapping_add(1);
        seal(key, packet);
        packet.len()
    })
}

/// Peers who answer with datagrams as long as transport-wide feedback is: by peer its key, what it got, and how
/// often it has answered.
struct Receivers(Vec<(LessSafeKey, usize, u32)>);

/// Such answers of all peers.
pub fn answers(scenario: Scenario) -> Box<dyn Answer> {
    Box::new(Receivers((0..scenario.total()).map(|peer| (key(peer), 0, 0)).collect()))
}

impl Answer for Receivers {
    fn packet(&mut self, peer: usize, _: &[u8], _: i64) {
        self.0[peer].1 += 1;
    }

    fn report(&mut self, peer: usize, room: &mut [u8]) -> Option<usize> {
        let (key, packets, count) = &mut self.0[peer];
        let packets = std::mem::take(packets);
        if packets == 0 {
            return None;
        }
        *count += 1;
        // Header and fields, a chunk or two, a byte per packet, index and tag.
        let datagram = &mut room[..20 + 4 + packets.next_multiple_of(4) + 4 + TAG];
        datagram.fill(0x42);
        datagram[..2].copy_from_slice(&[0x8f, 205]);
        datagram[4..8].copy_from_slice(&count.to_be_bytes());
        seal(key, datagram);
        Some(datagram.len())
    }
}

/// The worker's sockets: the first is shared, the others are a peer's each.
struct Sockets {
    all: Vec<UdpSocket>,
    fds: Vec<i32>,
}

impl Sockets {
    fn new(way: Way, peers: &[SocketAddr]) -> Self {
        let ip = if way.outside { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let shared = bound(SocketAddr::from((ip, 0)), way.gro);
        let address = shared.local_addr().expect("bound");
        let mut all = vec![shared];
        if way.send.connected {
            all.extend(peers.iter().map(|peer| {
                let socket = bound(address, way.gro);
                socket.connect(peer).expect("loopback");
                socket
            }));
        }
        let fds = all.iter().map(|socket| socket.as_raw_fd()).collect();
        Self { all, fds }
    }
}

/// A socket with the shards' options.
fn bound(address: SocketAddr, gro: bool) -> UdpSocket {
    let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("UDP");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("a free port");
    let socket = UdpSocket::from(socket);
    let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
    let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20);
    let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20);
    if gro {
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).expect("UDP_GRO");
    }
    socket
}

/// What did the work and how much of it.
pub struct Outcome {
    pub messages: u64,
    pub datagrams: u64,
    pub refused: u64,
}

/// A worker on its own thread.
pub struct Worker {
    pub target: Target,
    pub tid: i32,
    /// Datagrams that the kernel took so far.
    pub sent: Arc<AtomicU64>,
    thread: JoinHandle<Outcome>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    pub fn start(
        scenario: Scenario,
        way: Way,
        peers: &[SocketAddr],
        core: Option<core_affinity::CoreId>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (until, counted, peers) = (stop.clone(), sent.clone(), peers.to_vec());
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            core.map(core_affinity::set_for_current);
            let sockets = Sockets::new(way, &peers);
            let feedback = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false);
            let here = |socket: &UdpSocket| {
                let port = socket.local_addr().expect("bound").port();
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            };
            let target = Target { media: here(&sockets.all[0]), feedback: here(&feedback) };
            ready.send((target, crate::kernel::thread_id())).expect("somebody waits");
            let mut work = Work::new(scenario, way, &peers, counted);
            work.feedback = way.twcc.then(|| Feedback::new(feedback));
            work.run(&sockets, way, &until)
        });
        let (target, tid) = is_ready.recv().expect("the worker starts");
        Self { target, tid, sent, thread, stop }
    }

    pub fn end(self, load: Load) -> (Outcome, Journeys) {
        self.stop.store(true, Ordering::Relaxed);
        // The load's next burst wakes it.
        let outcome = self.thread.join().expect("the worker ended well");
        (outcome, load.end())
    }
}

/// Where feedback comes in.
struct Feedback {
    socket: UdpSocket,
    incoming: Incoming,
    trains: Vec<Train>,
    looked_at: Instant,
}

impl Feedback {
    fn new(socket: UdpSocket) -> Self {
        let incoming = Incoming::new(MAX_DRAIN, 2048);
        Self { socket, incoming, trains: Vec::new(), looked_at: Instant::now() }
    }
}

struct Work {
    feedback: Option<Feedback>,
    out: Outgoing,
    keys: Vec<LessSafeKey>,
    senders: HashMap<SocketAddr, usize, FxBuildHasher>,
    receivers: Vec<Vec<usize>>,
    trains: Vec<Train>,
    /// Opened packets of a drain: sender, start and length of the plaintext.
    opened: Vec<(usize, usize, usize)>,
    sent: Arc<AtomicU64>,
}

impl Work {
    fn new(scenario: Scenario, way: Way, peers: &[SocketAddr], sent: Arc<AtomicU64>) -> Self {
        let receivers = |peer| scenario.receivers(peer).collect();
        Self {
            feedback: None,
            out: Outgoing::new(way.send, peers),
            keys: (0..peers.len()).map(key).collect(),
            senders: peers.iter().enumerate().map(|(index, peer)| (*peer, index)).collect(),
            receivers: (0..peers.len()).map(receivers).collect(),
            trains: Vec::new(),
            opened: Vec::new(),
            sent,
        }
    }

    fn run(mut self, sockets: &Sockets, way: Way, stop: &AtomicBool) -> Outcome {
        if way.send.uring {
            self.run_ring(sockets, way, stop);
        } else {
            self.run_mmsg(sockets, way, stop);
        }
        let Outgoing { messages, datagrams, refused, .. } = self.out;
        Outcome { messages, datagrams, refused }
    }

    fn run_mmsg(&mut self, sockets: &Sockets, way: Way, stop: &AtomicBool) {
        let mut incoming = Incoming::new(MAX_DRAIN, if way.gro { 1 << 16 } else { 2048 });
        let fd = sockets.fds[0];
        while !stop.load(Ordering::Relaxed) {
            poll(fd, self.patience());
            loop {
                self.trains.clear();
                incoming.fill(fd, &mut self.trains);
                let count = self.trains.len();
                self.forward(&mut incoming.buffer, |out| out.flush(fd, None));
                if count < MAX_DRAIN {
                    break;
                }
            }
            self.take_feedback();
        }
    }

    /// Milliseconds until there is something to do.
    fn patience(&self) -> i32 {
        if self.feedback.is_some() { FEEDBACK_WAITS[1].as_millis() as i32 } else { 100 }
    }

    /// Receives and opens what receivers tell.
    fn take_feedback(&mut self) {
        let Some(Feedback { socket, incoming, trains, looked_at }) = &mut self.feedback else {
            return;
        };
        if looked_at.elapsed() < FEEDBACK_WAITS[0] {
            return;
        }
        *looked_at = Instant::now();
        loop {
            trains.clear();
            incoming.fill(socket.as_raw_fd(), trains);
            for train in &*trains {
                let Some(&sender) = self.senders.get(&train.from) else { continue };
                let datagram = &mut incoming.buffer[train.start..][..train.len];
                assert!(open(&self.keys[sender], datagram), "a receiver's own");
            }
            if trains.len() < MAX_DRAIN {
                return;
            }
        }
    }

    fn run_ring(&mut self, sockets: &Sockets, way: Way, stop: &AtomicBool) {
        let (buffers, len) = if way.gro { (64, 1 << 16) } else { (512, 2048) };
        let mut ring = Ring::new(&sockets.fds, buffers, len).expect("io_uring");
        let mut buffer = std::mem::take(&mut ring.buffer);
        while !stop.load(Ordering::Relaxed) {
            ring.wait(self.patience() as u64);
            self.trains.clear();
            ring.take(&buffer, &mut self.trains);
            self.forward(&mut buffer, |out| out.flush(sockets.fds[0], Some(&mut ring)));
            ring.give_back();
            self.take_feedback();
        }
        ring.buffer = buffer;
    }

    /// Opens a drain's packets in place.
    fn open(&mut self, buffer: &mut [u8]) {
        self.opened.clear();
        let base = buffer.as_ptr() as usize;
        for train in &self.trains {
            let Some(&sender) = self.senders.get(&train.from) else { continue };
            for packet in buffer[train.start..][..train.len].chunks_mut(train.segment.max(1)) {
                if packet.len() > HEADER + TAG && open(&self.keys[sender], packet) {
                    let start = packet.as_ptr() as usize - base;
                    self.opened.push((sender, start, packet.len() - TAG));
                }
            }
        }
        self.opened.sort_unstable();
    }

    /// Every packet to everyone who gets it, receiver by receiver.
    fn forward(&mut self, buffer: &mut [u8], mut flush: impl FnMut(&mut Outgoing)) {
        self.open(buffer);
        for packets in self.opened.chunk_by(|a, b| a.0 == b.0) {
            for &receiver in &self.receivers[packets[0].0] {
                for &(_, start, len) in packets {
                    if self.out.room().is_none() {
                        flush(&mut self.out);
                    }
                    let room = &mut self.out.room().expect("flushed")[..len + TAG];
                    room[..len].copy_from_slice(&buffer[start..start + len]);
                    seal(&self.keys[receiver], room);
                    self.out.push(len + TAG, receiver);
                }
            }
        }
        flush(&mut self.out);
        self.sent.store(self.out.datagrams, Ordering::Relaxed);
    }
}
