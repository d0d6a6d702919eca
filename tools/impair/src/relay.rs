//! The shell around the lines: sockets, clock, timer, and who may speak to it while it runs.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::json;

use crate::flows::{FLOW_IDLE, Flows, Listener, Map};
use crate::lines::{BothCounters, FlowId, Lines};
use crate::report::{Report, Sockets};
use crate::script::{BadScript, Command, Direction, Script};

/// What epoll says is ready. Listeners are numbered from `LISTENERS`, flows from `FLOWS`.
const TIMER: u64 = 0;
const BELL: u64 = 1;
const SIGNAL: u64 = 2;
const LISTENERS: u64 = 16;
const FLOWS: u64 = 1 << 32;

/// Sockets taken care of between two looks at what must leave.
const EVENTS: usize = 32;
/// Datagrams read from a socket at a time, for the same reason.
const BATCH: usize = 32;
/// The largest UDP datagram.
const MAX_DATAGRAM: usize = 65_535;
/// How often idle flows are looked for.
const SWEEP: Duration = FLOW_IDLE.checked_div(4).expect("not divided by 0");
/// Commands that may wait; whoever writes more waits.
const MAX_COMMANDS: usize = 64;

/// How the relay is run.
pub struct Settings {
    /// What listens where.
    pub maps: Vec<Map>,
    /// The profiles and their changes.
    pub script: Script,
    /// Each client has a line of its own.
    pub per_client: bool,
    /// How often a line of figures is printed; none: never.
    pub every: Option<Duration>,
    /// Answer in JSON.
    pub json: bool,
}

/// Runs until a signal or `quit`.
pub fn run(settings: Settings) -> io::Result<()> {
    let mut relay = Relay::new(settings)?;
    relay.say_where()?;
    while !relay.done {
        relay.turn()?;
    }
    relay.report(true)
}

#[derive(Clone)]
struct Datagram {
    flow: FlowId,
    bytes: Box<[u8]>,
}

/// What counters were at an earlier report.
#[derive(Default)]
struct Mark {
    at: Duration,
    counters: BothCounters,
}

struct Relay {
    began: Instant,
    epoll: Epoll,
    timer: TimerFd,
    signals: SignalFd,
    bell: UnixStream,
    commands: Receiver<Result<Command, BadScript>>,
    listeners: Vec<Listener>,
    flows: Flows,
    lines: Lines<Datagram>,
    sockets: Sockets,
    buffer: Box<[u8]>,
    next_sweep: Duration,
    every: Option<Duration>,
    next_line: Option<Duration>,
    last_line: Mark,
    last_stats: Mark,
    json: bool,
    done: bool,
}

impl Relay {
    fn new(settings: Settings) -> io::Result<Self> {
        // Before the thread that reads commands, which inherits it.
        let mut stops = SigSet::empty();
        stops.add(Signal::SIGINT);
        stops.add(Signal::SIGTERM);
        stops.thread_block()?;
        let signals = SignalFd::new(&stops)?;
        let (bell, commands) = listen_to_commands()?;
        let listeners: Vec<_> = settings.maps.into_iter().map(bind).collect::<io::Result<_>>()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        watch(&epoll, &timer, TIMER)?;
        watch(&epoll, &bell, BELL)?;
        watch(&epoll, &signals, SIGNAL)?;
        for (number, listener) in (LISTENERS..).zip(&listeners) {
            watch(&epoll, &listener.socket, number)?;
        }
        Ok(Self {
            began: Instant::now(),
            epoll,
            timer,
            signals,
            bell,
            commands,
            listeners,
            flows: Flows::default(),
            lines: Lines::new(settings.script, settings.per_client),
            sockets: Sockets::default(),
            buffer: vec![0; MAX_DATAGRAM].into(),
            next_sweep: SWEEP,
            every: settings.every,
            next_line: settings.every,
            last_line: Mark::default(),
            last_stats: Mark::default(),
            json: settings.json,
            done: false,
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        self.set_timer()?;
        let mut events = [EpollEvent::empty(); EVENTS];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..ready] {
            match event.data() {
                // Setting it again silences it.
                TIMER => {}
                BELL => self.obey()?,
                SIGNAL => {
                    self.signals.read_signal()?;
                    self.done = true;
                }
                flow @ FLOWS.. => self.read_upstream(flow - FLOWS),
                listener => self.read_clients((listener - LISTENERS) as usize),
            }
        }
        self.do_what_is_due()
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn set_timer(&self) -> io::Result<()> {
        let due = self
            .lines
            .next()
            .into_iter()
            .chain(self.next_line)
            .fold(self.next_sweep, Duration::min);
        // Zero would switch it off.
        let wait = due.saturating_sub(self.now()).max(Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        Ok(self.timer.set(once, TimerSetTimeFlags::empty())?)
    }

    fn do_what_is_due(&mut self) -> io::Result<()> {
        let now = self.now();
        while let Some(timed) = self.lines.follow_timeline(now) {
            if self.every.is_some() {
                writeln!(io::stderr(), "{:7.1} s: {}", now.as_secs_f64(), timed.turn)?;
            }
        }
        let (flows, listeners, unsent) = (&self.flows, &self.listeners, &mut self.sockets.unsent);
        self.lines.land(now, |way, Datagram { flow, bytes }| {
            let sent = flows.find(flow).is_some_and(|flow| match way {
                Direction::Up => flow.upstream.send(&bytes).is_ok(),
                Direction::Down => {
                    listeners[flow.listener].socket.send_to(&bytes, flow.client).is_ok()
                }
            });
            if !sent {
                unsent.count(bytes.len());
            }
        });
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            while let Some((id, flow)) = self.flows.take_idle(now) {
                self.epoll.delete(&flow.upstream)?;
                self.lines.forget(id);
            }
        }
        if self.next_line.is_some_and(|at| at <= now) {
            self.next_line = self.every.map(|every| now + every);
            self.figures(now)?;
        }
        Ok(())
    }

    // -- datagrams -----------------------------------------------------------------------------

    fn read_clients(&mut self, number: usize) {
        for _ in 0..BATCH {
            let listener = &self.listeners[number];
            let Some((size, client)) = received(|| listener.socket.recv_from(&mut self.buffer))
            else {
                return;
            };
            let (now, target) = (self.now(), listener.target);
            let known = self.flows.heard(now, number, client);
            let Some(flow) = known.or_else(|| self.open(now, number, client, target)) else {
                self.sockets.refused.count(size);
                continue;
            };
            let datagram = Datagram { flow, bytes: self.buffer[..size].into() };
            self.lines.offer(now, flow, Direction::Up, datagram, size);
        }
    }

    fn read_upstream(&mut self, flow: FlowId) {
        for _ in 0..BATCH {
            let Some(upstream) = self.flows.find(flow).map(|flow| &flow.upstream) else { return };
            let Some(size) = received(|| upstream.recv(&mut self.buffer)) else { return };
            let datagram = Datagram { flow, bytes: self.buffer[..size].into() };
            self.lines.offer(self.now(), flow, Direction::Down, datagram, size);
        }
    }

    fn open(
        &mut self,
        now: Duration,
        listener: usize,
        client: SocketAddr,
        target: SocketAddr,
    ) -> Option<FlowId> {
        let id = self.flows.open(now, listener, client, target)?;
        let flow = self.flows.find(id)?;
        watch(&self.epoll, &flow.upstream, FLOWS + id).ok()?;
        Some(id)
    }

    // -- people and programs -------------------------------------------------------------------

    fn obey(&mut self) -> io::Result<()> {
        let mut rings = [0; MAX_COMMANDS];
        match self.bell.read(&mut rings) {
            // No more commands will come; the relay goes on.
            Ok(0) => self.epoll.delete(&self.bell)?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Ok(Command::Stats) => self.report(false)?,
                Ok(Command::Quit) => self.done = true,
                Ok(Command::Turn(turn)) => {
                    self.lines.turn(self.now(), &turn);
                    self.answer(json!({ "ok": true }), "ok")?;
                }
                Err(bad) => {
                    self.answer(json!({ "error": bad.to_string() }), &format!("error: {bad}"))?
                }
            }
        }
        Ok(())
    }

    fn say_where(&self) -> io::Result<()> {
        let mut pairs = Vec::new();
        for Listener { socket, target } in &self.listeners {
            pairs.push((socket.local_addr()?.to_string(), target.to_string()));
        }
        let listed: Vec<_> = pairs
            .iter()
            .map(|(listen, target)| json!({ "listen": listen, "target": target }))
            .collect();
        let lines: Vec<_> =
            pairs.iter().map(|(listen, target)| format!("{listen} leads to {target}")).collect();
        self.answer(json!({ "maps": listed }), &lines.join("\n"))
    }

    fn report(&mut self, last: bool) -> io::Result<()> {
        let now = self.now();
        let counters = self.lines.counters();
        let (stats, text) =
            self.report_since(now, &counters, &self.last_stats, |r| (r.json(), r.summary()));
        self.answer(json!({ "stats": stats, "last": last }), &text)?;
        self.last_stats = Mark { at: now, counters };
        Ok(())
    }

    fn figures(&mut self, now: Duration) -> io::Result<()> {
        let counters = self.lines.counters();
        let line = self.report_since(now, &counters, &self.last_line, |report| report.line());
        writeln!(io::stderr(), "{line}")?;
        self.last_line = Mark { at: now, counters };
        Ok(())
    }

    fn report_since<T>(
        &self,
        now: Duration,
        counters: &BothCounters,
        mark: &Mark,
        of: impl FnOnce(Report) -> T,
    ) -> T {
        let window = counters.since(&mark.counters);
        let sockets = Sockets { flows: self.flows.count(), ..self.sockets };
        of(Report { elapsed: now, since: now - mark.at, total: counters, window: &window, sockets })
    }

    fn answer(&self, json: serde_json::Value, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json { writeln!(out, "{json}") } else { writeln!(out, "{text}") }
    }
}

fn bind(map: Map) -> io::Result<Listener> {
    let explained = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot bind UDP {}: {error}", map.listen))
    };
    Listener::bind(map).map_err(explained)
}

fn watch(epoll: &Epoll, fd: impl AsFd, number: u64) -> io::Result<()> {
    Ok(epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
}

// An error of an earlier send (nobody listens there) shows here; the datagrams behind it are still good.
fn received<T>(mut receive: impl FnMut() -> io::Result<T>) -> Option<T> {
    loop {
        match receive() {
            Ok(datagram) => return Some(datagram),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                ) => {}
            Err(_) => return None,
        }
    }
}

/// A thread that reads standard input, since a file or terminal there cannot be polled alike.
fn listen_to_commands() -> io::Result<(UnixStream, Receiver<Result<Command, BadScript>>)> {
    let (bell, mut rope) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    let (sender, commands) = sync_channel(MAX_COMMANDS);
    thread::Builder::new().name("commands".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if line.trim().is_empty() {
                continue;
            }
            if sender.send(line.parse()).is_err() || rope.write_all(&[1]).is_err() {
                return;
            }
        }
    })?;
    Ok((bell, commands))
}
