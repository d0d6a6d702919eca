//! STUN, by the test vectors of RFC 5769 and against bad input.

use proptest::prelude::*;

use super::*;

/// RFC 5769 §2.1: a check with a nine-byte user name, padded with spaces.
const RFC5769_REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
    \xfa\x87\xdf\xae\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\
    \x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\x00\x08\x00\x14\x9a\
    \xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\
    \xe5\x7a\x3b\xcf";
/// RFC 5769 §2.2: an IPv4 response.
const RFC5769_IPV4: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
    \xfa\x87\xdf\xae\x80\x22\x00\x0btest vector\x20\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\
    \x43\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\
    \xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
/// RFC 5769 §2.3: an IPv6 response.
const RFC5769_IPV6: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
    \xfa\x87\xdf\xae\x80\x22\x00\x0btest vector\x20\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\
    \xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\
    \x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";
const RFC5769_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

const ID: TransactionId = TransactionId(*b"transaction!");

fn check(key: &[u8]) -> Vec<u8> {
    let request = write::BindingRequest {
        transaction_id: ID,
        username: b"local:remote",
        priority: 0x6e00_1eff,
        role: write::Role::Controlling(0x0123_4567_89ab_cdef),
        use_candidate: true,
    };
    let mut buffer = [0xaa; 256];
    let len = write::request(&mut buffer, &request, key).unwrap();
    buffer[..len].to_vec()
}

/// A message with these attributes and nothing else.
fn message_of(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = check(b"")[..HEADER_LEN].to_vec();
    for (kind, value) in attributes {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = (bytes.len() - HEADER_LEN) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn rfc5769_request_is_understood() {
    let message = Message::new_checked(RFC5769_REQUEST).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.username(), Some(&b"evtj:h6vY"[..]));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlling(), None);
    assert!(!message.use_candidate());
    assert!(message.verify_integrity(RFC5769_PASSWORD));
    assert!(!message.verify_integrity(b"VOkJxbRl1RmTxUk/WvJxBT"));
    assert_eq!(message.fingerprint(), Fingerprint::Right);
    assert_eq!(message.unknown_required().count(), 0);
}

#[test]
fn rfc5769_responses_are_understood() {
    let cases = [
        (RFC5769_IPV4, "192.0.2.1:32853"),
        (RFC5769_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (bytes, mapped) in cases {
        let message = Message::new_checked(bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, Method::BINDING));
        assert_eq!(message.mapped_address(), Some(mapped.parse().unwrap()));
        assert!(message.verify_integrity(RFC5769_PASSWORD));
        assert_eq!(message.fingerprint(), Fingerprint::Right);
    }
}

#[test]
fn a_written_check_reads_the_same() {
    let bytes = check(b"password");
    let message = Message::new_checked(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.username(), Some(&b"local:remote"[..]));
    assert_eq!(message.priority(), Some(0x6e00_1eff));
    assert_eq!(message.ice_controlling(), Some(0x0123_4567_89ab_cdef));
    assert!(message.use_candidate());
    assert!(message.verify_integrity(b"password"));
    assert_eq!(message.fingerprint(), Fingerprint::Right);
}

#[test]
fn a_written_error_lists_what_was_unknown() {
    let mut buffer = [0; 256];
    let code = write::ErrorCode::UnknownAttribute;
    let len = write::error(&mut buffer, ID, code, 1..100, b"key").unwrap();
    let message = Message::new_checked(&buffer[..len]).unwrap();
    assert_eq!((message.class(), message.error_code()), (Class::Error, Some(420)));
    assert!(message.verify_integrity(b"key"));
    // Eight of the ninety-nine types: the list is bounded.
    let list = &[0, 10, 0, 16, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8];
    assert!(buffer[..len].windows(list.len()).any(|window| window == list));
}

#[test]
fn an_indication_is_no_request() {
    let mut buffer = [0; 64];
    let len = write::indication(&mut buffer, ID).unwrap();
    let message = Message::new_checked(&buffer[..len]).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::BINDING));
    assert!(!message.verify_integrity(b""));
}

/// RFC 8489 §5: the method's twelve bits stand around the class's two.
#[test]
fn methods_are_put_together_from_their_bits() {
    let mut bytes = message_of(&[]);
    bytes[..2].copy_from_slice(&0x3eef_u16.to_be_bytes());
    let message = Message::new_checked(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method(0xfff)));
    bytes[..2].copy_from_slice(&0x0110_u16.to_be_bytes());
    let message = Message::new_checked(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Error, Method(0)));
}

/// RFC 8489 §14.5: attributes behind MESSAGE-INTEGRITY are not protected, so they do not count.
#[test]
fn attributes_behind_the_integrity_are_ignored() {
    let bytes = message_of(&[
        (attribute::USERNAME, b"first"),
        (attribute::USERNAME, b"second"),
        (attribute::MESSAGE_INTEGRITY, &[0; 20]),
        (attribute::USE_CANDIDATE, b""),
        (attribute::PRIORITY, &[0, 0, 0, 1]),
        (0x7fff, b""),
    ]);
    let message = Message::new_checked(&bytes).unwrap();
    assert_eq!(message.username(), Some(&b"first"[..]));
    assert!(!message.use_candidate());
    assert_eq!(message.priority(), None);
    assert_eq!(message.unknown_required().count(), 0);
}

/// RFC 8489 §14: only types below 0x8000 must be understood.
#[test]
fn unknown_attributes_are_told_by_their_range() {
    let bytes = message_of(&[(0x7fff, b"x"), (0x8001, b"y"), (0xc057, b"z"), (0x0002, b"")]);
    let message = Message::new_checked(&bytes).unwrap();
    assert_eq!(message.unknown_required().collect::<Vec<_>>(), [0x7fff, 0x0002]);
}

#[test]
fn wrong_sizes_and_framing_are_malformed() {
    let cases: &[&[(u16, &[u8])]] = &[
        &[(attribute::PRIORITY, b"abc")],
        &[(attribute::USE_CANDIDATE, b"abcd")],
        &[(attribute::ICE_CONTROLLED, b"abcd")],
        &[(attribute::ICE_CONTROLLING, b"abcdefghi")],
        &[(attribute::MESSAGE_INTEGRITY, &[0; 32])],
        &[(attribute::FINGERPRINT, b"abc")],
        &[(attribute::FINGERPRINT, b"abcd"), (attribute::USERNAME, b"late")],
        &[(attribute::XOR_MAPPED_ADDRESS, b"abcd")],
        &[(attribute::ERROR_CODE, b"abc")],
        &[(0x8001, &[][..]); MAX_ATTRIBUTES + 1],
    ];
    for attributes in cases {
        let bytes = message_of(attributes);
        assert_eq!(Message::new_checked(&bytes).err(), Some(Malformed), "{attributes:x?}");
    }
    assert!(Message::new_checked(&message_of(&[(0x8001, &[][..]); MAX_ATTRIBUTES])).is_ok());
    let mut overlong = message_of(&[(attribute::USERNAME, b"name")]);
    overlong[HEADER_LEN + 3] = 5;
    assert!(Message::new_checked(&overlong).is_err(), "an attribute that ends behind the datagram");
}

#[test]
fn no_prefix_and_no_extension_of_a_message_is_one() {
    let bytes = check(b"key");
    for len in 0..bytes.len() {
        assert!(Message::new_checked(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    for extra in 1..=8 {
        let longer = [&bytes[..], &[0; 8][..extra]].concat();
        assert!(Message::new_checked(&longer).is_err(), "{extra} bytes more");
    }
}

#[test]
fn a_flipped_bit_is_never_authentic() {
    let bytes = check(b"key");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(message) = Message::new_checked(&flipped) else {
            continue;
        };
        let authentic = message.verify_integrity(b"key");
        let intact = message.fingerprint() == Fingerprint::Right;
        assert!(!(authentic && intact), "bit {} of byte {}", bit % 8, bit / 8);
    }
}

#[test]
fn builders_refuse_buffers_that_are_too_small() {
    let needed = check(b"key").len();
    let request = write::BindingRequest {
        transaction_id: ID,
        username: b"local:remote",
        priority: 1,
        role: write::Role::Controlled(1),
        use_candidate: true,
    };
    for size in 0..needed {
        assert_eq!(write::request(&mut vec![0; size], &request, b"key"), None, "{size} bytes");
    }
    assert_eq!(write::request(&mut vec![0; needed], &request, b"key"), Some(needed));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200), framed: bool) {
        if framed && bytes.len() >= HEADER_LEN {
            let len = (bytes.len() - HEADER_LEN) as u16;
            bytes[0] &= 0x3f;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        }
        if let Ok(message) = Message::new_checked(&bytes) {
            let _ = (message.class(), message.method(), message.mapped_address());
            let _ = (message.fingerprint(), message.unknown_required().count());
            prop_assert!(!message.verify_integrity(b"key"));
        }
    }

    #[test]
    fn a_written_answer_reads_the_same(
        id: [u8; 12],
        v4: [u8; 4],
        v6: [u8; 16],
        port: u16,
        key in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        for mapped in [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))] {
            let mut buffer = [0xff; 128];
            let len = write::success(&mut buffer, TransactionId(id), mapped, &key).unwrap();
            let message = Message::new_checked(&buffer[..len]).unwrap();
            let canonical = SocketAddr::new(mapped.ip().to_canonical(), port);
            prop_assert_eq!(message.mapped_address(), Some(canonical));
            prop_assert_eq!(message.transaction_id(), TransactionId(id));
            prop_assert!(message.verify_integrity(&key));
            prop_assert_eq!(message.fingerprint(), Fingerprint::Right);
        }
    }
}
