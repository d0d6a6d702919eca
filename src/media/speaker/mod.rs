//! Who speaks: the dominant speaker of a room, after Volfin and Cohen, "Dominant speaker identification
//! for multipoint videoconferencing" (2012), from audio levels alone (RFC 6464).
//!
//! [`Loudness`] sits where a producer's packets arrive and sums up 100 ms in a [`Summary`] of a few
//! bytes; [`Speakers`] sits on the room's home shard and compares everybody's summaries.
//!
//! As in the paper, activity is scored over three spans (20 ms, 100 ms, 1 s), and a challenger must beat
//! the dominant speaker in all three. Beyond the paper:
//! - a challenger must have been heard for [`EVIDENCE_SLOTS`], or through [`EVIDENCE_BLOCKS`], of the last
//!   600 ms, which no cough or click reaches, so that a silent room is no easy prey;
//! - noise that begins in the middle of a call is known by its evenness within [`EVEN_SLOTS`], not only
//!   after the 15 s that its level takes to become the floor;
//! - in the 1 s score the newer half weighs seven times as much as the older, so that turns are seen
//!   in time, and decisions are taken as the summaries come instead of every 300 ms.

use std::time::Duration;

mod activity;
mod loudness;
mod speakers;
#[cfg(test)]
mod tests;

pub use self::activity::{EVIDENCE_BLOCKS, EVIDENCE_SLOTS, SPREAD_EVIDENCE_SLOTS};
pub use self::loudness::{EVEN_RANGE, EVEN_SLOTS, FLOOR_WINDOW, Loudness, MARGIN};
pub use self::speakers::{Change, LOUDEST_HOLD, MAX_MEMBERS, SILENCE, Speakers};

/// The grain of time: one audio packet of the usual length.
pub const SLOT: Duration = Duration::from_millis(20);

/// Slots in a summary: the paper's N2.
pub const SUMMARY_SLOTS: usize = 5;

/// What a summary covers.
pub const SUMMARY: Duration = Duration::from_millis(20 * SUMMARY_SLOTS as u64);

/// The level of silence (RFC 6464 §3).
pub const SILENT: u8 = 127;

/// How loud one producer was for 100 ms. After a silent one there is none until there is sound again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Levels of five slots as in RFC 6464: -dBov, 0 is loudest. What does not rise above the noise
    /// is [`SILENT`].
    pub levels: [u8; SUMMARY_SLOTS],
    /// What sounded like speech until now has turned out to be even noise.
    pub noise: bool,
}

impl Summary {
    /// Whether nothing was heard.
    pub fn is_silent(&self) -> bool {
        self.levels.iter().all(|&level| level >= SILENT)
    }
}
