//! Viewers who join or switch begin with the cached key frame and what came behind it, if that is young.
//!
//! A consumer that is served so reads from its producer's history, a little in each tick, until it has
//! caught up with the live packets; those that come meanwhile wait for their turn there. So the
//! publisher's encoder is left alone, and the receiver sees one unbroken stream, which it plays as fast
//! as it can until it is in time (see `media/rewrite.rs`).
//!
//! A shard that borrows a producer is handed its history first, for its own viewers to begin with.

use std::time::{Duration, Instant};

use crate::id::{ProducerId, ShardId};
use crate::media::history::Limits;
use crate::room::consumer::Consumer;
use crate::room::counters::Counters;
use crate::room::forward::{Opened, send, tell_layers};
use crate::room::parcel::Note;
use crate::room::paths::Path;
use crate::room::producer::{Encoding, Producer};
use crate::room::timers::Timer;
use crate::room::{Engine, Outbox};
use crate::wire::seq::SeqNo;

/// A key frame is young enough to begin with up to this age: so three of them serve everyone who joins
/// within five seconds. Histories keep it until those who began with it have caught up.
const YOUNG: Duration = Duration::from_millis(1750);
/// A hole is no hindrance while what follows it is no older: it may still be filled. Two requests at a
/// common round trip.
const HOLE_PATIENCE: Duration = Duration::from_millis(250);
/// Time between two portions; as long as pacers commonly sleep.
const TICK: Duration = Duration::from_millis(5);
/// Bit/s that leave from histories, beside live media, for a line of which nothing is known.
const UNKNOWN_RATE: u64 = 8_000_000;
/// Even the slowest line gets this, in bit/s, once a replay has begun.
const LEAST_RATE: u64 = 300_000;
/// Most of histories that waits for one transport, as time that it takes. Key frames come first, so
/// the picture is there long before; who would be behind for longer is better served with a new one.
const MAX_BEHIND: Duration = Duration::from_millis(750);
/// Replays for one consumer without a rest of [`REST`]: one to begin with, and one more for a receiver that
/// could not use the first, or switches.
const MAX_REPLAYS: u8 = 2;
/// A consumer that was served so long ago begins to count anew.
const REST: Duration = Duration::from_secs(7);
/// A receiver that asks for a key frame within this time could not use what was replayed. Who asks later
/// has lost something, and more than a key frame would not help its line.
const SOON: Duration = Duration::from_secs(2);
/// Parcels that are handed to one shard per tick: a part of the queue, most of which is left to live media.
const PARCELS_PER_TICK: usize = 96;

const _: () =
    assert!(YOUNG.as_millis() + MAX_BEHIND.as_millis() <= Limits::VIDEO.key_frame_span.as_millis());
// Every consumer has one.
const _: () = assert!(size_of::<Replay>() <= 32);
// However often a receiver asks, it draws at most half as much again as the stream that it gets.
const _: () = assert!(YOUNG.as_millis() * MAX_REPLAYS as u128 * 2 <= REST.as_millis());

/// Where one consumer reads in the history, and what it has had of it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// While it reads.
    cursor: Option<Box<Cursor>>,
    /// When the last one began.
    last: Option<Instant>,
    /// How many there were without a rest between.
    count: u8,
}

/// What a request for a key frame says about the replay before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing: it was not there yet.
    Early,
    /// The receiver could not use it: it was not ready, or lost too much.
    InVain,
    /// Nothing: that was long ago, if it was at all.
    Later,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: SeqNo,
    /// Timestamp of the newest packet at the beginning.
    pivot: u32,
    /// Bytes so far.
    sent: u32,
    encoding: u8,
}

impl Replay {
    /// The encoding that is being replayed.
    pub(super) fn encoding(&self) -> Option<u8> {
        self.cursor.as_ref().map(|cursor| cursor.encoding)
    }

    /// Whether a live packet has to wait for its turn in the history.
    pub(super) fn holds_back(&self, packet: &Opened) -> bool {
        let cursor = self.cursor.as_ref();
        cursor.is_some_and(|it| it.encoding == packet.encoding && it.next <= packet.seq)
    }

    /// The timestamp that is in time, if `encoding` is being replayed.
    pub(super) fn pivot(&self, encoding: u8) -> Option<u32> {
        let cursor = self.cursor.as_ref().filter(|cursor| cursor.encoding == encoding);
        cursor.map(|cursor| cursor.pivot)
    }

    /// How a receiver's request for a key frame stands to the last replay; `rtt` is the round trip to it.
    pub(super) fn heard_of(&self, now: Instant, rtt: Duration) -> Heard {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        match since {
            Some(since) if self.cursor.is_some() || since < rtt => Heard::Early,
            Some(since) if since < SOON => Heard::InVain,
            _ => Heard::Later,
        }
    }

    /// What was not sent is not sent any more.
    pub(super) fn stop(&mut self) {
        self.cursor = None;
    }

    fn begin(&mut self, cursor: Cursor, now: Instant) -> bool {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= REST) {
            self.count = 0;
        }
        if self.cursor.is_some() || self.count == MAX_REPLAYS {
            return false;
        }
        self.count += 1;
        (self.cursor, self.last) = (Some(Box::new(cursor)), Some(now));
        true
    }
}

/// Lets `consumer` begin with the cached key frame of `encoding`; the caller schedules [`Timer::Replay`]. `false`
/// if there is none that is young, whole and small enough.
pub(super) fn begin(
    consumer: &mut Consumer,
    path: &mut Path,
    producer: &Producer,
    encoding: u8,
    now: Instant,
) -> bool {
    if !consumer.targets(encoding) {
        return false;
    }
    let source = producer.encodings.get(usize::from(encoding));
    let Some((next, bytes)) = source.and_then(|source| young_key_frame(source, now)) else {
        return false;
    };
    let newest = source.and_then(|source| source.history.entry(source.history.highest()));
    let Some((_, newest)) = newest else { return false };
    if path.replaying + bytes > bytes_in(MAX_BEHIND, replay_rate(path, now)) {
        return false;
    }
    let cursor = Cursor { next, pivot: newest.header.timestamp, sent: 0, encoding };
    let begins = consumer.replay.begin(cursor, now);
    if begins {
        consumer.restart(encoding);
        path.replaying += bytes;
    }
    begins
}

/// Bit/s that may leave from histories: what live media leaves of the line.
fn replay_rate(path: &Path, now: Instant) -> u64 {
    path.line.as_ref().and_then(|line| line.spare(now)).unwrap_or(UNKNOWN_RATE)
}

fn bytes_in(time: Duration, bits_per_second: u64) -> usize {
    let bytes = u128::from(bits_per_second) * time.as_micros() / 8_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Where the cached key frame begins and the bytes from there on, if viewers can begin with it.
fn young_key_frame(encoding: &Encoding, now: Instant) -> Option<(SeqNo, usize)> {
    let (first, at) = newest_key_frame(encoding)?;
    if now.saturating_duration_since(at) > YOUNG {
        return None;
    }
    Some((first, encoding.history.bytes_since(first, now, HOLE_PATIENCE)?))
}

/// Where the newest key frame begins, parameter sets included, and when it came.
fn newest_key_frame(encoding: &Encoding) -> Option<(SeqNo, Instant)> {
    let history = &encoding.history;
    let (mut first, at) = history.key_frame()?;
    let timestamp = history.entry(first)?.1.header.timestamp;
    while let Some(before) = first.0.checked_sub(1).map(SeqNo)
        && let Some((_, packet)) = history.entry(before)
        && packet.header.timestamp == timestamp
    {
        first = before;
    }
    Some((first, at))
}

impl Engine {
    /// A consumer needs a key frame of `encoding`: it gets the cached one, or its producer is asked for one.
    pub(super) fn serve_key_frame(
        &mut self,
        now: Instant,
        key: usize,
        encoding: u8,
        out: &mut impl Outbox,
    ) {
        let consumer = &mut self.consumers[key];
        let (transport, producer) = (consumer.transport, consumer.producer);
        let path = &mut self.paths[transport];
        let source = &self.producers[producer];
        if path.transport.is_connected() && !source.paused {
            if consumer.replay.encoding() == Some(encoding) {
                return;
            }
            if begin(consumer, path, source, encoding, now) {
                return self.timers.schedule(Timer::Replay(transport), now);
            }
        }
        self.wish_key_frame(now, producer, encoding, out);
    }

    /// Sends the next portion from the histories to the consumers of a transport.
    pub(super) fn replay(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(path) = self.paths.get(key) else { return };
        let cursors = path.consumers.values().filter_map(|key| {
            let cursor = self.consumers[*key].replay.cursor.as_ref()?;
            Some((cursor.sent, *key))
        });
        // In one piece: this is done often, and what grows leaves holes in the heap.
        let mut running: Vec<(u32, usize)> = Vec::with_capacity(path.consumers.len());
        running.extend(cursors);
        // Who has had least comes first, so that all have their key frames soon.
        running.sort_unstable();
        let mut left = bytes_in(TICK, replay_rate(path, now).max(LEAST_RATE));
        let mut is_behind = false;
        for (_, consumer) in running {
            match self.replay_portion(now, consumer, &mut left, out) {
                Progress::More => is_behind = true,
                Progress::CaughtUp => {}
                Progress::Lost => self.end_in_vain(now, consumer, out),
            }
        }
        if is_behind {
            self.timers.schedule(Timer::Replay(key), now + TICK);
        } else {
            self.paths[key].replaying = 0;
        }
    }

    fn replay_portion(
        &mut self,
        now: Instant,
        key: usize,
        left: &mut usize,
        out: &mut impl Outbox,
    ) -> Progress {
        let Self { consumers, paths, producers, counters, events, timers, .. } = self;
        let consumer = &mut consumers[key];
        let path = &mut paths[consumer.transport];
        let producer = &producers[consumer.producer];
        let Some(cursor) = &mut consumer.replay.cursor else { return Progress::CaughtUp };
        let index = cursor.encoding;
        let Some(encoding) = producer.encodings.get(usize::from(index)) else {
            return Progress::Lost;
        };
        let history = &encoding.history;
        // A new key frame has come meanwhile: what lies before it is not needed any more, but for the rest of a
        // picture, if it is still there. One that stays without its end is decoded by nobody.
        let has_ended = |seq| history.entry(seq).is_none_or(|(_, last)| last.header.marker);
        let mut next = cursor.next;
        let newest = newest_key_frame(encoding).filter(|it| it.0 > next);
        let before = next.0.checked_sub(1).map(SeqNo);
        if let Some((first, _)) = newest.filter(|_| before.is_none_or(has_ended)) {
            (cursor.next, next) = (first, first);
            consumer.restart(index);
        }
        if producer.paused || history.oldest().is_none_or(|oldest| oldest > next) {
            return Progress::Lost;
        }
        // What came before the structure that the key frame carries could not be understood then.
        let mut structure = encoding.structure.clone();
        for (seq, bytes, packet) in history.since(next) {
            if *left == 0 {
                return Progress::More;
            }
            *left = left.saturating_sub(bytes.len());
            path.replaying = path.replaying.saturating_sub(bytes.len());
            let packet = &packet.read_frame(bytes, &mut structure);
            replay_one(consumer, path, producer, (bytes, packet), now, counters, out);
            if let Some(cursor) = &mut consumer.replay.cursor {
                cursor.next = SeqNo(seq.0 + 1);
                cursor.sent += bytes.len() as u32;
            }
        }
        tell_layers(consumer, path, producer, (events, timers), now);
        if !consumer.flows(index) {
            return Progress::Lost;
        }
        if producer.is_handed {
            // The rest is not forwarded when it comes, so it has to be read here.
            return Progress::More;
        }
        consumer.end_replay();
        Progress::CaughtUp
    }

    /// A replay cannot go on: the stream begins anew, or goes on as before until a new key frame comes.
    fn end_in_vain(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let consumer = &mut self.consumers[key];
        let Some(encoding) = consumer.replay.encoding() else { return };
        let flows = consumer.flows(encoding);
        consumer.end_replay();
        if flows {
            consumer.interrupt();
            let transport = consumer.transport;
            self.allot(now, transport);
        }
        let consumer = &mut self.consumers[key];
        let (producer, needed) = (consumer.producer, consumer.needs_key_frame());
        match needed {
            Some(encoding) if flows => self.serve_key_frame(now, key, encoding, out),
            Some(encoding) => self.wish_key_frame(now, producer, encoding, out),
            None => {}
        }
    }

    /// Begins to hand the histories of a producer to a borrower, of the encodings above `known`. Where there is
    /// nothing to begin with, the publisher is asked for a key frame.
    pub(super) fn begin_hand_over(
        &mut self,
        now: Instant,
        key: usize,
        to: ShardId,
        known: Option<u8>,
        out: &mut impl Outbox,
    ) {
        let producer = &self.producers[key];
        let wanted = producer.borrowers.iter().find(|own| own.shard == to);
        let Some(highest) = wanted.and_then(|borrower| borrower.wanted) else { return };
        let best = producer.best_encoding(now, highest).filter(|best| Some(*best) > known);
        let Producer { borrowers, encodings, paused, .. } = &mut self.producers[key];
        let Some(borrower) = borrowers.iter_mut().find(|own| own.shard == to) else { return };
        if *paused {
            return;
        }
        let wanted = (0..).zip(encodings.iter());
        let wanted = wanted.filter(|(index, _)| Some(*index) > known && borrower.takes(*index));
        let cursors =
            wanted.filter_map(|(index, encoding)| Some((index, young_key_frame(encoding, now)?.0)));
        let cursors: Vec<(u8, SeqNo)> = cursors.collect();
        let has_best = cursors.iter().any(|(index, _)| Some(*index) == best);
        borrower.cursors.retain(|(index, _)| cursors.iter().all(|(new, _)| new != index));
        borrower.cursors.extend(cursors);
        if !borrower.cursors.is_empty() {
            self.timers.schedule(Timer::HandOver(key), now);
        }
        if let (false, Some(best)) = (has_best, best) {
            self.wish_key_frame(now, key, best, out);
        }
    }

    /// Hands the next parcels from a producer's histories to its borrowers.
    pub(super) fn hand_over_histories(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        let mut is_behind = false;
        for borrower in &mut producer.borrowers {
            if producer.paused {
                borrower.cursors.clear();
            }
            if borrower.cursors.is_empty() {
                continue;
            }
            let (shard, mut left) = (borrower.shard, PARCELS_PER_TICK);
            for (index, next) in &mut borrower.cursors {
                let encoding = &producer.encodings[usize::from(*index)];
                for (seq, bytes, packet) in encoding.history.since(*next) {
                    let note = Note::Media {
                        producer: producer.id,
                        encoding: *index,
                        seq,
                        received_at: packet.received_at,
                        replayed: true,
                    };
                    if left == 0 || !out.hand_over(shard, &mut |slot| slot.fill(note, bytes)) {
                        left = 0;
                        break;
                    }
                    (left, *next) = (left - 1, SeqNo(seq.0 + 1));
                }
            }
            let done = Note::CaughtUp { producer: producer.id };
            if left > 0 && out.hand_over(shard, &mut |slot| slot.fill(done, &[])) {
                borrower.cursors.clear();
            } else {
                is_behind = true;
            }
        }
        if is_behind {
            self.timers.schedule(Timer::HandOver(key), now + TICK);
        }
    }

    /// A replica has been handed its history: its consumers begin.
    pub(super) fn begin_from_history(
        &mut self,
        now: Instant,
        producer: ProducerId,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.producer_keys.get(&producer) else { return };
        self.producers[key].is_handed = false;
        for consumer in self.producers[key].consumers.clone() {
            self.allot_and_ask(now, self.consumers[consumer].transport, out);
        }
    }
}

/// What became of one portion.
enum Progress {
    /// There is more.
    More,
    /// The consumer goes on live.
    CaughtUp,
    /// It cannot go on: the history has moved on, or the stream could not begin there.
    Lost,
}

fn replay_one(
    consumer: &mut Consumer,
    path: &mut Path,
    producer: &Producer,
    (bytes, packet): (&[u8], &Opened),
    now: Instant,
    counters: &mut Counters,
    out: &mut impl Outbox,
) {
    let Some(admitted) = consumer.admit(packet, producer, now) else { return };
    match send(consumer, path, producer, (packet, bytes), admitted, now, out) {
        Ok(()) => counters.rtp_out += 1,
        Err(reason) => counters.drop(reason),
    }
}
