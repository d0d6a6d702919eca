//! What kind of datagram is it? (RFC 7983 §7, RFC 5761 §4)

/// The protocols that share a peer's UDP path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191 and payload type outside the RTCP range; SRTP or RTP.
    Rtp,
    /// First byte 128 to 191 and packet type 192 to 223; SRTCP or RTCP.
    Rtcp,
    /// First byte 0 to 3.
    Stun,
    /// None of these, or too short to tell.
    Unknown,
}

/// Sorts `datagram` by its first two bytes.
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte() {
        // RFC 7983 §7; ZRTP (16 to 19) and TURN channels (64 to 79) are not ours.
        for first in 0..=u8::MAX {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                128..=191 => Kind::Rtp,
                4..=19 | 64..=127 | 192..=255 => Kind::Unknown,
            };
            assert_eq!(classify(&[first, 96, 0, 0]), expected, "first byte {first}");
        }
    }

    #[test]
    fn every_second_byte() {
        // RFC 5761 §4: RTCP is told from RTP by the byte that holds the packet type.
        for second in 0..=u8::MAX {
            let expected = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            for first in [128, 191] {
                assert_eq!(classify(&[first, second]), expected, "second byte {second}");
            }
        }
    }

    #[test]
    fn too_short_to_tell() {
        assert_eq!(classify(&[]), Kind::Unknown);
        assert_eq!(classify(&[128]), Kind::Unknown);
        assert_eq!(classify(&[0]), Kind::Stun);
        assert_eq!(classify(&[22]), Kind::Dtls);
    }
}
