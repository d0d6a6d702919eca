//! STUN beside the crate `stun`.

use std::net::SocketAddr;

use shardcast::wire::stun::{Class, Fingerprint, Message, Method};
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY,
    ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter,
    METHOD_BINDING, Message as TheirMessage, MessageClass,
};
use stun::xoraddr::XorMappedAddress;

use crate::theirs;

/// The key of the seeds' MESSAGE-INTEGRITY.
const KEY: &str = "key";

/// Reads `data` with both.
///
/// # Panics
/// When both accept it, and disagree.
pub fn stun(data: &[u8]) {
    let Ok(ours) = Message::new_checked(data) else { return };
    let mut message = TheirMessage::new();
    if !theirs(|| message.unmarshal_binary(data)).is_some_and(|read| read.is_ok()) {
        return;
    }
    assert_eq!(message.typ.class, class(ours.class()));
    assert_eq!(message.typ.method == METHOD_BINDING, ours.method() == Method::BINDING);
    assert_eq!(message.transaction_id.0, ours.transaction_id().0);
    // RFC 8489 §14.5: we ignore what stands behind MESSAGE-INTEGRITY, they do not.
    let attributes = message.attributes.0.iter();
    let protected: Vec<_> =
        attributes.take_while(|own| own.typ != ATTR_MESSAGE_INTEGRITY).collect();
    let value = |kind: AttrType| {
        protected.iter().find(|attribute| attribute.typ == kind).map(|found| &found.value[..])
    };
    assert_eq!(value(ATTR_USERNAME), ours.username());
    let priority = ours.priority().map(u32::to_be_bytes);
    assert_eq!(value(ATTR_PRIORITY), priority.as_ref().map(|bytes| &bytes[..]));
    let controlling = ours.ice_controlling().map(u64::to_be_bytes);
    assert_eq!(value(ATTR_ICE_CONTROLLING), controlling.as_ref().map(|bytes| &bytes[..]));
    let controlled = ours.ice_controlled().map(u64::to_be_bytes);
    assert_eq!(value(ATTR_ICE_CONTROLLED), controlled.as_ref().map(|bytes| &bytes[..]));
    assert_eq!(value(ATTR_USE_CANDIDATE).is_some(), ours.use_candidate());
    same_checks(&ours, &mut message);
    same_address(&ours, &message);
}

fn same_checks(ours: &Message<'_>, message: &mut TheirMessage) {
    let integrity = MessageIntegrity::new_short_term_integrity(KEY.to_owned());
    let is_theirs = theirs(|| integrity.check(message).is_ok());
    assert!(is_theirs.is_none_or(|is_right| is_right == ours.verify_integrity(KEY.as_bytes())));
    let fingerprint = theirs(|| FINGERPRINT.check(message).is_ok());
    assert!(fingerprint.is_none_or(|right| right == (ours.fingerprint() == Fingerprint::Right)));
}

fn same_address(ours: &Message<'_>, message: &TheirMessage) {
    let Some(own) = ours.mapped_address() else { return };
    let mut address = XorMappedAddress::default();
    if theirs(|| address.get_from(message).is_ok()) == Some(true) {
        let address = SocketAddr::new(address.ip.to_canonical(), address.port);
        assert_eq!((own.ip().to_canonical(), own.port()), (address.ip(), address.port()));
    }
}

fn class(class: Class) -> MessageClass {
    match class {
        Class::Request => CLASS_REQUEST,
        Class::Indication => CLASS_INDICATION,
        Class::Success => CLASS_SUCCESS_RESPONSE,
        Class::Error => CLASS_ERROR_RESPONSE,
    }
}
