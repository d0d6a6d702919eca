//! Who a client is and what it may do: signed tokens (JWT, RFC 7519) and what they grant.
//!
//! Without keys everybody may do everything. With keys a token is checked when a peer joins and at each
//! REST call; nothing of it is kept but its [`Grants`].

mod grants;
mod keys;
#[cfg(test)]
pub(in crate::control) mod tests;

use std::fmt;
use std::path::PathBuf;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::watch;
use tracing::{error, info};

pub use self::grants::{Grants, Source, Sources};
pub use self::keys::{KeyFileError, Keys};
use crate::control::refusal::Refusal;

/// Longest token, in bytes: several times what our claims need.
pub const MAX_TOKEN: usize = 4 * 1024;
/// How far the issuer's clock and ours may be apart, in seconds.
const LEEWAY: u64 = 30;

/// A client's token, unchecked. It never shows in logs.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The token of an `Authorization` header (RFC 6750 §2.1).
    pub fn from_authorization(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Self(token.trim().to_owned()))
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Checks tokens; every clone follows the same keys.
#[derive(Clone, Default)]
pub struct Identity {
    /// `None`: nobody is asked for a token.
    keys: Option<watch::Receiver<Keys>>,
}

/// Where an [`Identity`]'s keys come from.
pub struct KeyFile {
    path: PathBuf,
    keys: watch::Sender<Keys>,
}

impl KeyFile {
    /// Reads the keys for the first time.
    pub fn open(path: PathBuf) -> Result<(Self, Identity), KeyFileError> {
        let (keys, watched) = watch::channel(Keys::read(&path)?);
        Ok((Self { path, keys }, Identity { keys: Some(watched) }))
    }

    /// Reads the keys again: tokens of those that are gone are refused from now on, peers that have
    /// joined stay. A file that cannot be used changes nothing.
    pub fn reload(&self) {
        match Keys::read(&self.path) {
            Ok(keys) => {
                info!(keys = keys.ids().join(", "), "Keys of tokens reread");
                self.keys.send_replace(keys);
            }
            Err(error) => error!(%error, "Keys of tokens not reread, the old ones stay"),
        }
    }
}

impl Identity {
    /// Whether tokens are asked for.
    pub fn is_on(&self) -> bool {
        self.keys.is_some()
    }

    /// What the bearer of `token` may do; 401 if it is missing or does not hold.
    pub fn check(&self, token: Option<&Token>) -> Result<Grants, Refusal> {
        let Some(keys) = &self.keys else { return Ok(Grants::everything()) };
        let Some(Token(token)) = token else {
            return Err(Refusal::unauthorized("a token is needed"));
        };
        // One answer for everything that only a forger gets to see.
        let invalid = || Refusal::unauthorized("the token is not valid");
        if token.len() > MAX_TOKEN {
            return Err(invalid());
        }
        let header = decode_header(token.as_bytes()).map_err(|_| invalid())?;
        let keys = keys.borrow();
        let key = key_id(&header).and_then(|id| keys.find(id)).ok_or_else(invalid)?;
        // The key says which algorithm, never the token (RFC 8725 §3.1).
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        let decoded = decode::<Grants>(token.as_bytes(), &key.decoding, &validation);
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            // The signature is good from here on: the issuer's mistakes are told.
            ErrorKind::ExpiredSignature => Refusal::unauthorized("the token has expired"),
            ErrorKind::ImmatureSignature => Refusal::unauthorized("the token is not valid yet"),
            ErrorKind::MissingRequiredClaim(claim) => {
                Refusal::unauthorized(format!("the token has no usable {claim}"))
            }
            ErrorKind::Json(why) if why.is_data() => {
                Refusal::unauthorized(format!("the token's claims: {why}"))
            }
            _ => invalid(),
        })
    }
}

/// The name of the key; none if the header has extensions that must be understood (RFC 7515 §4.1.11).
fn key_id(header: &Header) -> Option<&str> {
    if header.crit.is_some() {
        return None;
    }
    header.kid.as_deref()
}
