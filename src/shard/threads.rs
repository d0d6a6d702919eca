//! The shards' threads: made, pinned, watched and ended.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::counters::Counters;
use super::feedback::{self, Feedback};
use super::handover::{self, Ends};
use super::io::{ARENA_LEN, Io, MAX_BATCH};
use super::mailbox::{Command, Mailbox, ShardEvent};
use super::mmsg::Mmsg;
use super::outbox::Departures;
use super::probe;
use super::run::{Reports, Rooms, Shard};
use super::snapshot::Stays;
use super::socket::Socket;
use super::sys::SendQueue;
use super::uring::Uring;
use super::wake::Waker;
use super::{MAX_SHARDS, Running, Shards, ShardsConfig, StartError};
use crate::id::ShardId;

/// How long the shards that did start get to end when another one did not.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// The shards' threads: keeps track of them, and ends them. Dropping it lets them run on.
pub struct Threads {
    threads: Vec<Thread>,
    /// Each shard says here how it ended.
    ended: Receiver<(ShardId, bool)>,
}

struct Thread {
    handle: JoinHandle<()>,
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

/// Shards that failed, or had not ended by the deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards that did not end well: {0:?}")]
pub struct Unclean(pub Vec<ShardId>);

impl Threads {
    /// Whether this shard's thread still runs; `false` after a failure (already logged) or a
    /// shutdown.
    pub fn is_running(&self, shard: ShardId) -> bool {
        self.threads.get(usize::from(shard.0)).is_some_and(|thread| !thread.handle.is_finished())
    }

    /// Sends [`Command::Shutdown`] to every shard and waits, at most `within`, until all have
    /// ended. Blocks the calling thread.
    pub fn shutdown(self, within: Duration) -> Result<(), Unclean> {
        let deadline = Instant::now() + within;
        for thread in &self.threads {
            // One that has ended already has said so.
            let _ = thread.commands.send(Command::Shutdown);
            thread.waker.wake();
        }
        let mut well = vec![false; self.threads.len()];
        for _ in 0..self.threads.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((shard, clean)) = self.ended.recv_timeout(left) else { break };
            well[usize::from(shard.0)] = clean;
        }
        let unclean = |(index, clean): (usize, bool)| (!clean).then_some(ShardId(index as u16));
        let unclean: Vec<_> = well.into_iter().enumerate().filter_map(unclean).collect();
        if unclean.is_empty() { Ok(()) } else { Err(Unclean(unclean)) }
    }
}

/// Like [`super::start`], with rooms of the caller's making, built on each shard's own thread.
pub fn start_with<R: Rooms>(
    config: &ShardsConfig,
    make: impl Fn(ShardId) -> R + Clone + Send + 'static,
) -> Result<Shards, StartError> {
    if !(1..=MAX_SHARDS).contains(&config.workers) {
        return Err(StartError::Workers(config.workers));
    }
    let backend = probe::choose(config.backend)?;
    let sockets = bind_all(config)?;
    let wakers = (0..config.workers).map(|_| Waker::new().map(Arc::new));
    let wakers: Vec<_> = wakers.collect::<io::Result<_>>().map_err(StartError::Thread)?;
    let ends = handover::connect(&wakers);
    let cores = choose_cores(config.workers);
    let (events_in, events) = unbounded_channel();
    let (end, ended) = mpsc::channel();

    let mut threads = Threads { threads: Vec::new(), ended };
    let mut births = Vec::new();
    let parts = sockets.into_iter().zip(wakers).zip(ends).zip(cores);
    for (index, (((socket, waker), ends), core)) in parts.enumerate() {
        let id = ShardId(index as u16);
        let (commands, received) = mpsc::channel();
        let outside = (commands.clone(), waker.clone(), socket.1);
        let inside = Inside {
            id,
            socket: socket.0,
            core,
            ends,
            waker: waker.clone(),
            commands: received,
            events: events_in.clone(),
        };
        match launch(inside, backend, make.clone(), end.clone()) {
            Ok((handle, ready)) => {
                threads.threads.push(Thread { handle, commands, waker });
                births.push((id, outside, ready));
            }
            Err(error) => return Err(give_up(threads, error)),
        }
    }

    let mut mailboxes = Vec::new();
    for (shard, (commands, waker, port), ready) in births {
        let died = || Err(io::Error::other("a shard ended while it started"));
        match ready.recv().unwrap_or_else(|_| died()) {
            Ok(core) => {
                let wake = Box::new(move || waker.wake());
                mailboxes.push(Mailbox::new(shard, core, port, commands, wake));
            }
            Err(error) => return Err(give_up(threads, error)),
        }
    }
    Ok(Shards { mailboxes, events, backend, threads })
}

/// Ends the shards that did start.
fn give_up(threads: Threads, error: io::Error) -> StartError {
    // The error that made us give up says more than what they end with.
    let _ = threads.shutdown(CLEAN_UP);
    StartError::Thread(error)
}

/// One socket per shard, each on the next free port.
fn bind_all(config: &ShardsConfig) -> Result<Vec<(Socket, u16)>, StartError> {
    let (first, last) = (*config.ports.start(), *config.ports.end());
    let mut ports = config.ports.clone();
    let one = |shard| match Socket::bind_next(config.bind, &mut ports) {
        Ok(Some(bound)) => Ok(bound),
        Ok(None) => Err(StartError::NoPort { first, last, shard }),
        Err(error) => Err(StartError::Bind { address: config.bind, error }),
    };
    (0..config.workers as u16).map(one).collect()
}

/// A core for each shard, of those that the process may use; `None` where the system does not tell.
fn choose_cores(shards: usize) -> Vec<Option<CoreId>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if shards > cores.len() {
        tracing::warn!(shards, cores = cores.len(), "More shards than cores: they share them");
    }
    (0..shards).map(|index| cores.get(index % cores.len().max(1)).copied()).collect()
}

/// What a shard's thread is given.
struct Inside {
    id: ShardId,
    socket: Socket,
    core: Option<CoreId>,
    ends: Ends,
    waker: Arc<Waker>,
    commands: Receiver<Command>,
    events: UnboundedSender<ShardEvent>,
}

/// The core that a shard is pinned to, once it is ready.
type Ready = io::Result<Option<usize>>;

/// Starts a thread; it says `Ready` when it works, and tells `end` how it ended.
fn launch<R: Rooms>(
    inside: Inside,
    backend: Running,
    make: impl Fn(ShardId) -> R + Send + 'static,
    end: Sender<(ShardId, bool)>,
) -> io::Result<(JoinHandle<()>, Receiver<Ready>)> {
    let (ready, is_ready) = mpsc::channel();
    let (id, events) = (inside.id, inside.events.clone());
    let life = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| match backend {
            Running::Uring => live(inside, Uring::new, make, &ready),
            Running::Mmsg => live(inside, Mmsg::new, make, &ready),
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(io::Error::other(text_of(&*panic))));
        if let Err(error) = &outcome {
            tracing::error!(shard = id.0, %error, "Shard failed: its peers are cut off");
            // Nobody listens any more when the process ends.
            let _ = events.send(ShardEvent::Failed(id));
        }
        // Nobody waits for it when start-up is given up.
        let _ = end.send((id, outcome.is_ok()));
    };
    let handle = Builder::new().name(format!("shard-{}", id.0)).spawn(life)?;
    Ok((handle, is_ready))
}

/// A shard's life, on its own thread.
fn live<R: Rooms, B: Io>(
    inside: Inside,
    open: impl FnOnce(Socket, Arc<Waker>) -> io::Result<B>,
    make: impl FnOnce(ShardId) -> R,
    ready: &Sender<Ready>,
) -> io::Result<()> {
    let Inside { id, socket, core, ends, waker, commands, events } = inside;
    let core = core.filter(|core| core_affinity::set_for_current(*core));
    let feedback = open_feedback(id, &socket);
    let opened = SendQueue::new(MAX_BATCH, ARENA_LEN, socket.traits)
        .and_then(|queue| Ok((queue, open(socket, waker.clone())?)));
    let (queue, io) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // `start` reports it.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let departures = Departures { queue, outlets: ends.outlets, broken: None };
    let mut shard = Shard {
        id,
        rooms: make(id),
        io,
        feedback,
        departures,
        inlets: ends.inlets,
        waker,
        commands,
        events,
        counters: Counters::default(),
        stays: Stays::default(),
        next: None,
        reports: Reports::default(),
    };
    let _ = ready.send(Ok(core.map(|core| core.id)));
    let outcome = shard.run();
    let (io, rooms) = (&shard.counters, shard.rooms.counters());
    tracing::info!(shard = id.0, ?io, ?rooms, "Shard ended");
    outcome
}

/// The socket for feedback beside `socket`; without one, feedback wakes the shard.
fn open_feedback(shard: ShardId, socket: &Socket) -> Option<Feedback> {
    let opened = socket.split(&feedback::STEERING).and_then(Feedback::new);
    opened
        .inspect_err(|error| {
            let shard = shard.0;
            tracing::warn!(shard, %error, "No socket apart for feedback: each datagram wakes the shard");
        })
        .ok()
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.as_deref().unwrap_or("without a text"))
}
