//! Builds STUN messages in place, without allocation.
//!
//! Every function returns the message's length, or `None` if `buffer` is too small. What is written
//! ends with MESSAGE-INTEGRITY and FINGERPRINT, as ICE demands (RFC 8445 §7.1, §7.3).

use std::net::{IpAddr, SocketAddr};

use hmac::Mac;

use super::{
    ATTRIBUTE_HEADER_LEN, HEADER_LEN, INTEGRITY_LEN, MAGIC_COOKIE, TransactionId, attribute,
    fingerprint_of, integrity_mac,
};

/// Binding, as each class encodes it (RFC 8489 §5).
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;

/// Most attribute types that an error response lists; a request with more is no honest one.
const MAX_LISTED: usize = 8;

/// Why a check is refused. Only authenticated checks are answered at all, so there is no 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 400: something that a check needs is missing (RFC 8489 §14.8).
    BadRequest,
    /// 420: it has attributes that must be understood and are not (RFC 8489 §14.8).
    UnknownAttribute,
    /// 487: both sides believe to be controlled (RFC 8445 §7.3.1.1).
    RoleConflict,
}

impl ErrorCode {
    /// The code's number.
    pub const fn number(self) -> u16 {
        match self {
            ErrorCode::BadRequest => 400,
            ErrorCode::UnknownAttribute => 420,
            ErrorCode::RoleConflict => 487,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "Bad Request",
            ErrorCode::UnknownAttribute => "Unknown Attribute",
            ErrorCode::RoleConflict => "Role Conflict",
        }
    }
}

/// What a check says, as the controlling peer sends it (RFC 8445 §7.1).
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// Ties the response to it.
    pub transaction_id: TransactionId,
    /// `receiver's ufrag:sender's ufrag`.
    pub username: &'a [u8],
    /// Priority of a peer-reflexive candidate.
    pub priority: u32,
    /// The sender's role.
    pub role: Role,
    /// Whether the pair is nominated.
    pub use_candidate: bool,
}

/// Who decides on the pair, with the tie-breaker (RFC 8445 §7.1.3).
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The sender of the message does.
    Controlling(u64),
    /// The receiver does.
    Controlled(u64),
}

/// A check; for tests, the simulator and the load tester, since an ICE-lite agent sends none.
pub fn request(buffer: &mut [u8], request: &BindingRequest<'_>, key: &[u8]) -> Option<usize> {
    let mut message = Writer::new(buffer, REQUEST, request.transaction_id)?;
    message.attribute(attribute::USERNAME, request.username)?;
    message.attribute(attribute::PRIORITY, &request.priority.to_be_bytes())?;
    match request.role {
        Role::Controlling(tie) => {
            message.attribute(attribute::ICE_CONTROLLING, &tie.to_be_bytes())?;
        }
        Role::Controlled(tie) => {
            message.attribute(attribute::ICE_CONTROLLED, &tie.to_be_bytes())?;
        }
    }
    if request.use_candidate {
        message.attribute(attribute::USE_CANDIDATE, &[])?;
    }
    message.sign(key)
}

/// A keep-alive that asks for nothing (RFC 8445 §11); for tests. It bears no MESSAGE-INTEGRITY.
pub fn indication(buffer: &mut [u8], id: TransactionId) -> Option<usize> {
    Writer::new(buffer, INDICATION, id)?.fingerprint()
}

/// The answer to a check that came from `mapped` (RFC 8445 §7.3.1.2).
pub fn success(
    buffer: &mut [u8],
    id: TransactionId,
    mapped: SocketAddr,
    key: &[u8],
) -> Option<usize> {
    let mut message = Writer::new(buffer, SUCCESS, id)?;
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    // An IPv4 peer of a dual-stack socket is told its IPv4 address.
    let mut value = [0; 20];
    let len = match mapped.ip().to_canonical() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..].copy_from_slice(&ip.octets());
            20
        }
    };
    value[2..4].copy_from_slice(&mapped.port().to_be_bytes());
    value[2] ^= mask[0];
    value[3] ^= mask[1];
    for (byte, mask) in value[4..].iter_mut().zip(mask) {
        *byte ^= mask;
    }
    message.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len])?;
    message.sign(key)
}

/// The refusal of an authenticated check. `unknown` are the attribute types that a 420 lists.
pub fn error(
    buffer: &mut [u8],
    id: TransactionId,
    code: ErrorCode,
    unknown: impl Iterator<Item = u16>,
    key: &[u8],
) -> Option<usize> {
    let mut message = Writer::new(buffer, ERROR, id)?;
    let (number, reason) = (code.number(), code.reason().as_bytes());
    let mut value = [0; 4 + 32];
    value[2] = (number / 100) as u8;
    value[3] = (number % 100) as u8;
    value[4..4 + reason.len()].copy_from_slice(reason);
    message.attribute(attribute::ERROR_CODE, &value[..4 + reason.len()])?;
    if code == ErrorCode::UnknownAttribute {
        let mut list = [0; 2 * MAX_LISTED];
        let mut len = 0;
        for (slot, kind) in list.chunks_exact_mut(2).zip(unknown) {
            slot.copy_from_slice(&kind.to_be_bytes());
            len += 2;
        }
        message.attribute(attribute::UNKNOWN_ATTRIBUTES, &list[..len])?;
    }
    message.sign(key)
}

/// A message in the making: `buffer[..len]` is well-formed but for the header's length.
struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    fn new(buffer: &'a mut [u8], kind: u16, id: TransactionId) -> Option<Self> {
        let header = buffer.first_chunk_mut::<HEADER_LEN>()?;
        header[..2].copy_from_slice(&kind.to_be_bytes());
        header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        header[8..].copy_from_slice(&id.0);
        Some(Self { buffer, len: HEADER_LEN })
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        let padded = value.len().next_multiple_of(4);
        let room = self.buffer.get_mut(self.len..)?.get_mut(..ATTRIBUTE_HEADER_LEN + padded)?;
        room[..2].copy_from_slice(&kind.to_be_bytes());
        room[2..4].copy_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
        room[4..4 + value.len()].copy_from_slice(value);
        room[4 + value.len()..].fill(0);
        self.len += ATTRIBUTE_HEADER_LEN + padded;
        Some(())
    }

    /// MESSAGE-INTEGRITY, then FINGERPRINT (RFC 8489 §14.5, §14.7).
    fn sign(mut self, key: &[u8]) -> Option<usize> {
        let mac: [u8; INTEGRITY_LEN] =
            integrity_mac(key, &self.buffer[..self.len]).finalize().into_bytes().into();
        self.attribute(attribute::MESSAGE_INTEGRITY, &mac)?;
        self.fingerprint()
    }

    fn fingerprint(mut self) -> Option<usize> {
        // The CRC covers the header with the final length.
        let start = self.len;
        self.attribute(attribute::FINGERPRINT, &[0; 4])?;
        let body = u16::try_from(self.len - HEADER_LEN).ok()?;
        self.buffer[2..4].copy_from_slice(&body.to_be_bytes());
        let crc = fingerprint_of(&self.buffer[..start]);
        self.buffer[start + ATTRIBUTE_HEADER_LEN..self.len].copy_from_slice(&crc.to_be_bytes());
        Some(self.len)
    }
}
