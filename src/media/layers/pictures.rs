//! What was decided about the last pictures, for packets that come late and frames that refer back.

use crate::media::layers::frame::{MAX_LAYERS, Number};

/// How many pictures (or frames, where these are numbered) are remembered: at least what a mask of references can
/// name, two seconds at 30 pictures per second, and half the circle of 7-bit picture ids.
pub(super) const WINDOW: usize = 64;

/// The number nearest to `newest` that `number` is the end of.
pub(super) fn extend(newest: u64, number: Number) -> u64 {
    let unused = 16 - u32::from(number.bits);
    let distance = (number.value.wrapping_sub(newest as u16) << unused) as i16 >> unused;
    newest.saturating_add_signed(distance.into())
}

/// For each spatial layer, how many of its temporal layers are being forwarded: 0 (none of it) to 8, four bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach(u32);

impl Reach {
    /// All temporal layers.
    pub const ALL: u8 = MAX_LAYERS;

    pub fn of(self, spatial: u8) -> u8 {
        (self.0 >> (4 * spatial) & 0x0f) as u8
    }

    pub fn set(&mut self, spatial: u8, reach: u8) {
        self.0 = self.0 & !(0x0f << (4 * spatial)) | u32::from(reach) << (4 * spatial);
    }

    pub fn raise(&mut self, spatial: u8, reach: u8) {
        self.set(spatial, reach.max(self.of(spatial)));
    }

    pub fn lower(&mut self, spatial: u8, reach: u8) {
        self.set(spatial, reach.min(self.of(spatial)));
    }

    /// The highest spatial layer of which anything is forwarded.
    pub fn top(self) -> Option<u8> {
        let bits = u32::BITS - self.0.leading_zeros();
        bits.checked_sub(1).map(|highest| (highest / 4) as u8)
    }

    /// Whether temporal layer `temporal` is forwarded of this spatial layer and of all below, which it may refer to.
    pub fn flows(self, spatial: u8, temporal: u8) -> bool {
        (0..=spatial).all(|layer| self.of(layer) > temporal)
    }

    /// The highest spatial layer of which temporal layer `temporal` flows.
    pub fn top_above(self, temporal: u8) -> Option<u8> {
        (0..MAX_LAYERS).take_while(|&spatial| self.of(spatial) > temporal).last()
    }

    /// What is left without higher layers than these.
    pub fn within(self, spatial: u8, temporal: u8) -> Self {
        let mut clipped = Self::default();
        for layer in 0..=spatial.min(MAX_LAYERS - 1) {
            clipped.set(layer, self.of(layer).min(temporal + 1));
        }
        clipped
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Forwarded,
    Skipped,
    /// Nothing of it has come, or too long ago.
    Unknown,
}

/// What is remembered of one number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Picture {
    /// Bits of the spatial layers whose frames were forwarded.
    forwarded: u8,
    /// Bits of the spatial layers whose frames were left out.
    skipped: u8,
    /// The spatial layer that ends the picture for the receiver.
    pub top: u8,
    /// What was being forwarded when the picture came, or when a later one showed that it is late.
    pub allowed: Reach,
}

/// The last [`WINDOW`] pictures.
#[derive(Clone, Debug)]
pub(super) struct Pictures {
    newest: Option<u64>,
    slots: [Picture; WINDOW],
}

impl Pictures {
    pub fn new() -> Self {
        Self { newest: None, slots: [Picture::default(); WINDOW] }
    }

    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// `number` as one that does not wrap.
    pub fn extend(&self, number: Number) -> u64 {
        self.newest.map_or(u64::from(number.value) + (1 << 32), |newest| extend(newest, number))
    }

    /// Forgets everything: numbers begin anew.
    pub fn clear(&mut self) {
        self.newest = None;
    }

    /// Picture `number` begins, if it is a new one; those missing before it may come late.
    pub fn advance(&mut self, number: u64, picture: Picture) {
        let first = self.newest.map_or(0, |newest| newest + 1);
        for missing in first.max((number + 1).saturating_sub(WINDOW as u64))..=number {
            self.slots[missing as usize % WINDOW] = picture;
        }
        self.newest = self.newest.max(Some(number));
    }

    pub fn picture(&mut self, number: u64) -> Option<&mut Picture> {
        let age = self.newest?.checked_sub(number)?;
        (age < WINDOW as u64).then(|| &mut self.slots[number as usize % WINDOW])
    }

    pub fn fate(&self, number: u64, spatial: u8) -> Fate {
        let Some(age) = self.newest.and_then(|newest| newest.checked_sub(number)) else {
            return Fate::Unknown;
        };
        let picture = &self.slots[number as usize % WINDOW];
        let bit = 1 << spatial;
        if age < WINDOW as u64 && picture.forwarded & bit != 0 {
            Fate::Forwarded
        } else if age < WINDOW as u64 && picture.skipped & bit != 0 {
            Fate::Skipped
        } else {
            Fate::Unknown
        }
    }
}

impl Picture {
    pub fn new(allowed: Reach) -> Self {
        Self { forwarded: 0, skipped: 0, top: allowed.top().unwrap_or(0), allowed }
    }

    /// The same for another frame of the picture.
    pub fn undecided(self) -> Self {
        Self { forwarded: 0, skipped: 0, ..self }
    }

    /// A frame of these layers did not flow, but is forwarded: the spatial layers that flowed as far as its own may be
    /// taken up with it, even when their frames come late.
    pub fn take_up(&mut self, spatial: u8, temporal: u8) {
        let before = self.allowed.of(spatial);
        if before == 0 {
            return;
        }
        let flowing = self.allowed.top_above(before - 1).unwrap_or(0);
        let missing = (spatial..flowing).find(|layer| self.skipped & (2 << layer) != 0);
        let last = missing.unwrap_or(flowing);
        for layer in 0..=last {
            self.allowed.raise(layer, temporal + 1);
        }
        self.top = self.top.max(last);
    }

    pub fn decide(&mut self, spatial: u8, forward: bool) {
        let set = if forward { &mut self.forwarded } else { &mut self.skipped };
        *set |= 1 << spatial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_width_are_extended() {
        let number = |value, bits| Number { value, bits };
        assert_eq!(extend(1000, number(1001 & 0x7f, 7)), 1001);
        assert_eq!(extend(1000, number(999 & 0x7f, 7)), 999);
        assert_eq!(extend((1 << 32) + 0x7fff, number(0, 15)), (1 << 32) + 0x8000);
        assert_eq!(extend(1 << 32, number(0xffff, 16)), (1 << 32) - 1);
    }

    #[test]
    fn missing_pictures_are_remembered_with_what_flowed() {
        let mut low = Reach::default();
        low.set(0, 1);
        let mut pictures = Pictures::new();
        pictures.advance(100, Picture::new(Reach::default()));
        pictures.picture(100).unwrap().decide(2, true);
        pictures.advance(103, Picture::new(low));
        assert_eq!(pictures.fate(100, 2), Fate::Forwarded);
        assert_eq!(pictures.fate(100, 1), Fate::Unknown);
        assert_eq!(pictures.picture(102).unwrap().allowed, low);
        pictures.advance(100 + WINDOW as u64, Picture::new(low));
        assert_eq!(pictures.fate(100, 2), Fate::Unknown, "too long ago");
        assert!(pictures.picture(100).is_none());
    }

    #[test]
    fn a_reach_is_clipped_to_layers() {
        let mut reach = Reach::default();
        assert_eq!(reach.top(), None);
        reach.set(0, Reach::ALL);
        reach.set(7, 3);
        reach.lower(7, 2);
        reach.raise(0, 1);
        assert_eq!((reach.of(0), reach.of(1), reach.of(7), reach.top()), (8, 0, 2, Some(7)));
        let clipped = reach.within(6, 0);
        assert_eq!((clipped.of(0), clipped.of(7), clipped.top()), (1, 0, Some(0)));
    }
}
