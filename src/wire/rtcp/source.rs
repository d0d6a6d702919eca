//! Who a source is, and that it leaves (RFC 3550 §6.5 and §6.6).

use super::{PacketWriter, packet_type};
use crate::id::Ssrc;
use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Longest canonical name, in bytes: what an item's length octet can say (RFC 3550 §6.5).
pub const MAX_CNAME_LEN: usize = 255;

/// Most sources of one goodbye: what its 5-bit count can say (RFC 3550 §6.6).
const MAX_SOURCES: usize = 31;
/// The item that ends a chunk (RFC 3550 §6.5).
const ITEM_END: u8 = 0;
/// The item that holds the canonical name (RFC 3550 §6.5.1).
const ITEM_CNAME: u8 = 1;

/// A source description: at most 31 chunks, which were all checked.
#[derive(Clone, Debug)]
pub struct SourceDescription<'a> {
    count: u8,
    bytes: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        for _ in 0..count {
            SourceDescriptionChunk::read(&mut reader)?;
        }
        Ok(Self { count, bytes: body })
    }

    /// The chunks, one per source.
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { left: self.count, reader: Reader::new(self.bytes) }
    }
}

/// The chunks of a [`SourceDescription`].
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    left: u8,
    reader: Reader<'a>,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = SourceDescriptionChunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        SourceDescriptionChunk::read(&mut self.reader).ok()
    }
}

/// What is said about one source; other items than the canonical name are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceDescriptionChunk<'a> {
    /// The source.
    pub ssrc: Ssrc,
    /// Its canonical name, the same for all streams that play in step; the first if there are several.
    pub cname: Option<&'a [u8]>,
}

impl<'a> SourceDescriptionChunk<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let ssrc = Ssrc(reader.u32()?);
        let mut cname = None;
        let start = reader.rest().len();
        loop {
            let item = reader.u8()?;
            if item == ITEM_END {
                break;
            }
            let len = usize::from(reader.u8()?);
            let text = reader.take(len)?;
            if item == ITEM_CNAME {
                cname = cname.or(Some(text));
            }
        }
        // The end is followed by zeros up to the next word.
        let used = start - reader.rest().len();
        reader.take(used.next_multiple_of(4) - used)?;
        Ok(Self { ssrc, cname })
    }
}

/// A goodbye; its reason, if there is one, is not looked at.
#[derive(Clone, Debug)]
pub struct Goodbye<'a> {
    sources: &'a [[u8; 4]],
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self> {
        let (words, _) = body.as_chunks();
        Ok(Self { sources: words.get(..usize::from(count)).ok_or(Malformed)? })
    }

    /// The sources that leave, at most 31.
    pub fn sources(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.sources.iter().map(|&word| Ssrc(u32::from_be_bytes(word)))
    }
}

/// Writes a source description of one source with its canonical name of up to [`MAX_CNAME_LEN`]
/// bytes; returns its length. `None` if it does not fit.
pub fn write_cname(out: &mut [u8], ssrc: Ssrc, cname: &[u8]) -> Option<usize> {
    let len = u8::try_from(cname.len()).ok()?;
    let mut writer = PacketWriter::new(out, packet_type::SOURCE_DESCRIPTION, 1)?;
    writer.put_u32(ssrc.0)?;
    writer.put(&[ITEM_CNAME, len])?;
    writer.put(cname)?;
    // At least one zero ends the chunk; `finish` adds those up to the word.
    writer.put(&[ITEM_END])?;
    writer.finish()
}

/// Writes a goodbye of up to 31 `sources` without a reason; returns its length. `None` if it does
/// not fit.
pub fn write_goodbye(out: &mut [u8], sources: &[Ssrc]) -> Option<usize> {
    if sources.len() > MAX_SOURCES {
        return None;
    }
    let mut writer = PacketWriter::new(out, packet_type::GOODBYE, sources.len() as u8)?;
    sources.iter().try_for_each(|source| writer.put_u32(source.0))?;
    writer.finish()
}
