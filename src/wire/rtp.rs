//! RTP packets (RFC 3550 §5.1) with header extensions (RFC 8285).

use crate::id::{PayloadType, Ssrc};
use crate::wire::{Malformed, Result};

/// Bytes of the fixed header.
pub const FIXED_HEADER_LEN: usize = 12;

/// The fixed header's fields and where the parts of the packet lie.
///
/// Made by [`Header::parse`], which has checked that CSRCs and the extension block lie inside the
/// packet. It says nothing about padding, which SRTP encrypts: see [`Header::payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The padding bit; only [`Header::payload`] can tell whether it is honest.
    pub padding: bool,
    /// The marker bit: for video, the last packet of a frame.
    pub marker: bool,
    /// The payload type.
    pub payload_type: PayloadType,
    /// The sequence number as it stands on the wire.
    pub sequence: u16,
    /// The timestamp, in units of the codec's clock.
    pub timestamp: u32,
    /// The sender's synchronization source.
    pub ssrc: Ssrc,
    /// The profile of the extension block (`0xBEDE`, `0x100?`, or anything), if there is one.
    pub extension_profile: Option<u16>,
    /// Where the extension block's elements begin (behind its 4-byte header); `len` when none.
    pub extension_start: u16,
    /// Bytes from the packet's start to its payload.
    pub len: u16,
}

impl Header {
    /// Reads and checks the header of `packet`.
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let _ = packet;
        Err(Malformed)
    }

    /// The payload of `packet` without padding; [`Malformed`] if the padding count lies.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8]> {
        let _ = packet;
        Err(Malformed)
    }
}
