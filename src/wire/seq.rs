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
    ///
    /// Of two that are equally near (32,768 away) it is the lower one: a packet that looks half the
    /// circle away is taken for an old one, so that a forged jump cannot advance the rollovers.
    pub const fn nearest(self, wire: u16) -> Self {
        // The distance on the circle, -32768..=32767, decides which side of `self` it lies on.
        let distance = wire.wrapping_sub(self.wire()) as i16 as i64;
        match self.0.checked_add_signed(distance) {
            Some(value) => Self(value),
            None => Self(wire as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrap_is_crossed_both_ways() {
        // RFC 3711 §3.3.1.
        assert_eq!(SeqNo(0xffff).nearest(0), SeqNo(0x1_0000));
        assert_eq!(SeqNo(0x1_0000).nearest(0xffff), SeqNo(0xffff));
        assert_eq!(SeqNo(0x5_0003).nearest(0xfffe), SeqNo(0x4_fffe));
    }

    #[test]
    fn nothing_lies_before_zero() {
        assert_eq!(SeqNo(3).nearest(0xfffe), SeqNo(0xfffe));
    }

    #[test]
    fn half_the_circle_away_counts_as_old() {
        assert_eq!(SeqNo(0x1_8000).nearest(0), SeqNo(0x1_0000));
        assert_eq!(SeqNo(0x1_0000).nearest(0x8000), SeqNo(0x8000));
    }

    #[test]
    fn parts_make_the_whole() {
        let seq = SeqNo(0xabcd_ef01_2345);
        assert_eq!((seq.rollovers(), seq.wire()), (0xabcd_ef01, 0x2345));
    }

    proptest! {
        /// Whatever is less than half a circle away is found from its wire value alone.
        #[test]
        fn nearest_undoes_wire(base in 0x8000u64..1 << 48, distance in -0x8000i64..0x8000) {
            let target = SeqNo(base.checked_add_signed(distance).unwrap());
            prop_assert_eq!(SeqNo(base).nearest(target.wire()), target);
        }

        #[test]
        fn nearest_keeps_the_wire_value(base in 0u64..1 << 48, wire: u16) {
            prop_assert_eq!(SeqNo(base).nearest(wire).wire(), wire);
        }
    }
}
