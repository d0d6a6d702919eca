//! From ORTC to the numbers that a shard works with.

use crate::id::{ConsumerId, ProducerId, TransportId};
use crate::ortc::{Consumable, Producible};
use crate::shard::mailbox::{ConsumerSpec, ProducerSpec};

/// The media path's view of a producer.
pub fn producer_spec(
    id: ProducerId,
    transport: TransportId,
    producer: &Producible,
    paused: bool,
) -> ProducerSpec {
    let _ = (id, transport, producer, paused);
    todo!()
}

/// The media path's view of a consumer.
pub fn consumer_spec(
    id: ConsumerId,
    transport: TransportId,
    producer_id: ProducerId,
    producer: &Producible,
    consumer: &Consumable,
    paused: bool,
) -> ConsumerSpec {
    let _ = (id, transport, producer_id, producer, consumer, paused);
    todo!()
}
