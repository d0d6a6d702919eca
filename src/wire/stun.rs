//! STUN messages (RFC 8489) as far as ICE uses them (RFC 8445 §7).
//!
//! [`Message`] reads, the functions of [`mod@write`] write. Only binding exists here, and only the
//! short-term credentials of ICE: HMAC-SHA1 keyed with the password itself.

pub mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::wire::{Malformed, Result};

/// Bytes of the fixed header (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;
/// Second word of every message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Most attributes in one message. A browser's check carries 7 to 9; a bound keeps the walk over a
/// datagram full of empty attributes short.
pub const MAX_ATTRIBUTES: usize = 32;

/// Bytes before an attribute's value: type and length.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Bytes of an HMAC-SHA1 value (RFC 8489 §14.5).
const INTEGRITY_LEN: usize = 20;
/// What the CRC is xored with, so that it differs from another protocol's (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Attribute types (RFC 8489 §18.3, RFC 8445 §16.1).
mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802a;
    /// Types from here on may be ignored by who does not know them.
    pub const OPTIONAL: u16 = 0x8000;
}

/// What a message is for (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for nothing; a keep-alive.
    Indication,
    /// Answers a request that was carried out.
    Success,
    /// Answers a request that was not.
    Error,
}

/// What a message is about, 12 bits (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(pub u16);

impl Method {
    /// The only method that ICE uses.
    pub const BINDING: Self = Self(1);
}

/// What ties a response to its request (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Whether a message's FINGERPRINT (RFC 8489 §14.7) is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// There is none.
    Absent,
    /// It fits the message.
    Right,
    /// It does not.
    Wrong,
}

/// A message whose framing has been checked.
///
/// Of an attribute that occurs twice the first counts (RFC 8489 §14). What follows
/// MESSAGE-INTEGRITY is not protected by it and thus ignored, but for FINGERPRINT (§14.5).
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    known: Known,
}

/// Where the attributes of interest lie: ranges of values.
#[derive(Clone, Debug, Default)]
struct Known {
    username: Option<Range<usize>>,
    priority: Option<u32>,
    use_candidate: bool,
    controlled: Option<u64>,
    controlling: Option<u64>,
    mapped: Option<Range<usize>>,
    error: Option<u16>,
    integrity: Option<usize>,
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Checks `datagram`: the two leading zero bits, the magic cookie, a length that is the
    /// datagram's own, and attributes that lie inside it, are of the size that their type demands,
    /// and are not more than [`MAX_ATTRIBUTES`].
    pub fn new_checked(datagram: &'a [u8]) -> Result<Self> {
        let Some(header) = datagram.first_chunk::<HEADER_LEN>() else {
            return Err(Malformed);
        };
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let framed = header[0] & 0xc0 == 0 && len % 4 == 0 && HEADER_LEN + len == datagram.len();
        if !framed || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(Malformed);
        }
        let mut known = Known::default();
        for (count, attribute) in Attributes::new(datagram).enumerate() {
            // RFC 8489 §14.7: FINGERPRINT is the last attribute.
            if count == MAX_ATTRIBUTES || known.fingerprint.is_some() {
                return Err(Malformed);
            }
            known.note(datagram, attribute?)?;
        }
        Ok(Self { bytes: datagram, known })
    }

    /// The message's class.
    pub fn class(&self) -> Class {
        match (self.bytes[0] & 1, self.bytes[1] & 0x10) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::Success,
            _ => Class::Error,
        }
    }

    /// The message's method.
    pub fn method(&self) -> Method {
        // RFC 8489 figure 3: the class bits stand between the method's bits.
        let kind = u16::from_be_bytes([self.bytes[0], self.bytes[1]]);
        Method(kind & 0x000f | kind >> 1 & 0x0070 | kind >> 2 & 0x0f80)
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    /// The USERNAME; in a check `local:remote` as the receiver sees it (RFC 8445 §7.2.2).
    pub fn username(&self) -> Option<&'a [u8]> {
        self.known.username.clone().map(|range| &self.bytes[range])
    }

    /// The PRIORITY that a peer-reflexive candidate would have (RFC 8445 §7.1.1).
    pub fn priority(&self) -> Option<u32> {
        self.known.priority
    }

    /// Whether the peer nominates this pair (RFC 8445 §7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.known.use_candidate
    }

    /// The tie-breaker of a peer that believes to be controlled (RFC 8445 §7.1.3).
    pub fn ice_controlled(&self) -> Option<u64> {
        self.known.controlled
    }

    /// The tie-breaker of a peer that believes to be controlling (RFC 8445 §7.1.3).
    pub fn ice_controlling(&self) -> Option<u64> {
        self.known.controlling
    }

    /// The address in XOR-MAPPED-ADDRESS (RFC 8489 §14.2); `None` too if its family is unknown.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        let value = &self.bytes[self.known.mapped.clone()?];
        // The address is xored with the cookie and, where it is longer, the transaction id.
        let mask = &self.bytes[4..HEADER_LEN];
        let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
        let mut octets = [0; 16];
        for (octet, (byte, mask)) in octets.iter_mut().zip(value[4..].iter().zip(mask)) {
            *octet = byte ^ mask;
        }
        let ip = match (value[1], value.len()) {
            (1, 8) => IpAddr::V4(Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]])),
            (2, 20) => IpAddr::V6(Ipv6Addr::from(octets)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The number in ERROR-CODE, 300 to 699 (RFC 8489 §14.8).
    pub fn error_code(&self) -> Option<u16> {
        self.known.error
    }

    /// Attributes that must be understood and are not (RFC 8489 §14), in their order.
    pub fn unknown_required(&self) -> impl Iterator<Item = u16> + 'a {
        let end = self.known.integrity.unwrap_or(self.bytes.len());
        Attributes::new(&self.bytes[..end])
            .filter_map(|attribute| attribute.ok())
            .map(|(kind, _)| kind)
            .filter(|&kind| kind < attribute::OPTIONAL && !is_known(kind))
    }

    /// Whether there is a MESSAGE-INTEGRITY and it was made with `key` (RFC 8489 §14.5), compared
    /// in constant time.
    pub fn verify_integrity(&self, key: &[u8]) -> bool {
        let Some(start) = self.known.integrity else {
            return false;
        };
        let value = &self.bytes[start + ATTRIBUTE_HEADER_LEN..][..INTEGRITY_LEN];
        integrity_mac(key, &self.bytes[..start]).verify_slice(value).is_ok()
    }

    /// Whether the FINGERPRINT is right.
    pub fn fingerprint(&self) -> Fingerprint {
        let Some(start) = self.known.fingerprint else {
            return Fingerprint::Absent;
        };
        let value = &self.bytes[start + ATTRIBUTE_HEADER_LEN..][..4];
        // It is the last attribute, so the header's length is the one that was hashed.
        if fingerprint_of(&self.bytes[..start]).to_be_bytes() == value {
            Fingerprint::Right
        } else {
            Fingerprint::Wrong
        }
    }
}

impl Known {
    /// Takes note of one attribute, or refuses its size.
    fn note(&mut self, datagram: &[u8], (kind, value): (u16, Range<usize>)) -> Result<()> {
        let start = value.start - ATTRIBUTE_HEADER_LEN;
        let bytes = &datagram[value.clone()];
        if kind == attribute::FINGERPRINT {
            self.fingerprint = Some(start);
            return if bytes.len() == 4 { Ok(()) } else { Err(Malformed) };
        }
        if self.integrity.is_some() {
            return Ok(());
        }
        match kind {
            attribute::USERNAME => set_first(&mut self.username, value),
            attribute::PRIORITY => {
                set_first(&mut self.priority, u32::from_be_bytes(exact(bytes)?));
            }
            attribute::USE_CANDIDATE => {
                exact::<0>(bytes)?;
                self.use_candidate = true;
            }
            attribute::ICE_CONTROLLED => {
                set_first(&mut self.controlled, u64::from_be_bytes(exact(bytes)?));
            }
            attribute::ICE_CONTROLLING => {
                set_first(&mut self.controlling, u64::from_be_bytes(exact(bytes)?));
            }
            attribute::XOR_MAPPED_ADDRESS if bytes.len() == 8 || bytes.len() == 20 => {
                set_first(&mut self.mapped, value);
            }
            attribute::XOR_MAPPED_ADDRESS => return Err(Malformed),
            attribute::ERROR_CODE => {
                let &[_, _, hundreds, rest, ..] = bytes else {
                    return Err(Malformed);
                };
                set_first(&mut self.error, u16::from(hundreds & 7) * 100 + u16::from(rest));
            }
            attribute::MESSAGE_INTEGRITY => {
                exact::<INTEGRITY_LEN>(bytes)?;
                self.integrity = Some(start);
            }
            _ => {}
        }
        Ok(())
    }
}

fn set_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Malformed)
}

fn is_known(kind: u16) -> bool {
    matches!(
        kind,
        attribute::MAPPED_ADDRESS
            | attribute::USERNAME
            | attribute::MESSAGE_INTEGRITY
            | attribute::ERROR_CODE
            | attribute::UNKNOWN_ATTRIBUTES
            | attribute::REALM
            | attribute::NONCE
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::XOR_MAPPED_ADDRESS
            | attribute::PRIORITY
            | attribute::USE_CANDIDATE
    )
}

/// Walks over the attributes of a datagram; ends after the first that does not fit.
struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn new(datagram: &'a [u8]) -> Self {
        Self { bytes: datagram, at: HEADER_LEN }
    }
}

impl Iterator for Attributes<'_> {
    /// Type, and where the value lies without its padding.
    type Item = Result<(u16, Range<usize>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at + ATTRIBUTE_HEADER_LEN;
        self.at = self.bytes.len();
        let Some(&[k0, k1, l0, l1]) = rest.first_chunk() else {
            return Some(Err(Malformed));
        };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // RFC 8489 §14: values are padded to a multiple of four; the padding may be anything.
        let next = start + len.next_multiple_of(4);
        if next > self.bytes.len() {
            return Some(Err(Malformed));
        }
        self.at = next;
        Some(Ok((u16::from_be_bytes([k0, k1]), start..start + len)))
    }
}

/// The HMAC over `head`, the message up to its MESSAGE-INTEGRITY, with the header's length set to
/// that attribute's end (RFC 8489 §14.5).
fn integrity_mac(key: &[u8], head: &[u8]) -> Hmac<Sha1> {
    let len = (head.len() - HEADER_LEN + ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN) as u16;
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&head[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&head[4..]);
    mac
}

/// The FINGERPRINT of `head`, the message up to that attribute (RFC 8489 §14.7).
fn fingerprint_of(head: &[u8]) -> u32 {
    crc32fast::hash(head) ^ FINGERPRINT_XOR
}

/// The body of a fuzz target: every getter is total, and an answer to what was read can be read.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(data: &[u8]) {
    let Ok(message) = Message::new_checked(data) else {
        return;
    };
    let _ = (message.class(), message.method(), message.username(), message.priority());
    let _ = (message.use_candidate(), message.ice_controlled(), message.ice_controlling());
    let _ = (message.error_code(), message.verify_integrity(b"key"), message.fingerprint());
    let mapped = message.mapped_address().unwrap_or(SocketAddr::from(([192, 0, 2, 1], 9)));
    let unknown: Vec<u16> = message.unknown_required().collect();
    assert!(unknown.len() <= MAX_ATTRIBUTES);
    let mut answer = [0; crate::wire::MAX_DATAGRAM];
    let id = message.transaction_id();
    let len = write::success(&mut answer, id, mapped, b"key").expect("it fits a datagram");
    let answer = Message::new_checked(&answer[..len]).expect("what we write can be read");
    assert_eq!((answer.transaction_id(), answer.class()), (id, Class::Success));
    assert_eq!(
        answer.mapped_address().map(|a| a.ip().to_canonical()),
        Some(mapped.ip().to_canonical())
    );
    assert!(answer.verify_integrity(b"key") && answer.fingerprint() == Fingerprint::Right);
}

#[cfg(test)]
mod tests;
