//! Stats calls: asked of a shard, answered when it answers.
//!
//! A shard that does not answer in time is a fault of ours: the client gets a 504 and may ask again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::control::figures::{self, Subject};
use crate::control::refusal::Refusal;
use crate::control::requests::{OfConsumer, OfProducer, OfTransport};
use crate::control::rooms::Rooms;
use crate::control::session::{MAX_IN_FLIGHT, SessionId};
use crate::id::ShardId;
use crate::shard::mailbox::{Command, StatsOf, StatsReport};

/// How long a shard may take: thousands of times what it needs, and shorter than clients wait.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Stats calls of one session that may be open at a time: as many as its connection lets through.
pub const MAX_QUESTIONS: usize = MAX_IN_FLIGHT;

/// What was asked of shards and is not answered.
#[derive(Default)]
pub(super) struct Questions {
    next: u64,
    /// By token: the oldest, and so the first to expire, comes first.
    open: BTreeMap<u64, Question>,
    by_session: HashMap<SessionId, usize>,
}

struct Question {
    session: SessionId,
    tag: u64,
    shard: ShardId,
    of: StatsOf,
    deadline: Instant,
}

impl Questions {
    /// A token for a question; 429 if the session has too many.
    fn open(&mut self, question: Question) -> Result<u64, Refusal> {
        let count = self.by_session.entry(question.session).or_default();
        if *count >= MAX_QUESTIONS {
            let reason = format!("at most {MAX_QUESTIONS} stats calls may be open at a time");
            return Err(Refusal::new(429, reason));
        }
        *count += 1;
        self.next += 1;
        self.open.insert(self.next, question);
        Ok(self.next)
    }

    fn close(&mut self, token: u64) -> Option<Question> {
        let question = self.open.remove(&token)?;
        if let Some(count) = self.by_session.get_mut(&question.session) {
            *count -= 1;
            if *count == 0 {
                self.by_session.remove(&question.session);
            }
        }
        Some(question)
    }

    fn expired(&self, now: Instant) -> Option<u64> {
        let (token, question) = self.open.first_key_value()?;
        (question.deadline <= now).then_some(*token)
    }
}

impl Rooms {
    /// `getTransportStats`
    pub(super) fn transport_stats(
        &mut self,
        session: SessionId,
        tag: u64,
        call: &OfTransport,
    ) -> Result<(), Refusal> {
        let id = self.own_transport(session, call.transport_id)?;
        self.question(session, tag, StatsOf::Transport(id))
    }

    /// `getProducerStats`
    pub(super) fn producer_stats(
        &mut self,
        session: SessionId,
        tag: u64,
        call: &OfProducer,
    ) -> Result<(), Refusal> {
        let id = self.own_producer(session, call.producer_id)?;
        self.question(session, tag, StatsOf::Producer(id))
    }

    /// `getConsumerStats`
    pub(super) fn consumer_stats(
        &mut self,
        session: SessionId,
        tag: u64,
        call: &OfConsumer,
    ) -> Result<(), Refusal> {
        let id = self.own_consumer(session, call.consumer_id)?;
        self.question(session, tag, StatsOf::Consumer(id))
    }

    /// A shard's answer. One that comes after its deadline, or after the client has gone, is dropped.
    pub(super) fn stats_came(&mut self, token: u64, report: Option<&StatsReport>) {
        let Some(question) = self.questions.close(token) else { return };
        let result = match report {
            Some(report) => {
                let port = self.shards.get(usize::from(question.shard.0)).map_or(0, |it| it.port);
                let subject = Subject { of: question.of, address: &self.announced.address, port };
                Ok(figures::show(&subject, report))
            }
            None => Err(Refusal::no_such(name(question.of))),
        };
        self.answer(question.session, question.tag, result);
    }

    /// When [`Self::expire`] wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let question = self.questions.open.first_key_value().map(|(_, it)| it.deadline);
        [question, self.next_empty_room(), self.scrapes.deadline()].into_iter().flatten().min()
    }

    /// Gives up on the shards that have not answered in time, and on rooms that nobody comes to.
    pub fn expire(&mut self, now: Instant) {
        self.close_empty_rooms(now);
        self.conclude_scrape(now);
        while let Some(token) = self.questions.expired(now) {
            let Some(question) = self.questions.close(token) else { return };
            warn!(shard = question.shard.0, "Shard did not answer a stats call in time");
            let late = Refusal::new(504, "the media engine did not answer in time");
            self.answer(question.session, question.tag, Err(late));
        }
    }

    /// A peer's streams live on its own shard.
    fn question(&mut self, session: SessionId, tag: u64, of: StatsOf) -> Result<(), Refusal> {
        let shard = self.peer(session)?.shard;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let token = self.questions.open(Question { session, tag, shard, of, deadline })?;
        self.tell(shard, Command::Stats { token, of });
        Ok(())
    }
}

/// As refusals call it.
fn name(of: StatsOf) -> &'static str {
    match of {
        StatsOf::Transport(_) => "transport",
        StatsOf::Producer(_) => "producer",
        StatsOf::Consumer(_) => "consumer",
    }
}
