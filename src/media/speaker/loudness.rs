//! One producer's audio levels, summed up where its packets arrive.

use std::time::{Duration, Instant};

use crate::media::speaker::{SILENT, SLOT, SUMMARY_SLOTS, Summary};

/// The noise floor is the lowest level of this long.
pub const FLOOR_WINDOW: Duration = Duration::from_secs(15);

/// How far above the noise floor a sound must be to count, in dB: one of the paper's 13 sub-bands.
pub const MARGIN: u8 = 10;

/// Sound that stays within [`EVEN_RANGE`] for this many slots (320 ms) is noise: found out before it has
/// been heard in [`EVIDENCE_BLOCKS`](super::EVIDENCE_BLOCKS).
pub const EVEN_SLOTS: usize = 16;

/// How far even noise moves, in dB. Syllables move by twice that and more.
pub const EVEN_RANGE: u8 = 5;

/// Sound below -80 dBov is no sound (mediasoup's threshold for level reports).
const LOWEST_VOLUME: u8 = 47;

/// Until half a second of sound is known, the floor is taken to be at most -50 dBov: somebody may have
/// been unmuted in the middle of a word.
const FIRST_FLOOR: u8 = 77;
const FIRST_SLOTS: u32 = 25;

/// A level stands for this many slots that follow without a packet: packets of 60 ms, loss, jitter.
/// After that it is discontinuous transmission: silence.
const STANDS_FOR: u8 = 3;

/// Slots that are kept until they are summed up.
const RING: u64 = 32;

/// No packet in this slot. Volumes end at 127.
const NONE: u8 = 255;

const FLOOR_PARTS: usize = 3;
const FLOOR_PART_SLOTS: u64 = FLOOR_WINDOW.as_millis() as u64 / 20 / FLOOR_PARTS as u64;

// Noise fills whole blocks but for the first: found out with the block in which it reaches EVEN_SLOTS.
const _: () = assert!(EVEN_SLOTS <= (super::EVIDENCE_BLOCKS - 1) * SUMMARY_SLOTS);

/// Sums up the audio levels of one producer. Inside, volume is 127 minus the level: loud is high.
#[derive(Clone, Debug, Default)]
pub struct Loudness {
    /// Arrival of the first packet: slot 0 begins.
    epoch: Option<Instant>,
    ring: Ring,
    /// First slot that no summary has covered.
    next: u64,
    /// The last level that came, and for how many slots it may still stand.
    last: u8,
    stands: u8,
    /// Whether the sender has ever set the voice flag; if it never does, its absence says nothing.
    says_voice: bool,
    is_silent: bool,
    floor: Floor,
    even: Even,
}

#[derive(Clone, Debug)]
struct Ring {
    /// By slot number, up to `newest`.
    volumes: [u8; RING as usize],
    newest: u64,
}

/// The lowest volume of the last 10 to 15 s.
#[derive(Clone, Debug, Default)]
struct Floor {
    /// Newest first; 0: no sound in that part.
    parts: [u8; FLOOR_PARTS],
    part_began: u64,
    /// Slots with sound so far, up to [`FIRST_SLOTS`].
    known: u32,
}

/// Whether the sound is even.
#[derive(Clone, Debug, Default)]
struct Even {
    /// The newest volumes, in a ring.
    volumes: [u8; EVEN_SLOTS],
    next: usize,
}

impl Loudness {
    /// Takes note of one packet's audio-level extension: `level` in -dBov, 0 to 127, and the voice flag
    /// (RFC 6464 §3).
    pub fn packet(&mut self, level: u8, voice: bool, arrival: Instant) {
        let slot = self.slot(arrival).max(self.next);
        self.says_voice |= voice;
        let is_voice = voice || !self.says_voice;
        self.ring.put(slot, if is_voice { SILENT - level.min(SILENT) } else { 0 });
    }

    /// To be called every 100 ms. `None` if 100 ms have not yet passed since the last summary, or if the
    /// producer is silent and a summary has said so.
    pub fn take_summary(&mut self, now: Instant) -> Option<Summary> {
        self.epoch?;
        let end = self.slot(now);
        let length = SUMMARY_SLOTS as u64;
        if end < self.next + length {
            return None;
        }
        if end >= self.next + 2 * length {
            self.next = end - length;
        }
        let first = self.next;
        self.next += length;
        if self.is_silent && self.ring.newest < first && self.stands == 0 {
            return None;
        }
        let mut volumes = [0; SUMMARY_SLOTS];
        for (slot, volume) in (first..).zip(&mut volumes) {
            *volume = self.volume(slot);
        }
        let noise = self.even.level();
        if let Some(level) = noise {
            self.floor.raise(level);
        }
        let threshold = self.floor.volume().saturating_add(MARGIN).max(LOWEST_VOLUME);
        let heard = |volume| noise.is_none() && volume >= threshold;
        let levels = volumes.map(|v| if heard(v) { SILENT - v } else { SILENT });
        let summary = Summary { levels, noise: noise.is_some() };
        let was_silent = std::mem::replace(&mut self.is_silent, summary.is_silent());
        (!was_silent || !self.is_silent).then_some(summary)
    }

    /// Whoever was told of this voice has forgotten it: the next summary is told, however silent it is.
    pub fn forgotten(&mut self) {
        self.is_silent = false;
    }

    fn slot(&mut self, at: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(at);
        (at.saturating_duration_since(epoch).as_millis() / SLOT.as_millis()) as u64
    }

    /// The volume of a slot that has passed; slots are asked for in order.
    fn volume(&mut self, slot: u64) -> u8 {
        match self.ring.get(slot) {
            NONE => {
                self.stands = self.stands.saturating_sub(1);
                self.last = if self.stands > 0 { self.last } else { 0 };
            }
            volume => {
                (self.last, self.stands) = (volume, STANDS_FOR);
                self.floor.add(slot, volume);
            }
        }
        self.even.add(self.last);
        self.last
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self { volumes: [NONE; RING as usize], newest: 0 }
    }
}

impl Ring {
    /// Of several packets in one slot the loudest counts.
    fn put(&mut self, slot: u64, volume: u8) {
        if slot >= self.newest + RING {
            *self = Self { newest: slot, ..Self::default() };
        }
        while self.newest < slot {
            self.newest += 1;
            self.volumes[(self.newest % RING) as usize] = NONE;
        }
        let place = &mut self.volumes[(slot % RING) as usize];
        *place = if *place == NONE { volume } else { volume.max(*place) };
    }

    fn get(&self, slot: u64) -> u8 {
        let is_known = slot <= self.newest && slot + RING > self.newest;
        if is_known { self.volumes[(slot % RING) as usize] } else { NONE }
    }
}

impl Floor {
    fn add(&mut self, slot: u64, volume: u8) {
        while slot >= self.part_began + FLOOR_PART_SLOTS {
            let passed = (slot - self.part_began) / FLOOR_PART_SLOTS;
            self.part_began += FLOOR_PART_SLOTS;
            // After a long silence the old parts are long gone.
            if passed > FLOOR_PARTS as u64 {
                self.part_began += (passed - FLOOR_PARTS as u64) * FLOOR_PART_SLOTS;
            }
            self.parts.rotate_right(1);
            self.parts[0] = 0;
        }
        // Digital silence says nothing about the room.
        if volume == 0 {
            return;
        }
        self.known = (self.known + 1).min(FIRST_SLOTS);
        let lowest = &mut self.parts[0];
        *lowest = if *lowest == 0 { volume } else { volume.min(*lowest) };
    }

    /// Even noise of `volume` is there: whatever was lower is over.
    fn raise(&mut self, volume: u8) {
        for lowest in &mut self.parts {
            *lowest = volume.max(*lowest);
        }
    }

    fn volume(&self) -> u8 {
        let lowest = self.parts.into_iter().filter(|&volume| volume > 0).min().unwrap_or(0);
        if self.known < FIRST_SLOTS { lowest.min(FIRST_FLOOR) } else { lowest }
    }
}

impl Even {
    fn add(&mut self, volume: u8) {
        self.volumes[self.next] = volume;
        self.next = (self.next + 1) % EVEN_SLOTS;
    }

    /// The lowest volume of the newest slots, if all have sound and it is even.
    fn level(&self) -> Option<u8> {
        let (lowest, highest) =
            self.volumes.iter().fold((u8::MAX, 0), |(low, high), &v| (v.min(low), v.max(high)));
        (lowest > 0 && highest - lowest <= EVEN_RANGE).then_some(lowest)
    }
}
