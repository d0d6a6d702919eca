//! Feedback messages (RFC 4585 §6, RFC 5104 §4, draft-alvestrand-rmcat-remb-03).

use super::{PacketWriter, Written, format, packet_type};
use crate::id::Ssrc;
use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Bytes of one entry of a NACK: a packet's number and 16 bits for those behind it.
const NACK_ENTRY_LEN: usize = 4;
/// Bits of the mantissa of a REMB's bitrate.
const MANTISSA_BITS: u32 = 18;

/// "The decoder lost the picture": a key frame is wanted (RFC 4585 §6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLoss {
    /// Who asks.
    pub sender: Ssrc,
    /// The stream that should send a key frame.
    pub media: Ssrc,
}

impl PictureLoss {
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        Ok(Self { sender: Ssrc(reader.u32()?), media: Ssrc(reader.u32()?) })
    }
}

/// One stream of a [`FullIntraRequest`] (RFC 5104 §4.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream that should send a key frame.
    pub ssrc: Ssrc,
    /// Counts commands; a repeated number is the same command sent again.
    pub sequence: u8,
}

/// "Send a decoder refresh point": a key frame is wanted (RFC 5104 §4.3.1).
#[derive(Clone, Debug)]
pub struct FullIntraRequest<'a> {
    /// Who asks.
    pub sender: Ssrc,
    entries: &'a [[u8; 8]],
}

impl<'a> FullIntraRequest<'a> {
    /// The common header's media source is unused here and skipped (RFC 5104 §4.3.1.2).
    pub(super) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let sender = Ssrc(reader.u32()?);
        reader.u32()?;
        let (entries, rest) = reader.rest().as_chunks();
        if entries.is_empty() || !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { sender, entries })
    }

    /// The streams that are asked, as many as the packet has bytes for.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + 'a {
        self.entries.iter().map(|&[s0, s1, s2, s3, sequence, ..]| FirEntry {
            ssrc: Ssrc(u32::from_be_bytes([s0, s1, s2, s3])),
            sequence,
        })
    }
}

/// Packets that a receiver misses (RFC 4585 §6.2.1).
#[derive(Clone, Debug)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender: Ssrc,
    /// The stream of the packets.
    pub media: Ssrc,
    entries: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let (sender, media) = (Ssrc(reader.u32()?), Ssrc(reader.u32()?));
        let (entries, rest) = reader.rest().as_chunks();
        if entries.is_empty() || !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { sender, media, entries })
    }

    /// The sequence numbers, in the packet's order; an entry of 4 bytes names up to 17.
    pub fn sequences(&self) -> impl Iterator<Item = u16> + 'a {
        self.entries.iter().flat_map(|&[p0, p1, b0, b1]| {
            let first = u16::from_be_bytes([p0, p1]);
            let following = u16::from_be_bytes([b0, b1]);
            let others = (0..16u16).filter(move |bit| following >> bit & 1 != 0);
            std::iter::once(first).chain(others.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// A receiver's estimate of the bitrate that it can take (REMB, draft-alvestrand-rmcat-remb-03 §2.2).
#[derive(Clone, Debug)]
pub struct MaxBitrate<'a> {
    /// Who says so.
    pub sender: Ssrc,
    /// Bits per second for all of the streams together.
    pub bitrate: u64,
    streams: &'a [[u8; 4]],
}

impl<'a> MaxBitrate<'a> {
    /// `None` for another application's message.
    pub(super) fn parse(body: &'a [u8]) -> Result<Option<Self>> {
        let mut reader = Reader::new(body);
        let sender = Ssrc(reader.u32()?);
        reader.u32()?;
        let Ok(b"REMB") = reader.take(4) else { return Ok(None) };
        let [count, b0, b1, b2] = reader.array()?;
        let mantissa = u64::from(b0 & 0x03) << 16 | u64::from(b1) << 8 | u64::from(b2);
        let exponent = u32::from(b0 >> 2);
        let bitrate = mantissa.checked_shl(exponent).ok_or(Malformed)?;
        if bitrate >> exponent != mantissa {
            return Err(Malformed);
        }
        let (streams, _) = reader.rest().as_chunks();
        let streams = streams.get(..usize::from(count)).ok_or(Malformed)?;
        Ok(Some(Self { sender, bitrate, streams }))
    }

    /// The streams that it is about, at most 255.
    pub fn streams(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.streams.iter().map(|&word| Ssrc(u32::from_be_bytes(word)))
    }
}

/// Writes a picture loss indication; returns its length. `None` if it does not fit.
pub fn write_picture_loss(out: &mut [u8], sender: Ssrc, media: Ssrc) -> Option<usize> {
    let mut writer = PacketWriter::new(out, packet_type::PAYLOAD_FEEDBACK, format::PICTURE_LOSS)?;
    writer.put_u32(sender.0)?;
    writer.put_u32(media.0)?;
    writer.finish()
}

/// Writes a full intra request for one or more streams; returns its length. `None` if it does not
/// fit or `entries` is empty.
pub fn write_full_intra_request(
    out: &mut [u8],
    sender: Ssrc,
    entries: &[FirEntry],
) -> Option<usize> {
    if entries.is_empty() {
        return None;
    }
    let mut writer =
        PacketWriter::new(out, packet_type::PAYLOAD_FEEDBACK, format::FULL_INTRA_REQUEST)?;
    writer.put_u32(sender.0)?;
    writer.put_u32(0)?;
    for entry in entries {
        writer.put_u32(entry.ssrc.0)?;
        writer.put(&[entry.sequence, 0, 0, 0])?;
    }
    writer.finish()
}

/// Writes a request for the packets `sequences` of `media` (RFC 4585 §6.2.1), which takes the least
/// room if they rise. It ends early where the next one does not fit; the caller goes on from there
/// with another packet. `None` if `sequences` is empty or not even one fits.
pub fn write_nack(
    out: &mut [u8],
    sender: Ssrc,
    media: Ssrc,
    sequences: impl Iterator<Item = u16>,
) -> Option<Written> {
    let mut writer = PacketWriter::new(out, packet_type::TRANSPORT_FEEDBACK, format::NACK)?;
    writer.put_u32(sender.0)?;
    writer.put_u32(media.0)?;
    let mut covered = 0;
    let mut entry = None;
    for sequence in sequences.take(usize::from(u16::MAX)) {
        match entry.and_then(|entry| with_sequence(entry, sequence)) {
            Some(longer) => {
                // Room was made for it when it was begun.
                let at = writer.len - NACK_ENTRY_LEN;
                writer.out.get_mut(at..writer.len)?.copy_from_slice(&u32::to_be_bytes(longer));
                entry = Some(longer);
            }
            None => {
                let first = u32::from(sequence) << 16;
                if writer.put_u32(first).is_none() {
                    break;
                }
                entry = Some(first);
            }
        }
        covered += 1;
    }
    entry?;
    Some(Written { len: writer.finish()?, covered })
}

/// Writes the bitrate (bit/s) that the sender of `streams` should not exceed with all of them
/// together (REMB, draft-alvestrand-rmcat-remb-03 §2.2); returns its length. What 18 bits of mantissa
/// cannot hold is rounded down. `None` if it does not fit or there are more than 255 streams.
pub fn write_max_bitrate(
    out: &mut [u8],
    sender: Ssrc,
    bitrate: u64,
    streams: &[Ssrc],
) -> Option<usize> {
    let count = u8::try_from(streams.len()).ok()?;
    let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(MANTISSA_BITS);
    let mantissa = (bitrate >> exponent) as u32;
    let mut writer = PacketWriter::new(out, packet_type::PAYLOAD_FEEDBACK, format::APPLICATION)?;
    writer.put_u32(sender.0)?;
    writer.put_u32(0)?;
    writer.put(b"REMB")?;
    writer.put_u32(u32::from(count) << 24 | exponent << MANTISSA_BITS | mantissa)?;
    streams.iter().try_for_each(|stream| writer.put_u32(stream.0))?;
    writer.finish()
}

/// The NACK entry that also names `sequence`, if that is at most 16 behind its first.
fn with_sequence(entry: u32, sequence: u16) -> Option<u32> {
    match sequence.wrapping_sub((entry >> 16) as u16) {
        0 => Some(entry),
        behind @ 1..=16 => Some(entry | 1 << (behind - 1)),
        _ => None,
    }
}
