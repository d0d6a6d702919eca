//! Sequence numbers that do not wrap.

/// An RTP sequence number extended by its rollover count (RFC 3711 §3.3.1: `2^16 * ROC + SEQ`).
///
/// The lower 16 bits are what stands on the wire. Never confuse the two: the wire value is a `u16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The 16 bits that stand on the wire.
    pub const fn wire(self) -> u16 {
        self.0 as u16
    }

    /// How often the wire value has wrapped (SRTP's rollover counter).
    pub const fn rollovers(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The sequence number nearest to `self` whose wire value is `wire`; never below zero.
    pub const fn nearest(self, wire: u16) -> Self {
        // The distance on the circle, -32768..=32767, decides which side of `self` it lies on.
        let distance = wire.wrapping_sub(self.wire()) as i16 as i64;
        match self.0.checked_add_signed(distance) {
            Some(value) => Self(value),
            None => Self(wire as u64),
        }
    }
}
