//! `/metrics`: what a Prometheus server scrapes.
//!
//! Shards share no memory with anybody, so each is asked for a snapshot and answers when it comes to it. One
//! round of questions is under way at a time, its answer serves everybody who asks meanwhile and for a moment
//! after, and a shard that does not answer in time is left out of it: what it last told stands, marked as not up.
//!
//! Never here: names of rooms, ids and addresses of peers.

mod families;
mod listener;
mod process;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::control::identity::Token;
use crate::control::refusal::Refusal;
use crate::control::rooms::Rooms;
use crate::id::ShardId;
use crate::shard::mailbox::{Command, Snapshot};
use families::{Scrape, Seen};

pub(super) use listener::{answer, serve};

/// An answer is given again for so long: however many scrape, shards are asked no more often.
const SHARED_FOR: Duration = Duration::from_millis(100);
/// How long a shard may take. It answers within a turn of its loop, some milliseconds; Prometheus waits 10 s.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Who reads the metrics.
pub(super) enum Reader {
    /// Who reaches their own listener, which is what keeps others away.
    Insider,
    /// Who shows this token, and needs one that allows to administer all rooms.
    Bearer(Option<Token>),
}

/// Who waits for an answer.
type Answer = oneshot::Sender<Result<Bytes, Refusal>>;

/// The shards' snapshots, and who waits for them.
pub(super) struct Scrapes {
    started: Instant,
    /// Those who have asked and are not answered: at most one per connection.
    waiting: Vec<Answer>,
    round: Option<Round>,
    last: Option<(Instant, Bytes)>,
    shards: Vec<Known>,
    next_token: u64,
}

/// What is known of one shard.
#[derive(Default)]
struct Known {
    snapshot: Arc<Snapshot>,
    /// A question is on its way to it: it gets no other, so that a stuck shard's mailbox does not fill.
    asked: bool,
    /// The round that it answered last.
    answered: u64,
}

/// Questions that are under way.
struct Round {
    token: u64,
    deadline: Instant,
    /// Shards that have not answered and are expected to.
    missing: Vec<ShardId>,
}

impl Scrapes {
    /// Nothing is known of so many shards.
    pub fn new(shards: usize) -> Self {
        Self {
            started: Instant::now(),
            waiting: Vec::new(),
            round: None,
            last: None,
            shards: (0..shards).map(|_| Known::default()).collect(),
            next_token: 1,
        }
    }

    /// When [`Rooms::conclude_scrape`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.round.as_ref().map(|round| round.deadline)
    }
}

impl Rooms {
    /// Somebody wants the metrics.
    pub(super) fn scrape(&mut self, reader: &Reader, answer: Answer) {
        if let Reader::Bearer(token) = reader
            && let Err(refusal) =
                self.identity.check(token.as_ref()).and_then(|grants| grants.administer_all())
        {
            // Whoever asked may have hung up, here and below.
            let _ = answer.send(Err(refusal));
            return;
        }
        let is_fresh = |at: &Instant| at.elapsed() < SHARED_FOR;
        if let Some((_, text)) = self.scrapes.last.as_ref().filter(|(at, _)| is_fresh(at)) {
            let _ = answer.send(Ok(text.clone()));
            return;
        }
        self.scrapes.waiting.push(answer);
        if self.scrapes.round.is_none() {
            self.begin_round();
        }
    }

    /// A shard has answered, perhaps too late for its round.
    pub(super) fn snapshot_came(&mut self, shard: ShardId, token: u64, snapshot: Box<Snapshot>) {
        let Some(known) = self.scrapes.shards.get_mut(usize::from(shard.0)) else { return };
        *known = Known { snapshot: Arc::from(snapshot), asked: false, answered: token };
        self.expect_no_more_of(shard);
    }

    /// A shard has failed: it answers no question.
    pub(super) fn scraped_shard_failed(&mut self, shard: ShardId) {
        if let Some(known) = self.scrapes.shards.get_mut(usize::from(shard.0)) {
            known.asked = false;
        }
        self.expect_no_more_of(shard);
    }

    /// Answers everybody who waits, with what is known, if all shards have answered or the time is over.
    pub(super) fn conclude_scrape(&mut self, now: Instant) {
        let is_over = |round: &mut Round| round.missing.is_empty() || round.deadline <= now;
        let Some(round) = self.scrapes.round.take_if(is_over) else { return };
        let text = Bytes::from(self.scraped(round.token).text());
        self.scrapes.last = Some((now, text.clone()));
        for answer in self.scrapes.waiting.drain(..) {
            let _ = answer.send(Ok(text.clone()));
        }
    }

    fn begin_round(&mut self) {
        let token = self.scrapes.next_token;
        self.scrapes.next_token += 1;
        let mut missing = Vec::new();
        for (index, known) in self.scrapes.shards.iter_mut().enumerate() {
            let lives = !self.loads[index].failed && !known.asked;
            if lives && self.shards[index].send(Command::Snapshot { token }) {
                known.asked = true;
                missing.push(ShardId(index as u16));
            }
        }
        let now = Instant::now();
        self.scrapes.round = Some(Round { token, deadline: now + ANSWER_WITHIN, missing });
        self.conclude_scrape(now);
    }

    fn expect_no_more_of(&mut self, shard: ShardId) {
        let Some(round) = &mut self.scrapes.round else { return };
        round.missing.retain(|missing| *missing != shard);
        self.conclude_scrape(Instant::now());
    }

    fn scraped(&self, round: u64) -> Scrape {
        let shards = self.scrapes.shards.iter();
        let seen = |known: &Known| Seen {
            is_up: known.answered == round,
            snapshot: known.snapshot.clone(),
        };
        Scrape {
            uptime: self.scrapes.started.elapsed(),
            rooms: self.rooms.len(),
            peers: self.rooms.values().map(|room| room.peers.len()).sum(),
            connections: self.sessions.len(),
            process: process::Usage::read(),
            limits: self.limits_met.all().collect(),
            faults: self.faults,
            shards: shards.map(seen).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
