//! A worker: one thread with many peers' sockets, their timers, and nobody to wait for.
//!
//! It looks at its sockets every `poll`, not at each packet: real receivers do not wake the server's core
//! either, latency is taken from the kernel's stamps, and a look at many packets costs little more than at one.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{collections::HashMap, io};

use shardcast_impair::lines::Lines;
use shardcast_impair::script::{Direction, Script};
use slab::Slab;

use crate::clock::{self, MS, SECOND};
use crate::source::{Source, Spec as SourceSpec};
use crate::spoil::Spoiler;
use crate::stamp::Track;
use crate::stream::Spec as StreamSpec;
use crate::sys::{self, Epoll, ReceiveBatch, SendBatch};
use crate::tally::{Gauges, Tally};
use crate::transport::{Measure, NewTransport, Transport};

/// How often consent is renewed: as libwebrtc checks a connection that is stable.
const CONSENT_INTERVAL: u64 = 2500 * MS;
/// How often receiver and sender reports are sent.
const REPORT_INTERVAL: u64 = SECOND;
/// How soon to look again for what is missing.
const GAP_INTERVAL: u64 = 10 * MS;
/// Sockets read between two looks at the timers, so that frames leave on time.
const SOCKETS_BETWEEN: usize = 16;
/// Receive buffers in bytes: a key frame for a large room must fit.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;
/// Datagrams per read, and the room for each; with runs, a read brings up to 64 kB in each.
const SLOTS: (usize, usize) = (64, 2048);
/// See [`SLOTS`].
const RUN_SLOTS: (usize, usize) = (16, 65_536);

/// Ports kept from others: of those who fell silent within the half minute in which the server still sends to them,
/// where four leave per second and one in three says nothing.
const MAX_FORSAKEN: usize = 100;

/// Names a transport in orders.
pub type Name = u64;

/// What a worker is told.
pub enum Order {
    /// Takes over a transport.
    Add(Name, Box<NewTransport>),
    /// Expects a stream on it.
    AddStream(Name, StreamSpec),
    /// Sends a track on it.
    AddSource(Name, SourceSpec, Arc<Track>),
    /// Its peer's shard failed: what it lost is no loss of others.
    Hit(Name),
    /// Lets go of it.
    Remove(Name),
    /// Lets go of it, but keeps its port from others for a while: the server still sends there.
    Forsake(Name),
    /// Counting begins.
    Mark,
    /// No frame is sent any more.
    Hush,
    /// Sums up.
    Report(Sender<Tally>),
    /// Ends.
    Stop,
}

/// How a worker works.
#[derive(Clone)]
pub struct Settings {
    /// How often sockets are looked at.
    pub poll: Duration,
    /// How often transport-wide feedback is sent; none: never.
    pub feedback: Option<Duration>,
    /// Receivers take runs of datagrams whole.
    pub runs: bool,
    /// The network between each transport and its socket.
    pub network: Option<Script>,
    /// Malformed copies of each packet, 0 to 1.
    pub spoil: f64,
}

/// Starts a worker on `core`.
pub fn start(
    settings: Settings,
    measure: Measure,
    orders: Receiver<Order>,
    gauges: Arc<Gauges>,
    core: Option<usize>,
) -> io::Result<JoinHandle<()>> {
    let epoll = Epoll::new()?;
    let begin = move || {
        if let Some(id) = core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        sys::wake_precisely();
        Worker::new(settings, measure, orders, gauges, epoll).run();
    };
    thread::Builder::new().name("load".to_owned()).spawn(begin)
}

/// What a timer is for.
#[derive(Clone, Copy)]
enum Duty {
    Frame(u16),
    Consent,
    Feedback,
    Reports,
    Gaps,
}

#[derive(Clone, Copy)]
struct Timer {
    slot: u32,
    name: Name,
    duty: Duty,
}

/// A datagram under way in the simulated network.
type Flying = (usize, Name, Vec<u8>);

struct Worker {
    settings: Settings,
    measure: Measure,
    orders: Receiver<Order>,
    gauges: Arc<Gauges>,
    epoll: Epoll,
    wheel: crate::wheel::Wheel<Timer>,
    transports: Slab<(Name, Transport)>,
    names: HashMap<Name, usize>,
    lines: Option<Lines<Flying>>,
    forsaken: Vec<UdpSocket>,
    spoiler: Option<Spoiler>,
    tally: Tally,
    batch: ReceiveBatch,
    out: SendBatch,
    hushed: bool,
    stopped: bool,
    /// Kept for their memory.
    due: Vec<(u64, Timer)>,
    ready: Vec<u64>,
}

impl Worker {
    fn new(
        settings: Settings,
        measure: Measure,
        orders: Receiver<Order>,
        gauges: Arc<Gauges>,
        epoll: Epoll,
    ) -> Self {
        let (slots, room) = if settings.runs { RUN_SLOTS } else { SLOTS };
        Self {
            spoiler: (settings.spoil > 0.0).then(|| Spoiler::new(settings.spoil, 1)),
            lines: settings.network.clone().map(|script| Lines::new(script, true)),
            settings,
            measure,
            orders,
            gauges,
            epoll,
            wheel: crate::wheel::Wheel::new(clock::now()),
            transports: Slab::new(),
            names: HashMap::new(),
            forsaken: Vec::new(),
            tally: Tally::default(),
            batch: ReceiveBatch::new(slots, room),
            out: SendBatch::new(),
            hushed: false,
            stopped: false,
            due: Vec::new(),
            ready: Vec::new(),
        }
    }

    fn run(mut self) {
        let poll = clock::nanos(self.settings.poll);
        while !self.stopped {
            let begun = clock::now();
            self.take_orders();
            self.fire_timers();
            self.read_sockets();
            self.move_lines();
            self.tally.cpu = sys::thread_cpu();
            self.gauges.show(&self.tally);
            let lines = self.lines.as_ref().and_then(Lines::next).map(clock::nanos);
            let next = [self.wheel.next(), lines].into_iter().flatten().min();
            let wake = next.map_or(begun + poll, |next| next.min(begun + poll));
            let now = clock::now();
            if wake > now {
                thread::sleep(Duration::from_nanos(wake - now));
            }
        }
    }

    fn take_orders(&mut self) {
        loop {
            let order = match self.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => Order::Stop,
            };
            match order {
                Order::Add(name, new) => self.add(name, *new),
                Order::AddStream(name, spec) => {
                    if let Some(slot) = self.names.get(&name) {
                        self.transports[*slot].1.add_stream(spec, clock::now());
                    }
                }
                Order::AddSource(name, spec, track) => self.add_source(name, spec, track),
                Order::Hit(name) => {
                    if let Some(slot) = self.names.get(&name) {
                        self.transports[*slot].1.hit = true;
                    }
                }
                Order::Remove(name) => drop(self.remove(name)),
                Order::Forsake(name) => self.forsake(name),
                Order::Mark => self.mark(),
                Order::Hush => {
                    self.hushed = true;
                    // From now on it matters only which packet was the last.
                    (self.measure.sample, self.measure.counts) = (1, false);
                }
                Order::Report(to) => {
                    let mut tally = self.tally.clone();
                    self.transports.iter().for_each(|(_, (_, t))| t.sum_up(true, &mut tally));
                    // Whoever asked may have given up.
                    let _ = to.send(tally);
                }
                Order::Stop => {
                    self.stopped = true;
                    return;
                }
            }
        }
    }

    fn remove(&mut self, name: Name) -> Option<UdpSocket> {
        let (_, transport) = self.transports.remove(self.names.remove(&name)?);
        transport.sum_up(false, &mut self.tally);
        transport.sources.iter().for_each(|s| s.track.ended.store(true, Ordering::Release));
        self.lines.iter_mut().for_each(|lines| lines.forget(name));
        Some(transport.socket)
    }

    fn forsake(&mut self, name: Name) {
        let Some(socket) = self.remove(name) else { return };
        // Nobody reads it any more. If that is refused it costs a wake-up and memory, not the run.
        let _ = self.epoll.forget(socket.as_fd());
        let _ = sys::set_receive_buffer(socket.as_fd(), 0);
        if self.forsaken.len() == MAX_FORSAKEN {
            self.forsaken.remove(0);
        }
        self.forsaken.push(socket);
    }

    fn add(&mut self, name: Name, new: NewTransport) {
        let transport = Transport::from(new);
        let fd = transport.socket.as_fd();
        // What is refused here costs precision, not the run.
        let _ = sys::stamp_arrivals(fd);
        let _ = sys::set_receive_buffer(fd, RECEIVE_BUFFER);
        if self.settings.runs {
            let _ = sys::receive_runs(fd);
        }
        let entry = self.transports.vacant_entry();
        let slot = entry.key();
        if self.epoll.watch(fd, slot as u64).is_err() {
            return;
        }
        entry.insert((name, transport));
        self.names.insert(name, slot);
        let now = clock::now();
        // Peers did not all join in the same moment, even if they did here.
        let phase = |interval: u64| {
            interval / 1000 * (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000
        };
        self.time(slot, now + phase(CONSENT_INTERVAL), Duty::Consent);
        self.time(slot, now + phase(REPORT_INTERVAL), Duty::Reports);
        if let Some(interval) = self.settings.feedback.map(clock::nanos) {
            self.time(slot, now + phase(interval), Duty::Feedback);
        }
    }

    fn add_source(&mut self, name: Name, spec: SourceSpec, track: Arc<Track>) {
        let Some(&slot) = self.names.get(&name) else { return };
        let source = Source::new(spec, track, clock::now());
        let sources = &mut self.transports[slot].1.sources;
        let (due, index) = (source.due, sources.len() as u16);
        sources.push(source);
        self.time(slot, due, Duty::Frame(index));
    }

    fn mark(&mut self) {
        self.transports.iter_mut().for_each(|(_, (_, transport))| transport.mark());
        self.tally = Tally { cpu: self.tally.cpu, ..self.tally.since_mark() };
        self.measure.counts = true;
    }

    fn time(&mut self, slot: usize, at: u64, duty: Duty) {
        let name = self.transports[slot].0;
        self.wheel.insert(at, Timer { slot: slot as u32, name, duty });
    }

    fn fire_timers(&mut self) {
        let now = clock::now();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for (at, timer) in due.drain(..) {
            self.fire(at, timer);
        }
        self.due = due;
    }

    fn fire(&mut self, at: u64, Timer { slot, name, duty }: Timer) {
        let slot = slot as usize;
        let Some((_, transport)) = self.transports.get_mut(slot).filter(|entry| entry.0 == name)
        else {
            return;
        };
        let now = clock::now();
        let (tally, out) = (&mut self.tally, &mut self.out);
        let again = match duty {
            Duty::Frame(_) if self.hushed => None,
            Duty::Frame(index) => {
                transport.send_frame(usize::from(index), now, out, tally);
                transport.sources.get(usize::from(index)).map(|source| source.due)
            }
            Duty::Consent => {
                transport.send_check(out);
                Some(at.max(now.saturating_sub(CONSENT_INTERVAL)) + CONSENT_INTERVAL)
            }
            Duty::Reports => {
                transport.send_reports(now, tally, out);
                Some(at.max(now.saturating_sub(REPORT_INTERVAL)) + REPORT_INTERVAL)
            }
            Duty::Feedback => {
                transport.send_feedback(now, tally, out);
                let interval = self.settings.feedback.map_or(SECOND, clock::nanos);
                Some(at.max(now.saturating_sub(interval)) + interval)
            }
            Duty::Gaps => {
                transport.gaps_timed = transport.ask_for_missing(now, tally, out);
                transport.gaps_timed.then_some(now + GAP_INTERVAL)
            }
        };
        if let Some(again) = again {
            self.time(slot, again, duty);
        }
        self.send(slot);
    }

    /// Sends what was written for a transport.
    fn send(&mut self, slot: usize) {
        if self.out.is_empty() {
            return;
        }
        if let Some(spoiler) = &mut self.spoiler {
            self.tally.spoilt += spoiler.spoil(&mut self.out);
        }
        let (name, transport) = &self.transports[slot];
        let Some(lines) = &mut self.lines else {
            self.tally.unsent += self.out.send(transport.socket.as_fd()) as u64;
            return;
        };
        let now = Duration::from_nanos(clock::now());
        for datagram in self.out.iter() {
            let flying = (slot, *name, datagram.to_vec());
            lines.offer(now, *name, Direction::Up, flying, datagram.len());
        }
        self.out.clear();
    }

    fn read_sockets(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        if self.epoll.ready(&mut ready).is_err() {
            ready.clear();
        }
        for (count, slot) in ready.iter().enumerate() {
            if count % SOCKETS_BETWEEN == SOCKETS_BETWEEN - 1 {
                self.fire_timers();
            }
            self.read(*slot as usize);
        }
        self.ready = ready;
    }

    fn read(&mut self, slot: usize) {
        loop {
            let Some((name, transport)) = self.transports.get_mut(slot) else { return };
            // An error of an earlier send shows here; epoll will tell if there is more.
            let Ok(count) = self.batch.fill(transport.socket.as_fd()) else { return };
            let now = clock::now();
            let mut wall = 0;
            for index in 0..count {
                let received = self.batch.take(index);
                if received.stamp == 0 && wall == 0 {
                    wall = clock::wall();
                }
                let arrived = if received.stamp == 0 { wall } else { received.stamp };
                let before = self.tally.received;
                for datagram in received.bytes.chunks(received.segment.max(1)) {
                    match &mut self.lines {
                        None => transport.receive(
                            datagram,
                            (now, arrived),
                            &self.measure,
                            &mut self.tally,
                            &mut self.out,
                        ),
                        Some(lines) => {
                            let flying = (slot, *name, datagram.to_vec());
                            let at = Duration::from_nanos(now);
                            lines.offer(at, *name, Direction::Down, flying, datagram.len());
                        }
                    }
                }
                self.tally.runs += u64::from(self.tally.received > before);
            }
            self.after_reading(slot);
            if count < self.batch.slots() {
                return;
            }
        }
    }

    /// Sends answers, and asks for what is missing.
    fn after_reading(&mut self, slot: usize) {
        let Some((_, transport)) = self.transports.get_mut(slot) else { return };
        if !transport.gaps_timed && transport.has_gaps() {
            transport.gaps_timed = true;
            let now = clock::now();
            transport.ask_for_missing(now, &mut self.tally, &mut self.out);
            self.time(slot, now + GAP_INTERVAL, Duty::Gaps);
        }
        self.send(slot);
    }

    /// Moves what is under way in the simulated network.
    fn move_lines(&mut self) {
        let Some(lines) = &mut self.lines else { return };
        let at = Duration::from_nanos(clock::now());
        while lines.follow_timeline(at).is_some() {}
        let mut landed = Vec::new();
        lines.land(at, |way, flying| landed.push((way, flying)));
        for (way, (slot, name, bytes)) in landed {
            let Some((_, transport)) = self.transports.get_mut(slot).filter(|e| e.0 == name) else {
                continue;
            };
            match way {
                Direction::Up => {
                    self.out.push(&bytes);
                    self.tally.unsent += self.out.send(transport.socket.as_fd()) as u64;
                }
                Direction::Down => {
                    let times = (clock::now(), clock::wall());
                    let (tally, out) = (&mut self.tally, &mut self.out);
                    transport.receive(&bytes, times, &self.measure, tally, out);
                    self.tally.runs += 1;
                    self.after_reading(slot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use webrtc_srtp::context::Context;
    use webrtc_srtp::protection_profile::ProtectionProfile;

    use super::*;
    use crate::ice::{Agent, Remote};
    use crate::recovery::Came;
    use crate::stamp::{Kind, Tracks};

    const SSRC: u32 = 77;

    /// A transport whose peer is `to`.
    fn transport(socket: UdpSocket, to: &UdpSocket) -> Box<NewTransport> {
        let address = to.local_addr().expect("its address");
        socket.connect(address).expect("connected");
        socket.set_nonblocking(true).expect("a socket");
        let context = || {
            let profile = ProtectionProfile::AeadAes128Gcm;
            Context::new(&[1; 16], &[2; 12], profile, None, None).expect("sound keys")
        };
        let remote = Remote { address, ufrag: "abcd".to_owned(), password: "p".repeat(24) };
        let agent = Agent::new(&remote, 1);
        Box::new(NewTransport {
            socket,
            seal: context(),
            open: context(),
            agent,
            began: 1,
            ssrc: 5,
            again: false,
        })
    }

    /// A worker that takes orders.
    fn begin(network: Option<Script>, tracks: Arc<Tracks>) -> (Sender<Order>, JoinHandle<()>) {
        let measure = Measure { tracks, sample: 4, counts: false };
        let (orders, taken) = channel();
        let settings = Settings {
            poll: Duration::from_millis(1),
            feedback: Some(Duration::from_millis(50)),
            runs: false,
            network,
            spoil: 0.0,
        };
        let gauges = Arc::new(Gauges::default());
        let worker = start(settings, measure, taken, gauges, None).expect("a thread");
        (orders, worker)
    }

    fn report(orders: &Sender<Order>) -> Tally {
        let (to, from) = channel();
        orders.send(Order::Report(to)).expect("it runs");
        from.recv().expect("a report")
    }

    /// One transport sends video straight to another.
    fn run(network: Option<Script>, until: impl Fn(&Tally) -> bool) -> Tally {
        let tracks = Arc::new(Tracks::default());
        let (orders, worker) = begin(network, tracks.clone());
        let [a, b] = [0, 0].map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("a socket"));
        let (to_a, to_b) = (a.try_clone().expect("a copy"), b.try_clone().expect("a copy"));
        orders.send(Order::Add(1, transport(a, &to_b))).expect("it runs");
        orders.send(Order::Add(2, transport(b, &to_a))).expect("it runs");
        let came = Came::default();
        let stream =
            StreamSpec { video: true, ssrc: SSRC, rtx_ssrc: 78, wide_id: 4, nack: true, came };
        orders.send(Order::AddStream(2, stream)).expect("it runs");
        let (number, track) = tracks.add(Kind::Video);
        let spec = SourceSpec {
            number,
            rid: None,
            mid: "0".to_owned(),
            ssrc: SSRC,
            rtx_ssrc: 78,
            bitrate: 1_000_000,
            fps: 50,
            packet: 1200,
            temporal: false,
            key_interval: None,
            turns: None,
        };
        orders.send(Order::AddSource(1, spec, track)).expect("it runs");
        orders.send(Order::Mark).expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let tally = report(&orders);
            if until(&tally) {
                orders.send(Order::Stop).expect("it runs");
                worker.join().expect("a good end");
                return tally;
            }
            assert!(Instant::now() < deadline, "it does not come about");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_one_sends_the_other_counts_and_measures() {
        let tally = run(None, |tally| {
            tally.delivered > 100 && tally.video.count() > 5 && tally.feedback_received > 0
        });
        assert_eq!((tally.forged, tally.unknown, tally.strange), (0, 0, 0));
        assert_eq!((tally.first_frame.count(), tally.asked), (1, 0));
        assert!(tally.opened > 0 && tally.sent >= tally.delivered);
    }

    #[test]
    fn nobody_else_gets_the_port_of_one_that_fell_silent() {
        let (orders, worker) = begin(None, Arc::default());
        let [a, b, server] =
            [0; 3].map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("a socket"));
        let [to_a, to_b] = [&a, &b].map(|socket| socket.local_addr().expect("its address"));
        orders.send(Order::Add(1, transport(a, &server))).expect("it runs");
        orders.send(Order::Add(2, transport(b, &server))).expect("it runs");
        orders.send(Order::Remove(1)).expect("it runs");
        orders.send(Order::Forsake(2)).expect("it runs");
        report(&orders);
        assert!(UdpSocket::bind(to_a).is_ok() && UdpSocket::bind(to_b).is_err());
        orders.send(Order::Stop).expect("it runs");
        worker.join().expect("a good end");
    }

    #[test]
    fn a_lossy_network_is_repaired() {
        let script = Script::from_json(r#"{ "seed": 3, "both": "loss=5% delay=5ms" }"#);
        let tally = run(Some(script.expect("a network")), |tally| tally.repaired > 5);
        assert!(tally.asked >= tally.repaired && tally.resent >= tally.repaired);
        assert!(tally.expected - tally.delivered < 40);
    }
}
