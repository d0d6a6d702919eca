//! RTCP packets, alone or in compounds (RFC 3550 §6, RFC 4585, RFC 5104).
//!
//! [`Compound`] walks a datagram's packets as views; the `write_*` functions of the submodules make
//! packets in place, and [`CompoundWriter`] puts several into one datagram. Reduced-size RTCP
//! (RFC 5506) is accepted: a datagram may begin with any packet type.

mod feedback;
mod report;
mod source;
mod transport_cc;
mod transport_cc_writer;

pub use feedback::{
    FirEntry, FullIntraRequest, MaxBitrate, Nack, PictureLoss, write_full_intra_request,
    write_max_bitrate, write_nack, write_picture_loss,
};
pub use report::{
    MAX_REPORT_BLOCKS, ReceiverReport, ReportBlock, ReportBlocks, SenderInfo, SenderReport,
    write_receiver_report, write_sender_report,
};
pub use source::{
    Chunks, Goodbye, MAX_CNAME_LEN, SourceDescription, SourceDescriptionChunk, write_cname,
    write_goodbye,
};
pub use transport_cc::{MAX_STATUSES, Statuses, TransportCc};
pub use transport_cc_writer::{FeedbackFields, write_transport_cc};

use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Most packets in one datagram. Ours hold a report and a description for each of some 25 streams;
/// browsers send fewer than ten. A datagram of more (up to 375 empty ones would fit) is refused.
pub const MAX_PACKETS: usize = 64;

/// Bytes of the common header (RFC 3550 §6.4.1).
const HEADER_LEN: usize = 4;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
mod packet_type {
    pub const SENDER_REPORT: u8 = 200;
    pub const RECEIVER_REPORT: u8 = 201;
    pub const SOURCE_DESCRIPTION: u8 = 202;
    pub const GOODBYE: u8 = 203;
    pub const TRANSPORT_FEEDBACK: u8 = 205;
    pub const PAYLOAD_FEEDBACK: u8 = 206;
}

/// Feedback formats (RFC 4585 §6.2 and §6.3, RFC 5104 §4.3, draft-holmer-rmcat-transport-wide-cc).
mod format {
    pub const NACK: u8 = 1;
    pub const TRANSPORT_CC: u8 = 15;
    pub const PICTURE_LOSS: u8 = 1;
    pub const FULL_INTRA_REQUEST: u8 = 4;
    pub const APPLICATION: u8 = 15;
}

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// SR
    SenderReport(SenderReport<'a>),
    /// RR
    ReceiverReport(ReceiverReport<'a>),
    /// SDES
    SourceDescription(SourceDescription<'a>),
    /// BYE
    Goodbye(Goodbye<'a>),
    /// Generic NACK
    Nack(Nack<'a>),
    /// Transport-wide congestion control feedback
    TransportCc(TransportCc<'a>),
    /// PLI
    PictureLoss(PictureLoss),
    /// FIR
    FullIntraRequest(FullIntraRequest<'a>),
    /// REMB
    MaxBitrate(MaxBitrate<'a>),
    /// A well-framed packet of a kind that is not used here.
    Other {
        /// The packet type.
        packet_type: u8,
        /// The 5 bits that hold a count or a feedback format.
        count: u8,
    },
}

/// The packets of one decrypted datagram, in order.
///
/// The framing of the whole datagram was checked by [`Compound::parse`]; an item is an error when
/// that one packet's inside is malformed, and the walk goes on behind it.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks version, lengths and padding of each packet (RFC 3550 §6.1 and A.2): at least one and
    /// at most [`MAX_PACKETS`], which fill `datagram` exactly.
    pub fn parse(datagram: &'a [u8]) -> Result<Self> {
        let mut rest = datagram;
        for _ in 0..MAX_PACKETS {
            let (frame, behind) = Frame::split(rest)?;
            // Only the last packet may be padded (RFC 3550 §6.4.1). libwebrtc also pads its
            // transport-wide feedback to full words this way, wherever that stands.
            if frame.padded && !behind.is_empty() && !frame.is_transport_cc() {
                return Err(Malformed);
            }
            if behind.is_empty() {
                return Ok(Self { rest: datagram });
            }
            rest = behind;
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (frame, behind) = Frame::split(self.rest).ok()?;
        self.rest = behind;
        Some(frame.packet())
    }
}

/// One packet's header and body, not looked into.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    padded: bool,
    /// Number of blocks or chunks, or the feedback format.
    count: u8,
    packet_type: u8,
    /// What follows the header, without padding.
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let [first, packet_type, l0, l1] = reader.array::<HEADER_LEN>()?;
        if first >> 6 != 2 {
            return Err(Malformed);
        }
        let padded = first & 0x20 != 0;
        let mut body = reader.take(usize::from(u16::from_be_bytes([l0, l1])) * 4)?;
        if padded {
            // The last octet counts the padding, itself included. RFC 3550 wants whole words;
            // libwebrtc pads its feedback by 1 to 3 bytes, so any count that fits is taken.
            let count = usize::from(*body.last().ok_or(Malformed)?);
            let len = body.len().checked_sub(count).ok_or(Malformed)?;
            if count == 0 {
                return Err(Malformed);
            }
            body = &body[..len];
        }
        Ok((Self { padded, count: first & 0x1f, packet_type, body }, reader.rest()))
    }

    const fn is_transport_cc(&self) -> bool {
        self.packet_type == packet_type::TRANSPORT_FEEDBACK && self.count == format::TRANSPORT_CC
    }

    fn packet(&self) -> Result<Packet<'a>> {
        let Self { count, packet_type, body, .. } = *self;
        Ok(match (packet_type, count) {
            (packet_type::SENDER_REPORT, _) => {
                Packet::SenderReport(SenderReport::parse(count, body)?)
            }
            (packet_type::RECEIVER_REPORT, _) => {
                Packet::ReceiverReport(ReceiverReport::parse(count, body)?)
            }
            (packet_type::SOURCE_DESCRIPTION, _) => {
                Packet::SourceDescription(SourceDescription::parse(count, body)?)
            }
            (packet_type::GOODBYE, _) => Packet::Goodbye(Goodbye::parse(count, body)?),
            (packet_type::TRANSPORT_FEEDBACK, format::NACK) => Packet::Nack(Nack::parse(body)?),
            (packet_type::TRANSPORT_FEEDBACK, format::TRANSPORT_CC) => {
                Packet::TransportCc(TransportCc::parse(body)?)
            }
            (packet_type::PAYLOAD_FEEDBACK, format::PICTURE_LOSS) => {
                Packet::PictureLoss(PictureLoss::parse(body)?)
            }
            (packet_type::PAYLOAD_FEEDBACK, format::FULL_INTRA_REQUEST) => {
                Packet::FullIntraRequest(FullIntraRequest::parse(body)?)
            }
            (packet_type::PAYLOAD_FEEDBACK, format::APPLICATION) => {
                match MaxBitrate::parse(body)? {
                    Some(max_bitrate) => Packet::MaxBitrate(max_bitrate),
                    None => Packet::Other { packet_type, count },
                }
            }
            _ => Packet::Other { packet_type, count },
        })
    }
}

/// What a writer has done that may end early, for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the packet.
    pub len: usize,
    /// How many of the items given it tells of, at least 1. The next packet starts behind them.
    pub covered: u16,
}

/// Puts packets into one datagram, one behind the other.
#[derive(Debug)]
pub struct CompoundWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> CompoundWriter<'a> {
    /// An empty compound at the start of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Lets `write` put one packet (a multiple of 4 bytes) into the room that is left; `None` if it
    /// did not fit, and then the compound is as before.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        let room = &mut self.out[self.len..];
        let room_len = room.len();
        let written = write(room)?;
        if written > room_len || !written.is_multiple_of(4) {
            return None;
        }
        self.len += written;
        Some(())
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are left.
    pub const fn room(&self) -> usize {
        self.out.len() - self.len
    }
}

/// Writes one packet: header first, its length last.
struct PacketWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> PacketWriter<'a> {
    /// `count` is the number of blocks or the feedback format, at most 31.
    fn new(out: &'a mut [u8], packet_type: u8, count: u8) -> Option<Self> {
        let mut writer = Self { out, len: 0 };
        writer.put(&[2 << 6 | (count & 0x1f), packet_type, 0, 0])?;
        Some(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn put_u32(&mut self, value: u32) -> Option<()> {
        self.put(&value.to_be_bytes())
    }

    /// Fills the last word with zeros, writes the length and returns it in bytes.
    fn finish(self) -> Option<usize> {
        let padded = self.len.next_multiple_of(4);
        self.out.get_mut(self.len..padded)?.fill(0);
        let words = u16::try_from(padded / 4 - 1).ok()?;
        self.out.get_mut(2..4)?.copy_from_slice(&words.to_be_bytes());
        Some(padded)
    }
}

#[cfg(test)]
mod tests;
