//! The transforms: one packet, one key, no state.
//!
//! SRTP and SRTCP of one direction each have a [`Cipher`] of their own, with their own session keys.

use std::cell::OnceCell;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
use aws_lc_rs::iv::FixedLength;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::keys::{Direction, Label, aes_ctr};
use super::{Profile, RTCP_INDEX_LEN};
use crate::id::Ssrc;
use crate::wire::seq::SeqNo;

/// Bytes of an SRTCP packet that stay readable: the first header and the sender's SSRC.
pub(super) const RTCP_CLEAR_LEN: usize = 8;

/// The flag before the SRTCP index that says "encrypted" (RFC 3711 §3.4).
pub(super) const RTCP_ENCRYPTED: u32 = 1 << 31;

const GCM_TAG_LEN: usize = Profile::AeadAes256Gcm.rtp_overhead();
const CM_TAG_LEN: usize = Profile::Aes128CmHmacSha1_80.rtp_overhead();

/// The authentication tag does not belong to the packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadTag;

/// One direction's ciphers, each expanded for its first packet: most transports never use all four of theirs, and
/// an idle one none.
pub(super) struct Ciphers {
    profile: Profile,
    master: Direction,
    rtp: OnceCell<Cipher>,
    rtcp: OnceCell<Cipher>,
}

impl Ciphers {
    /// Those that follow from `master`.
    pub(super) fn new(profile: Profile, master: &Direction) -> Self {
        Self { profile, master: master.clone(), rtp: OnceCell::new(), rtcp: OnceCell::new() }
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// SRTP's.
    pub(super) fn rtp(&self) -> &Cipher {
        self.rtp.get_or_init(|| Cipher::rtp(self.profile, &self.master))
    }

    /// SRTCP's.
    pub(super) fn rtcp(&self) -> &Cipher {
        self.rtcp.get_or_init(|| Cipher::rtcp(self.profile, &self.master))
    }
}

/// Session keys of SRTP or of SRTCP, one direction, expanded.
pub(super) enum Cipher {
    /// AES-GCM with 128 or 256 bits.
    Gcm(Gcm),
    /// AES counter mode and HMAC-SHA1; boxed because its key schedules are large.
    Cm(Box<Cm>),
}

impl Cipher {
    /// SRTP's.
    pub(super) fn rtp(profile: Profile, master: &Direction) -> Self {
        Self::new(profile, master, [Label::RtpCipher, Label::RtpAuth, Label::RtpSalt])
    }

    /// SRTCP's.
    pub(super) fn rtcp(profile: Profile, master: &Direction) -> Self {
        Self::new(profile, master, [Label::RtcpCipher, Label::RtcpAuth, Label::RtcpSalt])
    }

    fn new(profile: Profile, master: &Direction, [cipher, auth, salt]: [Label; 3]) -> Self {
        let salt = master.derive::<14>(salt);
        match profile {
            Profile::AeadAes128Gcm => Self::gcm(&*master.derive::<16>(cipher), &salt[..12]),
            Profile::AeadAes256Gcm => Self::gcm(&*master.derive::<32>(cipher), &salt[..12]),
            Profile::Aes128CmHmacSha1_80 => {
                Self::cm(&*master.derive::<16>(cipher), &*salt, &*master.derive::<20>(auth))
            }
        }
    }

    /// From a session key of 16 or 32 bytes and a session salt of 12.
    fn gcm(key: &[u8], salt: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).expect("AES takes every key of the right length");
        Self::Gcm(Gcm { key: LessSafeKey::new(key), salt: word(salt) })
    }

    /// From a session key of 16 bytes, a session salt of 14 and an authentication key of 20.
    fn cm(key: &[u8], salt: &[u8], auth: &[u8]) -> Self {
        let mac = Hmac::new_from_slice(auth).expect("HMAC takes a key of any length");
        Self::Cm(Box::new(Cm { key: aes_ctr(key), salt: word(salt), mac }))
    }

    /// Seals an RTP packet whose payload begins at `header_len` and that has room for the tag at its
    /// end. The `header_len` and room must be inside the packet. `None` if the library refuses, and
    /// then the packet is not to be sent.
    pub(super) fn seal_rtp(
        &self,
        ssrc: Ssrc,
        seq: SeqNo,
        header_len: usize,
        packet: &mut [u8],
    ) -> Option<()> {
        match self {
            Self::Gcm(gcm) => {
                let (header, rest) = packet.split_at_mut(header_len);
                gcm.seal(gcm.nonce(ssrc, seq.0), header, rest)
            }
            Self::Cm(cm) => {
                let (authentic, tag) = packet.split_at_mut(packet.len() - CM_TAG_LEN);
                cm.apply_keystream(ssrc, seq.0, &mut authentic[header_len..])?;
                tag.copy_from_slice(&cm.tag([authentic, &seq.rollovers().to_be_bytes()]));
                Some(())
            }
        }
    }

    /// Opens what [`Self::seal_rtp`] made; afterwards the tag's bytes at the end mean nothing.
    ///
    /// After [`BadTag`], counter mode has left the packet as it was, and GCM has wiped its payload.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        seq: SeqNo,
        header_len: usize,
        packet: &mut [u8],
    ) -> Result<(), BadTag> {
        match self {
            Self::Gcm(gcm) => {
                let (header, rest) = packet.split_at_mut(header_len);
                gcm.open(gcm.nonce(ssrc, seq.0), header, rest)
            }
            Self::Cm(cm) => {
                let (authentic, tag) = packet.split_at_mut(packet.len() - CM_TAG_LEN);
                cm.verify([authentic, &seq.rollovers().to_be_bytes()], tag)?;
                cm.apply_keystream(ssrc, seq.0, &mut authentic[header_len..]).ok_or(BadTag)
            }
        }
    }

    /// Seals an RTCP compound that has room for tag and index at its end, with `index` below 2^31.
    pub(super) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut [u8]) -> Option<()> {
        let trailer = (RTCP_ENCRYPTED | index).to_be_bytes();
        match self {
            Self::Gcm(gcm) => {
                // RFC 7714 §9.2: the trailer is authenticated with the header, and stands last.
                let (body, end) = packet.split_at_mut(packet.len() - RTCP_INDEX_LEN);
                end.copy_from_slice(&trailer);
                let (header, rest) = body.split_at_mut(RTCP_CLEAR_LEN);
                gcm.seal(gcm.nonce(ssrc, index.into()), &rtcp_aad(header, trailer), rest)
            }
            Self::Cm(cm) => {
                // RFC 3711 §3.4: the trailer stands before the tag, which covers it.
                let (authentic, tag) = packet.split_at_mut(packet.len() - CM_TAG_LEN);
                let (body, end) = authentic.split_at_mut(authentic.len() - RTCP_INDEX_LEN);
                end.copy_from_slice(&trailer);
                cm.apply_keystream(ssrc, index.into(), &mut body[RTCP_CLEAR_LEN..])?;
                tag.copy_from_slice(&cm.tag([authentic, &[]]));
                Some(())
            }
        }
    }

    /// The encryption flag and index of an SRTCP packet, which stand before or behind the tag.
    /// `None` if the packet is too short for its header, tag and trailer.
    pub(super) fn rtcp_trailer(&self, packet: &[u8]) -> Option<u32> {
        let (tag_len, behind) = match self {
            Self::Gcm(_) => (GCM_TAG_LEN, 0),
            Self::Cm(_) => (CM_TAG_LEN, CM_TAG_LEN),
        };
        if packet.len() < RTCP_CLEAR_LEN + tag_len + RTCP_INDEX_LEN {
            return None;
        }
        packet[..packet.len() - behind].last_chunk().map(|&bytes| u32::from_be_bytes(bytes))
    }

    /// Opens what [`Self::seal_rtcp`] made. `trailer` is [`Self::rtcp_trailer`]'s answer for
    /// `packet`, with [`RTCP_ENCRYPTED`] set. After [`BadTag`] see [`Self::open_rtp`].
    pub(super) fn open_rtcp(
        &self,
        ssrc: Ssrc,
        trailer: u32,
        packet: &mut [u8],
    ) -> Result<(), BadTag> {
        let index = u64::from(trailer & !RTCP_ENCRYPTED);
        match self {
            Self::Gcm(gcm) => {
                let (body, _) = packet.split_at_mut(packet.len() - RTCP_INDEX_LEN);
                let (header, rest) = body.split_at_mut(RTCP_CLEAR_LEN);
                let aad = rtcp_aad(header, trailer.to_be_bytes());
                gcm.open(gcm.nonce(ssrc, index), &aad, rest)
            }
            Self::Cm(cm) => {
                let (authentic, tag) = packet.split_at_mut(packet.len() - CM_TAG_LEN);
                cm.verify([authentic, &[]], tag)?;
                let end = authentic.len() - RTCP_INDEX_LEN;
                cm.apply_keystream(ssrc, index, &mut authentic[RTCP_CLEAR_LEN..end]).ok_or(BadTag)
            }
        }
    }
}

/// AEAD_AES_128_GCM or AEAD_AES_256_GCM (RFC 7714).
pub(super) struct Gcm {
    key: LessSafeKey,
    /// The session salt as a 96-bit number.
    salt: u128,
}

impl Gcm {
    /// RFC 7714 §8.1 for SRTP, with `index` = ROC and SEQ in 48 bits; §9.1 for SRTCP, whose 31-bit
    /// index stands in the same place: 2 zero bytes, SSRC, index in 6 bytes, all XOR the salt.
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let number = self.salt ^ (u128::from(ssrc.0) << 48) ^ u128::from(index);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&number.to_be_bytes()[4..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts all of `text_and_tag` but its last [`GCM_TAG_LEN`] bytes, which become the tag.
    fn seal(&self, nonce: Nonce, aad: &[u8], text_and_tag: &mut [u8]) -> Option<()> {
        let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - GCM_TAG_LEN);
        self.key.seal_in_place_scatter(nonce, Aad::from(aad), text, &[], tag).ok()
    }

    /// The inverse. The library decrypts while it authenticates and wipes the text if the tag is wrong.
    fn open(&self, nonce: Nonce, aad: &[u8], text_and_tag: &mut [u8]) -> Result<(), BadTag> {
        let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - GCM_TAG_LEN);
        match self.key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text) {
            Ok(_) => Ok(()),
            Err(_) => Err(BadTag),
        }
    }
}

/// The associated data of SRTCP under GCM: clear header and trailer (RFC 7714 §9.2).
fn rtcp_aad(header: &[u8], trailer: [u8; RTCP_INDEX_LEN]) -> [u8; RTCP_CLEAR_LEN + RTCP_INDEX_LEN] {
    let mut aad = [0; RTCP_CLEAR_LEN + RTCP_INDEX_LEN];
    aad[..RTCP_CLEAR_LEN].copy_from_slice(header);
    aad[RTCP_CLEAR_LEN..].copy_from_slice(&trailer);
    aad
}

/// AES128_CM_HMAC_SHA1_80 (RFC 3711 §4.1.1, §4.2.1).
pub(super) struct Cm {
    key: EncryptingKey,
    /// The session salt as a 112-bit number.
    salt: u128,
    /// Has hashed the padded key; cloned for each packet.
    mac: Hmac<Sha1>,
}

impl Cm {
    /// Encrypts or decrypts `text`. `None` only if the library refuses, and then `text` is as it was.
    fn apply_keystream(&self, ssrc: Ssrc, index: u64, text: &mut [u8]) -> Option<()> {
        // RFC 3711 §4.1.1: (k_s * 2^16) XOR (SSRC * 2^64) XOR (i * 2^16). The low 16 bits count
        // blocks and cannot overflow, since a datagram has fewer than 2^12 of them.
        let iv = (self.salt << 16) ^ (u128::from(ssrc.0) << 64) ^ (u128::from(index) << 16);
        let context = EncryptionContext::Iv128(FixedLength::from(iv.to_be_bytes()));
        self.key.less_safe_encrypt(text, context).ok().map(|_| ())
    }

    /// The first 80 bits of the HMAC over `parts`.
    fn tag(&self, parts: [&[u8]; 2]) -> [u8; CM_TAG_LEN] {
        let mut tag = [0; CM_TAG_LEN];
        tag.copy_from_slice(&self.hash(parts).finalize().into_bytes()[..CM_TAG_LEN]);
        tag
    }

    /// Compares in constant time.
    fn verify(&self, parts: [&[u8]; 2], tag: &[u8]) -> Result<(), BadTag> {
        self.hash(parts).verify_truncated_left(tag).map_err(|_| BadTag)
    }

    fn hash(&self, parts: [&[u8]; 2]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(parts[0]);
        mac.update(parts[1]);
        mac
    }
}

/// At most 16 big-endian bytes as a number.
fn word(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, &byte| (number << 8) | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use super::super::testing::hex;
    use super::*;

    const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
    const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SALT: &str = "517569642070726f2071756f";
    const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e6973206469766973\
                       6120696e207061727465732074726573";
    const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                        deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

    /// RFC 3711 appendix B.2: the keystream of session key and salt for SSRC 0 and index 0.
    #[test]
    fn counter_mode_has_the_keystream_of_rfc_3711_b2() {
        let cipher = Cipher::cm(
            &hex("2B7E151628AED2A6ABF7158809CF4F3C"),
            &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
            &[],
        );
        let Cipher::Cm(cm) = cipher else { panic!("asked for counter mode") };
        let mut text = vec![0; 16 * 0xff02];
        cm.apply_keystream(Ssrc(0), 0, &mut text).unwrap();
        let first = "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB\
                     41E95B3BB0A2E8DD477901E4FCA894C0";
        let last = "EC8CDF7398607CB0F2D21675EA9EA1E4362B7C3C6773516318A077D7FC5073AE\
                    6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(text[..48], hex(first));
        assert_eq!(text[16 * 0xfeff..], hex(last));
    }

    fn check_rtp(cipher: &Cipher, sealed: &str) {
        let (plain, sealed) = (hex(RTP), hex(sealed));
        let (ssrc, seq) = (Ssrc(0x5501a0b2), SeqNo(0xf17b));
        let mut packet = plain.clone();
        packet.resize(sealed.len(), 0);
        cipher.seal_rtp(ssrc, seq, 12, &mut packet).unwrap();
        assert_eq!(packet, sealed);
        cipher.open_rtp(ssrc, seq, 12, &mut packet).unwrap();
        assert_eq!(packet[..plain.len()], plain);
    }

    fn check_rtcp(cipher: &Cipher, sealed: &str) {
        let (plain, sealed) = (hex(RTCP), hex(sealed));
        let ssrc = Ssrc(0x4d617273);
        let mut packet = plain.clone();
        packet.resize(sealed.len(), 0);
        cipher.seal_rtcp(ssrc, 0x5d4, &mut packet).unwrap();
        assert_eq!(packet, sealed);
        assert_eq!(cipher.rtcp_trailer(&packet), Some(0x8000_05d4));
        cipher.open_rtcp(ssrc, 0x8000_05d4, &mut packet).unwrap();
        assert_eq!(packet[..plain.len()], plain);
    }

    /// RFC 7714 §16.1.1 and §16.1.2.
    #[test]
    fn srtp_aes_128_gcm_of_rfc_7714() {
        check_rtp(
            &Cipher::gcm(&hex(KEY_128), &hex(SALT)),
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51\
             c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        );
    }

    /// RFC 7714 §16.2.1 and §16.2.2.
    #[test]
    fn srtp_aes_256_gcm_of_rfc_7714() {
        check_rtp(
            &Cipher::gcm(&hex(KEY_256), &hex(SALT)),
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276\
             ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        );
    }

    /// RFC 7714 §17.1.
    #[test]
    fn srtcp_aes_128_gcm_of_rfc_7714() {
        check_rtcp(
            &Cipher::gcm(&hex(KEY_128), &hex(SALT)),
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4c\
             e09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        );
    }

    /// RFC 7714 §17.2.
    #[test]
    fn srtcp_aes_256_gcm_of_rfc_7714() {
        check_rtcp(
            &Cipher::gcm(&hex(KEY_256), &hex(SALT)),
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be84\
             15f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        );
    }
}
