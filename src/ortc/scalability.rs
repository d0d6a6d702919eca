//! Scalability modes such as `L3T3_KEY` (W3C webrtc-svc §6).

/// How many layers one encoding has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    pub spatial: u8,
    pub temporal: u8,
}

impl Layers {
    /// Most layers of either sort: no registered mode has more.
    pub const MAX: u8 = 3;
    /// What an encoding has without a scalability mode.
    pub const ONE: Self = Self { spatial: 1, temporal: 1 };

    /// `L` or `S`, spatial layers, `T`, temporal layers; as in mediasoup, anything may follow (`_KEY`,
    /// `h`, `_KEY_SHIFT`) and each number has one or two digits. `None` if `mode` does not begin so.
    pub fn parse(mode: &str) -> Option<Self> {
        let (spatial, rest) = leading_number(mode.strip_prefix(['L', 'S'])?)?;
        let (temporal, _) = leading_number(rest.strip_prefix('T')?)?;
        Some(Self { spatial, temporal })
    }

    /// Whether there is only one layer.
    pub fn is_one(self) -> bool {
        self == Self::ONE
    }
}

/// 1 to 99 without leading zeros, and what follows.
fn leading_number(text: &str) -> Option<(u8, &str)> {
    let digits = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.starts_with('0') {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_in_use_are_understood() {
        let layers = |mode| Layers::parse(mode).map(|layers| (layers.spatial, layers.temporal));
        assert_eq!(layers("L1T1"), Some((1, 1)));
        assert_eq!(layers("L1T3"), Some((1, 3)));
        assert_eq!(layers("S2T1"), Some((2, 1)));
        assert_eq!(layers("L3T3_KEY"), Some((3, 3)));
        assert_eq!(layers("L2T2_KEY_SHIFT"), Some((2, 2)));
        assert_eq!(layers("L3T1h"), Some((3, 1)));
        assert_eq!(layers("L20T10"), Some((20, 10)));
    }

    #[test]
    fn other_texts_are_not_modes() {
        for mode in ["", "L", "L1", "L1T", "T1", "L0T1", "L1T0", "l1t1", "LT", "1", "L٣T1", "L01T1"]
        {
            assert_eq!(Layers::parse(mode), None, "{mode}");
        }
    }
}
