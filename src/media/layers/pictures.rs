//! What was decided about the last pictures, for packets that come late and frames that refer back.

use std::num::NonZeroU64;

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

/// The same, or the first number: far from 0, which none ever comes to.
pub(super) fn extend_or_begin(newest: Option<NonZeroU64>, number: Number) -> u64 {
    newest.map_or(u64::from(number.value) + (1 << 32), |newest| extend(newest.get(), number))
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    newest: Option<NonZeroU64>,
    slots: Slots,
}

/// The first picture of which more is to be remembered than fits a byte makes room for all of them.
#[derive(Clone, Debug)]
enum Slots {
    Plain([Plain; WINDOW]),
    Layered(Box<[Picture; WINDOW]>),
}

/// A picture of a stream with one spatial layer, as most are: whether it was forwarded or left out, and how far all
/// layers flowed up to its top, which is the lowest, or in a key picture whichever was wanted: others may begin with it.
#[derive(Clone, Copy, Debug, Default)]
struct Plain(u8);

// A digit each: what became of it, its top, its reach.
const _: () = assert!(3 * MAX_LAYERS as usize * (Reach::ALL as usize + 1) <= 1 << u8::BITS);

impl Plain {
    /// `None` if there is more to it.
    fn of(picture: Picture) -> Option<Self> {
        let fate = match (picture.forwarded, picture.skipped) {
            (0, 0) => 0,
            (1, 0) => 1,
            (0, 1) => 2,
            _ => return None,
        };
        let (lowest, top) = (picture.allowed.of(0), picture.top);
        let fits = picture.allowed == Self::reach(lowest, top);
        fits.then(|| Self(fate + 3 * (top + MAX_LAYERS * lowest)))
    }

    fn picture(self) -> Picture {
        let (fate, rest) = (self.0 % 3, self.0 / 3);
        let (top, lowest) = (rest % MAX_LAYERS, rest / MAX_LAYERS);
        Picture {
            forwarded: u8::from(fate == 1),
            skipped: u8::from(fate == 2),
            top,
            allowed: Self::reach(lowest, top),
        }
    }

    fn reach(lowest: u8, top: u8) -> Reach {
        /// One in each digit.
        const ONES: u32 = 0x1111_1111;
        Reach((ONES >> (4 * u32::from(MAX_LAYERS - 1 - top))) * u32::from(lowest))
    }
}

impl Pictures {
    pub fn new() -> Self {
        Self { newest: None, slots: Slots::Plain([Plain::default(); WINDOW]) }
    }

    pub fn newest(&self) -> Option<u64> {
        self.newest.map(NonZeroU64::get)
    }

    /// `number` as one that does not wrap.
    pub fn extend(&self, number: Number) -> u64 {
        extend_or_begin(self.newest, number)
    }

    /// Forgets everything: numbers begin anew.
    pub fn clear(&mut self) {
        self.newest = None;
    }

    /// Picture `number` begins, if it is a new one; those missing before it may come late.
    pub fn advance(&mut self, number: u64, picture: Picture) {
        let first = self.newest().map_or(0, |newest| newest + 1);
        for missing in first.max((number + 1).saturating_sub(WINDOW as u64))..=number {
            self.put(missing, picture);
        }
        self.newest = self.newest.max(NonZeroU64::new(number));
    }

    /// What is remembered of picture `number`.
    pub fn picture(&self, number: u64) -> Option<Picture> {
        let age = self.newest()?.checked_sub(number)?;
        (age < WINDOW as u64).then(|| self.slot(number))
    }

    /// Changes what is remembered of picture `number`, if it is.
    pub fn change(&mut self, number: u64, change: impl FnOnce(&mut Picture)) {
        if let Some(mut picture) = self.picture(number) {
            change(&mut picture);
            self.put(number, picture);
        }
    }

    pub fn fate(&self, number: u64, spatial: u8) -> Fate {
        let Some(picture) = self.picture(number) else { return Fate::Unknown };
        let bit = 1 << spatial;
        if picture.forwarded & bit != 0 {
            Fate::Forwarded
        } else if picture.skipped & bit != 0 {
            Fate::Skipped
        } else {
            Fate::Unknown
        }
    }

    fn slot(&self, number: u64) -> Picture {
        let index = number as usize % WINDOW;
        match &self.slots {
            Slots::Plain(slots) => slots[index].picture(),
            Slots::Layered(slots) => slots[index],
        }
    }

    fn put(&mut self, number: u64, picture: Picture) {
        let index = number as usize % WINDOW;
        match &mut self.slots {
            Slots::Layered(slots) => slots[index] = picture,
            Slots::Plain(slots) => match Plain::of(picture) {
                Some(plain) => slots[index] = plain,
                None => {
                    let mut layered = Box::new(slots.map(Plain::picture));
                    layered[index] = picture;
                    self.slots = Slots::Layered(layered);
                }
            },
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
        pictures.change(100, |picture| picture.decide(2, true));
        pictures.advance(103, Picture::new(low));
        assert_eq!(pictures.fate(100, 2), Fate::Forwarded);
        assert_eq!(pictures.fate(100, 1), Fate::Unknown);
        assert_eq!(pictures.picture(102).unwrap().allowed, low);
        pictures.advance(100 + WINDOW as u64, Picture::new(low));
        assert_eq!(pictures.fate(100, 2), Fate::Unknown, "too long ago");
        assert!(pictures.picture(100).is_none());
    }

    /// Whatever is remembered comes back, and only what does not fit a byte takes more room.
    #[test]
    fn a_byte_is_enough_for_one_layer() {
        let mut layers = Reach::default();
        layers.set(0, 3);
        layers.set(1, 2);
        for reach in 0..=Reach::ALL {
            for top in 0..MAX_LAYERS {
                let mut picture = Picture::new(Plain::reach(reach, top));
                picture.top = top;
                assert!((0..=top).all(|layer| picture.allowed.of(layer) == reach));
                assert_eq!(Plain::of(picture).unwrap().picture(), picture);
                for forward in [true, false] {
                    let mut picture = picture;
                    picture.decide(0, forward);
                    assert_eq!(Plain::of(picture).unwrap().picture(), picture);
                }
            }
        }
        let mut pictures = Pictures::new();
        pictures.advance(7, Picture::new(Plain::reach(2, 0)));
        assert!(matches!(pictures.slots, Slots::Plain(_)));
        pictures.advance(9, Picture::new(layers));
        assert!(matches!(pictures.slots, Slots::Layered(_)));
        assert_eq!(pictures.picture(7), Some(Picture::new(Plain::reach(2, 0))));
        assert_eq!(pictures.picture(8), Some(Picture::new(layers)));
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
