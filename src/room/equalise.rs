//! Packets that differ by a few bytes are made equal, so that they leave as one train.
//!
//! Browsers divide a frame into packets that differ by a byte, the longer ones last; the kernel takes
//! only equal datagrams as one (`shard/train.rs`). Every packet is sealed anew for each receiver, so the
//! shorter ones can carry RTP padding (RFC 3550 §5.1), which receivers strip. What it costs is bounded:
//! [`MAX_PADDING`] bytes for packets of [`MIN_LEN`] and more.

use crate::room::forward::Opened;

/// Most padding of a packet, in bytes: more than browsers' packets of one frame differ by.
pub(super) const MAX_PADDING: usize = 8;
/// Shortest packet that is padded, in bytes: so padding is 2 % of what is sent, at worst.
pub(super) const MIN_LEN: usize = 400;

const _: () = assert!(MAX_PADDING * 50 <= MIN_LEN);

/// Notes in each of `packets`, all of one producer, the padding that makes it as long as its
/// neighbours.
pub(super) fn equalise(packets: &mut [Opened]) {
    let mut rest = packets;
    while !rest.is_empty() {
        let (count, longest) =
            group(rest.iter().map(|packet| (packet.encoding, packet.body_len())));
        let (now, later) = rest.split_at_mut(count);
        for packet in now {
            packet.padding = (longest - packet.body_len()) as u8;
        }
        rest = later;
    }
}

/// How many packets from the first one on, of which encoding and length are told, can be made equal,
/// and how long they are then.
fn group(mut packets: impl Iterator<Item = (u8, usize)>) -> (usize, usize) {
    let Some((encoding, len)) = packets.next() else { return (0, 0) };
    let (mut count, mut shortest, mut longest) = (1, len, len);
    for (other, len) in packets {
        let (low, high) = (shortest.min(len), longest.max(len));
        // Another encoding is another stream, which this receiver does not get.
        if other != encoding || low < MIN_LEN || high - low > MAX_PADDING {
            break;
        }
        (count, shortest, longest) = (count + 1, low, high);
    }
    (count, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(mut packets: &[(u8, usize)]) -> Vec<(usize, usize)> {
        let mut groups = Vec::new();
        while !packets.is_empty() {
            let found = group(packets.iter().copied());
            groups.push(found);
            packets = &packets[found.0..];
        }
        groups
    }

    #[test]
    fn a_divided_frame_becomes_one_group() {
        let frame = [1150, 1150, 1151, 1151, 1151].map(|len| (0, len));
        assert_eq!(groups(&frame), [(5, 1151)]);
    }

    #[test]
    fn padding_is_bounded() {
        assert_eq!(groups(&[(0, 1200), (0, 1192)]), [(2, 1200)]);
        assert_eq!(groups(&[(0, 1200), (0, 1191)]), [(1, 1200), (1, 1191)]);
        assert_eq!(groups(&[(0, 1192), (0, 1199), (0, 1201)]), [(2, 1199), (1, 1201)]);
        assert_eq!(groups(&[(0, 399), (0, 400)]), [(1, 399), (1, 400)], "too short to be padded");
    }

    #[test]
    fn encodings_are_kept_apart() {
        assert_eq!(groups(&[(0, 1000), (1, 1001), (1, 1002)]), [(1, 1000), (2, 1002)]);
    }
}
