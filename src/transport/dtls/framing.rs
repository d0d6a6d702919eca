//! Are these bytes DTLS at all? A strict look before the handshake sees them, so that what lies
//! about lengths is counted as such and can fill no buffer.

/// Record header: type, version, epoch, sequence number, length (RFC 6347 §4.1).
const RECORD_HEADER_LEN: usize = 13;
/// Handshake header: type, length, message number, fragment's offset and length (RFC 6347 §4.2.2).
const MESSAGE_HEADER_LEN: usize = 12;
/// Longest handshake message, in bytes. A browser's longest is a ClientHello of 1.5 kB with a
/// post-quantum key share; certificate chains of other clients reach a few kB.
pub const MAX_MESSAGE_LEN: usize = 16 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;

/// Whether `datagram` is one or more whole records, and its plaintext handshake records whole
/// fragments: neither empty nor outside of the message that they claim to belong to.
pub fn is_well_formed(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    loop {
        let Some((record, next)) = split_record(rest) else {
            return false;
        };
        let (kind, body) = (record.kind(), record.fragment());
        let is_record = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind)
            && record.0[1] == 0xfe
            && !body.is_empty();
        let is_plaintext_handshake = record.epoch() == 0 && kind == HANDSHAKE;
        if !is_record || (is_plaintext_handshake && !has_whole_fragments(body)) {
            return false;
        }
        if next.is_empty() {
            return true;
        }
        rest = next;
    }
}

/// Whether a well-formed `datagram` begins with a ClientHello or a part of one.
pub fn is_client_hello(datagram: &[u8]) -> bool {
    let is_plaintext_handshake = datagram.first() == Some(&HANDSHAKE) && datagram[3..5] == [0, 0];
    is_plaintext_handshake && datagram.get(RECORD_HEADER_LEN) == Some(&CLIENT_HELLO)
}

/// The records of a datagram, up to what is none.
pub fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (record, next) = split_record(rest)?;
        rest = next;
        Some(record)
    })
}

/// A whole record.
#[derive(Clone, Copy)]
pub struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// What it carries.
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// 0 for plaintext, 1 once both sides have keys.
    pub fn epoch(self) -> u16 {
        (self.number() >> 48) as u16
    }

    /// Epoch and sequence number, as one.
    pub fn number(self) -> u64 {
        let bytes = self.0[3..].first_chunk().expect("a header is 13 bytes long");
        u64::from_be_bytes(*bytes)
    }

    /// What is behind the header.
    pub fn fragment(self) -> &'a [u8] {
        &self.0[RECORD_HEADER_LEN..]
    }

    /// What is authenticated with a plaintext of `len` bytes (RFC 5246 §6.2.3.3).
    pub fn additional_data(self, len: u16) -> [u8; RECORD_HEADER_LEN] {
        let mut data = [0; RECORD_HEADER_LEN];
        let (number, rest) = data.split_at_mut(8);
        number.copy_from_slice(&self.0[3..11]);
        rest[..3].copy_from_slice(&self.0[..3]);
        rest[3..].copy_from_slice(&len.to_be_bytes());
        data
    }
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let header = bytes.first_chunk::<RECORD_HEADER_LEN>()?;
    let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
    let (record, rest) = bytes.split_at_checked(RECORD_HEADER_LEN + len)?;
    Some((Record(record), rest))
}

fn has_whole_fragments(mut body: &[u8]) -> bool {
    while !body.is_empty() {
        let Some((header, rest)) = body.split_first_chunk::<MESSAGE_HEADER_LEN>() else {
            return false;
        };
        let message_len = uint24(header, 1);
        let (offset, len) = (uint24(header, 6), uint24(header, 9));
        let fits = message_len <= MAX_MESSAGE_LEN && offset + len <= message_len;
        // Only a message without a body may be carried by an empty fragment.
        if !fits || (len == 0 && message_len != 0) || rest.len() < len {
            return false;
        }
        body = &rest[len..];
    }
    true
}

fn uint24(header: &[u8; MESSAGE_HEADER_LEN], at: usize) -> usize {
    usize::from(header[at]) << 16 | usize::from(header[at + 1]) << 8 | usize::from(header[at + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0];
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn fragment(message_len: u32, offset: u32, claimed: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![CLIENT_HELLO];
        bytes.extend(&message_len.to_be_bytes()[1..]);
        bytes.extend([0, 0]);
        bytes.extend(&offset.to_be_bytes()[1..]);
        bytes.extend(&claimed.to_be_bytes()[1..]);
        bytes.extend(body);
        bytes
    }

    fn handshake(message_len: u32, offset: u32, claimed: u32, body: &[u8]) -> Vec<u8> {
        record(HANDSHAKE, 0, &fragment(message_len, offset, claimed, body))
    }

    #[test]
    fn honest_records_pass() {
        let whole = handshake(4, 0, 4, b"body");
        assert!(is_well_formed(&whole) && is_client_hello(&whole));
        assert!(is_well_formed(&handshake(0, 0, 0, b"")));
        assert!(is_well_formed(&handshake(MAX_MESSAGE_LEN as u32, 9, 4, b"body")));
        let encrypted = record(HANDSHAKE, 1, b"anything");
        assert!(is_well_formed(&encrypted) && !is_client_hello(&encrypted));
        let flight = [whole, record(CHANGE_CIPHER_SPEC, 0, &[1]), encrypted].concat();
        assert!(is_well_formed(&flight));
    }

    #[test]
    fn lying_lengths_do_not_pass() {
        let cases: &[(&str, Vec<u8>)] = &[
            ("nothing", vec![]),
            ("an empty record", record(HANDSHAKE, 0, b"")),
            ("an empty fragment of a message", handshake(4, 0, 0, b"")),
            ("a fragment beyond its message", handshake(4, 1, 4, b"body")),
            ("a fragment longer than its record", handshake(9, 0, 9, b"body")),
            ("an overlong message", handshake(MAX_MESSAGE_LEN as u32 + 1, 0, 4, b"body")),
            ("half a fragment header", record(HANDSHAKE, 0, b"abcdef")),
            ("an unknown type", record(63, 0, b"body")),
            ("garbage behind a record", [handshake(4, 0, 4, b"body"), vec![22, 0xfe]].concat()),
        ];
        for (what, bytes) in cases {
            assert!(!is_well_formed(bytes), "{what}");
        }
        let good = handshake(4, 0, 4, b"body");
        for len in 0..good.len() {
            assert!(!is_well_formed(&good[..len]), "{len} of {} bytes", good.len());
        }
    }
}
