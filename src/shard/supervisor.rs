//! Watches the shards' threads: one that fails is started anew, one that stands still is noticed.
//!
//! A thread cannot be killed. So a shard that stands still for [`LOST`] is given up: control hears that
//! it failed, its peers go elsewhere, and should the thread ever go on, it sends nothing more, ends, and
//! is replaced like any that failed. Until then its port stays silent.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};

use super::handover::Ends;
use super::mailbox::{Command, Mailbox, ShardEvent};
use super::socket::Socket;
use super::wake::Waker;
use crate::id::ShardId;

/// How often is looked whether the shards turn. An idle one is woken for it every other time.
const TICK: Duration = Duration::from_millis(500);
/// Ticks without a turn after which a shard is said to be stuck: no turn takes a tenth of that.
const STUCK: u32 = 4;
/// Ticks without a turn after which it is given up: a call that stood still for so long has ended for
/// those who were in it. Ticks, not seconds: a process that was stopped and goes on has missed none.
const LOST: u32 = 20;
/// Wait before a failed shard is started anew; doubled with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest such wait: a crash loop must not take a core, nor fill the log.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A shard that lived for so long did not fail because of how it began.
const CALM: Duration = Duration::from_secs(60);

const _: () = assert!(STUCK < LOST);

/// The shards' threads: keeps track of them, and ends them. Dropping it lets them run on.
pub struct Threads {
    notices: Sender<Notice>,
}

/// Shards that failed, or had not ended by the deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards that did not end well: {0:?}")]
pub struct Unclean(pub Vec<ShardId>);

impl Threads {
    /// Sends [`Command::Shutdown`] to every shard and waits, at most `within`, until all have
    /// ended. Blocks the calling thread.
    pub fn shutdown(self, within: Duration) -> Result<(), Unclean> {
        let (answer, answered) = std::sync::mpsc::channel();
        let deadline = Instant::now() + within;
        // The supervisor ends with this notice and no sooner.
        let _ = self.notices.send(Notice::Stop { deadline, answer });
        answered.recv().unwrap_or(Ok(()))
    }
}

/// What the supervisor is told.
pub(super) enum Notice {
    /// A shard's thread has ended; an error means that it failed.
    Ended(Box<Kept>, io::Result<()>),
    Stop {
        deadline: Instant,
        answer: Sender<Result<(), Unclean>>,
    },
}

/// What a shard hands on from one of its lives to the next.
pub(super) struct Kept {
    pub id: ShardId,
    /// Keeps the port; each life has a socket of its own on it.
    pub socket: Socket,
    pub port: u16,
    pub core: Option<CoreId>,
    /// Its ends of the queues; the other shards hold the opposite ones.
    pub ends: Ends,
    pub waker: Arc<Waker>,
    pub events: UnboundedSender<ShardEvent>,
}

/// The core that a shard is pinned to, once it is ready.
pub(super) type Ready = io::Result<Option<usize>>;

/// A thread that was started.
pub(super) struct Launched {
    pub commands: Sender<Command>,
    pub ready: Receiver<Ready>,
}

/// Starts a shard's thread; gives back what was to be kept if there can be none.
pub(super) type Launch = Box<dyn Fn(Box<Kept>) -> Result<Launched, (Box<Kept>, io::Error)> + Send>;

/// Knows each shard's state, in the order of their ids.
pub(super) struct Supervisor {
    shards: Vec<Place>,
    launch: Launch,
    events: UnboundedSender<ShardEvent>,
    notices: Receiver<Notice>,
}

struct Place {
    port: u16,
    waker: Arc<Waker>,
    commands: Sender<Command>,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// When the newest life began.
    born: Instant,
    /// Its turns as of the last tick, and the ticks since they were fewer.
    turns: u64,
    still: u32,
}

enum State {
    Alive,
    /// Starts, or stands still: nothing is on it.
    Absent,
    /// To be started anew.
    Dead(Box<Kept>, Instant),
    /// Ended as it was told to.
    Ended,
}

impl Supervisor {
    /// Nothing to watch yet.
    pub fn new(
        launch: Launch,
        events: UnboundedSender<ShardEvent>,
        notices: Receiver<Notice>,
    ) -> Self {
        Self { shards: Vec::new(), launch, events, notices }
    }

    /// Starts the next shard's thread; its mailbox follows with [`Self::await_birth`].
    pub fn add(&mut self, kept: Box<Kept>) -> io::Result<Receiver<Ready>> {
        let (port, waker) = (kept.port, kept.waker.clone());
        let Launched { commands, ready } = (self.launch)(kept).map_err(|(_, error)| error)?;
        let (state, born) = (State::Absent, Instant::now());
        let (failures, turns, still) = (0, 0, 0);
        self.shards.push(Place { port, waker, commands, state, failures, born, turns, still });
        Ok(ready)
    }

    /// Waits until a shard's thread is at work.
    pub fn await_birth(&mut self, shard: ShardId, ready: &Receiver<Ready>) -> io::Result<Mailbox> {
        let died = || Err(io::Error::other("a shard ended while it started"));
        let core = ready.recv().unwrap_or_else(|_| died())?;
        let place = &mut self.shards[usize::from(shard.0)];
        (place.state, place.born, place.still) = (State::Alive, Instant::now(), 0);
        let (port, waker, commands) = (place.port, place.waker.clone(), place.commands.clone());
        Ok(Mailbox::new(shard, core, port, commands, Box::new(move || waker.wake())))
    }

    /// Watches, on a thread of its own, until [`Threads::shutdown`].
    pub fn watch(mut self, notices: Sender<Notice>) -> io::Result<Threads> {
        let life = move || self.run();
        Builder::new().name("supervisor".to_owned()).spawn(life)?;
        Ok(Threads { notices })
    }

    /// Ends all shards, at most by `deadline`.
    pub fn stop(&mut self, deadline: Instant) -> Result<(), Unclean> {
        for place in &self.shards {
            // One that has ended already has said so.
            let _ = place.commands.send(Command::Shutdown);
            place.waker.wake();
        }
        while self.shards.iter().any(Place::has_thread) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left) {
                Ok(Notice::Ended(kept, outcome)) => self.ended(kept, outcome),
                Ok(Notice::Stop { .. }) => {}
                Err(_) => break,
            }
        }
        let ended_well = |place: &Place| matches!(place.state, State::Ended);
        let unclean = (0..).map(ShardId).zip(&self.shards).filter(|(_, place)| !ended_well(place));
        let unclean: Vec<_> = unclean.map(|(id, _)| id).collect();
        if unclean.is_empty() { Ok(()) } else { Err(Unclean(unclean)) }
    }

    fn run(&mut self) {
        let mut tick = Instant::now() + TICK;
        loop {
            let due = self.shards.iter().filter_map(Place::restart_at).fold(tick, Instant::min);
            match self.notices.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Notice::Ended(kept, outcome)) => self.ended(kept, outcome),
                Ok(Notice::Stop { deadline, answer }) => {
                    // Whoever asked waits for it.
                    let _ = answer.send(self.stop(deadline));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= tick {
                // Not counted on from the last one: a process that was stopped catches up on none.
                tick = now + TICK;
                self.look_at_all();
            }
            self.restart_due(now);
        }
    }

    /// A shard's thread has ended.
    fn ended(&mut self, kept: Box<Kept>, outcome: io::Result<()>) {
        let id = kept.id;
        let place = &mut self.shards[usize::from(id.0)];
        let Err(error) = outcome else {
            place.state = State::Ended;
            return;
        };
        let was_alive = matches!(place.state, State::Alive);
        let wait = place.next_wait();
        place.state = State::Dead(kept, Instant::now() + wait);
        if was_alive {
            error!(shard = id.0, %error, again_in = ?wait, "Shard failed: its peers are cut off");
            self.tell(ShardEvent::Failed(id));
        } else {
            warn!(shard = id.0, %error, again_in = ?wait, "Shard is to begin anew");
        }
    }

    /// Starts the shards anew whose wait is over.
    fn restart_due(&mut self, now: Instant) {
        for place in 0..self.shards.len() {
            if self.shards[place].restart_at().is_some_and(|due| due <= now) {
                self.restart(place);
            }
        }
    }

    fn restart(&mut self, place: usize) {
        let place = &mut self.shards[place];
        let State::Dead(kept, _) = std::mem::replace(&mut place.state, State::Absent) else {
            return;
        };
        let id = kept.id;
        match (self.launch)(kept) {
            Ok(Launched { commands, ready }) => {
                place.commands = commands;
                // If it fails, the thread's end says why.
                if let Ok(mailbox) = self.await_birth(id, &ready) {
                    warn!(shard = id.0, "Shard works again");
                    self.tell(ShardEvent::Restarted(mailbox));
                }
            }
            Err((kept, error)) => self.ended(kept, Err(error)),
        }
    }

    /// Looks whether the shards have turned since the last tick.
    fn look_at_all(&mut self) {
        for index in 0..self.shards.len() {
            let (id, place) = (ShardId(index as u16), &mut self.shards[index]);
            match place.look() {
                Look::Fine => {}
                Look::TurnsAgain => {
                    warn!(shard = id.0, "Shard turns again");
                    self.tell(ShardEvent::TurnsAgain(id));
                }
                Look::Stuck => {
                    error!(shard = id.0, for_at_least = ?TICK * STUCK, "Shard stands still");
                    self.tell(ShardEvent::Stuck(id));
                }
                Look::Lost => {
                    error!(shard = id.0, for_at_least = ?TICK * LOST,
                        "Shard is given up: its peers are cut off");
                    self.tell(ShardEvent::Failed(id));
                }
            }
        }
    }

    fn tell(&self, event: ShardEvent) {
        // Nobody listens any more when the process ends.
        let _ = self.events.send(event);
    }
}

/// What a look at a shard shows.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Fine,
    Stuck,
    TurnsAgain,
    Lost,
}

impl Place {
    fn has_thread(&self) -> bool {
        matches!(self.state, State::Alive | State::Absent)
    }

    fn restart_at(&self) -> Option<Instant> {
        if let State::Dead(_, at) = self.state { Some(at) } else { None }
    }

    /// How long to wait before the next life, after a failure.
    fn next_wait(&mut self) -> Duration {
        if self.born.elapsed() >= CALM {
            self.failures = 0;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures += 1;
        wait
    }

    /// To be called once per tick. A shard that sleeps is woken, so that it turns until the next.
    fn look(&mut self) -> Look {
        if !matches!(self.state, State::Alive) {
            return Look::Fine;
        }
        let turns = self.waker.turns();
        if std::mem::replace(&mut self.turns, turns) != turns {
            let was_stuck = std::mem::take(&mut self.still) >= STUCK;
            return if was_stuck { Look::TurnsAgain } else { Look::Fine };
        }
        self.still += 1;
        self.waker.wake();
        match self.still {
            STUCK => Look::Stuck,
            LOST => {
                self.waker.give_up();
                self.state = State::Absent;
                Look::Lost
            }
            _ => Look::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn place() -> Place {
        let waker = Arc::new(Waker::new().unwrap());
        let (state, commands, born) = (State::Alive, channel().0, Instant::now());
        Place { port: 1, waker, commands, state, failures: 0, born, turns: 0, still: 0 }
    }

    #[test]
    fn a_shard_that_turns_is_fine_however_slowly() {
        let mut place = place();
        for tick in 0..100 {
            if tick % STUCK == 0 {
                place.waker.awake();
            }
            assert_eq!(place.look(), Look::Fine);
        }
    }

    #[test]
    fn a_shard_that_stands_still_is_named_and_then_given_up() {
        let mut place = place();
        let looks: Vec<_> = (1..=LOST + 10).map(|_| place.look()).collect();
        let named = |index: u32| match index {
            STUCK => Look::Stuck,
            LOST => Look::Lost,
            _ => Look::Fine,
        };
        assert_eq!(looks, (1..=LOST + 10).map(named).collect::<Vec<_>>());
        assert!(place.waker.is_given_up());
    }

    #[test]
    fn one_that_goes_on_in_time_is_not_given_up() {
        let mut place = place();
        let stuck = (1..LOST).filter(|_| place.look() == Look::Stuck).count();
        assert_eq!(stuck, 1);
        place.waker.awake();
        assert_eq!(place.look(), Look::TurnsAgain);
        assert!((1..STUCK).all(|_| place.look() == Look::Fine));
        assert!(!place.waker.is_given_up());
    }

    #[test]
    fn a_crash_loop_slows_down() {
        let mut place = place();
        let waits: Vec<_> = (0..30).map(|_| place.next_wait()).collect();
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(waits.is_sorted());
        assert_eq!(waits[29], LONGEST_WAIT);
    }
}
