//! Rooms that do what a datagram's first four bytes say: enough to see all that a shard does.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use shardcast::id::{ShardId, TransportId};
use shardcast::room::parcel::Parcel;
use shardcast::room::snapshot::Snapshot;
use shardcast::room::{Datagram, Outbox};
use shardcast::shard::Rooms;
use shardcast::shard::mailbox::{CloseReason, Command, Event};

/// Sent back as it came. Everything that has no other meaning is, too.
pub const ECHO: &[u8] = b"echo";
/// With the target shard (1 byte) and a count (2 bytes): hands over that many numbered parcels, and
/// answers with the number that found room.
pub const GIVE: &[u8] = b"give";
/// With a number of milliseconds (2 bytes): answers `ECHO` when they are over.
pub const TIMER: &[u8] = b"time";
/// With a count (2 bytes): that many numbered answers.
pub const FAN: &[u8] = b"fan ";
/// Meets the test at the barrier twice: in between the shard is busy. What is behind it is sent back afterwards,
/// and control told something.
pub const HOLD: &[u8] = b"hold";
/// Panics.
pub const PANIC: &[u8] = b"boom";

/// What a double tells the test beside its answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A datagram: on which shard, and when it arrived.
    Datagram(ShardId, Instant),
    /// A parcel: on which shard, from which, which number.
    Parcel(ShardId, ShardId, u16),
    /// [`Command::Shutdown`]: on which shard.
    Shutdown(ShardId),
}

/// The double.
pub struct Double {
    id: ShardId,
    seen: mpsc::Sender<Seen>,
    hold: Arc<Barrier>,
    timer: Option<(Instant, SocketAddr)>,
    events: Vec<Event>,
    carried: u64,
}

impl Double {
    /// Builds doubles that report to `seen` and hold at `hold`.
    pub fn maker(
        seen: mpsc::Sender<Seen>,
        hold: Arc<Barrier>,
    ) -> impl Fn(ShardId) -> Self + Clone + Send + 'static {
        move |id| Self {
            id,
            seen: seen.clone(),
            hold: hold.clone(),
            timer: None,
            events: Vec::new(),
            carried: 0,
        }
    }

    fn give(&self, to: ShardId, count: u16, out: &mut impl Outbox) -> u16 {
        let give = |number: &u16| {
            out.hand_over(to, &mut |parcel| {
                parcel.bytes[..2].copy_from_slice(&number.to_be_bytes());
                parcel.len = 2;
            })
        };
        (0..count).filter(give).count() as u16
    }
}

fn answer(bytes: &[u8], to: SocketAddr, out: &mut impl Outbox) {
    let room = out.datagram().expect("the backend works");
    room[..bytes.len()].copy_from_slice(bytes);
    out.send(bytes.len(), to);
}

fn closed(id: TransportId) -> Event {
    Event::TransportClosed { id, reason: CloseReason::DtlsClosed }
}

impl Rooms for Double {
    fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl Outbox) {
        self.carried += drain.len() as u64;
        for datagram in drain {
            // The test may have seen enough.
            let _ = self.seen.send(Seen::Datagram(self.id, datagram.received_at));
            assert!(datagram.received_at <= now);
            let from = datagram.from;
            match datagram.bytes.split_at_checked(4) {
                Some((GIVE, &[to, high, low])) => {
                    let to = ShardId(u16::from(to));
                    let taken = self.give(to, u16::from_be_bytes([high, low]), out);
                    answer(&taken.to_be_bytes(), from, out);
                }
                Some((TIMER, &[high, low])) => {
                    let delay = Duration::from_millis(u16::from_be_bytes([high, low]).into());
                    self.timer = Some((now + delay, from));
                }
                Some((FAN, &[high, low])) => {
                    let numbers = 0..u16::from_be_bytes([high, low]);
                    numbers.for_each(|number| answer(&number.to_be_bytes(), from, out));
                }
                Some((HOLD, rest)) => {
                    self.hold.wait();
                    self.hold.wait();
                    if !rest.is_empty() {
                        answer(rest, from, out);
                        self.events.push(closed(TransportId::random()));
                    }
                }
                Some((PANIC, _)) => panic!("as told"),
                _ => answer(datagram.bytes, from, out),
            }
        }
    }

    fn receive_parcels(
        &mut self,
        _: Instant,
        from: ShardId,
        parcels: &[Box<Parcel>],
        _: &mut impl Outbox,
    ) {
        for parcel in parcels {
            let number = parcel.packet().first_chunk();
            let number = number.map_or(u16::MAX, |bytes| u16::from_be_bytes(*bytes));
            let _ = self.seen.send(Seen::Parcel(self.id, from, number));
        }
    }

    fn command(&mut self, _: Instant, command: Command, _: &mut impl Outbox) {
        match command {
            Command::RemoveTransport(id) => {
                self.events.push(closed(id));
            }
            Command::Shutdown => {
                let _ = self.seen.send(Seen::Shutdown(self.id));
            }
            _ => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timer.map(|(due, _)| due)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut impl Outbox) {
        let Some((_, to)) = self.timer.take_if(|(due, _)| *due <= now) else { return };
        answer(ECHO, to, out);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// All that comes is media here.
    fn media(&self) -> u64 {
        self.carried
    }

    fn counters(&self) -> &dyn Debug {
        &self.timer
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}
