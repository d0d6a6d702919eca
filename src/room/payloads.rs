//! A consumer's payload types, by its producer's.

use crate::id::PayloadType;
use crate::room::spec::PayloadMapping;

/// Payload types: most consumers have one or two codecs.
pub(super) enum Payloads {
    Few([Option<PayloadMapping>; 3]),
    Many(Box<[PayloadMapping]>),
}

impl Payloads {
    pub(super) fn new(all: &[PayloadMapping]) -> Self {
        let mut few = [None; 3];
        if all.len() > few.len() {
            return Self::Many(all.into());
        }
        few.iter_mut().zip(all).for_each(|(place, mapping)| *place = Some(*mapping));
        Self::Few(few)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PayloadMapping> {
        let (few, many) = match self {
            Self::Few(few) => (&few[..], &[][..]),
            Self::Many(many) => (&[][..], &many[..]),
        };
        few.iter().flatten().chain(many)
    }

    /// What becomes of the producer's `payload_type`.
    pub(super) fn of(&self, payload_type: PayloadType) -> Option<&PayloadMapping> {
        self.iter().find(|mapping| mapping.producer == payload_type)
    }
}
