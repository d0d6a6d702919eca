//! The shards' threads: bound, pinned, started and run.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use tokio::sync::mpsc::unbounded_channel;

use super::counters::Counters;
use super::feedback::{self, Feedback};
use super::handover::{self, Ends};
use super::io::{ARENA_LEN, Io, MAX_BATCH};
use super::mailbox::{Command, Mailbox};
use super::mmsg::Mmsg;
use super::outbox::Departures;
use super::probe;
use super::rest::Rest;
use super::run::{Reports, Rooms, Shard};
use super::snapshot::Stays;
use super::socket::Socket;
use super::supervisor::{Kept, Launched, Notice, Ready, Supervisor};
use super::sys::{self, SendQueue};
use super::uring::Uring;
use super::wake::Waker;
use super::{MAX_SHARDS, Running, Shards, ShardsConfig, StartError};
use crate::id::ShardId;

/// How long the shards that did start get to end when another one did not.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// Like [`super::start`], with rooms of the caller's making, built on each shard's own thread, in each of
/// its lives anew.
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
    let (notices_in, notices) = mpsc::channel();

    let end = notices_in.clone();
    let launch = move |kept| launch(kept, backend, make.clone(), end.clone());
    let mut supervisor = Supervisor::new(Box::new(launch), events_in.clone(), notices);
    let parts = sockets.into_iter().zip(wakers).zip(ends).zip(cores);
    let kept = parts.zip(0..).map(|(((((socket, port), waker), ends), core), index)| {
        let (id, events) = (ShardId(index), events_in.clone());
        Box::new(Kept { id, socket, port, core, ends, waker, events })
    });
    match give_birth(&mut supervisor, kept) {
        Ok(mailboxes) => {
            let threads = supervisor.watch(notices_in).map_err(StartError::Thread)?;
            Ok(Shards { mailboxes, events, backend, threads })
        }
        Err(error) => {
            // The error that makes us give up says more than what the others end with.
            let _ = supervisor.stop(Instant::now() + CLEAN_UP);
            Err(StartError::Thread(error))
        }
    }
}

/// Starts all threads, then waits until each is at work.
fn give_birth(
    supervisor: &mut Supervisor,
    kept: impl Iterator<Item = Box<Kept>>,
) -> io::Result<Vec<Mailbox>> {
    let births: Vec<_> = kept.map(|kept| supervisor.add(kept)).collect::<io::Result<_>>()?;
    let births = (0..).map(ShardId).zip(births);
    births.map(|(shard, ready)| supervisor.await_birth(shard, &ready)).collect()
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

/// Starts a shard's thread. It says `ready` when it works, and the supervisor how it ended.
fn launch<R: Rooms>(
    kept: Box<Kept>,
    backend: Running,
    make: impl Fn(ShardId) -> R + Send + 'static,
    supervisor: Sender<Notice>,
) -> Result<Launched, (Box<Kept>, io::Error)> {
    let (commands, received) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    // What is to be kept must not be lost with a thread that cannot be made.
    let (hand, handed) = mpsc::channel::<Box<Kept>>();
    let life = move || {
        let Ok(mut kept) = handed.recv() else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| match backend {
            Running::Uring => live(&mut kept, received, Uring::new, make, &ready),
            Running::Mmsg => live(&mut kept, received, Mmsg::new, make, &ready),
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(io::Error::other(text_of(&*panic))));
        // Nobody waits for it when start-up is given up.
        let _ = supervisor.send(Notice::Ended(kept, outcome));
    };
    match Builder::new().name(format!("shard-{}", kept.id.0)).spawn(life) {
        Ok(_) => {
            let _ = hand.send(kept);
            Ok(Launched { commands, ready: is_ready })
        }
        Err(error) => Err((kept, error)),
    }
}

/// A shard's life, on its own thread.
fn live<R: Rooms, B: Io>(
    kept: &mut Kept,
    commands: Receiver<Command>,
    open: impl FnOnce(Socket, Arc<Waker>) -> io::Result<B>,
    make: impl FnOnce(ShardId) -> R,
    ready: &Sender<Ready>,
) -> io::Result<()> {
    let core = kept.core.filter(|core| core_affinity::set_for_current(*core));
    if let Err(error) = sys::take_short_turns() {
        tracing::debug!(shard = kept.id.0, %error, "The scheduler takes no wishes");
    }
    let feedback = open_feedback(kept.id, &kept.socket);
    let opened = SendQueue::new(MAX_BATCH, ARENA_LEN, kept.socket.traits)
        .and_then(|queue| Ok((queue, open(kept.socket.try_clone()?, kept.waker.clone())?)));
    let (queue, io) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let again = io::Error::new(error.kind(), error.to_string());
            // `start` reports it.
            let _ = ready.send(Err(again));
            return Err(error);
        }
    };
    let rooms = make(kept.id);
    kept.waker.begin();
    let Ends { outlets, mut inlets } = std::mem::take(&mut kept.ends);
    // What was meant for an earlier life.
    inlets.clear();
    let mut shard = Shard {
        id: kept.id,
        rooms,
        io,
        feedback,
        departures: Departures { queue, outlets, broken: None, waker: kept.waker.clone() },
        inlets,
        waker: kept.waker.clone(),
        commands,
        events: kept.events.clone(),
        counters: Counters::default(),
        stays: Stays::default(),
        rest: Rest::default(),
        next: None,
        reports: Reports::default(),
    };
    let _ = ready.send(Ok(core.map(|core| core.id)));
    let outcome = catch_unwind(AssertUnwindSafe(|| shard.run()));
    let (io, rooms) = (&shard.counters, shard.rooms.counters());
    tracing::info!(shard = kept.id.0, ?io, ?rooms, "Shard ended");
    kept.ends = Ends { outlets: shard.departures.outlets, inlets: shard.inlets };
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
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
