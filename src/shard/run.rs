//! One shard's loop: wait, receive, hand to the rooms, send.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::clock::Moment;
use super::counters::Counters;
use super::handover::Inlets;
use super::io::Io;
use super::mailbox::{Command, Event, ShardEvent};
use super::outbox::{Departures, Outbox};
use super::wake::Waker;
use crate::id::ShardId;
use crate::room::parcel::Parcel;
use crate::room::{self, Datagram};

/// Commands carried out in one turn; media must not wait for a burst of signaling.
const COMMANDS_PER_TURN: usize = 32;

/// What a shard runs: [`room::Engine`], or a double in a test. Same verbs, same meaning.
pub trait Rooms {
    /// See [`room::Engine::receive`].
    fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl room::Outbox);
    /// See [`room::Engine::receive_parcel`].
    fn receive_parcel(
        &mut self,
        now: Instant,
        from: ShardId,
        parcel: &Parcel,
        out: &mut impl room::Outbox,
    );
    /// See [`room::Engine::command`].
    fn command(&mut self, now: Instant, command: Command, out: &mut impl room::Outbox);
    /// See [`room::Engine::next_timeout`].
    fn next_timeout(&self) -> Option<Instant>;
    /// See [`room::Engine::handle_timeout`].
    fn handle_timeout(&mut self, now: Instant, out: &mut impl room::Outbox);
    /// See [`room::Engine::poll_event`].
    fn poll_event(&mut self) -> Option<Event>;
}

impl Rooms for room::Engine {
    fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl room::Outbox) {
        self.receive(now, drain, out);
    }

    fn receive_parcel(
        &mut self,
        now: Instant,
        from: ShardId,
        parcel: &Parcel,
        out: &mut impl room::Outbox,
    ) {
        self.receive_parcel(now, from, parcel, out);
    }

    fn command(&mut self, now: Instant, command: Command, out: &mut impl room::Outbox) {
        self.command(now, command, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.next_timeout()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut impl room::Outbox) {
        self.handle_timeout(now, out);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }
}

/// A shard at work, on its own thread.
pub(super) struct Shard<R, B> {
    pub id: ShardId,
    pub rooms: R,
    pub io: B,
    pub departures: Departures,
    pub inlets: Inlets,
    pub waker: Arc<Waker>,
    pub commands: Receiver<Command>,
    pub events: UnboundedSender<ShardEvent>,
    pub counters: Counters,
    /// A command taken out of the channel while looking whether there is one.
    pub next: Option<Command>,
}

impl<R: Rooms, B: Io> Shard<R, B> {
    /// Runs until [`Command::Shutdown`], until nobody can send commands any more, or until the backend breaks.
    pub fn run(&mut self) -> io::Result<()> {
        let mut running = true;
        while running {
            self.sleep()?;
            let moment = Moment::read();
            self.receive(&moment)?;
            self.take_parcels(moment.now);
            running = self.take_commands(moment.now);
            if self.rooms.next_timeout().is_some_and(|due| due <= moment.now) {
                self.with_outbox(|rooms, out| rooms.handle_timeout(moment.now, out));
            }
            while let Some(event) = self.rooms.poll_event() {
                // Nobody listens any more when the process ends.
                let _ = self.events.send((self.id, event));
            }
            self.departures.flush(self.io.sender(), &mut self.counters);
            if let Some(error) = self.departures.broken.take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for a datagram, the bell or the next timeout; does not wait if a queue holds something.
    fn sleep(&mut self) -> io::Result<()> {
        self.waker.about_to_sleep();
        let timeout = if self.has_mail() {
            Some(Duration::ZERO)
        } else {
            self.rooms.next_timeout().map(|due| due.saturating_duration_since(Instant::now()))
        };
        self.counters.sleeps += u64::from(timeout != Some(Duration::ZERO));
        self.io.wait(timeout, &mut self.counters)?;
        self.waker.awake();
        Ok(())
    }

    fn has_mail(&mut self) -> bool {
        if self.next.is_none() {
            // Nobody left to send is found again, and dealt with, by `take_commands`.
            self.next = self.commands.try_recv().ok();
        }
        self.next.is_some() || !self.inlets.is_empty()
    }

    fn receive(&mut self, moment: &Moment) -> io::Result<()> {
        let Self { rooms, io, departures, counters, .. } = self;
        io.drain(moment, counters, |drain, sender, counters| {
            rooms.receive(moment.now, drain, &mut Outbox { departures, sender, counters });
        })
    }

    fn take_parcels(&mut self, now: Instant) {
        let Self { rooms, io, departures, inlets, counters, .. } = self;
        let mut out = Outbox { departures, sender: io.sender(), counters };
        let taken = inlets.take(|from, parcel| rooms.receive_parcel(now, from, parcel, &mut out));
        self.counters.parcels_in += taken;
    }

    /// Whether to go on.
    fn take_commands(&mut self, now: Instant) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            let command = match self.next.take() {
                Some(command) => command,
                None => match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => Command::Shutdown,
                },
            };
            let last = matches!(command, Command::Shutdown);
            self.with_outbox(|rooms, out| rooms.command(now, command, out));
            if last {
                return false;
            }
        }
        true
    }

    fn with_outbox(&mut self, work: impl FnOnce(&mut R, &mut Outbox<'_, B::Sender>)) {
        let Self { rooms, io, departures, counters, .. } = self;
        work(rooms, &mut Outbox { departures, sender: io.sender(), counters });
    }
}
