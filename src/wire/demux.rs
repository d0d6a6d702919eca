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
