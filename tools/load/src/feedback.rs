//! Transport-wide feedback as browsers write it
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): who has hundreds of receivers writes
//! thousands of these a second, so this is written straight into its buffer.

use crate::clock::MS;

/// Arrivals kept between two reports; 100 ms of 40 Mbit/s. What is beyond is left out, as if lost.
const MAX_ARRIVALS: usize = 512;
/// Packets that one report may speak of, so that it fits a datagram.
const MAX_SPAN: i64 = 400;
/// Nanoseconds of a delta's unit.
const TICK: u64 = 250_000;
/// Nanoseconds of the reference time's unit.
const REFERENCE: u64 = 64 * MS;

/// What arrived on one transport since its last report.
#[derive(Default)]
pub struct Recorder {
    /// Extended number and time, in the order of arrival.
    arrivals: Vec<(i64, u64)>,
    last: Option<i64>,
    /// The first number that no report has spoken of.
    next: Option<i64>,
    count: u8,
}

impl Recorder {
    /// Takes note of a packet.
    pub fn note(&mut self, wide: u16, at: u64) {
        let number = match self.last {
            None => i64::from(wide),
            Some(last) => last + i64::from(wide.wrapping_sub(last as u16) as i16),
        };
        self.last = Some(self.last.map_or(number, |last| last.max(number)));
        if self.arrivals.len() < MAX_ARRIVALS {
            self.arrivals.push((number, at));
        }
    }

    /// Writes a report about what arrived, from `sender` and about `media`'s transport; `false` if there
    /// is nothing to tell.
    pub fn write(&mut self, sender: u32, media: u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let in_order = self.arrivals.is_sorted_by_key(|(number, _)| *number);
        if !in_order {
            self.arrivals.sort_by_key(|(number, _)| *number);
        }
        self.arrivals.dedup_by_key(|(number, _)| *number);
        let next = self.next;
        self.arrivals.retain(|(number, _)| next.is_none_or(|next| *number >= next));
        let Some(&(oldest, first_at)) = self.arrivals.first() else { return false };
        let base = next.filter(|next| oldest - next < MAX_SPAN / 2).unwrap_or(oldest);
        let covered = self.arrivals.partition_point(|(number, _)| number - base < MAX_SPAN);
        let reference = first_at / REFERENCE;
        out.extend([0x8f, 205, 0, 0]);
        out.extend(sender.to_be_bytes());
        out.extend(media.to_be_bytes());
        out.extend((base as u16).to_be_bytes());
        out.extend([0, 0]);
        out.extend((((reference as u32) << 8) | u32::from(self.count)).to_be_bytes());
        let mut chunks = Chunks::default();
        let mut deltas = [0; 2 * MAX_ARRIVALS];
        let (mut deltas_len, mut last, mut number) = (0, reference * (REFERENCE / TICK), base);
        for &(arrived, at) in &self.arrivals[..covered] {
            (number..arrived).for_each(|_| chunks.push(0, out));
            let tick = at / TICK;
            let delta = (tick as i64 - last as i64).clamp(i16::MIN.into(), i16::MAX.into());
            last = last.saturating_add_signed(delta);
            let symbol = if (0..256).contains(&delta) { 1 } else { 2 };
            let bytes = (delta as i16).to_be_bytes();
            deltas[deltas_len..][..symbol].copy_from_slice(&bytes[2 - symbol..]);
            deltas_len += symbol;
            chunks.push(symbol as u16, out);
            number = arrived + 1;
        }
        chunks.flush(out);
        out.extend(&deltas[..deltas_len]);
        let padding = out.len().next_multiple_of(4) - out.len();
        if padding > 0 {
            out[0] |= 0x20;
            out.resize(out.len() + padding - 1, 0);
            out.push(padding as u8);
        }
        let words = (out.len() / 4 - 1) as u16;
        out[2..4].copy_from_slice(&words.to_be_bytes());
        out[14..16].copy_from_slice(&((number - base) as u16).to_be_bytes());
        self.arrivals.drain(..covered);
        self.next = Some(number);
        self.count = self.count.wrapping_add(1);
        true
    }
}

/// Symbols on their way into chunks: a run of one kind, or seven of two bits each.
#[derive(Default)]
struct Chunks {
    /// The first seven, two bits each, the oldest highest.
    symbols: u16,
    len: u16,
    run_of: u16,
    is_run: bool,
}

impl Chunks {
    /// Symbols of a vector chunk.
    const VECTOR: u16 = 7;
    /// Symbols of a run.
    const RUN: u16 = 8191;

    fn push(&mut self, symbol: u16, out: &mut Vec<u8>) {
        if self.len == 0 {
            (self.run_of, self.is_run) = (symbol, true);
        }
        let stays_run = self.is_run && symbol == self.run_of;
        let closes = if stays_run { self.len == Self::RUN } else { self.len >= Self::VECTOR };
        if closes {
            self.flush(out);
            (self.run_of, self.is_run) = (symbol, true);
        } else {
            self.is_run = stays_run;
        }
        self.symbols = self.symbols << 2 | symbol;
        self.len += 1;
        if self.len == Self::VECTOR && !self.is_run {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if self.len == 0 {
            return;
        }
        let chunk = if self.is_run {
            self.run_of << 13 | self.len
        } else {
            0xc000 | self.symbols << (2 * (Self::VECTOR - self.len))
        };
        out.extend(chunk.to_be_bytes());
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
    };
    use webrtc_util::marshal::Unmarshal;

    use super::*;

    /// What the library reads: numbers that arrived, with their times in ticks.
    fn read(bytes: &[u8]) -> (TransportLayerCc, Vec<(u16, i64)>) {
        let report = TransportLayerCc::unmarshal(&mut &bytes[..]).expect("sound feedback");
        let mut symbols = Vec::new();
        for chunk in &report.packet_chunks {
            match chunk {
                PacketStatusChunk::RunLengthChunk(run) => symbols
                    .extend(std::iter::repeat_n(run.packet_status_symbol, run.run_length.into())),
                PacketStatusChunk::StatusVectorChunk(vector) => {
                    symbols.extend(vector.symbol_list.iter().copied());
                }
            }
        }
        let mut deltas = report.recv_deltas.iter();
        let mut at = i64::from(report.reference_time) * 256;
        let mut arrivals = Vec::new();
        for (index, symbol) in symbols.iter().take(report.packet_status_count.into()).enumerate() {
            if *symbol != SymbolTypeTcc::PacketNotReceived {
                at += deltas.next().expect("a delta each").delta / 250;
                arrivals.push((report.base_sequence_number.wrapping_add(index as u16), at));
            }
        }
        (report, arrivals)
    }

    #[test]
    fn reports_follow_each_other_without_a_gap() {
        let mut recorder = Recorder::default();
        let mut out = Vec::new();
        assert!(!recorder.write(1, 2, &mut out));
        let base = 1000 * REFERENCE;
        for wide in [65_534_u16, 65_535, 1] {
            recorder.note(wide, base + u64::from(wide.wrapping_add(5)) * MS);
        }
        assert!(recorder.write(1, 2, &mut out));
        let (first, arrivals) = read(&out);
        assert_eq!((first.sender_ssrc, first.media_ssrc, first.fb_pkt_count), (1, 2, 0));
        assert_eq!((first.base_sequence_number, first.packet_status_count), (65_534, 4));
        let start = 256 * 1000;
        assert_eq!(arrivals, [(65_534, start + 12), (65_535, start + 16), (1, start + 24)]);
        recorder.note(5, base + 100 * MS);
        // What was told as lost comes too late to be told again.
        recorder.note(0, base + 100 * MS);
        assert!(recorder.write(1, 2, &mut out));
        let (second, arrivals) = read(&out);
        assert_eq!((second.base_sequence_number, second.packet_status_count), (2, 4));
        assert_eq!((arrivals, second.fb_pkt_count), (vec![(5, start + 400)], 1));
        assert!(!recorder.write(1, 2, &mut out));
    }

    proptest! {
        /// The library reads what arrived, whatever is lost or late.
        #[test]
        fn it_is_read_as_it_was_meant(
            start: u16,
            packets in prop::collection::vec((prop::bool::weighted(0.9), 0_u64..90 * MS), 1..380),
        ) {
            let (mut recorder, mut out, mut expected) = (Recorder::default(), Vec::new(), Vec::new());
            let mut at = 77 * REFERENCE;
            for (index, (came, gap)) in packets.iter().enumerate() {
                at += if index % 9 == 0 { *gap } else { gap % MS };
                let wide = start.wrapping_add(index as u16);
                if *came {
                    recorder.note(wide, at);
                    expected.push((wide, (at / TICK) as i64));
                }
            }
            prop_assume!(!expected.is_empty());
            prop_assert!(recorder.write(1, 2, &mut out));
            prop_assert!(out.len() % 4 == 0 && out.len() < 1200);
            prop_assert_eq!(read(&out).1, expected);
        }
    }
}
