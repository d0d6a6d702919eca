//! One transport of a peer as its worker keeps it: a socket, its keys, what it sends and what it receives.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use rtcp::packet::Packet;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::receiver_report::ReceiverReport;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::{
    SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
};
use rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use webrtc_srtp::context::Context;

use crate::clock;
use crate::feedback::Recorder;
use crate::ice;
use crate::source::Source;
use crate::stamp::{Kind, STAMP_LEN, Stamp, Tracks};
use crate::stream::{Seen, Spec, Stream};
use crate::sys::SendBatch;
use crate::tally::Tally;

/// Reports in one packet (RFC 3550 §6.4.1: five bits).
const MAX_REPORTS: usize = 31;

/// Round-trip time before it is known: libwebrtc's.
const FIRST_RTT: u64 = 100 * clock::MS;

/// What the join hands over to a worker.
pub struct NewTransport {
    /// Connected to the server.
    pub socket: UdpSocket,
    /// Seals what is sent.
    pub seal: Context,
    /// Opens what comes.
    pub open: Context,
    /// Renews consent.
    pub agent: ice::Agent,
    /// When the peer began to join; 0: it joined long ago.
    pub began: u64,
    /// Random: this side's SSRC in reports.
    pub ssrc: u32,
    /// It is in the place of one that closed.
    pub again: bool,
}

/// How a worker's transports measure.
pub struct Measure {
    /// All tracks.
    pub tracks: Arc<Tracks>,
    /// One in so many packets is opened.
    pub sample: u32,
    /// Latencies count now.
    pub counts: bool,
}

/// See the top.
pub struct Transport {
    /// Its socket.
    pub socket: UdpSocket,
    /// What it sends.
    pub sources: Vec<Source>,
    seal: Context,
    open: Context,
    agent: ice::Agent,
    began: u64,
    ssrc: u32,
    streams: Vec<Stream>,
    /// SSRC, place in `streams`, whether it is for retransmissions; sorted.
    routes: Vec<(u32, u16, bool)>,
    recorder: Recorder,
    /// The next transport-wide number to send.
    wide: u16,
    /// When the last check left, and how long one took.
    checked: u64,
    rtt: u64,
    /// Whether a timer for gaps is set.
    pub gaps_timed: bool,
    /// Its peer's shard failed, now or earlier.
    pub hit: bool,
    scratch: Vec<u8>,
    ask: Vec<u16>,
}

impl From<NewTransport> for Transport {
    fn from(new: NewTransport) -> Self {
        Self {
            socket: new.socket,
            sources: Vec::new(),
            seal: new.seal,
            open: new.open,
            agent: new.agent,
            began: new.began,
            ssrc: new.ssrc,
            streams: Vec::new(),
            routes: Vec::new(),
            recorder: Recorder::default(),
            wide: 0,
            checked: 0,
            rtt: FIRST_RTT,
            gaps_timed: false,
            hit: new.again,
            scratch: Vec::new(),
            ask: Vec::new(),
        }
    }
}

impl Transport {
    /// Expects a stream.
    pub fn add_stream(&mut self, spec: Spec, now: u64) {
        let place = self.streams.len() as u16;
        self.routes.push((spec.ssrc, place, false));
        if spec.rtx_ssrc != 0 {
            self.routes.push((spec.rtx_ssrc, place, true));
        }
        self.routes.sort_unstable();
        self.streams.push(Stream::new(spec, now));
    }

    /// Counting begins.
    pub fn mark(&mut self) {
        self.streams.iter_mut().for_each(Stream::mark);
    }

    /// Adds what this transport's streams and socket saw since the mark, `still_here` or when it leaves.
    pub fn sum_up(&self, still_here: bool, tally: &mut Tally) {
        for stream in &self.streams {
            let (expected, delivered) = stream.tally(still_here);
            tally.expected += expected;
            tally.delivered += delivered;
            if !self.hit {
                tally.kept_expected += expected;
                tally.kept_delivered += delivered;
            }
            tally.copies += stream.copies;
            tally.dark += u64::from(still_here && !stream.has_picture());
        }
        tally.overflowed += crate::sys::dropped_by(self.socket.as_fd());
    }

    /// Sends source `index`'s frame. The caller has looked that it is due.
    pub fn send_frame(&mut self, index: usize, now: u64, out: &mut SendBatch, tally: &mut Tally) {
        let Some(source) = self.sources.get_mut(index) else { return };
        let (seal, due) = (&mut self.seal, source.due);
        let range = source.frame(now, &mut self.wide, |plain| {
            if let Ok(sealed) = seal.encrypt_rtp(plain) {
                tally.sent_bytes += sealed.len() as u64;
                out.push(&sealed);
            }
        });
        tally.sent += u64::from(range.end - range.start);
        // As late as can be: what is added before is ours, not the server's.
        let now = clock::now();
        tally.lateness.note(now.saturating_sub(due));
        source.track.depart(range.start, range.end, clock::wall());
    }

    /// Takes a datagram that came at `arrived` of the wall clock.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        (now, arrived): (u64, u64),
        measure: &Measure,
        tally: &mut Tally,
        out: &mut SendBatch,
    ) {
        match datagram {
            [128..=191, 192..=223, ..] => self.receive_rtcp(datagram, now, tally, out),
            [128..=191, ..] => self.receive_rtp(datagram, now, arrived, measure, tally),
            [0..=3, ..] if self.agent.is_answer(datagram) => {
                tally.consents += 1;
                self.rtt = now.saturating_sub(self.checked);
            }
            [0..=3, ..] => {}
            // The handshake is over; what still comes are copies of its last flight, or a goodbye.
            [20..=63, ..] => {}
            _ => tally.strange += 1,
        }
    }

    fn receive_rtp(
        &mut self,
        sealed: &[u8],
        now: u64,
        arrived: u64,
        measure: &Measure,
        tally: &mut Tally,
    ) {
        let Some(header) = Header::read(sealed) else {
            tally.strange += 1;
            return;
        };
        tally.received += 1;
        tally.received_bytes += sealed.len() as u64;
        let Ok(route) = self.routes.binary_search_by_key(&header.ssrc, |route| route.0) else {
            tally.unknown += 1;
            return;
        };
        let (_, place, is_repair) = self.routes[route];
        let stream = &mut self.streams[usize::from(place)];
        if let Some(wide) = header.wide(sealed, stream.spec.wide_id) {
            self.recorder.note(wide, arrived);
        }
        if is_repair {
            let opened = open(&mut self.open, sealed, &header, tally);
            // RFC 4588 §4: the original's number, then its payload. Padding has none.
            let Some([high, low, ..]) = opened.as_ref().map(|o| o.payload()) else { return };
            if let (Seen::New, _) = stream.note(u16::from_be_bytes([*high, *low]), now) {
                tally.repaired += 1;
            }
            return;
        }
        let (seen, number) = stream.note(header.sequence, now);
        stream.note_arrival(arrived, header.timestamp);
        let chosen = sampled(header.sequence, self.ssrc, measure.sample);
        if seen != Seen::New || !(chosen || stream.track.is_none() || !stream.has_picture()) {
            return;
        }
        let Some(opened) = open(&mut self.open, sealed, &header, tally) else { return };
        let Some(stamp) = Stamp::read(opened.payload()) else { return };
        if stream.track.is_none() {
            stream.track = measure.tracks.find(stamp.track);
        }
        if stream.note_stamp(&stamp, number, now) && self.began > 0 {
            tally.first_frame.note(now.saturating_sub(self.began));
            self.began = 0;
        }
        if !measure.counts || !chosen {
            return;
        }
        let Some(track) = &stream.track else { return };
        let track = track_of(track, &stamp, measure);
        let Some(departed) = track.departed(stamp.number) else { return };
        let added = arrived.saturating_sub(departed);
        match (track.kind, stamp.key) {
            (Kind::Audio, _) => tally.audio.note(added),
            (_, false) => tally.video.note(added),
            (_, true) => tally.keys.note(added),
        }
        if stamp.key && stamp.index + 1 == stamp.count {
            tally.key_ends.note(added);
            track.key_frame_came(&stamp, added);
        }
    }

    fn receive_rtcp(&mut self, sealed: &[u8], now: u64, tally: &mut Tally, out: &mut SendBatch) {
        // Shorter ones make the library panic.
        if sealed.len() < 16 {
            tally.strange += 1;
            return;
        }
        let Ok(mut plain) = self.open.decrypt_rtcp(sealed) else {
            tally.forged += 1;
            return;
        };
        let Ok(packets) = rtcp::packet::unmarshal(&mut plain) else {
            tally.strange += 1;
            return;
        };
        for packet in &packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<SenderReport>() {
                let streams = &mut self.streams;
                let named = streams.iter_mut().find(|stream| stream.spec.ssrc == report.ssrc);
                named.into_iter().for_each(|stream| stream.note_report(report.ntp_time, now));
            } else if let Some(wish) = packet.downcast_ref::<PictureLossIndication>() {
                self.want_picture(wish.media_ssrc, tally);
            } else if let Some(wish) = packet.downcast_ref::<FullIntraRequest>() {
                wish.fir.iter().for_each(|entry| self.want_picture(entry.ssrc, tally));
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                self.resend(nack, now, tally, out);
            } else if packet.is::<TransportLayerCc>() {
                tally.feedback_received += 1;
            }
        }
    }

    fn want_picture(&mut self, ssrc: u32, tally: &mut Tally) {
        tally.pictures_wanted += 1;
        let named = self.sources.iter_mut().find(|source| source.ssrc() == ssrc);
        named.into_iter().for_each(Source::want_key_frame);
    }

    fn resend(
        &mut self,
        nack: &TransportLayerNack,
        now: u64,
        tally: &mut Tally,
        out: &mut SendBatch,
    ) {
        let Some(source) = self.sources.iter_mut().find(|s| s.ssrc() == nack.media_ssrc) else {
            return;
        };
        for number in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
            source.resend(number, now, &mut self.wide, |plain| {
                if let Ok(sealed) = self.seal.encrypt_rtp(plain) {
                    tally.resent += 1;
                    out.push(&sealed);
                }
            });
        }
    }

    /// Asks for what is missing; says whether to come back soon.
    pub fn ask_for_missing(&mut self, now: u64, tally: &mut Tally, out: &mut SendBatch) -> bool {
        let mut again = false;
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            if !stream.has_gaps() {
                continue;
            }
            stream.missing(now, self.rtt, &mut self.ask);
            again |= stream.has_gaps();
            if self.ask.is_empty() {
                continue;
            }
            tally.asked += self.ask.len() as u64;
            let nack = TransportLayerNack {
                sender_ssrc: self.ssrc,
                media_ssrc: stream.spec.ssrc,
                nacks: nack_pairs_from_sequence_numbers(&self.ask),
            };
            self.send_rtcp(&[Box::new(nack)], out);
        }
        again
    }

    /// Whether anything is missing that will be asked for.
    pub fn has_gaps(&self) -> bool {
        self.streams.iter().any(Stream::has_gaps)
    }

    /// Writes transport-wide feedback, and asks for key frames where the picture is not there.
    pub fn send_feedback(&mut self, now: u64, tally: &mut Tally, out: &mut SendBatch) {
        let media = self.streams.first().map_or(0, |stream| stream.spec.ssrc);
        let mut scratch = std::mem::take(&mut self.scratch);
        if self.recorder.write(self.ssrc, media, &mut scratch) {
            tally.feedback += 1;
            if let Ok(sealed) = self.seal.encrypt_rtcp(&scratch) {
                out.push(&sealed);
            }
        }
        self.scratch = scratch;
        for index in 0..self.streams.len() {
            if self.streams[index].wants_picture(now) {
                tally.pictures_asked += 1;
                let media_ssrc = self.streams[index].spec.ssrc;
                let wish = PictureLossIndication { sender_ssrc: self.ssrc, media_ssrc };
                self.send_rtcp(&[Box::new(wish)], out);
            }
        }
    }

    /// Writes receiver reports of all streams, and sender reports of all sources.
    pub fn send_reports(&mut self, now: u64, tally: &mut Tally, out: &mut SendBatch) {
        let reports: Vec<_> = self.streams.iter_mut().filter_map(|s| s.report(now)).collect();
        for some in reports.chunks(MAX_REPORTS) {
            tally.reports += 1;
            let report =
                ReceiverReport { ssrc: self.ssrc, reports: some.to_vec(), ..Default::default() };
            self.send_rtcp(&[Box::new(report)], out);
        }
        let ntp_time = clock::ntp(clock::wall());
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            let (ssrc, packet_count) = (source.ssrc(), source.packets);
            if packet_count == 0 {
                continue;
            }
            tally.reports += 1;
            let report = SenderReport {
                ssrc,
                ntp_time,
                rtp_time: source.timestamp(now),
                packet_count,
                octet_count: source.octets,
                ..Default::default()
            };
            let text = Bytes::from_static(b"load");
            let items = vec![SourceDescriptionItem { sdes_type: SdesType::SdesCname, text }];
            let chunks = vec![SourceDescriptionChunk { source: ssrc, items }];
            self.send_rtcp(&[Box::new(report), Box::new(SourceDescription { chunks })], out);
        }
    }

    /// Renews consent (RFC 7675 §5.1).
    pub fn send_check(&mut self, out: &mut SendBatch) {
        self.checked = clock::now();
        if let Ok(check) = self.agent.check() {
            out.push(&check);
        }
    }

    fn send_rtcp(&mut self, packets: &[Box<dyn Packet + Send + Sync>], out: &mut SendBatch) {
        let Ok(plain) = rtcp::packet::marshal(packets) else { return };
        if let Ok(sealed) = self.seal.encrypt_rtcp(&plain) {
            out.push(&sealed);
        }
    }
}

/// The track of a stamp: nearly always the stream's own, but layers change.
fn track_of(
    known: &Arc<crate::stamp::Track>,
    stamp: &Stamp,
    measure: &Measure,
) -> Arc<crate::stamp::Track> {
    match known.kind {
        Kind::Layer => measure.tracks.find(stamp.track).unwrap_or_else(|| known.clone()),
        _ => known.clone(),
    }
}

/// Whether this packet is one of those that are opened: of each stream others, spread evenly over frames.
fn sampled(sequence: u16, salt: u32, one_in: u32) -> bool {
    let mixed = (u32::from(sequence) ^ salt).wrapping_mul(0x9e37_79b1);
    ((mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> 8).is_multiple_of(one_in.max(1))
}

/// An opened packet.
struct Opened {
    plain: Bytes,
    payload_at: usize,
    padding: usize,
}

impl Opened {
    fn payload(&self) -> &[u8] {
        self.plain.get(self.payload_at..self.plain.len() - self.padding).unwrap_or_default()
    }
}

fn open(
    context: &mut Context,
    sealed: &[u8],
    header: &Header,
    tally: &mut Tally,
) -> Option<Opened> {
    let Ok(plain) = context.decrypt_rtp(sealed) else {
        tally.forged += 1;
        return None;
    };
    tally.opened += 1;
    let last = plain.last().map_or(0, |last| usize::from(*last));
    let padding = if header.padded { last.min(plain.len()) } else { 0 };
    Some(Opened { plain, payload_at: header.payload_at, padding })
}

/// What is read of every packet: nothing is opened for it.
struct Header {
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    padded: bool,
    extensions_at: usize,
    payload_at: usize,
}

impl Header {
    fn read(packet: &[u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<12>()?;
        let extensions_at = 12 + 4 * usize::from(fixed[0] & 15);
        let mut payload_at = extensions_at;
        if fixed[0] & 0x10 != 0 {
            let words = packet.get(extensions_at + 2..extensions_at + 4)?;
            payload_at += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        (payload_at <= packet.len()).then(|| Self {
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            padded: fixed[0] & 0x20 != 0,
            extensions_at,
            payload_at,
        })
    }

    /// The transport-wide number in the extension `id` (RFC 8285, one-byte or two-byte headers).
    fn wide(&self, packet: &[u8], id: u8) -> Option<u16> {
        let block = packet.get(self.extensions_at..self.payload_at)?;
        if id == 0 || block.len() < 4 {
            return None;
        }
        let two_bytes = block[..2] != [0xbe, 0xde];
        let mut at = 4;
        while at + 2 < block.len() {
            let (element, len, head) = match (two_bytes, block[at]) {
                (_, 0) => {
                    at += 1;
                    continue;
                }
                (false, byte) => (byte >> 4, usize::from(byte & 15) + 1, 1),
                (true, byte) => (byte, usize::from(block[at + 1]), 2),
            };
            let data = block.get(at + head..at + head + len)?;
            if element == id {
                return data.first_chunk().map(|number| u16::from_be_bytes(*number));
            }
            at += head + len;
        }
        None
    }
}

const _: () = assert!(STAMP_LEN < 64, "a stamp fits the smallest payload");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_as_large_as_asked_for_and_differs_between_peers() {
        let chosen = |salt, one_in| (0..=u16::MAX).filter(move |&n| sampled(n, salt, one_in));
        for one_in in [2, 32, 100] {
            let share = chosen(0xabcd_ef01, one_in).count() as f64 / 65_536.0 * f64::from(one_in);
            assert!((0.9..1.1).contains(&share), "1 in {one_in}: {share}");
        }
        assert_eq!(chosen(5, 1).count(), 65_536);
        assert!(!chosen(1, 32).eq(chosen(2, 32)));
    }

    #[test]
    fn headers_and_both_forms_of_extensions_are_read() {
        let mut packet = vec![0xb1, 96, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4, 9, 9, 9, 9];
        packet.extend([0xbe, 0xde, 0, 2, 0x12, 7, 7, 7, 0, 0x51, 0xab, 0xcd]);
        packet.extend([1, 2, 3]);
        let header = Header::read(&packet).expect("sound");
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (0x0102, 3, 4));
        assert_eq!((header.padded, header.payload_at), (true, 28));
        assert_eq!(header.wide(&packet, 5), Some(0xabcd));
        assert_eq!((header.wide(&packet, 4), header.wide(&packet, 0)), (None, None));
        packet[16..28].copy_from_slice(&[0x10, 0, 0, 2, 1, 1, 7, 5, 2, 0xab, 0xcd, 0]);
        assert_eq!(Header::read(&packet).expect("sound").wide(&packet, 5), Some(0xabcd));
        for len in 0..28 {
            assert!(
                Header::read(&packet[..len]).is_none_or(|h| h.wide(&packet[..len], 5).is_none())
            );
        }
    }
}
