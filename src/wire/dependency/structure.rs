//! The template structure that key frames carry (appendix A.8.2 `template_dependency_structure`).

use super::bits::Bits;
use crate::wire::{Malformed, Result};

/// Most templates: their numbers have 6 bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets: their count has 5 bits.
pub const MAX_TARGETS: usize = 32;
/// Most spatial layers: AV1 numbers them with 2 bits.
pub const MAX_SPATIAL: u8 = 4;
/// Most temporal layers: AV1 numbers them with 3 bits.
pub const MAX_TEMPORAL: u8 = 8;

/// What a frame is to a decode target (appendix A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// Not a part of it.
    NotPresent,
    /// A part that no other frame of it refers to.
    Discardable,
    /// From this frame on, all of the target can be decoded.
    Switch,
    /// A part that others refer to.
    Required,
}

/// Fixed patterns of layers and references, which a frame names by number. About 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Number of the first template.
    offset: u8,
    templates: [Template; MAX_TEMPLATES],
    template_count: u8,
    targets: u8,
    chains: u8,
}

/// What frames of one sort have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pub indications: u64,
    /// Bit `n`: refers to the frame whose number is lower by `n + 1`.
    pub references: u16,
    pub spatial: u8,
    pub temporal: u8,
}

impl Indication {
    pub(super) fn unpack(packed: u64, target: u8) -> Self {
        match packed.checked_shr(2 * u32::from(target)).unwrap_or(0) & 0x03 {
            0 => Self::NotPresent,
            1 => Self::Discardable,
            2 => Self::Switch,
            _ => Self::Required,
        }
    }

    /// The indications of `targets` decode targets, target 0 lowest.
    pub(super) fn read_all(bits: &mut Bits<'_>, targets: u8) -> Result<u64> {
        let mut packed = 0;
        for target in 0..targets {
            packed |= u64::from(bits.number(2)?) << (2 * target);
        }
        Ok(packed)
    }
}

impl Structure {
    /// The number of decode targets, 1 to 32.
    pub fn targets(&self) -> u8 {
        self.targets
    }

    /// The number of chains, 0 to 32.
    pub(super) fn chains(&self) -> u8 {
        self.chains
    }

    /// A bit for each decode target.
    pub fn all_targets(&self) -> u32 {
        u32::MAX >> (MAX_TARGETS as u32 - u32::from(self.targets))
    }

    /// The number of spatial layers, 1 to 4.
    pub fn spatial_layers(&self) -> u8 {
        self.templates().iter().map(|template| template.spatial + 1).max().unwrap_or(1)
    }

    /// The highest layers of decode target `target`: spatial, temporal.
    pub fn target_layers(&self, target: u8) -> (u8, u8) {
        let parts = self.templates().iter().filter(|template| {
            Indication::unpack(template.indications, target) != Indication::NotPresent
        });
        parts.fold((0, 0), |(spatial, temporal), template| {
            (template.spatial.max(spatial), template.temporal.max(temporal))
        })
    }

    /// The decode targets, a bit each, that need no layer above `spatial` and `temporal`: the active ones
    /// when only those layers are forwarded (appendix A.4).
    pub fn targets_within(&self, spatial: u8, temporal: u8) -> u32 {
        let within = (0..self.targets).filter(|&target| {
            let (highest_spatial, highest_temporal) = self.target_layers(target);
            highest_spatial <= spatial && highest_temporal <= temporal
        });
        within.fold(0, |mask, target| mask | 1 << target)
    }

    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        let index = (id + MAX_TEMPLATES as u8 - self.offset) % MAX_TEMPLATES as u8;
        self.templates().get(usize::from(index))
    }

    fn templates(&self) -> &[Template] {
        &self.templates[..usize::from(self.template_count)]
    }

    /// Reads a structure; never more than the fixed number of templates and targets.
    pub(super) fn read(bits: &mut Bits<'_>) -> Result<Self> {
        let offset = bits.number(6)? as u8;
        let targets = bits.number(5)? as u8 + 1;
        let mut structure = Self {
            offset,
            templates: [Template::default(); MAX_TEMPLATES],
            template_count: 0,
            targets,
            chains: 0,
        };
        structure.read_layers(bits)?;
        let count = usize::from(structure.template_count);
        for template in &mut structure.templates[..count] {
            template.indications = Indication::read_all(bits, targets)?;
        }
        for template in &mut structure.templates[..count] {
            template.references = read_references(bits)?;
        }
        structure.read_chains(bits)?;
        if bits.flag()? {
            // Width and height of each spatial layer.
            bits.skip(32 * usize::from(structure.spatial_layers()))?;
        }
        Ok(structure)
    }

    /// Templates come in order of their layers; two bits say where the next one stands.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        let (mut spatial, mut temporal) = (0, 0);
        for index in 0..MAX_TEMPLATES {
            self.templates[index] = Template { spatial, temporal, ..Template::default() };
            self.template_count = index as u8 + 1;
            match bits.number(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Ok(()),
            }
            if spatial >= MAX_SPATIAL || temporal >= MAX_TEMPORAL {
                return Err(Malformed);
            }
        }
        Err(Malformed)
    }

    /// Chains are counted and passed over: references say exactly what a frame needs.
    fn read_chains(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        self.chains = bits.below(u32::from(self.targets) + 1)? as u8;
        if self.chains == 0 {
            return Ok(());
        }
        for _ in 0..self.targets {
            bits.below(self.chains.into())?;
        }
        bits.skip(4 * usize::from(self.template_count) * usize::from(self.chains))
    }
}

/// A template's references: a flag before each distance of 1 to 16.
fn read_references(bits: &mut Bits<'_>) -> Result<u16> {
    let mut references = 0;
    // Each distance at most once: there are 16.
    for _ in 0..=u16::BITS {
        if !bits.flag()? {
            return Ok(references);
        }
        references |= 1 << bits.number(4)?;
    }
    Err(Malformed)
}
