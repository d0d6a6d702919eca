//! What one track sends: frames of VP8 or Opus at their times, as packets with all that an SFU reads.

use std::collections::VecDeque;
use std::sync::Arc;

use shardcast_impair::dice::Dice;

use crate::clock::{MS, SECOND};
use crate::stamp::{Kind, STAMP_LEN, Stamp, Track};

/// A key frame is this many times as large as others.
const KEY_FACTOR: f64 = 5.0;
/// Frames differ by up to this share from the mean, either way.
const FRAME_SPREAD: f64 = 0.15;
/// Key frames come at most this often, however many are asked for: encoders of browsers do the same.
const KEY_INTERVAL: u64 = 300 * MS;
/// Packets kept for those who miss them: at 300 packets/s those of 3 s.
const HISTORY: usize = 1024;
/// Time between two packets of audio.
pub const AUDIO_INTERVAL: u64 = 20 * MS;
/// Audio packets per packet that is sent in silence (RFC 7587 §3.1.3: one each 400 ms).
const SILENCE: u32 = 20;
/// Smallest payload: the stamp, and room for a descriptor and the first bytes of a frame.
const MIN_PAYLOAD: usize = STAMP_LEN + 20;

/// What a source is to send.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its number among the tracks.
    pub number: u32,
    /// Video's encodings tell themselves apart by this.
    pub rid: Option<&'static str>,
    /// Its transport's name for the track.
    pub mid: String,
    /// The stream, and the stream of its retransmissions.
    pub ssrc: u32,
    /// See `ssrc`; 0 for audio.
    pub rtx_ssrc: u32,
    /// Payload bits per second.
    pub bitrate: u64,
    /// Frames per second of video.
    pub fps: u32,
    /// Largest RTP packet in bytes before it is sealed.
    pub packet: usize,
    /// Three temporal layers.
    pub temporal: bool,
    /// Nanoseconds between key frames that nobody asked for.
    pub key_interval: Option<u64>,
    /// Who speaks when; none: always.
    pub turns: Option<Turns>,
}

/// Speakers alternate: each speaks for a while, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// Whose turn this is.
    pub index: u64,
    /// Of how many.
    pub of: u64,
    /// How long each speaks, in nanoseconds.
    pub length: u64,
}

impl Turns {
    fn speaks(&self, now: u64) -> bool {
        now / self.length.max(1) % self.of.max(1) == self.index
    }
}

/// Payload types and header extension ids, the same for all of the load's producers.
pub mod offered {
    /// Opus.
    pub const OPUS: u8 = 111;
    /// VP8.
    pub const VP8: u8 = 96;
    /// Retransmissions of VP8.
    pub const RTX: u8 = 97;
    /// `sdes:mid`.
    pub const MID: u8 = 9;
    /// `sdes:rtp-stream-id`.
    pub const RID: u8 = 10;
    /// `sdes:repaired-rtp-stream-id`.
    pub const REPAIRED_RID: u8 = 11;
    /// `abs-send-time`.
    pub const ABS_SEND_TIME: u8 = 2;
    /// Transport-wide sequence numbers.
    pub const TRANSPORT_CC: u8 = 4;
    /// `ssrc-audio-level` (RFC 6464).
    pub const AUDIO_LEVEL: u8 = 1;
}

/// A plain RTP packet. What differs from one sending to the next is written by [`Source::dress`].
pub struct Packet {
    /// Header, extensions and payload.
    pub bytes: Vec<u8>,
    sequence: u16,
}

/// One track that sends.
pub struct Source {
    spec: Spec,
    /// Where its departures are written.
    pub track: Arc<Track>,
    dice: Dice,
    sequence: u16,
    rtx_sequence: u16,
    timestamp_base: u32,
    number: u32,
    frame: u32,
    tick: u32,
    began: u64,
    /// When the next frame is due.
    pub due: u64,
    key_wanted: bool,
    last_key: Option<u64>,
    tl0: u8,
    history: VecDeque<Packet>,
    /// Spent packets whose memory is used again.
    spare: Vec<Packet>,
    /// Packets and payload bytes, for sender reports.
    pub packets: u32,
    /// See `packets`.
    pub octets: u32,
}

impl Source {
    /// A source whose first frame is due at a random moment of the first frame's time.
    pub fn new(spec: Spec, track: Arc<Track>, now: u64) -> Self {
        let mut dice = Dice::new(u64::from(spec.number), u64::from(spec.ssrc));
        let mut source = Self {
            track,
            sequence: dice.draw() as u16 >> 1,
            rtx_sequence: dice.draw() as u16 >> 1,
            timestamp_base: dice.draw() as u32,
            dice,
            number: 0,
            frame: 0,
            tick: 0,
            began: 0,
            due: 0,
            key_wanted: true,
            last_key: None,
            tl0: 0,
            history: VecDeque::with_capacity(HISTORY),
            spare: Vec::new(),
            packets: 0,
            octets: 0,
            spec,
        };
        let phase = source.dice.fraction() * source.interval() as f64;
        source.began = now + phase as u64;
        source.due = source.began;
        source
    }

    /// Its media stream.
    pub fn ssrc(&self) -> u32 {
        self.spec.ssrc
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.track.kind
    }

    /// Makes one of the next frames a key frame.
    pub fn want_key_frame(&mut self) {
        self.key_wanted = true;
    }

    /// Makes the frame that is due: calls `send` with each of its packets, dressed with the
    /// transport-wide numbers from `wide` on. Returns the numbers of its packets.
    pub fn frame(
        &mut self,
        now: u64,
        wide: &mut u16,
        mut send: impl FnMut(&[u8]),
    ) -> std::ops::Range<u32> {
        let first = self.number;
        let speaks = self.spec.turns.is_none_or(|turns| turns.speaks(now));
        let silent = self.kind() == Kind::Audio && !speaks;
        if !silent || self.tick.is_multiple_of(SILENCE) {
            let key = self.takes_key_frame(now);
            let size = self.frame_size(key, silent);
            let room =
                self.spec.packet.saturating_sub(12 + self.extension_len()).max(MIN_PAYLOAD + 10);
            let count = size.div_ceil(room).max(1);
            for index in 0..count {
                // Equal parts, as packetizers make them: they differ by a byte at most.
                let len = (size * (index + 1) / count - size * index / count).max(MIN_PAYLOAD);
                let mut packet = self.build(key, index, count, len, silent);
                self.dress(&mut packet, now, wide);
                send(&packet.bytes);
                self.remember(packet);
            }
            self.frame = self.frame.wrapping_add(1);
        }
        self.tick = self.tick.wrapping_add(1);
        self.due = self.began + u64::from(self.tick) * self.interval();
        first..self.number
    }

    /// Sends a packet again, if it is still there: calls `send` with it as RFC 4588 wants it.
    pub fn resend(&mut self, sequence: u16, now: u64, wide: &mut u16, send: impl FnOnce(&[u8])) {
        let age = self.sequence.wrapping_sub(1).wrapping_sub(sequence);
        let index = self.history.len().checked_sub(1 + usize::from(age));
        let Some(packet) = index.and_then(|index| self.history.get(index)) else { return };
        if packet.sequence != sequence || self.spec.rtx_ssrc == 0 {
            return;
        }
        let header_len = 12 + self.extension_len();
        let mut bytes = packet.bytes[..header_len].to_vec();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(&packet.bytes[header_len..]);
        bytes[1] = bytes[1] & 0x80 | offered::RTX;
        bytes[8..12].copy_from_slice(&self.spec.rtx_ssrc.to_be_bytes());
        if let Some(at) = self.rid_element() {
            bytes[at] = offered::REPAIRED_RID << 4 | bytes[at] & 15;
        }
        let mut again = Packet { bytes, sequence: self.rtx_sequence };
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        self.dress(&mut again, now, wide);
        send(&again.bytes);
    }

    /// The RTP time of a moment.
    pub fn timestamp(&self, now: u64) -> u32 {
        let rate = if self.kind() == Kind::Audio { 48_000 } else { 90_000 };
        let elapsed = u128::from(now.saturating_sub(self.began)) * rate / u128::from(SECOND);
        self.timestamp_base.wrapping_add(elapsed as u32)
    }

    fn interval(&self) -> u64 {
        match self.kind() {
            Kind::Audio => AUDIO_INTERVAL,
            _ => SECOND / u64::from(self.spec.fps.max(1)),
        }
    }

    fn takes_key_frame(&mut self, now: u64) -> bool {
        let passed = |interval| self.last_key.is_none_or(|last| now >= last + interval);
        let wanted = self.key_wanted || self.spec.key_interval.is_some_and(passed);
        if self.kind() == Kind::Audio || !wanted || !passed(KEY_INTERVAL) {
            return false;
        }
        (self.key_wanted, self.last_key) = (false, Some(now));
        true
    }

    fn frame_size(&mut self, key: bool, silent: bool) -> usize {
        let mean = self.spec.bitrate as f64 / 8.0 * self.interval() as f64 / SECOND as f64;
        let spread = 1.0 + FRAME_SPREAD * (2.0 * self.dice.fraction() - 1.0);
        let size = if key { mean * KEY_FACTOR } else { mean * spread };
        if silent { MIN_PAYLOAD } else { (size as usize).max(MIN_PAYLOAD) }
    }

    fn build(&mut self, key: bool, index: usize, count: usize, len: usize, silent: bool) -> Packet {
        let is_video = self.kind() != Kind::Audio;
        let mut packet = self.spare.pop().unwrap_or(Packet { bytes: Vec::new(), sequence: 0 });
        let bytes = &mut packet.bytes;
        bytes.clear();
        let marker = is_video && index + 1 == count;
        let payload_type = if is_video { offered::VP8 } else { offered::OPUS };
        bytes.extend([0x90, u8::from(marker) << 7 | payload_type]);
        bytes.extend(self.sequence.to_be_bytes());
        let sampled = self.began + u64::from(self.tick) * self.interval();
        bytes.extend(self.timestamp(sampled).to_be_bytes());
        bytes.extend(self.spec.ssrc.to_be_bytes());
        self.extensions(&mut packet.bytes, silent);
        let bytes = &mut packet.bytes;
        let payload = bytes.len();
        if is_video {
            if key && index == 0 {
                self.tl0 = self.tl0.wrapping_add(1);
            }
            descriptor(
                bytes,
                self.frame,
                (index == 0, key),
                self.spec.temporal.then_some(&mut self.tl0),
            );
        } else {
            // Opus: one frame of 20 ms, CELT, full band, mono (RFC 6716 §3.1).
            bytes.push(0xf8);
        }
        let filled = (payload + len).max(bytes.len() + STAMP_LEN);
        bytes.resize(filled, 0x5a);
        let stamp = Stamp {
            track: self.spec.number,
            number: self.number,
            frame: self.frame,
            index: index as u16,
            count: count as u16,
            key,
        };
        stamp.write(&mut bytes[payload..]);
        packet.sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.number += 1;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add((filled - payload) as u32);
        packet
    }

    /// Writes the extension block with one-byte headers (RFC 8285 §4.2): first those whose content changes
    /// with each sending, at fixed places.
    fn extensions(&mut self, bytes: &mut Vec<u8>, silent: bool) {
        let begin = bytes.len();
        bytes.extend([0xbe, 0xde, 0, 0]);
        bytes.extend([offered::ABS_SEND_TIME << 4 | 2, 0, 0, 0]);
        bytes.extend([offered::TRANSPORT_CC << 4 | 1, 0, 0]);
        bytes.push(offered::MID << 4 | (self.spec.mid.len() as u8 - 1));
        bytes.extend(self.spec.mid.as_bytes());
        if let Some(rid) = self.spec.rid {
            bytes.push(offered::RID << 4 | (rid.len() as u8 - 1));
            bytes.extend(rid.as_bytes());
        }
        if self.kind() == Kind::Audio {
            // RFC 6464: voice activity in the first bit, then -dBov.
            let level = if silent { 127 } else { 0x80 | (20 + self.dice.draw() % 20) as u8 };
            bytes.extend([offered::AUDIO_LEVEL << 4, level]);
        }
        bytes.resize((bytes.len() - begin).next_multiple_of(4) + begin, 0);
        let words = ((bytes.len() - begin) / 4 - 1) as u16;
        bytes[begin + 2..begin + 4].copy_from_slice(&words.to_be_bytes());
    }

    fn extension_len(&self) -> usize {
        let rid = self.spec.rid.map_or(0, |rid| 1 + rid.len());
        let level = if self.kind() == Kind::Audio { 2 } else { 0 };
        4 + (4 + 3 + 1 + self.spec.mid.len() + rid + level).next_multiple_of(4)
    }

    /// Where the header of the RID's element stands.
    fn rid_element(&self) -> Option<usize> {
        self.spec.rid.map(|_| 12 + 4 + 4 + 3 + 1 + self.spec.mid.len())
    }

    /// Writes what belongs to this sending: its number, its time, the transport-wide number.
    fn dress(&self, packet: &mut Packet, now: u64, wide: &mut u16) {
        packet.bytes[2..4].copy_from_slice(&packet.sequence.to_be_bytes());
        // 24 bits of seconds with 18 behind the point.
        let time = (u128::from(now) << 18) / u128::from(SECOND);
        packet.bytes[17..20].copy_from_slice(&(time as u32).to_be_bytes()[1..]);
        packet.bytes[21..23].copy_from_slice(&wide.to_be_bytes());
        *wide = wide.wrapping_add(1);
    }

    fn remember(&mut self, packet: Packet) {
        if self.history.len() == HISTORY {
            self.spare.extend(self.history.pop_front());
        }
        self.history.push_back(packet);
    }
}

/// Writes a VP8 payload descriptor (RFC 7741 §4.2) with a picture number of 15 bits, and the header that a
/// frame begins with (RFC 6386 §9.1). With temporal layers the pattern is 0, 2, 1, 2.
fn descriptor(bytes: &mut Vec<u8>, frame: u32, (first, key): (bool, bool), tl0: Option<&mut u8>) {
    let begins = u8::from(first) << 4;
    let picture = (frame & 0x7fff) as u16 | 0x8000;
    match tl0 {
        None => {
            bytes.extend([0x80 | begins, 0x80]);
            bytes.extend(picture.to_be_bytes());
        }
        Some(tl0) => {
            let layer = if key { 0 } else { [0_u8, 2, 1, 2][frame as usize % 4] };
            if first && layer == 0 && !key {
                *tl0 = tl0.wrapping_add(1);
            }
            let droppable = u8::from(layer == 2) << 5;
            bytes.extend([0x80 | droppable | begins, 0xe0]);
            bytes.extend(picture.to_be_bytes());
            // Nobody may switch up here but at a key frame and at the first of the middle layer.
            bytes.extend([*tl0, layer << 6 | u8::from(layer > 0) << 5]);
        }
    }
    if first && key {
        // 1280 x 720, shown, behind the start code.
        bytes.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2]);
    } else if first {
        bytes.extend([0x11, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use rtp::extension::audio_level_extension::AudioLevelExtension;
    use rtp::packet::Packet as Theirs;
    use webrtc_util::marshal::Unmarshal;

    use super::*;

    fn spec(rid: Option<&'static str>) -> Spec {
        Spec {
            number: 3,
            rid,
            mid: "0".to_owned(),
            ssrc: 0xcafe,
            rtx_ssrc: 0xbabe,
            bitrate: 2_500_000,
            fps: 30,
            packet: 1200,
            temporal: rid.is_some(),
            key_interval: None,
            turns: None,
        }
    }

    fn frame(source: &mut Source, wide: &mut u16) -> Vec<Theirs> {
        let mut packets = Vec::new();
        let due = source.due;
        source.frame(due, wide, |bytes| {
            packets.push(Theirs::unmarshal(&mut &bytes[..]).expect("sound RTP"));
        });
        packets
    }

    #[test]
    fn frames_are_bursts_of_nearly_equal_packets_at_the_bitrate() {
        let mut source = Source::new(spec(None), Arc::new(Track::new(Kind::Video)), 0);
        let mut wide = 65_530;
        let key = frame(&mut source, &mut wide);
        assert!(key.len() > 40, "a key frame is large");
        let (mut bytes, mut packets, mut expected) = (0, 0, key.len() as u16);
        for _ in 0..300 {
            let delta = frame(&mut source, &mut wide);
            let sizes: Vec<_> = delta.iter().map(|p| p.payload.len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            assert!(delta.iter().all(|p| p.header.marker == (p == delta.last().unwrap())));
            assert!(delta.iter().all(|p| p.header.timestamp == delta[0].header.timestamp));
            for packet in &delta {
                let id = packet.header.get_extension(offered::TRANSPORT_CC).unwrap();
                assert_eq!(id[..], 65_530_u16.wrapping_add(expected).to_be_bytes());
                expected += 1;
            }
            bytes += sizes.iter().sum::<usize>();
            packets += sizes.len();
        }
        let rate = bytes as f64 * 8.0 / 10.0;
        assert!((2.4e6..2.6e6).contains(&rate), "{rate}");
        assert!((2600..2900).contains(&packets), "{packets}");
    }

    #[test]
    fn key_frames_come_when_asked_for_and_say_so() {
        let mut source = Source::new(spec(Some("r1")), Arc::new(Track::new(Kind::Layer)), 0);
        let mut wide = 0;
        let mut keys = Vec::new();
        for tick in 0..40 {
            if tick == 20 {
                source.want_key_frame();
            }
            let packets = frame(&mut source, &mut wide);
            assert_eq!(packets[0].header.get_extension(offered::RID).unwrap()[..], *b"r1");
            assert_eq!(packets[0].header.get_extension(offered::MID).unwrap()[..], *b"0");
            let stamp = Stamp::read(&packets[0].payload).expect("a stamp");
            // X; I, L and T; picture number, TL0PICIDX, TID; then the frame's tag (RFC 6386 §9.1).
            let payload = &packets[0].payload;
            assert_eq!((payload[0] & 0x90, payload[1]), (0x90, 0xe0));
            assert_eq!(payload[6] & 1 == 0, stamp.key);
            if stamp.key {
                assert_eq!(payload[9..12], [0x9d, 0x01, 0x2a]);
                keys.push(tick);
            }
        }
        assert_eq!(keys, [0, 20]);
    }

    #[test]
    fn key_frames_come_by_themselves_if_they_shall() {
        let spec = Spec { key_interval: Some(480 * MS), ..spec(None) };
        let mut source = Source::new(spec, Arc::new(Track::new(Kind::Video)), 0);
        let mut wide = 0;
        let is_key = |packets: Vec<Theirs>| Stamp::read(&packets[0].payload).is_some_and(|s| s.key);
        let keys: Vec<_> = (0..40).filter(|_| is_key(frame(&mut source, &mut wide))).collect();
        assert_eq!(keys, [0, 15, 30]);
    }

    #[test]
    fn what_is_missed_comes_again_as_rtx() {
        let mut source = Source::new(spec(Some("r0")), Arc::new(Track::new(Kind::Layer)), 0);
        let mut wide = 0;
        let packets = frame(&mut source, &mut wide);
        let missed = &packets[2];
        let mut again = Vec::new();
        source.resend(missed.header.sequence_number, 0, &mut wide, |bytes| again = bytes.to_vec());
        let again = Theirs::unmarshal(&mut &again[..]).expect("sound RTP");
        assert_eq!((again.header.ssrc, again.header.payload_type), (0xbabe, offered::RTX));
        assert_eq!(again.payload[..2], missed.header.sequence_number.to_be_bytes());
        assert_eq!(again.payload[2..], missed.payload);
        assert_eq!(again.header.get_extension(offered::REPAIRED_RID).unwrap()[..], *b"r0");
        assert_eq!(again.header.get_extension(offered::RID), None);
        source.resend(missed.header.sequence_number.wrapping_sub(100), 0, &mut wide, |_| {
            panic!("it was never sent")
        });
    }

    #[test]
    fn speakers_alternate_and_silence_is_nearly_nothing() {
        let turns = Turns { index: 1, of: 2, length: SECOND };
        let spec = Spec { bitrate: 32_000, rtx_ssrc: 0, turns: Some(turns), ..spec(None) };
        let mut source = Source::new(spec, Arc::new(Track::new(Kind::Audio)), 0);
        let mut wide = 0;
        let mut heard = [0; 2];
        for _ in 0..100 {
            let second = (source.due / SECOND) as usize;
            for packet in frame(&mut source, &mut wide) {
                let level = packet.header.get_extension(offered::AUDIO_LEVEL).unwrap();
                let level = AudioLevelExtension::unmarshal(&mut &level[..]).unwrap();
                assert_eq!(level.voice, second == 1);
                heard[second.min(1)] += 1;
            }
        }
        assert!((1..=4).contains(&heard[0]) && heard[1] >= 49, "{heard:?}");
    }
}
