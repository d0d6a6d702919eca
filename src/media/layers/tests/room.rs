//! What the room does around a selector, with a network in front of it.

use std::collections::BTreeMap;

use super::decoders::Decoder;
use super::streams::{Encoder, Format, Packet, Shape};
use crate::id::Codec;
use crate::media::layers::{
    FrameInfo, Kind, Layer, PayloadShift, PictureIds, Selector, Structure, Verdict,
};
use crate::wire::seq::SeqNo;

pub fn codec(format: Format) -> Codec {
    match format {
        Format::Vp8 => Codec::Vp8,
        Format::Vp9Flexible | Format::Vp9Pattern => Codec::Vp9,
        Format::Av1 => Codec::Av1,
        Format::H264 => Codec::H264,
    }
}

/// One producer and one consumer.
pub struct Room {
    pub encoders: Vec<Encoder>,
    pub selector: Selector,
    codec: Codec,
    picture_ids: PictureIds,
    encodings: Vec<Encoding>,
    /// Everything since the last start or switch of the consumer's stream, by incoming number.
    segments: Vec<BTreeMap<u64, Sent>>,
    pub last: Option<Verdict>,
}

#[derive(Default)]
struct Encoding {
    structure: Structure,
    /// What arrived, read once.
    history: BTreeMap<u64, (Packet, FrameInfo)>,
}

/// What the receiver sees at one sequence number.
enum Sent {
    Packet {
        marker: bool,
        payload: Vec<u8>,
        element: Option<Vec<u8>>,
    },
    /// Left out in time: there is no gap.
    Nothing,
    /// Left out after later numbers had gone.
    Gap,
}

impl Room {
    pub fn new(kind: Kind, shape: Shape, encodings: u8, offset: u16) -> Self {
        let encoder = |index: u8| {
            let seq = 65_500 + 17 * u64::from(index);
            let offset_of_this = offset.wrapping_mul(u16::from(index) * 7 + 1);
            let mut encoder = Encoder::new(shape, index, seq, offset_of_this);
            encoder.long_ids = !offset.is_multiple_of(5);
            encoder
        };
        Self {
            encoders: (0..encodings).map(encoder).collect(),
            selector: Selector::new(kind),
            codec: codec(shape.format),
            picture_ids: PictureIds::new(codec(shape.format)),
            encodings: (0..encodings).map(|_| Encoding::default()).collect(),
            segments: Vec::new(),
            last: None,
        }
    }

    /// Takes one packet from the network.
    pub fn arrive(&mut self, index: usize, packet: Packet) {
        let encoding = &mut self.encodings[index];
        let seq = packet.seq;
        let frame = read(self.codec, &packet, &mut encoding.structure);
        encoding.history.insert(seq, (packet, frame));
        if self.admit(index, seq) {
            let later: Vec<u64> =
                self.encodings[index].history.range(seq + 1..).map(|(seq, _)| *seq).collect();
            for seq in later {
                // What came before the structure could not be understood then.
                let Encoding { structure, history } = &mut self.encodings[index];
                let (packet, frame) = history.get_mut(&seq).expect("in the history");
                *frame = read(self.codec, packet, structure);
                assert!(!self.admit(index, seq), "one switch at a time");
            }
        }
    }

    /// Returns whether the stream begins or goes over to another encoding here.
    fn admit(&mut self, index: usize, seq: u64) -> bool {
        let (packet, frame) = &self.encodings[index].history[&seq];
        let verdict = self.selector.admit(index as u8, SeqNo(seq), frame);
        self.last = Some(verdict);
        let shift = self.picture_ids.shift(frame, verdict);
        let Verdict::Forward { marker, switch } = verdict else {
            if verdict == Verdict::Skip {
                self.skip(seq);
            }
            return false;
        };
        let sent = renumbered(self.codec, packet, marker, shift);
        if switch {
            self.segments.push(BTreeMap::new());
        }
        self.segments.last_mut().expect("begun").insert(seq, sent);
        switch
    }

    fn skip(&mut self, seq: u64) {
        let segment = self.segments.last_mut().expect("begun");
        let is_late = segment.last_key_value().is_some_and(|(last, _)| *last > seq);
        segment.insert(seq, if is_late { Sent::Gap } else { Sent::Nothing });
    }

    /// Shows everything that was sent to a decoder.
    pub fn decode(&self, format: Format) -> Decoder {
        let mut decoder = Decoder::new(format);
        for segment in &self.segments {
            let mut expected = None;
            for (&seq, sent) in segment {
                if expected.is_some_and(|expected| seq != expected) {
                    decoder.lose();
                }
                match sent {
                    Sent::Packet { marker, payload, element } => {
                        decoder.receive(*marker, payload, element.as_deref(), expected.is_none());
                    }
                    Sent::Nothing => {}
                    Sent::Gap => decoder.lose(),
                }
                expected = Some(seq + 1);
            }
        }
        decoder.end();
        decoder
    }

    /// Shows the consumer everything of an encoding again, from its newest key frame on.
    pub fn replay(&mut self, index: usize) {
        let history = &self.encodings[index].history;
        let begins = |(_, (_, frame)): &(&u64, &(Packet, FrameInfo))| {
            frame.key_frame && frame.self_contained
        };
        let first = *history.iter().rfind(begins).expect("a key frame").0;
        let again: Vec<u64> = history.range(first..).map(|(seq, _)| *seq).collect();
        self.selector.restart(index as u8);
        for seq in again {
            assert_eq!(self.admit(index, seq), seq == first, "it begins with the key frame");
        }
    }

    pub fn wish(&mut self, spatial: u8, temporal: u8) {
        self.selector.set_target(Some(Layer { spatial, temporal }));
    }
}

fn read(codec: Codec, packet: &Packet, structure: &mut Structure) -> FrameInfo {
    let element = packet.dependency.as_deref();
    FrameInfo::read(codec, &packet.payload, packet.marker, element, structure)
}

fn renumbered(codec: Codec, packet: &Packet, marker: Option<bool>, shift: PayloadShift) -> Sent {
    let (mut payload, mut element) = (packet.payload.clone(), packet.dependency.clone());
    shift.apply(codec, &mut payload);
    if let Some(element) = &mut element {
        shift.apply_dependency(element);
    }
    Sent::Packet { marker: marker.unwrap_or(packet.marker), payload, element }
}
