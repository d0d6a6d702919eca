//! One shard's loop: wait, receive, hand to the rooms, send.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::clock::Moment;
use super::counters::{Counters, DRAIN_BOUNDS};
use super::feedback::Feedback;
use super::handover::Inlets;
use super::io::Io;
use super::mailbox::{Command, Event, ShardEvent};
use super::outbox::{Departures, Outbox};
use super::rest::Rest;
use super::snapshot::{Snapshot, Stays};
use super::sys;
use super::wake::Waker;
use crate::id::ShardId;
use crate::room::parcel::Parcel;
use crate::room::{self, Datagram};

/// Commands carried out in one turn; media must not wait for a burst of signaling.
const COMMANDS_PER_TURN: usize = 32;
/// How often at most a shard logs what it has counted.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What a shard runs: [`room::Engine`], or a double in a test. Same verbs, same meaning.
pub trait Rooms {
    /// See [`room::Engine::receive`].
    fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl room::Outbox);
    /// See [`room::Engine::receive_parcels`].
    fn receive_parcels(
        &mut self,
        now: Instant,
        from: ShardId,
        parcels: &[Box<Parcel>],
        out: &mut impl room::Outbox,
    );
    /// See [`room::Engine::command`].
    fn command(&mut self, now: Instant, command: Command, out: &mut impl room::Outbox);
    /// See [`room::Engine::next_timeout`].
    fn next_timeout(&self) -> Option<Instant>;
    /// See [`room::Engine::handle_timeout`]. Called in every turn: what is due may have waited for one.
    fn handle_timeout(&mut self, now: Instant, out: &mut impl room::Outbox);
    /// See [`room::Engine::poll_event`].
    fn poll_event(&mut self) -> Option<Event>;
    /// See [`room::Engine::counters`]; for the log.
    fn counters(&self) -> &dyn Debug;
    /// Packets of media that were carried so far: while their number stands still, nothing is urgent.
    fn media(&self) -> u64;
    /// See [`room::Engine::snapshot`].
    fn snapshot(&self) -> room::snapshot::Snapshot;
}

impl Rooms for room::Engine {
    fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl room::Outbox) {
        self.receive(now, drain, out);
    }

    fn receive_parcels(
        &mut self,
        now: Instant,
        from: ShardId,
        parcels: &[Box<Parcel>],
        out: &mut impl room::Outbox,
    ) {
        self.receive_parcels(now, from, parcels, out);
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

    fn counters(&self) -> &dyn Debug {
        self.counters()
    }

    fn media(&self) -> u64 {
        self.counters().rtp_in + self.counters().rtp_out
    }

    fn snapshot(&self) -> room::snapshot::Snapshot {
        self.snapshot()
    }
}

/// A shard at work, on its own thread.
pub(super) struct Shard<R, B> {
    pub id: ShardId,
    pub rooms: R,
    pub io: B,
    /// Where feedback comes in apart, if the kernel can do that.
    pub feedback: Option<Feedback>,
    pub departures: Departures,
    pub inlets: Inlets,
    pub waker: Arc<Waker>,
    pub commands: Receiver<Command>,
    pub events: UnboundedSender<ShardEvent>,
    pub counters: Counters,
    pub stays: Stays,
    pub rest: Rest,
    /// A command taken out of the channel while looking whether there is one.
    pub next: Option<Command>,
    pub reports: Reports,
}

/// When a shard last logged what it had counted, and what that was.
#[derive(Default)]
pub(super) struct Reports {
    last: Option<Instant>,
    said: String,
}

impl Reports {
    /// Whether the interval is over. It wakes nobody: what an idle shard counts does not change.
    fn is_due(&mut self, now: Instant) -> bool {
        let last = *self.last.get_or_insert(now);
        let due = now.saturating_duration_since(last) >= REPORT_INTERVAL;
        if due {
            self.last = Some(now);
        }
        due
    }

    /// Whether `said` is news.
    fn is_new(&mut self, said: String) -> bool {
        let new = self.said != said;
        self.said = said;
        new
    }
}

impl<R: Rooms, B: Io> Shard<R, B> {
    /// Runs until [`Command::Shutdown`], until nobody can send commands any more, until the
    /// backend breaks, or until the shard is given up.
    pub fn run(&mut self) -> io::Result<()> {
        let mut running = true;
        while running {
            self.sleep()?;
            self.waker.still_counts()?;
            let moment = Moment::read();
            let before = (self.rooms.media(), self.counters.sent);
            self.receive(&moment)?;
            if self.has_commands() {
                // What has come in does not wait for what signaling wants.
                self.departures.flush(self.io.sender(), &mut self.counters);
            }
            // A replica must be there before its first packets are.
            running = self.take_commands(moment.now);
            self.take_parcels(moment.now);
            // Media does not wait for what follows.
            self.departures.flush(self.io.sender(), &mut self.counters);
            let has_forwarded = self.rooms.media() > before.0 && self.counters.sent > before.1;
            self.stays.end(has_forwarded, &mut self.counters);
            self.take_feedback(&moment);
            self.with_outbox(|rooms, out| rooms.handle_timeout(moment.now, out));
            // It may have been given up within the turn, of which nothing is to be told then.
            self.waker.still_counts()?;
            while let Some(event) = self.rooms.poll_event() {
                // Nobody listens any more when the process ends.
                let _ = self.events.send(ShardEvent::Told(self.id, event));
            }
            self.departures.flush(self.io.sender(), &mut self.counters);
            if let Some(error) = self.departures.broken.take() {
                return Err(error);
            }
            self.rest.note(moment.now, self.rooms.media(), self.counters.received);
            if self.reports.is_due(moment.now) && tracing::enabled!(tracing::Level::DEBUG) {
                self.report();
            }
        }
        Ok(())
    }

    /// Logs what was counted, if that has changed.
    fn report(&mut self) {
        let (shard, io, rooms) = (self.id.0, &self.counters, self.rooms.counters());
        if self.reports.is_new(format!("{rooms:?}")) {
            tracing::debug!(shard, ?io, ?rooms, "Shard's counters");
        }
    }

    /// Waits for a datagram, the bell or the next timeout; does not wait if a queue holds
    /// something. At rest it naps first.
    fn sleep(&mut self) -> io::Result<()> {
        self.waker.about_to_sleep();
        let mut timeout = self.timeout();
        if let Some(nap) = self.rest.nap(Instant::now(), timeout) {
            self.io.nap(nap)?;
            timeout = self.timeout();
        }
        self.counters.sleeps += u64::from(timeout != Some(Duration::ZERO));
        self.io.wait(timeout, &mut self.counters)?;
        self.waker.awake();
        Ok(())
    }

    /// How long the shard may sleep.
    fn timeout(&mut self) -> Option<Duration> {
        if self.has_mail() || self.waker.is_given_up() {
            return Some(Duration::ZERO);
        }
        let feedback = self.feedback.as_ref().and_then(Feedback::next_look);
        let due = self.rooms.next_timeout().into_iter().chain(feedback).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn has_mail(&mut self) -> bool {
        self.has_commands() || !self.inlets.is_empty()
    }

    fn has_commands(&mut self) -> bool {
        if self.next.is_none() {
            // Nobody left to send is found again, and dealt with, by `take_commands`.
            self.next = self.commands.try_recv().ok();
        }
        self.next.is_some()
    }

    fn receive(&mut self, moment: &Moment) -> io::Result<()> {
        let Self { rooms, io, departures, counters, stays, .. } = self;
        io.drain(moment, counters, |drain, sender, counters| {
            #[cfg(feature = "test-hooks")]
            super::hooks::obey(drain, &departures.waker);
            counters.drains.observe(&DRAIN_BOUNDS, drain.len() as u64);
            drain.iter().for_each(|datagram| stays.begin(datagram.received_at));
            rooms.receive(moment.now, drain, &mut Outbox { departures, sender, counters });
        })
    }

    fn take_feedback(&mut self, moment: &Moment) {
        let Self { rooms, io, feedback, departures, counters, .. } = self;
        let Some(feedback) = feedback else { return };
        feedback.drain(moment, counters, |drain, counters| {
            let sender = io.sender();
            rooms.receive(moment.now, drain, &mut Outbox { departures, sender, counters });
        });
    }

    fn take_parcels(&mut self, now: Instant) {
        let Self { rooms, io, departures, inlets, counters, stays, .. } = self;
        let mut out = Outbox { departures, sender: io.sender(), counters };
        let taken = inlets.take(|from, parcels| {
            let arrivals = parcels.iter().filter_map(|parcel| parcel.received_at());
            arrivals.for_each(|arrival| stays.begin(arrival));
            rooms.receive_parcels(now, from, parcels, &mut out);
        });
        self.counters.parcels_in += taken.parcels;
        self.counters.most_parcels = self.counters.most_parcels.max(taken.most);
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
            if let Command::Snapshot { token } = command {
                self.tell_snapshot(token);
                continue;
            }
            let last = matches!(command, Command::Shutdown);
            // It may find a hello waiting, and the arithmetic of handshakes takes time.
            let is_long = matches!(command, Command::ConnectTransport { .. });
            self.with_outbox(|rooms, out| rooms.command(now, command, out));
            if last || is_long {
                return !last;
            }
        }
        true
    }

    fn tell_snapshot(&mut self, token: u64) {
        let snapshot = Box::new(Snapshot {
            io: self.counters,
            cpu: sys::thread_cpu_time(),
            rooms: self.rooms.snapshot(),
        });
        // Nobody listens any more when the process ends.
        let _ = self.events.send(ShardEvent::Snapshot { shard: self.id, token, snapshot });
    }

    fn with_outbox(&mut self, work: impl FnOnce(&mut R, &mut Outbox<'_, B::Sender>)) {
        let Self { rooms, io, departures, counters, .. } = self;
        work(rooms, &mut Outbox { departures, sender: io.sender(), counters });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TransportId;
    use crate::shard::handover::{self, Ends};
    use crate::shard::io::{ARENA_LEN, MAX_BATCH, Transmit};
    use crate::shard::socket::Traits;
    use crate::shard::sys::SendQueue;
    use std::collections::VecDeque;
    use std::sync::mpsc::{Sender, channel};
    use tokio::sync::mpsc::unbounded_channel;

    /// A backend that never has a datagram: it writes down how long it should have waited, and does
    /// then what its script says.
    #[derive(Default)]
    struct Script {
        waits: Vec<Option<Duration>>,
        naps: Vec<Duration>,
        steps: VecDeque<Box<dyn FnOnce()>>,
        sender: Nothing,
    }

    #[derive(Default)]
    struct Nothing;

    impl Transmit for Nothing {
        fn transmit(&mut self, queue: &mut SendQueue, _: &mut Counters) -> io::Result<()> {
            queue.clear();
            Ok(())
        }
    }

    impl Io for Script {
        type Sender = Nothing;

        fn wait(&mut self, timeout: Option<Duration>, _: &mut Counters) -> io::Result<()> {
            self.waits.push(timeout);
            let step = self.steps.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
            step();
            Ok(())
        }

        fn nap(&mut self, length: Duration) -> io::Result<()> {
            self.naps.push(length);
            Ok(())
        }

        fn drain(
            &mut self,
            _: &Moment,
            _: &mut Counters,
            _: impl FnOnce(&mut [Datagram<'_>], &mut Nothing, &mut Counters),
        ) -> io::Result<()> {
            Ok(())
        }

        fn sender(&mut self) -> &mut Nothing {
            &mut self.sender
        }
    }

    /// Rooms with a deadline, set by the first command.
    #[derive(Default)]
    struct Alarm {
        delay: Duration,
        due: Option<Instant>,
        fired: u32,
        /// What it was handed, in order.
        handed: Vec<&'static str>,
    }

    impl Rooms for Alarm {
        fn receive(&mut self, _: Instant, _: &mut [Datagram<'_>], _: &mut impl room::Outbox) {}
        fn receive_parcels(
            &mut self,
            _: Instant,
            _: ShardId,
            _: &[Box<Parcel>],
            _: &mut impl room::Outbox,
        ) {
            self.handed.push("parcel");
        }
        fn command(&mut self, now: Instant, _: Command, _: &mut impl room::Outbox) {
            self.handed.push("command");
            self.due = Some(now + self.delay);
        }
        fn next_timeout(&self) -> Option<Instant> {
            self.due
        }
        fn handle_timeout(&mut self, now: Instant, _: &mut impl room::Outbox) {
            self.fired += u32::from(self.due.take_if(|due| *due <= now).is_some());
        }
        fn poll_event(&mut self) -> Option<Event> {
            None
        }
        fn counters(&self) -> &dyn Debug {
            &self.fired
        }
        fn media(&self) -> u64 {
            0
        }
        fn snapshot(&self) -> room::snapshot::Snapshot {
            room::snapshot::Snapshot::default()
        }
    }

    fn shard(delay: Duration) -> (Shard<Alarm, Script>, Sender<Command>) {
        let waker = Arc::new(Waker::new().unwrap());
        let Ends { outlets, inlets } =
            handover::connect(std::slice::from_ref(&waker)).pop().unwrap();
        let traits = Traits { is_v6: false, is_connected: false, takes_trains: true };
        let queue = SendQueue::new(MAX_BATCH, ARENA_LEN, traits).unwrap();
        let (sender, commands) = channel();
        let shard = Shard {
            id: ShardId(0),
            rooms: Alarm { delay, ..Alarm::default() },
            io: Script::default(),
            feedback: None,
            departures: Departures { queue, outlets, broken: None, waker: waker.clone() },
            inlets,
            waker,
            commands,
            events: unbounded_channel().0,
            counters: Counters::default(),
            stays: Stays::default(),
            rest: Rest::default(),
            next: None,
            reports: Reports::default(),
        };
        (shard, sender)
    }

    fn command() -> Command {
        Command::RemoveTransport(TransportId::random())
    }

    #[test]
    fn an_idle_shard_sleeps_until_it_is_woken() {
        let (mut shard, _commands) = shard(Duration::ZERO);
        shard.io.steps.extend([Box::new(|| ()) as _, Box::new(|| ()) as _]);
        shard.run().unwrap_err();
        assert_eq!(shard.io.waits, [None; 3]);
    }

    #[test]
    fn a_waiting_command_keeps_the_shard_awake() {
        let (mut shard, commands) = shard(Duration::ZERO);
        commands.send(command()).unwrap();
        shard.run().unwrap_err();
        assert_eq!(shard.io.waits, [Some(Duration::ZERO)]);
    }

    /// A lender is told to lend after the borrower is told to take: so must the borrower find them.
    #[test]
    fn commands_come_before_the_parcels_that_need_them() {
        let (mut shard, commands) = shard(Duration::from_secs(3600));
        let wakers = [shard.waker.clone(), Arc::new(Waker::new().unwrap())];
        let mut ends = handover::connect(&wakers);
        let mut other = ends.pop().unwrap();
        shard.inlets = ends.pop().unwrap().inlets;
        assert!(other.outlets.put(ShardId(0), &mut |_| (), &mut Counters::default()));
        commands.send(command()).unwrap();
        shard.io.steps.push_back(Box::new(|| ()));
        shard.run().unwrap_err();
        assert_eq!(shard.rooms.handed, ["command", "parcel"]);
    }

    #[test]
    fn a_burst_of_commands_is_carried_out_over_several_turns() {
        let (mut shard, commands) = shard(Duration::from_secs(3600));
        for _ in 0..2 * COMMANDS_PER_TURN {
            commands.send(command()).unwrap();
        }
        shard.io.steps.extend([Box::new(|| ()) as _, Box::new(|| ()) as _]);
        shard.run().unwrap_err();
        let zero = Some(Duration::ZERO);
        assert_eq!(shard.io.waits[..2], [zero, zero]);
        assert!(shard.io.waits[2] > zero);
    }

    #[test]
    fn the_next_timeout_bounds_the_sleep_and_is_handled_when_due() {
        let delay = Duration::from_millis(20);
        let (mut shard, commands) = shard(delay);
        commands.send(command()).unwrap();
        let sleep = move || std::thread::sleep(delay);
        shard.io.steps.extend([Box::new(|| ()) as _, Box::new(sleep) as _]);
        shard.run().unwrap_err();
        assert_eq!(shard.rooms.fired, 1);
        let [Some(Duration::ZERO), Some(bounded), None] = shard.io.waits[..] else {
            panic!("{:?}", shard.io.waits)
        };
        assert!(bounded <= delay);
    }

    #[test]
    fn a_nap_comes_before_the_wait_and_not_while_there_is_mail() {
        let (mut shard, commands) = shard(Duration::from_secs(3600));
        let begin = Instant::now() - Duration::from_secs(10);
        for turn in 0..2000 {
            shard.rest.note(begin + Duration::from_millis(turn), 0, turn);
        }
        shard.sleep().unwrap_err();
        let nap = shard.io.naps[0];
        assert_eq!((shard.io.naps.len(), &shard.io.waits[..]), (1, &[None][..]));
        commands.send(command()).unwrap();
        shard.sleep().unwrap_err();
        assert_eq!((shard.io.naps, shard.io.waits), (vec![nap], vec![None, Some(Duration::ZERO)]));
    }

    #[test]
    fn counters_are_reported_once_a_minute_when_they_have_changed() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let due = [0, 59, 60, 61, 119, 120].map(|s| reports.is_due(start + Duration::from_secs(s)));
        assert_eq!(due, [false, false, true, false, false, true]);
        assert_eq!(
            ["1", "1", "2"].map(|said| reports.is_new(said.to_owned())),
            [true, false, true]
        );
    }

    #[test]
    fn a_shard_without_control_ends() {
        let (mut shard, commands) = shard(Duration::ZERO);
        shard.io.steps.push_back(Box::new(move || drop(commands)));
        shard.run().unwrap();
    }
}
