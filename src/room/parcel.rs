//! What one shard hands to another: a fixed-size slot of a bounded queue, filled and read in place.

use std::time::Instant;

use crate::id::{ProducerId, RoomKey};
use crate::media::speaker::Summary;
use crate::wire::MAX_DATAGRAM;
use crate::wire::seq::SeqNo;

/// One slot. Large on purpose: it lives in a queue that was allocated once, and is never moved.
pub struct Parcel {
    /// What it is.
    pub note: Note,
    /// How many of `bytes` are used; 0 for notes without a packet.
    pub len: u16,
    /// The opened packet: header and payload, no tag.
    pub bytes: [u8; MAX_DATAGRAM],
}

/// The kinds of parcels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// An empty slot.
    Empty,
    /// An RTP packet of a lent producer, in `bytes`.
    Media {
        /// Whose.
        producer: ProducerId,
        /// Index of the encoding.
        encoding: u8,
        /// Extended sequence number.
        seq: SeqNo,
        /// When it reached the machine.
        received_at: Instant,
        /// It comes from the history, and is to be kept for consumers to begin with.
        replayed: bool,
    },
    /// What was handed over from a producer's histories is whole; what follows is live.
    CaughtUp {
        /// Whose.
        producer: ProducerId,
    },
    /// A sender report of a lent producer, so that replicas keep its clock.
    SenderReport {
        /// Whose.
        producer: ProducerId,
        /// Index of the encoding.
        encoding: u8,
        /// 64-bit NTP timestamp.
        ntp: u64,
        /// The RTP timestamp of the same moment.
        rtp: u32,
        /// When the report reached the machine.
        received_at: Instant,
    },
    /// To a room's home shard: how loud a producer was, or that it is gone.
    Loudness {
        /// The room.
        room: RoomKey,
        /// Whose voice.
        producer: ProducerId,
        /// How loud; `None`: it is gone.
        summary: Option<Summary>,
    },
    /// From a room's home shard to where a voice arrives, and from there to its replicas: whether it is
    /// forwarded no more, since others are louder.
    Muted {
        /// Whose voice.
        producer: ProducerId,
        /// Not forwarded.
        muted: bool,
    },
    /// Back to the home shard: a replica wants a key frame.
    KeyFrameWish {
        /// Whose.
        producer: ProducerId,
        /// Index of the encoding.
        encoding: u8,
    },
    /// Back to the home shard: what a replica's consumers want.
    LayersWanted {
        /// Of which producer.
        producer: ProducerId,
        /// The highest spatial layer; `None`: nothing.
        spatial: Option<u8>,
    },
}

impl Default for Parcel {
    fn default() -> Self {
        Self { note: Note::Empty, len: 0, bytes: [0; MAX_DATAGRAM] }
    }
}

impl Parcel {
    /// When its packet reached the machine, if it is to be forwarded at once.
    pub fn received_at(&self) -> Option<Instant> {
        match self.note {
            Note::Media { received_at, replayed: false, .. } => Some(received_at),
            _ => None,
        }
    }

    /// Writes a note with its packet; what exceeds a datagram is cut off (no opened packet does).
    pub fn fill(&mut self, note: Note, packet: &[u8]) {
        let len = packet.len().min(MAX_DATAGRAM);
        self.note = note;
        self.len = len as u16;
        self.bytes[..len].copy_from_slice(&packet[..len]);
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(MAX_DATAGRAM)]
    }
}
