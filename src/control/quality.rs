//! Layers and scores: what receivers wish, what the shards make of it, and which layers a publisher need not
//! send.
//!
//! A producer's consumers may live on several shards, each of which knows only its own. Here their wants
//! are folded into one, which the publisher is told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::control::refusal::Refusal;
use crate::control::requests::{SetPreferredLayers, SetPriority};
use crate::control::rooms::Rooms;
use crate::control::session::SessionId;
use crate::control::streams::Producer;
use crate::id::{ConsumerId, MediaKind, ProducerId, ShardId};
use crate::shard::mailbox::{Command, EncodingScore, SmallScores};

/// What each shard's consumers want of one producer.
#[derive(Default)]
pub(super) struct Wanted {
    /// Each shard's last word: the highest spatial layer, or `None` for none at all.
    by_shard: BTreeMap<ShardId, Option<u8>>,
    /// What the publisher was told last.
    told: Option<Option<u8>>,
}

impl Wanted {
    /// The highest layer that anyone on `shards` wants; `None` as long as one of those where somebody
    /// consumes has not said. Each shard comes with whether somebody does.
    fn fold(&self, shards: impl IntoIterator<Item = (ShardId, bool)>) -> Option<Option<u8>> {
        // A publisher whom no shard has spoken of yet is left alone.
        if self.by_shard.is_empty() && self.told.is_none() {
            return None;
        }
        let mut highest = None;
        for (shard, has_consumers) in shards {
            match self.by_shard.get(&shard) {
                Some(wanted) => highest = highest.max(*wanted),
                None if has_consumers => return None,
                None => {}
            }
        }
        Some(highest)
    }

    /// A shard has let go of the producer.
    pub(super) fn forget(&mut self, shard: ShardId) {
        self.by_shard.remove(&shard);
    }
}

impl Rooms {
    /// `setConsumerPreferredLayers`
    pub(super) fn set_preferred_layers(
        &mut self,
        session: SessionId,
        call: &SetPreferredLayers,
    ) -> Result<(), Refusal> {
        let id = self.own_consumer(session, call.consumer_id)?;
        let (spatial, temporal) = (call.spatial_layer, call.temporal_layer);
        self.tell_consumers_shard(id, Command::SetPreferredLayers { id, spatial, temporal });
        Ok(())
    }

    /// `setConsumerPriority`
    pub(super) fn set_priority(
        &mut self,
        session: SessionId,
        call: &SetPriority,
    ) -> Result<(), Refusal> {
        let id = self.own_consumer(session, call.consumer_id)?;
        self.tell_consumers_shard(id, Command::SetPriority { id, priority: call.priority.get() });
        Ok(())
    }

    /// A consumer's layers have changed.
    pub(super) fn layers_changed(&mut self, id: ConsumerId, layers: Option<(u8, u8)>) {
        let (spatial, temporal) = layers.unzip();
        let news = json!({ "consumerId": id, "spatialLayer": spatial, "temporalLayer": temporal });
        self.notify_receiver(id, "consumerLayersChanged", news);
    }

    /// How well a consumer's client receives has changed.
    pub(super) fn consumer_scored(
        &mut self,
        id: ConsumerId,
        score: u8,
        producer_score: u8,
        producer_scores: &SmallScores,
    ) {
        let score = json!({
            "score": score,
            "producerScore": producer_score,
            "producerScores": producer_scores.as_slice(),
        });
        self.notify_receiver(id, "consumerScore", json!({ "consumerId": id, "score": score }));
    }

    /// How well a producer's encodings arrive has changed.
    pub(super) fn producer_scored(&mut self, id: ProducerId, scores: &[EncodingScore]) {
        let scores: Vec<Value> = scores.iter().map(encoding_score).collect();
        self.notify_publisher(id, "producerScore", json!({ "producerId": id, "score": scores }));
    }

    /// What a shard's consumers want of a producer has changed.
    pub(super) fn layers_wanted(&mut self, shard: ShardId, id: ProducerId, spatial: Option<u8>) {
        let Some(producer) = self.producers.get_mut(&id) else { return };
        // A late word of a replica that is gone; audio has no layers.
        if producer.spec.kind == MediaKind::Audio || !producer.shards().contains(&shard) {
            return;
        }
        producer.wanted.by_shard.insert(shard, spatial);
        self.tell_wanted(id);
    }

    /// Tells a publisher which layers are wanted, if that has changed.
    pub(super) fn tell_wanted(&mut self, id: ProducerId) {
        let Some(producer) = self.producers.get_mut(&id) else { return };
        let wanted = producer.wanted.fold(producer.audience());
        let Some(highest) = wanted else { return };
        if producer.wanted.told == wanted {
            return;
        }
        producer.wanted.told = wanted;
        let news = json!({ "producerId": id, "spatialLayer": highest });
        self.notify_publisher(id, "producerLayersWanted", news);
    }

    fn tell_consumers_shard(&self, id: ConsumerId, command: Command) {
        if let Some(consumer) = self.consumers.get(&id) {
            self.tell(consumer.shard, command);
        }
    }

    fn notify_receiver(&mut self, id: ConsumerId, method: &'static str, news: Value) {
        if let Some(owner) = self.consumers.get(&id).map(|it| it.owner) {
            self.notify(&[owner], method, news);
        }
    }

    fn notify_publisher(&mut self, id: ProducerId, method: &'static str, news: Value) {
        if let Some(owner) = self.producers.get(&id).map(|it| it.owner) {
            self.notify(&[owner], method, news);
        }
    }
}

impl Producer {
    /// Every shard that has it, and whether somebody there consumes it.
    fn audience(&self) -> Vec<(ShardId, bool)> {
        let elsewhere: usize = self.replicas.values().sum();
        let at_home = self.consumers.len() > elsewhere;
        let replicas = self.replicas.iter().map(|(shard, users)| (*shard, *users > 0));
        [(self.shard, at_home)].into_iter().chain(replicas).collect()
    }
}

fn encoding_score(scored: &EncodingScore) -> Value {
    let mut shown = json!({
        "encodingIdx": scored.encoding,
        "ssrc": scored.ssrc,
        "score": scored.score,
    });
    if let Some(rid) = scored.rid {
        shown["rid"] = rid.to_string().into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_want_counts_once_all_audiences_have_spoken() {
        let mut wanted = Wanted::default();
        let shards = [(ShardId(0), true), (ShardId(1), true), (ShardId(2), false)];
        assert_eq!(wanted.fold([(ShardId(2), false)]), None);
        wanted.by_shard.insert(ShardId(0), Some(0));
        assert_eq!(wanted.fold(shards), None);
        wanted.by_shard.insert(ShardId(1), Some(2));
        assert_eq!(wanted.fold(shards), Some(Some(2)));
        wanted.by_shard.insert(ShardId(1), None);
        assert_eq!(wanted.fold(shards), Some(Some(0)));
        wanted.by_shard.insert(ShardId(0), None);
        assert_eq!(wanted.fold(shards), Some(None));
    }
}
