//! RTP parameters and capabilities as mediasoup-client speaks them, and their negotiation
//! (the rules of mediasoup v3's `ortc`).
//!
//! Pure functions over plain data: no ids of peers or rooms, no sockets, no packets.
//!
//! Three numberings meet here. A producer keeps the payload types and extension ids that its client
//! chose; [`produce()`] translates them into the router's, which every client has learned from
//! [`router_capabilities`]; [`consume()`] keeps the router's and drops what its client cannot take.

mod codec;
mod consume;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod produce;
mod reader;
mod router;
mod scalability;
#[cfg(test)]
mod tests;
mod types;

pub use codec::mime_type_of;
#[cfg(any(test, feature = "fuzzing"))]
pub use fuzz::fuzz;
pub use types::*;

use crate::id::{MediaKind, Mid, PayloadType, Ssrc};

/// The router's capabilities: what any client may send, and what it may be sent.
pub fn router_capabilities() -> &'static RtpCapabilities {
    &router::CAPABILITIES
}

/// A producer's parameters, validated, and the form in which its consumers are derived from them.
#[derive(Clone, Debug)]
pub struct Producible {
    /// Audio or video.
    pub kind: MediaKind,
    /// `simple`, `simulcast` or `svc`, as mediasoup names them.
    pub producer_type: ProducerType,
    /// As the client sent them, with defaults filled in; never without an encoding.
    pub rtp: RtpParameters,
    /// The same in the router's payload types and extension ids; encodings without SSRC and RID.
    pub consumable: RtpParameters,
    /// Each media codec's payload type as the client sends it, and the router's for it.
    pub payload_types: Vec<(PayloadType, PayloadType)>,
}

/// Validates what a client wants to send.
///
/// # Errors
/// [`Invalid`] names the field (`rtpParameters.…`) that is not supported or does not fit the others.
pub fn produce(kind: MediaKind, rtp: RtpParameters) -> Result<Producible, Invalid> {
    produce::produce(kind, rtp)
}

/// A consumer's parameters.
#[derive(Clone, Debug)]
pub struct Consumable {
    /// `simple`, `simulcast` or `svc`: its producer's.
    pub consumer_type: ProducerType,
    /// For the client.
    pub rtp: RtpParameters,
    /// The MID in `rtp`.
    pub mid: Mid,
    /// The SSRC in `rtp`.
    pub ssrc: Ssrc,
    /// The RTX SSRC in `rtp`; `None` if RTX was not negotiated.
    pub rtx_ssrc: Option<Ssrc>,
}

/// Derives the parameters with which a client that has `capabilities` receives `producer`.
///
/// `rtx_ssrc` is used if both sides have RTX, `cname` (not empty) if the producer gave none.
///
/// # Errors
/// [`Invalid`] names the codec that the client cannot decode.
pub fn consume(
    producer: &Producible,
    capabilities: &RtpCapabilities,
    mid: Mid,
    ssrc: Ssrc,
    rtx_ssrc: Ssrc,
    cname: &str,
) -> Result<Consumable, Invalid> {
    consume::consume(producer, capabilities, mid, ssrc, rtx_ssrc, cname)
}

/// Whether [`consume()`] would succeed.
pub fn can_consume(producer: &Producible, capabilities: &RtpCapabilities) -> bool {
    consume::can_consume(producer, capabilities)
}
