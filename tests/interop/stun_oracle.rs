//! STUN beside the crate `stun`: what one writes, the other reads the same.
//!
//! It is given well-formed messages only.

use std::net::SocketAddr;

use proptest::prelude::*;
use shardcast::wire::stun::write::{self, BindingRequest, ErrorCode, Role};
use shardcast::wire::stun::{Class, Fingerprint, Message, Method, TransactionId};
use stun::agent::TransactionId as TheirId;
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_UNKNOWN_ATTRIBUTES,
    ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, Message as TheirMessage, Setter,
};
use stun::textattrs::Username;
use stun::xoraddr::XorMappedAddress;

fn integrity(password: &str) -> MessageIntegrity {
    MessageIntegrity::new_short_term_integrity(password.to_owned())
}

/// `bytes` as they read them, with both checks passed.
fn read_by_them(bytes: &[u8], password: &str) -> TheirMessage {
    let mut message = TheirMessage::new();
    message.unmarshal_binary(bytes).expect("they can read it");
    integrity(password).check(&mut message).expect("their integrity check passes");
    FINGERPRINT.check(&message).expect("their fingerprint check passes");
    message
}

fn built_by_them(setters: &[Box<dyn Setter>], id: [u8; 12]) -> TheirMessage {
    let mut message = TheirMessage::new();
    message.transaction_id = TheirId(id);
    message.write_transaction_id();
    message.build(setters).expect("they can write it");
    message
}

/// Two ufrags with a colon between, as ICE makes them.
fn usernames() -> impl Strategy<Value = String> {
    "[A-Za-z0-9+/]{4,40}:[A-Za-z0-9+/]{4,40}"
}

proptest! {
    #[test]
    fn they_read_our_checks(
        id: [u8; 12], username in usernames(), password in "[A-Za-z0-9+/]{22,64}",
        priority: u32, tie: u64, is_controlling: bool, use_candidate: bool,
    ) {
        let request = BindingRequest {
            transaction_id: TransactionId(id),
            username: username.as_bytes(),
            priority,
            role: if is_controlling { Role::Controlling(tie) } else { Role::Controlled(tie) },
            use_candidate,
        };
        let mut buffer = [0xee; 512];
        let len = write::request(&mut buffer, &request, password.as_bytes()).unwrap();
        let message = read_by_them(&buffer[..len], &password);
        prop_assert_eq!(message.typ, BINDING_REQUEST);
        prop_assert_eq!(message.transaction_id.0, id);
        prop_assert_eq!(message.get(ATTR_USERNAME).unwrap(), username.as_bytes());
        prop_assert_eq!(message.get(ATTR_PRIORITY).unwrap(), priority.to_be_bytes());
        let role = if is_controlling { ATTR_ICE_CONTROLLING } else { ATTR_ICE_CONTROLLED };
        prop_assert_eq!(message.get(role).unwrap(), tie.to_be_bytes());
        prop_assert_eq!(message.contains(ATTR_USE_CANDIDATE), use_candidate);
    }

    #[test]
    fn we_read_their_checks(
        id: [u8; 12], username in usernames(), password in "[A-Za-z0-9+/]{22,64}",
        priority: u32, tie: u64, is_controlling: bool, use_candidate: bool,
        unknown in prop::collection::vec(0x3000u16..0x7fff, 0..4),
    ) {
        let mut message = built_by_them(&[Box::new(BINDING_REQUEST)], id);
        Username::new(ATTR_USERNAME, username.clone()).add_to(&mut message).unwrap();
        message.add(ATTR_PRIORITY, &priority.to_be_bytes());
        let role = if is_controlling { ATTR_ICE_CONTROLLING } else { ATTR_ICE_CONTROLLED };
        message.add(role, &tie.to_be_bytes());
        if use_candidate {
            message.add(ATTR_USE_CANDIDATE, &[]);
        }
        for kind in &unknown {
            message.add(AttrType(*kind), b"unknown");
        }
        integrity(&password).add_to(&mut message).unwrap();
        FINGERPRINT.add_to(&mut message).unwrap();

        let ours = Message::new_checked(&message.raw).expect("we can read it");
        prop_assert_eq!((ours.class(), ours.method()), (Class::Request, Method::BINDING));
        prop_assert_eq!(ours.transaction_id(), TransactionId(id));
        prop_assert_eq!(ours.username(), Some(username.as_bytes()));
        prop_assert_eq!(ours.priority(), Some(priority));
        prop_assert_eq!(ours.ice_controlling(), is_controlling.then_some(tie));
        prop_assert_eq!(ours.ice_controlled(), (!is_controlling).then_some(tie));
        prop_assert_eq!(ours.use_candidate(), use_candidate);
        prop_assert_eq!(ours.unknown_required().collect::<Vec<_>>(), unknown);
        prop_assert!(ours.verify_integrity(password.as_bytes()));
        prop_assert!(!ours.verify_integrity(&password.as_bytes()[1..]));
        prop_assert_eq!(ours.fingerprint(), Fingerprint::Right);
    }

    #[test]
    fn they_read_our_answers(
        id: [u8; 12], v4: [u8; 4], v6: [u8; 16], port: u16, password in "[A-Za-z0-9+/]{22,64}",
    ) {
        for mapped in [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))] {
            let mut buffer = [0xee; 128];
            let key = password.as_bytes();
            let len = write::success(&mut buffer, TransactionId(id), mapped, key).unwrap();
            let message = read_by_them(&buffer[..len], &password);
            prop_assert_eq!(message.typ, BINDING_SUCCESS);
            let mut address = XorMappedAddress::default();
            address.get_from(&message).unwrap();
            prop_assert_eq!((address.ip, address.port), (mapped.ip().to_canonical(), port));
        }
    }

    #[test]
    fn we_read_their_answers(
        id: [u8; 12], v4: [u8; 4], v6: [u8; 16], port: u16, password in "[A-Za-z0-9+/]{22,64}",
    ) {
        for mapped in [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))] {
            let address = XorMappedAddress { ip: mapped.ip(), port };
            let message = built_by_them(&[
                Box::new(BINDING_SUCCESS),
                Box::new(address),
                Box::new(integrity(&password)),
                Box::new(FINGERPRINT),
            ], id);
            let ours = Message::new_checked(&message.raw).expect("we can read it");
            prop_assert_eq!(ours.class(), Class::Success);
            prop_assert_eq!(ours.transaction_id(), TransactionId(id));
            prop_assert_eq!(ours.mapped_address(), Some(mapped));
            prop_assert!(ours.verify_integrity(password.as_bytes()));
            prop_assert_eq!(ours.fingerprint(), Fingerprint::Right);
        }
    }
}

#[test]
fn they_read_our_refusals() {
    for code in [ErrorCode::BadRequest, ErrorCode::UnknownAttribute, ErrorCode::RoleConflict] {
        let mut buffer = [0; 128];
        let unknown = [0x7001, 0x7002, 0x7003].into_iter();
        let id = TransactionId([3; 12]);
        let len = write::error(&mut buffer, id, code, unknown, b"password").unwrap();
        let message = read_by_them(&buffer[..len], "password");
        assert_eq!(message.typ, BINDING_ERROR);
        let mut attribute = ErrorCodeAttribute::default();
        attribute.get_from(&message).unwrap();
        assert_eq!(attribute.code.0, code.number());
        let list = message.get(ATTR_UNKNOWN_ATTRIBUTES).ok();
        let expected =
            (code == ErrorCode::UnknownAttribute).then(|| vec![0x70, 0x01, 0x70, 0x02, 0x70, 0x03]);
        assert_eq!(list, expected);
    }
}
