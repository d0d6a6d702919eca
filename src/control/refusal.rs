//! Why a request was not carried out, in words for the client.

use serde_json::{Value, json};

use crate::ortc::Invalid;

/// An answer that is not the wanted one: a status as HTTP numbers it, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Refusal {
    /// 400 to 599, with HTTP's meaning (RFC 9110 §15).
    pub status: u16,
    /// For people; names the field where there is one, never anything of the server's inside.
    pub reason: String,
    /// Where the status alone does not tell what to do.
    word: Option<&'static str>,
}

impl Refusal {
    /// Any refusal.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), word: None }
    }

    /// 400: `field` cannot be used, because of `why`.
    pub fn field(field: &str, why: impl std::fmt::Display) -> Self {
        Self::new(400, format!("{field}: {why}"))
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(401, reason)
    }

    /// 403: who asks may not.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(403, reason)
    }

    /// 403: it belongs to another peer.
    pub fn not_yours(what: &str) -> Self {
        Self::new(403, format!("this {what} belongs to another peer"))
    }

    /// 404: there is none.
    pub fn no_such(what: &str) -> Self {
        Self::new(404, format!("there is no such {what}"))
    }

    /// 409: it is there already, or was done already.
    pub fn conflict(reason: impl Into<String>) -> Self {
        Self::new(409, reason)
    }

    /// 429: a peer has as many of these as one peer may have.
    pub fn too_many(what: &str, most: usize) -> Self {
        Self::new(429, format!("a peer may have at most {most} {what}"))
    }

    /// 503: the server lets nobody in any more, another one may.
    pub fn draining() -> Self {
        let refusal = Self::new(503, "draining: the server will stop, nobody new is let in");
        Self { word: Some("DRAINING"), ..refusal }
    }

    /// What is wrong as one word, for REST.
    pub fn code(&self) -> &'static str {
        if let Some(word) = self.word {
            return word;
        }
        match self.status {
            400 => "BAD_REQUEST",
            401 => "UNAUTHORIZED",
            403 => "FORBIDDEN",
            404 => "NOT_FOUND",
            405 => "METHOD_NOT_ALLOWED",
            408 => "REQUEST_TIMEOUT",
            409 => "CONFLICT",
            413 => "PAYLOAD_TOO_LARGE",
            426 => "UPGRADE_REQUIRED",
            429 => "TOO_MANY",
            501 => "NOT_SUPPORTED",
            503 => "UNAVAILABLE",
            504 => "TIMEOUT",
            _ => "INTERNAL_ERROR",
        }
    }

    /// The error body of REST.
    pub fn to_rest(&self) -> Value {
        json!({ "error": { "code": self.code(), "message": self.reason } })
    }

    /// The acknowledgement of Socket.IO: as REST, with the number for a code.
    pub fn to_acknowledgement(&self) -> Value {
        json!({ "error": { "code": self.status, "message": self.reason } })
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::new(400, invalid.to_string())
    }
}
