//! Streams, decoders and random runs.

#[path = "../../../../tests/sim/decoders.rs"]
mod decoders;
mod room;
mod runs;
#[path = "../../../../tests/sim/streams.rs"]
mod streams;
mod switches;

use crate::wire;
