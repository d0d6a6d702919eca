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
    /// Reads and checks the header of `packet`: version 2, CSRCs and extension block inside.
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let Some((fixed, rest)) = packet.split_first_chunk::<FIXED_HEADER_LEN>() else {
            return Err(Malformed);
        };
        let csrcs = usize::from(fixed[0] & 0x0f) * 4;
        let has_extension = fixed[0] & 0x10 != 0;
        if fixed[0] >> 6 != 2 || rest.len() < csrcs || packet.len() > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        let mut len = FIXED_HEADER_LEN + csrcs;
        let (mut extension_profile, mut extension_start) = (None, len);
        if has_extension {
            let Some((&[p0, p1, l0, l1], elements)) = rest[csrcs..].split_first_chunk() else {
                return Err(Malformed);
            };
            let elements_len = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            if elements.len() < elements_len {
                return Err(Malformed);
            }
            extension_profile = Some(u16::from_be_bytes([p0, p1]));
            extension_start = len + 4;
            len = extension_start + elements_len;
        }
        Ok(Self {
            padding: fixed[0] & 0x20 != 0,
            marker: fixed[1] & 0x80 != 0,
            payload_type: PayloadType(fixed[1] & 0x7f),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            extension_profile,
            extension_start: extension_start as u16,
            len: len as u16,
        })
    }

    /// The payload of `packet` without padding; [`Malformed`] if the padding count lies.
    ///
    /// `packet` is the one that was parsed, decrypted and without its authentication tag.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8]> {
        let payload = packet.get(usize::from(self.len)..).ok_or(Malformed)?;
        if !self.padding {
            return Ok(payload);
        }
        // RFC 3550 §5.1: the last octet counts the padding, itself included.
        match payload.last() {
            Some(&count) if count != 0 && usize::from(count) <= payload.len() => {
                Ok(&payload[..payload.len() - usize::from(count)])
            }
            _ => Err(Malformed),
        }
    }
}
