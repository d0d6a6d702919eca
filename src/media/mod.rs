//! One stream at a time: pure state machines over numbers.
//!
//! Nothing here sees an address, a key or a byte of payload beyond what a caller passes in. Each type
//! holds the state of one incoming or outgoing stream; `room` decides which streams meet. Two look at
//! the streams of one transport or room together, still as numbers only: [`allocation`] and [`speaker`].

pub mod allocation;
pub mod arrivals;
pub mod bandwidth;
pub mod budget;
pub mod clock;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod history;
pub mod keyframe;
pub mod layers;
pub mod nack;
pub mod rates;
pub mod reception;
pub mod rewrite;
pub mod score;
pub mod speaker;
