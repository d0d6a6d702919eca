//! RTCP comes in: sender reports of publishers, reports and wishes of receivers.

use std::time::Instant;

use crate::id::{MediaKind, ShardId, Ssrc};
use crate::media::clock::SenderClock;
use crate::room::figures::{Requests, count};
use crate::room::parcel::Note;
use crate::room::producer::{Route, Source, Stream};
use crate::room::replay::Heard;
use crate::room::spec::{Event, What, Why};
use crate::room::timers::Timer;
use crate::room::{Drop, Engine, Outbox};
use crate::wire::rtcp::{
    Compound, FirEntry, Packet, ReportBlock, write_full_intra_request, write_picture_loss,
};

impl Engine {
    /// Reads one opened compound of the transport at `key`.
    pub(super) fn read_feedback(
        &mut self,
        now: Instant,
        key: usize,
        compound: &[u8],
        received_at: Instant,
        out: &mut impl Outbox,
    ) {
        let Ok(packets) = Compound::parse(compound) else {
            return self.counters.drop(Drop::MalformedRtcp);
        };
        for packet in packets {
            match packet {
                Ok(Packet::SenderReport(report)) => {
                    let info = report.info;
                    if let Some(route) = self.media_route(key, info.ssrc) {
                        let clock = (info.ntp, info.rtp);
                        self.note_sender_report(route.producer, route.encoding, clock, received_at);
                        self.lend_clock(route.producer, route.encoding, out);
                    }
                    report.blocks.for_each(|block| self.note_receiver(received_at, key, &block));
                }
                Ok(Packet::ReceiverReport(report)) => {
                    report.blocks.for_each(|block| self.note_receiver(received_at, key, &block));
                }
                Ok(Packet::PictureLoss(loss)) => {
                    self.counters.asked.plis += 1;
                    self.count_request(key, loss.media, |requests| &mut requests.plis);
                    self.wish_key_frame_of(now, key, loss.media, out);
                }
                Ok(Packet::FullIntraRequest(request)) => {
                    for entry in request.entries() {
                        self.counters.asked.firs += 1;
                        self.count_request(key, entry.ssrc, |requests| &mut requests.firs);
                        self.wish_key_frame_of(now, key, entry.ssrc, out);
                    }
                }
                Ok(Packet::Nack(nack)) => self.resend(now, key, &nack, out),
                Ok(Packet::TransportCc(feedback)) => {
                    self.hear_arrivals(now, key, &feedback, received_at, out);
                }
                Ok(Packet::MaxBitrate(message)) => {
                    self.hear_max_bitrate(now, key, message.bitrate, out);
                }
                Ok(_) => {}
                Err(_) => self.counters.drop(Drop::MalformedRtcp),
            }
        }
    }

    /// A sender report of one encoding, with its NTP and RTP timestamps.
    pub(super) fn note_sender_report(
        &mut self,
        producer: usize,
        encoding: u8,
        (ntp, rtp): (u64, u32),
        received_at: Instant,
    ) {
        let encodings = &mut self.producers[producer].encodings;
        let Some(encoding) = encodings.get_mut(usize::from(encoding)) else { return };
        encoding.clock = Some(SenderClock::new(ntp, rtp, received_at));
        encoding.reception.sender_report(ntp, received_at);
    }

    /// Tells a new borrower every clock that is known.
    pub(super) fn lend_clocks(&mut self, producer: usize, to: ShardId, out: &mut impl Outbox) {
        for encoding in 0..self.producers[producer].encodings.len() {
            if let Some(note) = self.clock_note(producer, encoding as u8) {
                self.hand_over(to, note, out);
            }
        }
    }

    /// A consumer wants a key frame of what it is sent.
    pub(super) fn wish_key_frame_for(
        &mut self,
        now: Instant,
        key: usize,
        why: Why,
        out: &mut impl Outbox,
    ) {
        let consumer = &mut self.consumers[key];
        let rtt = self.paths[consumer.transport].rtt.or_guess();
        let (false, Some(encoding)) = (consumer.paused, consumer.encoding()) else { return };
        consumer.note(What::KeyFrameRequest, why, now);
        let producer = consumer.producer;
        match consumer.replay.heard_of(now, rtt) {
            // It had not arrived when this was asked.
            Heard::Early => {}
            Heard::InVain => self.serve_key_frame(now, key, encoding, out),
            Heard::Later => self.wish_key_frame(now, producer, encoding, out),
        }
    }

    /// Somebody wants a key frame of an encoding. Many wishes make one request.
    pub(super) fn wish_key_frame(
        &mut self,
        now: Instant,
        producer: usize,
        encoding: u8,
        out: &mut impl Outbox,
    ) {
        let feedback = self.producers[producer].feedback();
        if self.producers[producer].kind == MediaKind::Audio || !(feedback.pli || feedback.fir) {
            return;
        }
        let encodings = &mut self.producers[producer].encodings;
        let Some(wanted) = encodings.get_mut(usize::from(encoding)) else { return };
        if wanted.key_frames.wish(now) {
            self.request_key_frame(producer, encoding, out);
        }
        self.schedule_key_frame(producer);
    }

    /// Asks again for key frames that did not come.
    pub(super) fn repeat_key_frame_requests(
        &mut self,
        now: Instant,
        key: usize,
        out: &mut impl Outbox,
    ) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        for index in 0..producer.encodings.len() {
            let producer = &mut self.producers[key];
            if producer.encodings[index].key_frames.handle_timeout(now) {
                self.request_key_frame(key, index as u8, out);
            }
        }
        self.schedule_key_frame(key);
    }

    fn schedule_key_frame(&mut self, key: usize) {
        let encodings = self.producers[key].encodings.iter();
        if let Some(at) = encodings.filter_map(|e| e.key_frames.next_timeout()).min() {
            self.timers.schedule(Timer::KeyFrame(key), at);
        }
    }

    /// Sends one request to where the producer's packets come from.
    fn request_key_frame(&mut self, key: usize, encoding: u8, out: &mut impl Outbox) {
        let producer = &mut self.producers[key];
        let path_key = match producer.source {
            Source::Transport(path_key) => path_key,
            Source::Shard(home) => {
                let note = Note::KeyFrameWish { producer: producer.id, encoding };
                return self.hand_over(home, note, out);
            }
        };
        let feedback = producer.feedback();
        let wanted = &mut producer.encodings[usize::from(encoding)];
        let Some(ssrc) = wanted.ssrc else { return };
        let path = &mut self.paths[path_key];
        let (Some(to), Some(buffer)) = (path.transport.remote(), out.datagram()) else { return };
        self.work.writing = Some(path_key);
        let written = if feedback.pli {
            count(&mut wanted.requests.plis);
            self.counters.asking.plis += 1;
            write_picture_loss(buffer, path.own_ssrc, ssrc)
        } else {
            count(&mut wanted.requests.firs);
            self.counters.asking.firs += 1;
            wanted.fir_count = wanted.fir_count.wrapping_add(1);
            let entry = FirEntry { ssrc, sequence: wanted.fir_count };
            write_full_intra_request(buffer, path.own_ssrc, &[entry])
        };
        let sealed = written.and_then(|len| path.transport.seal_rtcp(buffer, len));
        if let Some(len) = sealed {
            out.send(len, to);
            path.meters.rtcp_sent.add(len);
            self.counters.key_frame_requests += 1;
        }
        self.work.writing = None;
    }

    /// A receiver has seen our SSRC: it needs the MID no longer, and its answer to our last report tells
    /// the round trip (RFC 3550 §6.4.1), in which our own queues have no part.
    fn note_receiver(&mut self, received_at: Instant, key: usize, block: &ReportBlock) {
        let path = &mut self.paths[key];
        let Some(&consumer) = path.consumers.get(&block.ssrc) else { return };
        let consumer = &mut self.consumers[consumer];
        consumer.is_known();
        if consumer.hear(block) {
            let producer = &self.producers[consumer.producer];
            let encoding = consumer.encoding().map_or(0, usize::from);
            self.events.push_back(Event::ConsumerScore {
                id: consumer.id,
                score: consumer.score.value(),
                producer_score: producer.encodings.get(encoding).map_or(0, |e| e.score.value()),
                producer_scores: producer.encodings.iter().map(|e| e.score.value()).collect(),
            });
        }
        if let Some(rtt) = consumer.sent.round_trip(block, received_at) {
            path.rtt.sample(rtt);
            if let Some(line) = &mut path.line {
                line.estimator.rtt_measured(rtt);
            }
        }
    }

    /// Counts what a receiver asked for.
    pub(super) fn count_request(
        &mut self,
        key: usize,
        ssrc: Ssrc,
        which: impl FnOnce(&mut Requests) -> &mut u32,
    ) {
        if let Some(&consumer) = self.paths[key].consumers.get(&ssrc) {
            count(which(&mut self.consumers[consumer].requests));
        }
    }

    /// A receiver on the transport at `key` wants a key frame of the stream that we send as `ssrc`.
    fn wish_key_frame_of(&mut self, now: Instant, key: usize, ssrc: Ssrc, out: &mut impl Outbox) {
        if let Some(&consumer) = self.paths[key].consumers.get(&ssrc) {
            self.wish_key_frame_for(now, consumer, Why::Receiver, out);
        }
    }

    fn media_route(&self, key: usize, ssrc: Ssrc) -> Option<Route> {
        self.paths[key].routes.get(&ssrc).filter(|r| r.stream == Stream::Media).copied()
    }

    fn lend_clock(&mut self, producer: usize, encoding: u8, out: &mut impl Outbox) {
        let Some(note) = self.clock_note(producer, encoding) else { return };
        for index in 0..self.producers[producer].borrowers.len() {
            self.hand_over(self.producers[producer].borrowers[index].shard, note, out);
        }
    }

    fn clock_note(&self, producer: usize, encoding: u8) -> Option<Note> {
        let producer = &self.producers[producer];
        let clock = producer.encodings.get(usize::from(encoding))?.clock?;
        Some(Note::SenderReport {
            producer: producer.id,
            encoding,
            ntp: clock.ntp(),
            rtp: clock.rtp(),
            received_at: clock.received_at(),
        })
    }

    /// Sends a note without a packet.
    pub(super) fn hand_over(&mut self, to: ShardId, note: Note, out: &mut impl Outbox) {
        if !out.hand_over(to, &mut |parcel| parcel.fill(note, &[])) {
            self.counters.drop(Drop::ParcelQueueFull);
        }
    }
}
