//! SRTP and SRTCP (RFC 3711, RFC 7714): in place, one pass.
//!
//! [`Keys`] come from the handshake and make one [`Receiver`] and one [`Sender`] per transport. Both
//! keep the key schedules that their first packets have expanded, so that a packet costs no set-up and no allocation.
//!
//! What never happens here: key changes (a new handshake makes new objects), a master key
//! identifier (WebRTC does not use it), encrypted header extensions (RFC 6904, not negotiated).

mod cipher;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod keys;
mod receiver;
mod sender;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;

pub use keys::{Keys, Master};
pub use receiver::{MAX_SSRCS, Opened, RTCP_WINDOW, RTP_WINDOW, Receiver};
pub use sender::Sender;

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

impl Profile {
    /// Every profile, the preferred one first.
    pub const ALL: [Self; 3] =
        [Self::AeadAes256Gcm, Self::AeadAes128Gcm, Self::Aes128CmHmacSha1_80];

    /// Bytes of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmHmacSha1_80 => 16,
        }
    }

    /// Bytes of a master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Bytes that the DTLS exporter must deliver (RFC 5764 §4.2): two keys and two salts.
    pub const fn material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes that sealing adds to an RTP packet: the authentication tag.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// Bytes that sealing adds to an RTCP compound: the tag and the SRTCP index.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + RTCP_INDEX_LEN
    }
}

/// The most bytes that sealing adds to an RTP packet, whatever the profile.
pub const MAX_RTP_OVERHEAD: usize = Profile::AeadAes256Gcm.rtp_overhead();

/// The most bytes that sealing adds to an RTCP compound, whatever the profile.
pub const MAX_RTCP_OVERHEAD: usize = MAX_RTP_OVERHEAD + RTCP_INDEX_LEN;

/// Bytes of the encryption flag and SRTCP index behind every SRTCP packet (RFC 3711 §3.4).
const RTCP_INDEX_LEN: usize = 4;

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its authentication tag is wrong.
    #[error("authentication tag is wrong")]
    Forged,
    /// Too short, a header that lies, or SRTCP that claims not to be encrypted.
    #[error("malformed packet")]
    Malformed,
    /// More SSRCs than one transport may have: see [`MAX_SSRCS`].
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// Seen before, or older than the replay window.
    #[error("replayed or too old")]
    Replayed,
}
