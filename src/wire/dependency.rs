//! The dependency descriptor (RTP Payload Format For AV1, AOMedia, appendix A.8): which layers a frame
//! belongs to and which frames it refers to, for any codec.

mod bits;
mod rewrite;
mod structure;

use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};
use bits::Bits;

pub use rewrite::{shift_frame_number, with_active_targets};
pub use structure::{Indication, MAX_SPATIAL, MAX_TARGETS, MAX_TEMPLATES, MAX_TEMPORAL, Structure};

/// Bits of the mandatory fields.
const MANDATORY_BITS: usize = 24;
/// Most references that one frame may list; AV1 has 8 reference slots, seven of which one frame may use.
const MAX_REFERENCES: usize = 8;

/// What each dependency descriptor begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The packet begins a frame.
    pub frame_start: bool,
    /// The packet ends a frame.
    pub frame_end: bool,
    /// Which template of the structure the frame follows, 0 to 63.
    pub template_id: u8,
    /// The frame's number.
    pub frame_number: u16,
    /// A new template structure follows: key frames carry one.
    pub has_structure: bool,
}

/// A descriptor read together with the structure that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The mandatory fields.
    pub descriptor: Descriptor,
    /// Spatial layer, 0 to 3.
    pub spatial: u8,
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// Bit `n` says that the frame refers to the one whose number is lower by `n + 1`.
    pub references: u64,
    /// The frame also refers to frames further back than `references` can tell.
    pub refers_far: bool,
    /// The decode targets' indications, two bits each, target 0 lowest.
    indications: u64,
    /// Which decode targets the sender says are being sent, if it says so here.
    pub active_targets: Option<u32>,
}

/// Everything that one descriptor holds, and where.
struct Parsed {
    frame: Frame,
    structure: Option<Structure>,
    /// Bit at which the active decode targets stand or would stand.
    targets_at: usize,
    targets: u8,
    /// Bits of the fields that follow them.
    rest: core::ops::Range<usize>,
}

impl Descriptor {
    /// Reads an element's mandatory fields.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(data);
        let first = reader.u8()?;
        let frame_number = reader.u16()?;
        // The extended fields begin with one flag each; they are there when there are more bytes.
        let flags = reader.u8().unwrap_or(0);
        Ok(Self {
            frame_start: first & 0x80 != 0,
            frame_end: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number,
            has_structure: flags & 0x80 != 0,
        })
    }
}

impl Frame {
    /// Reads a whole element. A template structure in it takes the place of `structure`, which is left
    /// as it was when anything is malformed. Without a structure nothing can be read.
    pub fn read(data: &[u8], structure: &mut Option<Structure>) -> Result<Self> {
        let parsed = Parsed::read(data, structure.as_ref())?;
        if parsed.structure.is_some() {
            *structure = parsed.structure;
        }
        Ok(parsed.frame)
    }

    /// What the frame is to decode target `target`.
    pub fn indication(&self, target: u8) -> Indication {
        Indication::unpack(self.indications, target)
    }
}

impl Parsed {
    fn read(data: &[u8], known: Option<&Structure>) -> Result<Self> {
        let descriptor = Descriptor::parse(data)?;
        let mut bits = Bits::at(data, MANDATORY_BITS);
        let has_flags = data.len() * 8 > MANDATORY_BITS;
        let mut flag = || if has_flags { bits.flag() } else { Ok(false) };
        let [has_structure, has_targets] = [flag()?, flag()?];
        let [custom_indications, custom_references, custom_chains] = [flag()?, flag()?, flag()?];
        let own = if has_structure { Some(Structure::read(&mut bits)?) } else { None };
        let structure = own.as_ref().or(known).ok_or(Malformed)?;
        let targets_at = bits.position();
        let active_targets = match (has_targets, has_structure) {
            (true, _) => Some(bits.number(structure.targets().into())?),
            (false, true) => Some(structure.all_targets()),
            (false, false) => None,
        };
        let rest_at = bits.position();
        let template = structure.template(descriptor.template_id).ok_or(Malformed)?;
        let indications = if custom_indications {
            Indication::read_all(&mut bits, structure.targets())?
        } else {
            template.indications
        };
        let (references, refers_far) = if custom_references {
            read_references(&mut bits)?
        } else {
            (template.references.into(), false)
        };
        if custom_chains {
            bits.skip(8 * usize::from(structure.chains()))?;
        }
        let frame = Frame {
            descriptor,
            spatial: template.spatial,
            temporal: template.temporal,
            references,
            refers_far,
            indications,
            active_targets,
        };
        let (targets, rest) = (structure.targets(), rest_at..bits.position());
        Ok(Self { frame, structure: own, targets_at, targets, rest })
    }
}

/// The frame's own list of references: a length of 1 to 3 half bytes before each, 0 ends it.
fn read_references(bits: &mut Bits<'_>) -> Result<(u64, bool)> {
    let (mut references, mut refers_far) = (0, false);
    for _ in 0..=MAX_REFERENCES {
        let size = bits.number(2)?;
        if size == 0 {
            return Ok((references, refers_far));
        }
        let distance_minus_one = bits.number(4 * size as usize)?;
        match 1u64.checked_shl(distance_minus_one) {
            Some(bit) => references |= bit,
            None => refers_far = true,
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests;
