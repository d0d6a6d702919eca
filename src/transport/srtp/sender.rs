//! Sealing what we send.

use super::Keys;
use crate::wire::seq::SeqNo;

/// Seals what we send.
pub struct Sender {
    _todo: (),
}

impl Sender {
    /// For the local direction of `keys`.
    pub fn new(keys: &Keys) -> Self {
        let _ = keys;
        todo!()
    }

    /// Seals the RTP packet `buffer[..len]` in place; returns the sealed length.
    pub fn seal_rtp(&self, seq: SeqNo, buffer: &mut [u8], len: usize) -> Option<usize> {
        let _ = (seq, buffer, len);
        todo!()
    }

    /// Seals the RTCP compound `buffer[..len]` in place; returns the sealed length.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let _ = (buffer, len);
        todo!()
    }
}
