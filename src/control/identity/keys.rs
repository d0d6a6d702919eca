//! The keys that tokens are signed with: a file with a JWK set (RFC 7517 §5).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Longest key file, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Shortest secret of HS256, in bytes (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;
/// Length of an Ed25519 public key, in bytes (RFC 8032 §5.1.5).
const ED25519_KEY: usize = 32;

/// The keys of one key file. At least one, and no two of one name.
pub struct Keys(Vec<Key>);

/// One key, good for one algorithm.
pub(super) struct Key {
    id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// Why a key file cannot be used. Never shows anything of a key but its name.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is too long to be meant.
    #[error("is above {MAX_FILE} bytes")]
    TooLong,
    /// It is no JWK set.
    #[error("must be a JWK set, {{\"keys\":[…]}}, with one key at least")]
    NoKeys,
    /// A key, counted from 0, cannot be used.
    #[error("keys[{0}] {1}")]
    Key(usize, &'static str),
}

impl Keys {
    /// Reads a key file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(KeyFileError::TooLong);
        }
        Self::parse(&text)
    }

    /// Reads the text of a key file.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| KeyFileError::NoKeys)?;
        let mut keys = Self(Vec::new());
        for (index, jwk) in set.keys.into_iter().enumerate() {
            let key = Key::new(jwk).map_err(|why| KeyFileError::Key(index, why))?;
            if keys.find(&key.id).is_some() {
                return Err(KeyFileError::Key(index, "has the kid of another key"));
            }
            keys.0.push(key);
        }
        if keys.0.is_empty() { Err(KeyFileError::NoKeys) } else { Ok(keys) }
    }

    /// The keys' names.
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_str()).collect()
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn new(jwk: Value) -> Result<Self, &'static str> {
        let is_private = jwk.get("d").is_some();
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| "is not a JWK")?;
        let id = jwk.common.key_id.clone().ok_or("has no kid")?;
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "is not a usable JWK")?;
        let len = decoding.try_get_as_bytes().map_err(|_| "is not a usable JWK")?.len();
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) if len < MIN_SECRET => {
                return Err("has a secret of less than 32 bytes");
            }
            AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return Err("is neither a secret (oct) nor an Ed25519 key (OKP)"),
        };
        if algorithm == Algorithm::EdDSA && len != ED25519_KEY {
            return Err("has an x that is not 32 bytes");
        }
        if algorithm == Algorithm::EdDSA && is_private {
            return Err("has the private key, d, which only the tokens' issuer may know");
        }
        if jwk.common.key_algorithm.is_some_and(|alg| alg != named) {
            return Err("has an alg other than HS256 (oct) or EdDSA (OKP)");
        }
        Ok(Self { id, algorithm, decoding })
    }
}
