//! Bytes to views: every format that arrives over UDP.
//!
//! A view is made by one checking constructor, after which every getter is total; what is written
//! goes straight into the caller's buffer. Nothing here allocates, keeps state between packets or
//! knows what a peer is. Bad input is [`Malformed`] and nothing more: whoever asked counts the drop
//! and knows the reason from where it asked.

pub mod av1;
mod cursor;
pub mod demux;
pub mod dependency;
pub mod extension;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod h264;
pub mod rtcp;
pub mod rtp;
pub mod seq;
pub mod stun;
pub mod vp8;
pub mod vp9;

use crate::id::Codec;

/// The bytes are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

/// What every parser here returns.
pub type Result<T> = core::result::Result<T, Malformed>;

/// Largest datagram that is received or sent, in bytes: an Ethernet frame's payload. WebRTC senders
/// stay below 1,280; what is longer is dropped and counted.
pub const MAX_DATAGRAM: usize = 1500;

/// Whether decoding can begin with this RTP payload: it holds the start of a key frame. Always so
/// for Opus, whose packets need no others; never for a payload that is malformed.
pub fn is_key_frame(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Av1 => av1::is_key_frame_start(payload),
        Codec::H264 => h264::is_key_frame_start(payload),
        Codec::Opus => true,
        Codec::Vp8 => vp8::is_key_frame_start(payload),
        Codec::Vp9 => vp9::is_key_frame_start(payload),
    }
}
