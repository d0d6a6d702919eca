//! RTP parameters and capabilities as mediasoup-client speaks them, and their negotiation
//! (the rules of mediasoup v3's `ortc`).
//!
//! Pure functions over plain data: no ids of peers or rooms, no sockets, no packets.

mod types;

pub use types::*;

use crate::id::{MediaKind, Mid, Ssrc};

/// The router's capabilities: what any client may send, and what it may be sent.
pub fn router_capabilities() -> &'static RtpCapabilities {
    todo!()
}

/// A producer's parameters, validated, and the form in which its consumers are derived from them.
#[derive(Clone, Debug)]
pub struct Producible {
    /// Audio or video.
    pub kind: MediaKind,
    /// `simple`, `simulcast` or `svc`, as mediasoup names them.
    pub producer_type: ProducerType,
    /// As the client sent them.
    pub rtp: RtpParameters,
    /// The same in the router's payload types and extension ids.
    pub consumable: RtpParameters,
}

/// Validates what a client wants to send.
pub fn produce(kind: MediaKind, rtp: RtpParameters) -> Result<Producible, Invalid> {
    let _ = (kind, rtp);
    todo!()
}

/// A consumer's parameters.
#[derive(Clone, Debug)]
pub struct Consumable {
    /// `simple`, `simulcast` or `svc`.
    pub consumer_type: ProducerType,
    /// For the client.
    pub rtp: RtpParameters,
}

/// Derives the parameters with which a client that has `capabilities` receives `producer`.
pub fn consume(
    producer: &Producible,
    capabilities: &RtpCapabilities,
    mid: Mid,
    ssrc: Ssrc,
    rtx_ssrc: Ssrc,
    cname: &str,
) -> Result<Consumable, Invalid> {
    let _ = (producer, capabilities, mid, ssrc, rtx_ssrc, cname);
    todo!()
}
