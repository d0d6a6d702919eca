//! One stream at a time: pure state machines over numbers.
//!
//! Nothing here sees an address, a key or a byte of payload beyond what a caller passes in. Each type
//! holds the state of one incoming or outgoing stream; `room` decides which streams meet.

pub mod arrivals;
pub mod bandwidth;
pub mod clock;
pub mod keyframe;
pub mod reception;
pub mod rewrite;
