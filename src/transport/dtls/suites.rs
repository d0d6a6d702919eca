//! The cipher suites that a handshake may end with, and how the peer's records are opened without it.
//!
//! `dimpl` takes its ciphers from whom it is configured with, but never gives one back, nor its keys; and it is ten
//! times larger than what is left to be done once they are agreed on. So the ciphers are ours, and whenever
//! one has opened a record it leaves word how ([`take_opener`]).

use std::cell::Cell;
use std::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use dimpl::crypto::{
    self, Aad, Buf, CryptoProvider, Dtls12CipherSuite, HashAlgorithm, Nonce,
    SupportedDtls12CipherSuite, TmpBuf,
};
use dimpl::{CryptoError, CryptoOperation};
use zeroize::Zeroizing;

use super::framing::Record;
use crate::wire::MAX_DATAGRAM;

/// Longest key of any suite, in bytes.
const MAX_KEY_LEN: usize = 32;
/// Bytes of a nonce, of all suites.
const NONCE_LEN: usize = 12;
/// Bytes of an authentication tag, of all suites.
const TAG_LEN: usize = 16;

/// How records are protected: ECDHE and ECDSA with one of these.
#[derive(Clone, Copy, Debug)]
enum Suite {
    /// RFC 5289.
    Aes128Gcm,
    /// RFC 5289.
    Aes256Gcm,
    /// RFC 7905.
    ChaCha20Poly1305,
}

/// In the order in which we prefer them, which is `dimpl`'s.
static SUITES: &[&dyn SupportedDtls12CipherSuite] =
    &[&Suite::Aes128Gcm, &Suite::Aes256Gcm, &Suite::ChaCha20Poly1305];

thread_local! {
    /// How this thread opened a record last. What makes a cipher is a static, which knows of no endpoint; but an
    /// endpoint's calls do not overlap with another's on its thread.
    static OPENED: Cell<Option<Opener>> = const { Cell::new(None) };
}

/// `dimpl`'s cryptography with our ciphers.
pub fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: SUITES, ..crypto::aws_lc_rs::default_provider() }
}

/// How the last record was opened that was opened on this thread since this was asked last.
pub fn take_opener() -> Option<Opener> {
    OPENED.take()
}

/// Opens the peer's records, newer ones only.
pub struct Opener {
    key: RecordKey,
    /// The nonce's part that is never sent (RFC 5288 §3), or what it is mixed with (RFC 7905 §2).
    iv: [u8; NONCE_LEN],
    /// Epoch and number of the last record opened.
    newest: u64,
}

impl Opener {
    /// One that nothing was sealed for.
    #[cfg(test)]
    pub fn for_test() -> Self {
        let key = RecordKey { suite: Suite::Aes128Gcm, key: Zeroizing::new([0; MAX_KEY_LEN]) };
        Self { key, iv: [0; NONCE_LEN], newest: 0 }
    }

    /// Opens a record into `buffer`. `None` if it is not authentic, or not newer than all that were opened before
    /// (RFC 6347 §4.1.2.6, with a window of one: what comes after a handshake comes alone).
    pub fn open<'a>(
        &mut self,
        record: Record<'_>,
        buffer: &'a mut [u8; MAX_DATAGRAM],
    ) -> Option<&'a [u8]> {
        let number = record.number();
        let fragment = record.fragment();
        let explicit = self.key.suite.explicit_nonce_len();
        let len = fragment.len().checked_sub(explicit + TAG_LEN)?;
        if number <= self.newest {
            return None;
        }
        let sealed = buffer.get_mut(..len + TAG_LEN)?;
        sealed.copy_from_slice(&fragment[explicit..]);
        let nonce = match self.key.suite {
            Suite::ChaCha20Poly1305 => mix(self.iv, number),
            Suite::Aes128Gcm | Suite::Aes256Gcm => {
                let mut nonce = self.iv;
                nonce[NONCE_LEN - explicit..].copy_from_slice(&fragment[..explicit]);
                nonce
            }
        };
        self.key.open(&record.additional_data(len as u16), nonce, sealed)?;
        self.newest = number;
        buffer.get(..len)
    }
}

/// A nonce is the IV with epoch and number of its record mixed in (RFC 7905 §2), and the other way round.
fn mix(mut iv: [u8; NONCE_LEN], number: u64) -> [u8; NONCE_LEN] {
    for (byte, other) in iv[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= other;
    }
    iv
}

impl SupportedDtls12CipherSuite for Suite {
    fn suite(&self) -> Dtls12CipherSuite {
        match self {
            Self::Aes128Gcm => Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
            Self::Aes256Gcm => Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
            Self::ChaCha20Poly1305 => Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
        }
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => HashAlgorithm::SHA256,
            Self::Aes256Gcm => HashAlgorithm::SHA384,
        }
    }

    /// Of the MAC's key, the cipher's, and the IV's part that is derived.
    fn key_lengths(&self) -> (usize, usize, usize) {
        match self {
            Self::Aes128Gcm => (0, 16, 4),
            Self::Aes256Gcm => (0, 32, 4),
            Self::ChaCha20Poly1305 => (0, 32, 12),
        }
    }

    fn explicit_nonce_len(&self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 8,
            Self::ChaCha20Poly1305 => 0,
        }
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn crypto::Cipher>, CryptoError> {
        let mut record = RecordKey { suite: *self, key: Zeroizing::new([0; MAX_KEY_LEN]) };
        let (_, len, _) = self.key_lengths();
        if key.len() != len {
            return Err(CryptoError::OperationFailed(CryptoOperation::CreateCipher));
        }
        record.key[..len].copy_from_slice(key);
        Ok(Box::new(record))
    }
}

/// One direction's key. It is expanded for each record: there are two in a handshake, and then hardly any.
#[derive(Clone)]
struct RecordKey {
    suite: Suite,
    /// Filled up with zeros.
    key: Zeroizing<[u8; MAX_KEY_LEN]>,
}

impl RecordKey {
    fn expanded(&self) -> Option<LessSafeKey> {
        let algorithm = match self.suite {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let (_, len, _) = self.suite.key_lengths();
        UnboundKey::new(algorithm, &self.key[..len]).ok().map(LessSafeKey::new)
    }

    /// Opens in place; the plaintext is as long as what was sealed, less the tag.
    fn open(&self, additional: &[u8], nonce: [u8; NONCE_LEN], sealed: &mut [u8]) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.expanded()?.open_in_place(nonce, aead::Aad::from(additional), sealed).ok()?;
        Some(())
    }
}

impl crypto::Cipher for RecordKey {
    fn encrypt(&mut self, plain: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let failed = CryptoError::OperationFailed(CryptoOperation::Encrypt);
        let key = self.expanded().ok_or(failed.clone())?;
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(&aad[..]), plain).map_err(|_| failed)
    }

    fn decrypt(&mut self, sealed: &mut TmpBuf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let failed = CryptoError::OperationFailed(CryptoOperation::Decrypt);
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(failed.clone())?;
        self.open(&aad, nonce.0, sealed.as_mut()).ok_or(failed)?;
        sealed.truncate(len);
        // They begin with epoch and number of the record (RFC 5246 §6.2.3.3).
        let number = aad.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let iv = match self.suite {
            Suite::ChaCha20Poly1305 => mix(nonce.0, number),
            Suite::Aes128Gcm | Suite::Aes256Gcm => nonce.0,
        };
        OPENED.set(Some(Opener { key: self.clone(), iv, newest: number }));
        Ok(())
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing::records;
    use super::*;

    /// A record of epoch 1, sealed by a cipher of `suite` as `dimpl` does it.
    fn sealed(suite: Suite, number: u8, plain: &[u8]) -> Vec<u8> {
        let (_, key_len, _) = suite.key_lengths();
        let mut cipher = suite.create_cipher(&[7; MAX_KEY_LEN][..key_len]).unwrap();
        let sequence = [0, 1, 0, 0, 0, 0, 0, number];
        let mut record = vec![21, 0xfe, 0xfd];
        record.extend(sequence);
        let mut aad = sequence.to_vec();
        aad.extend([21, 0xfe, 0xfd, 0, plain.len() as u8]);
        let explicit = &[9; 8][..suite.explicit_nonce_len()];
        let iv = [3; NONCE_LEN];
        let nonce = match suite {
            Suite::ChaCha20Poly1305 => mix(iv, u64::from_be_bytes(sequence)),
            _ => [&iv[..4], explicit].concat().try_into().unwrap(),
        };
        let mut buffer = Buf::new();
        buffer.extend_from_slice(plain);
        let aad = Aad(aad.into_iter().collect());
        cipher.encrypt(&mut buffer, aad.clone(), Nonce(nonce)).unwrap();
        // What seals here opens there; so this leaves word how.
        let mut copy = buffer.to_vec();
        cipher.decrypt(&mut TmpBuf::new(&mut copy), aad, Nonce(nonce)).unwrap();
        record.extend(((explicit.len() + buffer.len()) as u16).to_be_bytes());
        record.extend(explicit);
        record.extend_from_slice(&buffer);
        record
    }

    #[test]
    fn an_opener_goes_on_where_the_handshake_ended() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let next = sealed(suite, 5, &[1, 0]);
            let old = sealed(suite, 4, b"Finished");
            let mut opener = take_opener().unwrap();
            assert!(take_opener().is_none(), "it is told once");
            let mut buffer = [0; MAX_DATAGRAM];
            let mut open = |bytes: &[u8]| {
                let record = records(bytes).next().unwrap();
                opener.open(record, &mut buffer).map(<[u8]>::to_vec)
            };
            assert_eq!(open(&old), None, "opened before");
            for at in 0..next.len() {
                let mut forged = next.clone();
                forged[at] ^= 1;
                // With a wrong length it may be none.
                if records(&forged).next().is_some() {
                    assert_eq!(open(&forged), None, "{suite:?}, byte {at}");
                }
            }
            assert_eq!(open(&next), Some(vec![1, 0]), "{suite:?}");
            assert_eq!(open(&next), None, "replayed");
        }
    }
}
