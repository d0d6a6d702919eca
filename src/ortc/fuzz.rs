//! What must hold for any JSON: nothing panics, and what is accepted is sound.

use serde_json::Value;

use super::*;

/// Feeds `data` to [`produce()`] and [`consume()`], as JSON `{"rtpParameters": …, "rtpCapabilities": …}`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<Value>(data) {
        let part = |name| message.get(name).cloned().unwrap_or_default();
        exercise(part("rtpParameters"), part("rtpCapabilities"));
    }
}

/// Produces with `parameters` as either kind, and consumes that with `capabilities` and the router's.
pub(super) fn exercise(parameters: Value, capabilities: Value) {
    let capabilities = RtpCapabilities::try_from(capabilities).ok();
    if let Some(capabilities) = &capabilities {
        assert_round_trip(capabilities);
    }
    let Ok(parameters) = RtpParameters::try_from(parameters) else { return };
    assert_round_trip(&parameters);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let Ok(producer) = produce(kind, parameters.clone()) else { continue };
        assert_sound(&producer.rtp);
        assert_sound(&producer.consumable);
        assert!(!producer.rtp.encodings.is_empty() && !producer.payload_types.is_empty());
        assert!(can_consume(&producer, router_capabilities()), "the router has what it took");
        for capabilities in capabilities.iter().chain([router_capabilities()]) {
            exercise_consumer(&producer, capabilities);
        }
    }
}

fn exercise_consumer(producer: &Producible, capabilities: &RtpCapabilities) {
    let Some(mid) = Mid::new(b"0") else { return };
    let consumer = consume(producer, capabilities, mid, Ssrc(1), Ssrc(2), "fallback");
    assert_eq!(consumer.is_ok(), can_consume(producer, capabilities));
    let Ok(Consumable { rtp, ssrc, rtx_ssrc, .. }) = consumer else { return };
    assert_sound(&rtp);
    assert!(!rtp.codecs[0].is_rtx());
    assert!(!rtp.rtcp.cname.is_empty());
    assert_eq!(rtp.encodings.len(), 1);
    assert_eq!(rtp.encodings[0].ssrc, Some(ssrc));
    assert_eq!(rtp.encodings[0].rtx.map(|rtx| rtx.ssrc), rtx_ssrc);
    assert_eq!(rtx_ssrc.is_some(), rtp.codecs.iter().any(RtpCodecParameters::is_rtx));
}

/// Payload types and ids are unique, RTX points to a media codec, and the JSON can be read again.
fn assert_sound(rtp: &RtpParameters) {
    let is_media = |payload_type| {
        rtp.codecs.iter().any(|codec| codec.payload_type == payload_type && !codec.is_rtx())
    };
    for (index, codec) in rtp.codecs.iter().enumerate() {
        assert!(rtp.codecs[..index].iter().all(|other| other.payload_type != codec.payload_type));
        assert!(codec.is_rtx() || codec.codec().is_some());
        assert!(!codec.is_rtx() || codec.apt().is_some_and(is_media));
    }
    for (index, extension) in rtp.header_extensions.iter().enumerate() {
        assert!(rtp.header_extensions[..index].iter().all(|other| other.id != extension.id));
    }
    assert_round_trip(rtp);
}

fn assert_round_trip<T>(value: &T)
where
    T: serde::Serialize + TryFrom<Value, Error = Invalid> + PartialEq + std::fmt::Debug,
{
    let json = serde_json::to_value(value).unwrap_or_default();
    assert_eq!(T::try_from(json).as_ref(), Ok(value));
}
