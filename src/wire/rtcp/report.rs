//! Sender and receiver reports (RFC 3550 §6.4).

use super::{PacketWriter, packet_type};
use crate::id::Ssrc;
use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Most report blocks of one packet: what its 5-bit count can say (RFC 3550 §6.4.1).
pub const MAX_REPORT_BLOCKS: usize = 31;

/// Bytes of one report block.
const BLOCK_LEN: usize = 24;
/// What fits the 24-bit signed field of packets lost.
const LOST_RANGE: (i32, i32) = (-(1 << 23), (1 << 23) - 1);

/// What a sender says about itself (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: Ssrc,
    /// The moment of the report: a 64-bit NTP timestamp (seconds since 1900, then 2^-32 s).
    pub ntp: u64,
    /// The same moment in units of the stream's RTP clock.
    pub rtp: u32,
    /// Packets sent so far, modulo 2^32.
    pub packets: u32,
    /// Payload bytes sent so far, without headers and padding, modulo 2^32.
    pub octets: u32,
}

/// What a receiver says about one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: Ssrc,
    /// Packets lost since the last report, in 1/256 of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; 24 bits, negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Highest sequence number received; the upper 16 bits count its wraps.
    pub highest_sequence: u32,
    /// Interarrival jitter, in units of the stream's RTP clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP timestamp; 0 when there was none.
    pub last_sr: u32,
    /// Time since that report arrived, in 1/65,536 s; 0 when there was none.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    /// A report that says nothing yet.
    pub const fn empty(ssrc: Ssrc) -> Self {
        Self {
            ssrc,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: 0,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        }
    }

    fn from_bytes(bytes: &[u8; BLOCK_LEN]) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            ssrc: Ssrc(word(0)),
            fraction_lost: bytes[4],
            // Moved up and down again to spread the sign of the 24 bits.
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            highest_sequence: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }
    }

    /// Losses outside of 24 bits are clamped, as RFC 3550 A.3 does.
    fn put(&self, writer: &mut PacketWriter<'_>) -> Option<()> {
        let lost = self.cumulative_lost.clamp(LOST_RANGE.0, LOST_RANGE.1) as u32;
        writer.put_u32(self.ssrc.0)?;
        writer.put_u32(u32::from(self.fraction_lost) << 24 | (lost & 0x00ff_ffff))?;
        writer.put_u32(self.highest_sequence)?;
        writer.put_u32(self.jitter)?;
        writer.put_u32(self.last_sr)?;
        writer.put_u32(self.delay_since_last_sr)
    }
}

/// The report blocks of one packet, at most [`MAX_REPORT_BLOCKS`].
#[derive(Clone, Debug)]
pub struct ReportBlocks<'a> {
    blocks: std::slice::Iter<'a, [u8; BLOCK_LEN]>,
}

impl<'a> ReportBlocks<'a> {
    /// Profile-specific extensions behind the blocks are ignored (RFC 3550 §6.4.3).
    fn parse(count: u8, bytes: &'a [u8]) -> Result<Self> {
        let (blocks, _) = bytes.as_chunks();
        let blocks = blocks.get(..usize::from(count)).ok_or(Malformed)?;
        Ok(Self { blocks: blocks.iter() })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        self.blocks.next().map(ReportBlock::from_bytes)
    }
}

/// A sender report.
#[derive(Clone, Debug)]
pub struct SenderReport<'a> {
    /// What the sender says about itself.
    pub info: SenderInfo,
    /// What it says about the streams that it receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let info = SenderInfo {
            ssrc: Ssrc(reader.u32()?),
            ntp: reader.u64()?,
            rtp: reader.u32()?,
            packets: reader.u32()?,
            octets: reader.u32()?,
        };
        Ok(Self { info, blocks: ReportBlocks::parse(count, reader.rest())? })
    }
}

/// A receiver report.
#[derive(Clone, Debug)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub sender: Ssrc,
    /// What it says about the streams that it receives.
    pub blocks: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let sender = Ssrc(reader.u32()?);
        Ok(Self { sender, blocks: ReportBlocks::parse(count, reader.rest())? })
    }
}

/// Writes a sender report; returns its length. `None` if it does not fit or has more than
/// [`MAX_REPORT_BLOCKS`].
pub fn write_sender_report(
    out: &mut [u8],
    info: &SenderInfo,
    blocks: &[ReportBlock],
) -> Option<usize> {
    let mut writer = PacketWriter::new(out, packet_type::SENDER_REPORT, count(blocks)?)?;
    writer.put_u32(info.ssrc.0)?;
    writer.put(&info.ntp.to_be_bytes())?;
    writer.put_u32(info.rtp)?;
    writer.put_u32(info.packets)?;
    writer.put_u32(info.octets)?;
    blocks.iter().try_for_each(|block| block.put(&mut writer))?;
    writer.finish()
}

/// Writes a receiver report; returns its length. `None` if it does not fit or has more than
/// [`MAX_REPORT_BLOCKS`].
pub fn write_receiver_report(
    out: &mut [u8],
    sender: Ssrc,
    blocks: &[ReportBlock],
) -> Option<usize> {
    let mut writer = PacketWriter::new(out, packet_type::RECEIVER_REPORT, count(blocks)?)?;
    writer.put_u32(sender.0)?;
    blocks.iter().try_for_each(|block| block.put(&mut writer))?;
    writer.finish()
}

fn count(blocks: &[ReportBlock]) -> Option<u8> {
    if blocks.len() > MAX_REPORT_BLOCKS {
        return None;
    }
    u8::try_from(blocks.len()).ok()
}
