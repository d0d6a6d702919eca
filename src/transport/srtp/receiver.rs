//! Opening what the peer sent.

use super::{Error, Keys};
use crate::wire::rtp;
use crate::wire::seq::SeqNo;

/// SSRCs that one transport may send from.
pub const MAX_SSRCS: usize = 1024;
/// RTP packets behind the newest that may still arrive.
pub const RTP_WINDOW: usize = 1024;
/// RTCP packets behind the newest that may still arrive.
pub const RTCP_WINDOW: usize = 128;

/// A packet opened in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The header, as parsed before opening.
    pub header: rtp::Header,
    /// Bytes of plaintext packet (header and payload, without the tag).
    pub len: usize,
    /// The packet's extended sequence number.
    pub seq: SeqNo,
}

/// Opens what the peer sealed: its keys, rollover counters and replay windows.
pub struct Receiver {
    _todo: (),
}

impl Receiver {
    /// For the remote direction of `keys`.
    pub fn new(keys: &Keys) -> Self {
        let _ = keys;
        todo!()
    }

    /// Opens one SRTP packet in place.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, Error> {
        let _ = packet;
        todo!()
    }

    /// Opens one SRTCP packet in place; returns the plaintext's length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let _ = packet;
        todo!()
    }
}
