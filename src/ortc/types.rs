//! The JSON shapes.

use serde::{Deserialize, Serialize};

/// What a client or the router can send and receive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCapabilities {}

/// How one track is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpParameters {}

/// How many layers a producer has, and of which sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProducerType {
    /// One encoding, no spatial layers.
    Simple,
    /// Several encodings, told by RID.
    Simulcast,
    /// One encoding with spatial or temporal layers.
    Svc,
}

/// Parameters that cannot be used: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// JSON path of the field, e.g. `rtpParameters.codecs[0].payloadType`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}
