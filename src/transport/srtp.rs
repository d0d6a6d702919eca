//! SRTP and SRTCP (RFC 3711, RFC 7714): in place, one pass.

use crate::wire::rtp;
use crate::wire::seq::SeqNo;

/// The protection profiles (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// AEAD_AES_128_GCM
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM
    AeadAes256Gcm,
    /// AES128_CM_HMAC_SHA1_80
    Aes128CmHmacSha1_80,
}

/// Master keys and salts of both directions.
pub struct Keys {
    _todo: (),
}

impl Keys {
    /// From DTLS-SRTP keying material (RFC 5764 §4.2: client key, server key, client salt, server salt).
    /// `None` if `material` is too short for `profile`.
    pub fn from_dtls(profile: Profile, material: &[u8], we_are_client: bool) -> Option<Self> {
        let _ = (profile, material, we_are_client);
        None
    }
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Its authentication tag is wrong.
    Forged,
    /// Too short, or an RTP header that lies.
    Malformed,
    /// More SSRCs than one transport may have.
    TooManySsrcs,
    /// Seen before, or older than the replay window.
    Replayed,
}

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
