//! Which packets of a layered stream one consumer gets, and how its numbers go on.
//!
//! A producer's packet is read once ([`FrameInfo::read`]); each consumer's [`Selector`] then gives its
//! [`Verdict`], and its [`PictureIds`] the [`PayloadShift`] with which the packet leaves.
//!
//! The rule behind all verdicts: a frame is forwarded only if no frame that it refers to was left out on
//! purpose. Where a packet lists its references (dependency descriptor, VP9) this is checked frame by frame;
//! where it does not (VP8), a temporal layer is taken up only at a frame that says that it needs lower
//! layers alone. Frames that were lost before they came here are not "left out": they may still arrive.
//!
//! # Going over to another encoding, and starting
//! [`Selector::needs_key_frame`] tells which encoding has to send a key frame; until it comes, the old encoding
//! goes on. The first packet of that key frame gets [`Verdict::Forward`] with `switch`: from this sequence
//! number on the packets of the new encoding belong to the stream, so the room resynchronises its rewriter
//! here. That packet may be late: up to [`MAX_LATE`] packets of the same encoding, sent after it, may have come
//! before it and were ignored. So after a verdict with `switch` the room takes from its history every packet of
//! this encoding with a higher number than the one just admitted, and passes them to [`Selector::admit`] in
//! order before anything else. It has to read them anew ([`FrameInfo::read`]): what came before the structure that
//! a key frame carries could not be understood then. A cached key frame is served in the same way: its packets are passed to
//! `admit`, oldest first. Packets of the old encoding, and those of the new one from before the switch, are
//! ignored from then on.

mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod pictures;
mod selector;
mod shift;
#[cfg(test)]
mod tests;

pub use frame::{FrameInfo, Number, References, Structure};
pub use selector::{MAX_LATE, Selector};
pub use shift::{PayloadShift, PictureIds};

/// How a producer's stream is layered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Several encodings of one picture, each with its own sequence numbers; temporal layers inside each.
    Simulcast,
    /// One encoding (index 0) with spatial and temporal layers.
    Svc,
}

/// A spatial and a temporal layer, counted from 0; with simulcast, the spatial layer is the encoding's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Spatial layer or encoding.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
}

/// What becomes of one packet for one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Forward {
        /// The marker bit to send; `None` leaves it as it came.
        marker: Option<bool>,
        /// The stream begins or goes over to this packet's encoding here.
        switch: bool,
    },
    /// It belongs to the current stream and is left out on purpose: no gap may show.
    Skip,
    /// It belongs to an encoding that is not forwarded, or lies before the switch.
    Ignore,
}
