//! Of a large room only the loudest are forwarded, if it is so wished.
//!
//! The room's home shard chooses ([`crate::media::speaker::Speakers::loudest`]) and tells the shard where a
//! voice arrives, which forwards it no more, and tells its borrowers. A voice that says no audio level
//! cannot be compared, and is always forwarded.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::id::{ProducerId, RoomKey, ShardId};
use crate::media::speaker::Speakers;
use crate::room::parcel::Note;
use crate::room::{Drop, Engine, Outbox};

/// The loudest are chosen at most this often, however the summaries of many shards trickle in.
const CHOICE_INTERVAL: Duration = Duration::from_millis(50);

/// Which voices of a room are forwarded.
#[derive(Default)]
pub(super) struct Choice {
    /// How many at a time; `None`: all.
    count: Option<u8>,
    voices: FxHashMap<ProducerId, Voice>,
    chosen_at: Option<Instant>,
}

/// A voice, as the home shard knows it.
struct Voice {
    /// Where it arrives.
    shard: ShardId,
    /// What that shard was told; `None`: nothing yet.
    muted: Option<bool>,
}

impl Choice {
    /// Whether the room is to be limited.
    pub(super) fn is_limited(&self) -> bool {
        self.count.is_some()
    }

    /// A voice is heard, which arrives on `shard`.
    pub(super) fn add(&mut self, producer: ProducerId, shard: ShardId) {
        self.voices.entry(producer).or_insert(Voice { shard, muted: None });
    }

    /// A voice is gone or paused.
    pub(super) fn remove(&mut self, producer: ProducerId) {
        self.voices.remove(&producer);
    }

    /// Chooses anew: calls `tell` for each voice whose shard has to be told, until that returns whether
    /// the word got through.
    fn choose(
        &mut self,
        speakers: &mut Speakers<ProducerId>,
        now: Instant,
        mut tell: impl FnMut(ProducerId, ShardId, bool) -> bool,
    ) {
        self.chosen_at = Some(now);
        let loudest = self.count.map(|count| speakers.loudest(count.into(), now));
        for (&producer, voice) in &mut self.voices {
            let muted = loudest.is_some_and(|loudest| !loudest.contains(&producer));
            // Nobody mutes a voice without being told to.
            let known = voice.muted.or((!muted && self.count.is_none()).then_some(false));
            if known != Some(muted) {
                let told = tell(producer, voice.shard, muted);
                voice.muted = told.then_some(muted);
            }
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.chosen_at.is_none_or(|at| now.saturating_duration_since(at) >= CHOICE_INTERVAL)
    }
}

impl Engine {
    /// Only the `count` loudest of a room, whose home this shard is, are forwarded from now on; `None`: all.
    pub(super) fn forward_loudest(
        &mut self,
        now: Instant,
        room: RoomKey,
        count: Option<u8>,
        out: &mut impl Outbox,
    ) {
        let choice = &mut self.voices.entry(room).or_default().choice;
        choice.count = count;
        choice.chosen_at = None;
        self.choose_loudest(now, room, out);
        self.judge(now, room);
    }

    /// Tells the shards of a room's voices which are forwarded, where that has changed.
    pub(super) fn choose_loudest(&mut self, now: Instant, room: RoomKey, out: &mut impl Outbox) {
        let Some(voices) = self.voices.get_mut(&room) else { return };
        if !voices.choice.is_due(now) {
            return;
        }
        let (own, counters) = (self.shard, &mut self.counters);
        let mut local = Vec::new();
        voices.choice.choose(&mut voices.speakers, now, |producer, shard, muted| {
            if shard == own {
                local.push((producer, muted));
                return true;
            }
            let note = Note::Muted { producer, muted };
            let told = out.hand_over(shard, &mut |parcel| parcel.fill(note, &[]));
            if !told {
                counters.drop(Drop::ParcelQueueFull);
            }
            told
        });
        for (producer, muted) in local {
            self.set_muted(producer, muted, out);
        }
    }

    /// A voice is forwarded no more, or again; here and on the shards that borrow it.
    pub(super) fn set_muted(&mut self, id: ProducerId, muted: bool, out: &mut impl Outbox) {
        let Some(&key) = self.producer_keys.get(&id) else { return };
        let producer = &mut self.producers[key];
        if std::mem::replace(&mut producer.muted, muted) == muted {
            return;
        }
        for &consumer in &producer.consumers {
            self.consumers[consumer].interrupt();
        }
        // In line with the packets, so that no replica takes the silence for a loss.
        for index in 0..self.producers[key].borrowers.len() {
            let shard = self.producers[key].borrowers[index].shard;
            self.hand_over(shard, Note::Muted { producer: id, muted }, out);
        }
    }
}
