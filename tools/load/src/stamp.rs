//! What every media packet carries at the end of its payload, and where the time of its departure is kept.
//!
//! The time itself is not in the packet: it is taken when a whole burst is handed to the kernel, after all of
//! it was sealed. An SFU may rewrite headers and descriptors and add padding, but not the end of a payload.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 20;
/// The first bytes of a stamp.
const MAGIC: u16 = 0x5ca5;
/// Departures kept per track, a power of two: at 1,000 packets/s those of 4 s.
const KEPT: u64 = 4096;

/// Which packet of which track this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The track, by its number in [`Tracks`].
    pub track: u32,
    /// Counts the track's packets from 0.
    pub number: u32,
    /// Counts the track's frames from 0.
    pub frame: u32,
    /// The packet's place in its frame.
    pub index: u16,
    /// Packets of the frame.
    pub count: u16,
    /// The frame is a key frame.
    pub key: bool,
}

impl Stamp {
    /// Writes it into the end of `payload`, which has room for it.
    pub fn write(&self, payload: &mut [u8]) {
        let Some(end) = payload.last_chunk_mut::<STAMP_LEN>() else { return };
        end[..2].copy_from_slice(&MAGIC.to_be_bytes());
        end[2..6].copy_from_slice(&self.track.to_be_bytes());
        end[6..10].copy_from_slice(&self.number.to_be_bytes());
        end[10..14].copy_from_slice(&self.frame.to_be_bytes());
        end[14..16].copy_from_slice(&self.index.to_be_bytes());
        end[16..18].copy_from_slice(&self.count.to_be_bytes());
        end[18..].copy_from_slice(&[u8::from(self.key), 0]);
    }

    /// Reads it from the end of a payload without padding.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let end = payload.last_chunk::<STAMP_LEN>()?;
        let word = |at: usize| u32::from_be_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([end[at], end[at + 1]]);
        let stamp = Self {
            track: word(2),
            number: word(6),
            frame: word(10),
            index: half(14),
            count: half(16),
            key: end[18] == 1,
        };
        (half(0) == MAGIC && stamp.index < stamp.count).then_some(stamp)
    }
}

/// What a track is to those who measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opus.
    Audio,
    /// VP8, one encoding.
    Video,
    /// VP8, one of several encodings: receivers see some of them.
    Layer,
}

/// A key frame that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Its packets.
    pub packets: u16,
    /// Nanoseconds from its departure until its last packet had come to the last receiver.
    pub last: u64,
}

/// One track's departures, written by its worker and read by all.
pub struct Track {
    /// What it is.
    pub kind: Kind,
    /// Packets that have left.
    pub sent: AtomicU64,
    /// Its publisher has left: what it sent last may have met nobody.
    pub ended: AtomicBool,
    departures: Box<[AtomicU64]>,
    /// The track's key frames by their numbers.
    bursts: Mutex<BTreeMap<u32, Burst>>,
}

impl Track {
    /// A track that has sent nothing.
    pub fn new(kind: Kind) -> Self {
        let departures = (0..KEPT).map(|_| AtomicU64::new(0)).collect();
        let (sent, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { kind, sent, ended, departures, bursts: Mutex::default() }
    }

    /// The last packet of the key frame with this stamp came to somebody, so long after it left.
    pub fn key_frame_came(&self, stamp: &Stamp, added: u64) {
        let mut bursts = self.bursts.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = bursts.entry(stamp.frame).or_insert(Burst { packets: stamp.count, last: 0 });
        burst.last = burst.last.max(added);
    }

    /// Packets `from..to` leave at this moment of the wall clock.
    pub fn depart(&self, from: u32, to: u32, wall: u64) {
        for number in from..to {
            self.departures[(u64::from(number) % KEPT) as usize].store(wall, Ordering::Relaxed);
        }
        self.sent.store(u64::from(to), Ordering::Release);
    }

    /// When a packet left; none if that is forgotten, or it has not.
    pub fn departed(&self, number: u32) -> Option<u64> {
        let sent = self.sent.load(Ordering::Acquire);
        let is_kept = u64::from(number) < sent && sent - u64::from(number) <= KEPT;
        is_kept
            .then(|| self.departures[(u64::from(number) % KEPT) as usize].load(Ordering::Relaxed))
    }
}

/// All tracks of a run, by number.
#[derive(Default)]
pub struct Tracks(RwLock<Vec<Arc<Track>>>);

impl Tracks {
    /// Adds a track and says its number.
    pub fn add(&self, kind: Kind) -> (u32, Arc<Track>) {
        let track = Arc::new(Track::new(kind));
        let mut tracks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tracks.push(track.clone());
        (tracks.len() as u32 - 1, track)
    }

    /// The track of this number.
    pub fn find(&self, number: u32) -> Option<Arc<Track>> {
        let tracks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tracks.get(number as usize).cloned()
    }

    /// All key frames that were measured.
    pub fn bursts(&self) -> Vec<Burst> {
        let tracks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of = |track: &Arc<Track>| {
            let bursts = track.bursts.lock().unwrap_or_else(PoisonError::into_inner);
            bursts.values().copied().collect::<Vec<_>>()
        };
        tracks.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_in_front_of_nothing_and_behind_anything() {
        let stamp = Stamp { track: 7, number: 1 << 20, frame: 99, index: 3, count: 9, key: true };
        let mut payload = vec![0x90; 100];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[80..]), Some(stamp));
        assert_eq!(Stamp::read(&payload[81..]), None);
        assert_eq!(Stamp::read(&payload[..99]), None);
        assert_eq!(Stamp::read(&[]), None);
    }

    #[test]
    fn departures_are_known_until_they_are_forgotten() {
        let tracks = Tracks::default();
        let (number, track) = tracks.add(Kind::Audio);
        assert_eq!(track.departed(0), None);
        track.depart(0, 10, 500);
        track.depart(10, 12, 600);
        let found = tracks.find(number).expect("it is there");
        assert_eq!(
            [0, 9, 10, 11, 12].map(|n| found.departed(n)),
            [Some(500), Some(500), Some(600), Some(600), None]
        );
        track.depart(12, 12 + KEPT as u32, 700);
        assert_eq!(found.departed(11), None);
        assert!(tracks.find(number + 1).is_none());
    }

    #[test]
    fn a_key_frame_has_come_when_it_came_to_the_last() {
        let tracks = Tracks::default();
        let (_, track) = tracks.add(Kind::Video);
        let stamp = Stamp { frame: 3, index: 44, count: 45, key: true, ..Stamp::default() };
        [200, 700, 500].into_iter().for_each(|added| track.key_frame_came(&stamp, added));
        track.key_frame_came(&Stamp { frame: 9, ..stamp }, 100);
        let burst = |last| Burst { packets: 45, last };
        assert_eq!(tracks.bursts(), [burst(700), burst(100)]);
    }
}
