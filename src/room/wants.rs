//! Which layers this shard's consumers wish of a producer: told to control, which tells the publisher
//! what to stop, and by a replica to its home shard, which lends no more than that.
//!
//! A wish is what the client prefers, not what its line carries now: a layer that is not lent could not be
//! measured, and one that cannot be measured could never be chosen again. So one word serves both.

use std::time::{Duration, Instant};

use crate::id::{Codec, MediaKind, ProducerId, ShardId};
use crate::media::allocation::{Layer, WantedLayers, wanted_layers};
use crate::room::forward::Opened;
use crate::room::parcel::Note;
use crate::room::producer::{Producer, Source};
use crate::room::spec::{Event, ProducerSpec};
use crate::room::timers::Timer;
use crate::room::{Engine, Outbox};
use crate::wire::seq::SeqNo;

/// How often a replica repeats its word, since a note that finds the queue full is lost.
const REPEAT: Duration = Duration::from_secs(1);

/// Highest spatial layer inside an encoding: browsers send at most three (webrtc-svc §6).
const HIGHEST_INNER_LAYER: u8 = 2;

/// What is wanted of one producer on this shard.
pub(super) struct Wants {
    layers: WantedLayers,
    /// The highest layer that there can be.
    highest: u8,
    /// Control knows what [`WantedLayers::told`] says.
    said: bool,
}

impl Wants {
    /// Of a producer without consumers.
    pub(super) fn new(spec: &ProducerSpec) -> Self {
        let is_layered =
            spec.payloads.first().is_some_and(|p| matches!(p.codec, Codec::Vp9 | Codec::Av1));
        let highest = match spec.encodings.len() {
            0 | 1 if is_layered => HIGHEST_INNER_LAYER,
            count => count.saturating_sub(1) as u8,
        };
        Self { layers: WantedLayers::new(layer(highest)), highest, said: false }
    }

    /// The word that stands: the highest layer that is wanted, if any is.
    fn word(&self) -> Option<u8> {
        self.layers.told().map(|layer| layer.spatial)
    }

    /// Takes note of the consumers' wishes. Whether control has to be told.
    fn weigh(&mut self, wishes: impl Iterator<Item = u8>, now: Instant) -> bool {
        let mut wishes = wishes.map(|spatial| Some(layer(spatial.min(self.highest)))).peekable();
        let is_first = !self.said && wishes.peek().is_some();
        let is_new = self.layers.update(wanted_layers(wishes), now).is_some();
        self.said |= is_first || is_new;
        is_first || is_new
    }
}

/// A shard that has a replica of a producer.
#[derive(Clone, Debug)]
pub(super) struct Borrower {
    pub(super) shard: ShardId,
    /// The highest encoding that it wants, if any; everything until its first word.
    pub(super) wanted: Option<u8>,
    /// Encodings whose history is being handed over, each with the number that comes next.
    pub(super) cursors: Vec<(u8, SeqNo)>,
}

impl Borrower {
    pub(super) fn new(shard: ShardId) -> Self {
        Self { shard, wanted: Some(u8::MAX), cursors: Vec::new() }
    }

    /// Whether it wants packets of this encoding: lower ones than the highest count, too, for they may
    /// have to do on a poor line.
    pub(super) fn takes(&self, encoding: u8) -> bool {
        self.wanted.is_some_and(|wanted| encoding <= wanted)
    }

    /// Whether it is handed this packet as it comes, not in its turn from the history.
    pub(super) fn takes_live(&self, packet: &Opened) -> bool {
        let mut cursors = self.cursors.iter();
        let has_turn =
            |(encoding, next): &(u8, SeqNo)| *encoding == packet.encoding && *next <= packet.seq;
        self.takes(packet.encoding) && !cursors.any(has_turn)
    }
}

impl Engine {
    /// What is wanted of a producer may have changed: weighs it anew when the timers run next.
    pub(super) fn wants_changed(&mut self, now: Instant, producer: usize) {
        if self.producers.get(producer).is_some_and(|it| it.kind == MediaKind::Video) {
            self.timers.schedule(Timer::Wants(producer), now);
        }
    }

    /// Weighs the wishes of a producer's consumers, and tells what has changed.
    pub(super) fn weigh_wants(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Self { producers, consumers, .. } = self;
        let Some(Producer { id, source, wants, consumers: keys, .. }) = producers.get_mut(key)
        else {
            return;
        };
        let wishes = keys.iter().map(|key| &consumers[*key]).filter(|consumer| !consumer.paused);
        let is_news = wants.weigh(wishes.map(|consumer| consumer.preferred().spatial), now);
        let (id, source, spatial) = (*id, *source, wants.word());
        let mut next = wants.layers.next_timeout();
        if is_news {
            self.events.push_back(Event::LayersWanted { id, spatial });
        }
        if let Source::Shard(home) = source {
            self.hand_over(home, Note::LayersWanted { producer: id, spatial }, out);
            next = Some(next.map_or(now + REPEAT, |at| at.min(now + REPEAT)));
        }
        if let Some(at) = next {
            self.timers.schedule(Timer::Wants(key), at);
        }
    }

    /// A borrower's word: the highest encoding that it wants, if any.
    pub(super) fn note_wants(
        &mut self,
        now: Instant,
        from: ShardId,
        producer: ProducerId,
        spatial: Option<u8>,
        out: &mut impl Outbox,
    ) {
        let Some(&key) = self.producer_keys.get(&producer) else { return };
        let mut borrowers = self.producers[key].borrowers.iter_mut();
        let Some(borrower) = borrowers.find(|borrower| borrower.shard == from) else { return };
        let before = std::mem::replace(&mut borrower.wanted, spatial);
        if spatial > before {
            self.begin_hand_over(now, key, from, before, out);
        }
    }
}

fn layer(spatial: u8) -> Layer {
    Layer { spatial, temporal: 0 }
}
