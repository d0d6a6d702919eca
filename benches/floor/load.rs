//! The other core: peers who send bursts at their time and take what they get, unopened.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kernel::{Incoming, Outgoing, Sending, set_option};
use crate::latency::Journeys;
use crate::rig::MEDIA;

/// Who sends what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub rooms: usize,
    /// Peers of a room.
    pub peers: usize,
    /// Whether everybody sends, to all others; else the first peer of each room does.
    pub all_send: bool,
    /// Senders whose bursts leave in the same moment.
    pub together: usize,
    /// Packets of one burst.
    pub burst: usize,
    /// Bytes of a sealed packet on its way to the server.
    pub len: usize,
    /// The first half of a burst is a byte shorter, as browsers divide frames.
    pub uneven: bool,
    /// Between a sender's bursts.
    pub interval: Duration,
    /// Whether it is video.
    pub video: bool,
    /// Senders keep no step with each other, and how long packets are on their way is taken.
    pub timed: bool,
    /// Chance begins with it.
    pub seed: u64,
}

impl Scenario {
    /// All peers.
    pub fn total(&self) -> usize {
        self.rooms * self.peers
    }

    /// The peers who send.
    pub fn senders(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { peers, all_send, .. } = *self;
        (0..self.total()).filter(move |peer| all_send || peer % peers == 0)
    }

    /// The peers who get what `sender` sends.
    pub fn receivers(&self, sender: usize) -> impl Iterator<Item = usize> + use<> {
        let first = sender / self.peers * self.peers;
        (first..first + self.peers).filter(move |peer| *peer != sender)
    }

    /// Bytes of the burst's packet `index`.
    pub fn len_of(&self, index: usize) -> usize {
        self.len - usize::from(self.uneven && index < self.burst / 2)
    }

    /// When in an interval each of the senders (or each group that sends together) sends its burst, in order.
    pub fn phases(&self) -> Vec<Duration> {
        let count = self.senders().count() / self.together;
        if !self.timed {
            return (0..count).map(|turn| self.interval * turn as u32 / count as u32).collect();
        }
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut phases: Vec<_> =
            (0..count).map(|_| self.interval.mul_f64(rng.random::<f64>())).collect();
        phases.sort_unstable();
        phases
    }

    /// Packets per second that the server has to send.
    pub fn rate(&self) -> f64 {
        let packets = self.senders().count() * self.burst * (self.peers - 1);
        packets as f64 / self.interval.as_secs_f64()
    }
}

/// How the peers behave towards the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Peers take trains whole, as a network card that segments would: else the kernel segments them on
    /// the server's core.
    pub gro: bool,
    /// Bursts come to the server as one train.
    pub trains_in: bool,
    /// Receivers are nobody's addresses behind a device that drops everything.
    pub nobody: bool,
}

/// The peers' sockets.
pub struct Peers {
    pub sockets: Vec<UdpSocket>,
    pub addresses: Vec<SocketAddr>,
}

impl Peers {
    pub fn new(scenario: Scenario, habits: Habits) -> Self {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            socket.set_nonblocking(true).expect("non-blocking");
            let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 20);
            if scenario.timed {
                set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).expect("stamps");
            }
            if habits.gro {
                set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).expect("UDP_GRO");
            }
            socket
        };
        if !habits.nobody {
            let sockets: Vec<_> = (0..scenario.total()).map(|_| socket()).collect();
            let addresses = sockets.iter().map(|s| s.local_addr().expect("bound")).collect();
            return Self { sockets, addresses };
        }
        assert_eq!(scenario.rooms, 1, "only the first peer is somebody");
        let sockets = vec![socket()];
        let own = sockets[0].local_addr().expect("bound");
        let nobody = |peer: usize| SocketAddr::from((NOBODY, 5000 + peer as u16));
        Self {
            sockets,
            addresses: std::iter::once(own).chain((1..scenario.total()).map(nobody)).collect(),
        }
    }
}

/// First of the addresses of [`Habits::nobody`].
const NOBODY: [u8; 4] = [10, 9, 1, 1];

/// Writes the next sealed packet of a sender: which sender, the packet's index in its burst, and room
/// for it; returns its length.
pub type Write = Box<dyn FnMut(usize, usize, &mut [u8]) -> usize + Send>;

/// What peers answer to what they get.
pub trait Answer: Send {
    /// A peer got a packet, in ticks of 250 µs.
    fn packet(&mut self, peer: usize, packet: &[u8], ticks: i64);
    /// Writes a peer's report, if there is anything to tell; returns its length.
    fn report(&mut self, peer: usize, room: &mut [u8]) -> Option<usize>;
}

/// Between a peer's reports, as browsers send them.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Where peers send what.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub media: SocketAddr,
    pub feedback: SocketAddr,
}

/// The running load.
pub struct Load {
    thread: JoinHandle<Journeys>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    /// Bursts that left more than an interval late.
    late: AtomicU64,
}

/// What the peers saw so far.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub sent: u64,
    pub received: u64,
    pub late: u64,
}

impl Load {
    pub fn start(
        scenario: Scenario,
        habits: Habits,
        peers: Peers,
        server: Target,
        core: Option<core_affinity::CoreId>,
        write: Write,
        answer: Option<Box<dyn Answer>>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let (until, counted) = (stop.clone(), counts.clone());
        let thread = std::thread::spawn(move || {
            core.map(core_affinity::set_for_current);
            run(scenario, habits, peers, server, write, answer, &until, &counted)
        });
        Self { thread, stop, counts }
    }

    pub fn seen(&self) -> Seen {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { sent, received, late } = &*self.counts;
        Seen { sent: read(sent), received: read(received), late: read(late) }
    }

    /// Returns what it saw of packets on their way, if it was to look.
    pub fn end(self) -> Journeys {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ended well")
    }
}

#[allow(clippy::too_many_arguments, reason = "the thread's whole life")]
fn run(
    scenario: Scenario,
    habits: Habits,
    peers: Peers,
    server: Target,
    mut write: Write,
    mut answer: Option<Box<dyn Answer>>,
    stop: &AtomicBool,
    counts: &Counts,
) -> Journeys {
    let train = if habits.trains_in { 64 } else { 1 };
    let how = Sending { uring: false, train, connected: false };
    let mut out = Outgoing::new(how, &[server.media, server.feedback]);
    let (count, buffer) = if habits.gro { (4, 1 << 16) } else { (16, 2048) };
    let mut incoming = Incoming::new(count, buffer);
    let mut trains = Vec::new();
    let senders: Vec<_> = scenario.senders().collect();
    let phases = scenario.phases();
    let mut journeys = Journeys::new(scenario);
    let receiving = if scenario.peers > 1 { &peers.sockets[..] } else { &[] };
    let start = Instant::now();
    let (mut reported, mut next) = (0, 0);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let round = (turn / phases.len()) as u32;
        let due = start + scenario.interval * round + phases[turn % phases.len()];
        // At least one round of receiving between two bursts, and more while there is time.
        loop {
            let mut packets = 0;
            for _ in receiving {
                if scenario.timed && Instant::now() >= due {
                    break;
                }
                let peer = next % receiving.len();
                next += 1;
                trains.clear();
                incoming.fill(receiving[peer].as_raw_fd(), &mut trains);
                let rtp = trains.iter().filter(|train| is_rtp(&incoming.buffer[train.start..]));
                for train in rtp {
                    let bytes = &incoming.buffer[train.start..][..train.len];
                    let datagrams = bytes.chunks(train.segment.max(1));
                    packets += datagrams.clone().filter(|packet| is_media(packet)).count();
                    if scenario.timed {
                        let media = datagrams.clone().filter(|packet| is_media(packet));
                        media.for_each(|packet| journeys.arrive(packet, train.stamp));
                    }
                    let Some(answer) = &mut answer else { continue };
                    let ticks = start.elapsed().as_micros() as i64 / 250;
                    datagrams.for_each(|packet| answer.packet(peer, packet, ticks));
                }
            }
            counts.received.fetch_add(packets as u64, Ordering::Relaxed);
            if let Some(answer) = &mut answer {
                // A part of the peers in each turn, so that they keep out of step.
                let upto = (start.elapsed().as_micros() * peers.sockets.len() as u128
                    / REPORT_INTERVAL.as_micros()) as usize;
                for peer in (reported..upto).map(|index| index % peers.sockets.len()) {
                    let room = out.room().expect("empty");
                    if let Some(len) = answer.report(peer, room) {
                        out.push(len, 1);
                        out.flush(peers.sockets[peer].as_raw_fd(), None);
                    }
                }
                reported = upto;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
        let late = Instant::now().saturating_duration_since(due) > scenario.interval;
        counts.late.fetch_add(u64::from(late), Ordering::Relaxed);
        for index in 0..scenario.together {
            let sender = senders[(turn * scenario.together + index) % senders.len()];
            for index in 0..scenario.burst {
                let room = out.room().expect("a burst fits");
                let len = write(sender, index, room);
                out.push(len, 0);
            }
            journeys.depart(sender);
            out.flush(peers.sockets[sender].as_raw_fd(), None);
        }
        let sent = scenario.together * scenario.burst;
        counts.sent.fetch_add(sent as u64, Ordering::Relaxed);
        turn += 1;
    }
    journeys
}

/// RTP, and not the server's RTCP or STUN.
fn is_rtp(bytes: &[u8]) -> bool {
    bytes[0] >> 6 == 2 && !(192..=223).contains(&bytes[1])
}

/// RTP that is no probe: those leave on the retransmission stream.
fn is_media(packet: &[u8]) -> bool {
    packet[1] & 0x7f == MEDIA.0
}
