//! RTP headers, their extensions and padding, beside the crate `rtp`.

use bytes::Bytes;
use rtp::header::Header as TheirHeader;
use rtp::packet::Packet;
use shardcast::wire::extension::Elements;
use shardcast::wire::rtp::Header;
use webrtc_util::marshal::Unmarshal;

use crate::theirs;

/// Reads `data` with both.
///
/// Known of `rtp` 0.17, and not compared: it panics where an element of an extension block reaches beyond the
/// packet; one that reaches beyond its block is read from the payload; behind an element 15 (RFC 8285 §4.2) the
/// rest of the block is taken for payload; an element 0 with a length does not end the block; two-byte elements
/// are known under the profile `0x1000` only; the version is not checked.
///
/// # Panics
/// When both accept it, and disagree.
pub fn rtp(data: &[u8]) {
    let Ok(ours) = Header::parse(data) else { return };
    let Ok(payload) = ours.payload(data) else { return };
    let read = theirs(|| Packet::unmarshal(&mut Bytes::copy_from_slice(data)));
    let Some(Ok(Packet { header, payload: their_payload })) = read else { return };
    assert_eq!((header.version, header.padding, header.marker), (2, ours.padding, ours.marker));
    assert_eq!(header.payload_type, ours.payload_type.0);
    assert_eq!(header.sequence_number, ours.sequence);
    assert_eq!((header.timestamp, header.ssrc), (ours.timestamp, ours.ssrc.0));
    assert_eq!(header.extension.then_some(header.extension_profile), ours.extension_profile);
    if !is_within_its_block(&header, &ours) {
        return;
    }
    assert_eq!(their_payload, payload);
    if matches!(ours.extension_profile, Some(0xbede | 0x1000)) {
        let theirs = header.extensions.iter().take_while(|element| element.id != 0);
        let theirs = theirs.map(|element| (element.id, &element.payload[..]));
        assert!(Elements::of(&ours, data).eq(theirs), "{header:?}");
    }
}

/// Whether they read what the extension block holds, all of it and nothing else.
fn is_within_its_block(theirs: &TheirHeader, ours: &Header) -> bool {
    let frame = match theirs.extension_profile {
        0xbede => 1,
        0x1000 => 2,
        _ => 0,
    };
    let elements = theirs.extensions.iter().map(|element| frame + element.payload.len());
    let read = elements.sum::<usize>() + theirs.extensions_padding;
    read == usize::from(ours.len - ours.extension_start)
}

/// Whether their reading of a header can be relied on.
pub(crate) fn is_read_alike(data: &[u8], ours: &Header) -> bool {
    let read = theirs(|| TheirHeader::unmarshal(&mut Bytes::copy_from_slice(data)));
    matches!(read, Some(Ok(header)) if is_within_its_block(&header, ours))
}
