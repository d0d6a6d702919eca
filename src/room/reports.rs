//! RTCP goes out: our sender and receiver reports, and transport-wide feedback to publishers.

use std::time::{Duration, Instant};

use crate::id::Ssrc;
use crate::media::arrivals::Arrivals;
use crate::media::clock::ntp_middle;
use crate::room::Engine;
use crate::room::Outbox;
use crate::room::consumer::Consumer;
use crate::room::paths::Path;
use crate::room::producer::Producer;
use crate::room::spec::Event;
use crate::room::timers::{Timer, Timers};
use crate::wire::rtcp::{
    CompoundWriter, FeedbackFields, MAX_REPORT_BLOCKS, ReportBlock, SenderInfo, write_cname,
    write_max_bitrate, write_receiver_report, write_sender_report, write_transport_cc,
};
use slab::Slab;
use std::collections::VecDeque;

/// Mean time between a transport's reports. SFUs use about a second: more seldom, and lip-sync drifts
/// after a layer switch.
const REPORT_INTERVAL: Duration = Duration::from_millis(1000);
/// The same while all its streams go on as they did, which their receiver knows by then. RFC 3550 §6.2 is content with
/// 5 s, which is what libwebrtc takes for audio; but a switch may be near.
const STEADY_INTERVAL: Duration = Duration::from_millis(3000);
/// So many reports on each stream come first: receivers estimate a stream's clock from two and more.
const UNSTEADY_REPORTS: u8 = 3;
/// Largest plaintext compound, in bytes: with SRTCP's overhead below the path MTU of 1,280.
const MAX_COMPOUND: usize = 1200;
/// Time between two transport-wide feedback messages to a publisher; Chromium's estimator adapts to
/// anything from 50 to 250 ms, and without feedback stays near 300 kbit/s.
pub(super) const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Feedback messages per turn; one covers several hundred packets.
const MAX_FEEDBACK: usize = 4;

impl Engine {
    /// Begins a transport's reports, unless they are under way or there is nothing to report on: thousands of
    /// peers who are only there must not take turns each second.
    pub(super) fn begin_reports(&mut self, now: Instant, key: usize) {
        let path = &mut self.paths[key];
        if path.has_media()
            && path.transport.is_connected()
            && !self.timers.is_set(Timer::Reports(key))
        {
            path.measure_sent_bytes(now);
            let at = now + spread(path, REPORT_INTERVAL);
            self.timers.schedule(Timer::Reports(key), at);
        }
    }

    /// Sends sender reports of the transport's consumers and receiver reports on its producers.
    pub(super) fn send_reports(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Self { paths, producers, consumers, events, .. } = self;
        let Some(path) = paths.get_mut(key) else { return };
        path.follow_sent_bytes(now);
        let mut consumer_keys = path.consumers.values().copied().collect::<Vec<_>>().into_iter();
        let blocks = receiver_blocks(path, producers, now, events);
        let mut max_bitrate = max_bitrate(path, producers, &blocks, now);
        let mut blocks = blocks.into_iter().peekable();
        let mut pending = consumer_keys.next();
        let mut is_steady = path.producers.is_empty();
        while pending.is_some() || blocks.peek().is_some() {
            let Some(buffer) = out.datagram() else { break };
            let mut compound = CompoundWriter::new(&mut buffer[..MAX_COMPOUND]);
            if blocks.peek().is_some() {
                let some: Vec<ReportBlock> = blocks.by_ref().take(MAX_REPORT_BLOCKS).collect();
                let own = path.own_ssrc;
                compound.push(|room| write_receiver_report(room, own, &some));
                compound.push(|room| write_cname(room, own, OWN_CNAME));
                if let Some(bitrate) = max_bitrate.take() {
                    let streams: Vec<Ssrc> = some.iter().map(|block| block.ssrc).collect();
                    compound.push(|room| write_max_bitrate(room, own, bitrate, &streams));
                }
            }
            while let Some(consumer) = pending.map(|key| &mut consumers[key]) {
                let source = &producers[consumer.producer];
                is_steady &= consumer.sent.is_reported();
                let fitted = push_sender_report(&mut compound, consumer, source, now).is_some();
                if !fitted && !compound.is_empty() {
                    break;
                }
                pending = consumer_keys.next();
            }
            let len = compound.len();
            send_compound(path, len, out);
        }
        path.steady_reports = if is_steady { path.steady_reports.saturating_add(1) } else { 0 };
        let mean =
            if path.steady_reports < UNSTEADY_REPORTS { REPORT_INTERVAL } else { STEADY_INTERVAL };
        if path.has_media() && path.transport.is_connected() {
            self.timers.schedule(Timer::Reports(key), now + spread(path, mean));
        }
    }

    /// Tells a publisher when its packets arrived.
    pub(super) fn send_transport_feedback(
        &mut self,
        now: Instant,
        key: usize,
        out: &mut impl Outbox,
    ) {
        let Some(path) = self.paths.get_mut(key) else { return };
        if path.arrivals.as_ref().is_some_and(Arrivals::is_pending) {
            self.timers.schedule(Timer::Feedback(key), now + FEEDBACK_INTERVAL);
        }
        let media = path.routes.keys().next().copied().unwrap_or(Ssrc(0));
        for _ in 0..MAX_FEEDBACK {
            let Some(arrivals) = path.arrivals.as_mut() else { return };
            let Some((base_sequence, times)) = arrivals.pending() else { return };
            let Some(buffer) = out.datagram() else { return };
            let fields = FeedbackFields {
                sender: path.own_ssrc,
                media,
                base_sequence,
                feedback_count: path.feedback_count,
            };
            let written = write_transport_cc(&mut buffer[..MAX_COMPOUND], &fields, times);
            let Some(written) = written else { return arrivals.skip_lost() };
            arrivals.reported(usize::from(written.covered));
            path.feedback_count = path.feedback_count.wrapping_add(1);
            send_compound(path, written.len, out);
        }
    }
}

/// One of the streams of the transport `key` goes on from another source: how its clock goes now is told soon.
pub(super) fn hasten(path: &mut Path, timers: &mut Timers, key: usize, now: Instant) {
    path.steady_reports = 0;
    if timers.is_set(Timer::Reports(key)) {
        timers.schedule(Timer::Reports(key), now + spread(path, REPORT_INTERVAL));
    }
}

/// A transport's own time between reports, up to half of [`REPORT_INTERVAL`] more or less than `mean` (RFC 3550 §6.2). Its
/// id is random, so it serves to keep transports out of step without a generator of our own.
fn spread(path: &Path, mean: Duration) -> Duration {
    mean - REPORT_INTERVAL / 2 + REPORT_INTERVAL * (path.own_ssrc.0 % 1000) / 1000
}

/// Names the server in receiver reports; receivers of media see the publisher's name instead.
const OWN_CNAME: &[u8] = b"shardcast";

/// What we tell a peer about the streams that it sends.
fn receiver_blocks(
    path: &Path,
    producers: &mut Slab<Producer>,
    now: Instant,
    events: &mut VecDeque<Event>,
) -> Vec<ReportBlock> {
    let mut blocks = Vec::new();
    for &key in &path.producers {
        let producer = &mut producers[key];
        let mut is_news = false;
        for encoding in &mut producer.encodings {
            let (block, changed) = encoding.report(now);
            blocks.extend(block);
            is_news |= changed;
        }
        if is_news {
            events.push_back(Event::ProducerScore { id: producer.id, scores: producer.scores() });
        }
    }
    blocks
}

/// What the peer may send, in bit/s, if it cannot find out by transport-wide feedback.
fn max_bitrate(
    path: &mut Path,
    producers: &Slab<Producer>,
    blocks: &[ReportBlock],
    now: Instant,
) -> Option<u64> {
    let mut feedback = path.producers.iter().map(|key| producers[*key].feedback());
    if !feedback.any(|feedback| feedback.remb && !feedback.transport_cc) {
        return None;
    }
    let lost: u32 = blocks.iter().map(|block| u32::from(block.fraction_lost)).sum();
    let loss = f64::from(lost) / (blocks.len().max(1) * 256) as f64;
    let received = path.meters.received.rate(now);
    Some(path.bound.get_or_insert_default().follow(received, loss, REPORT_INTERVAL))
}

/// Appends one consumer's sender report and description. `None` if they do not fit any more; a consumer
/// that has sent nothing, or whose producer's clock is not known, has nothing to report.
fn push_sender_report(
    compound: &mut CompoundWriter<'_>,
    consumer: &mut Consumer,
    producer: &Producer,
    now: Instant,
) -> Option<()> {
    let encoding = consumer.encoding().and_then(|e| producer.encodings.get(usize::from(e)));
    let Some(clock) = encoding.and_then(|encoding| encoding.clock) else { return Some(()) };
    if consumer.sent.last().is_none() || consumer.is_cut() {
        return Some(());
    }
    let (ntp, rtp) = clock.at(now, producer.clock_rate());
    let info = SenderInfo {
        ssrc: consumer.ssrc,
        ntp,
        rtp: consumer.timestamp(rtp),
        // Both wrap (RFC 3550 §6.4.1).
        packets: consumer.sent.meter.packets() as u32,
        octets: consumer.sent.meter.bytes() as u32,
    };
    compound.push(|room| {
        let len = write_sender_report(room, &info, &[])?;
        let cname = consumer.cname.as_ref().unwrap_or(&producer.cname);
        Some(len + write_cname(&mut room[len..], consumer.ssrc, cname.as_bytes())?)
    })?;
    consumer.sent.reported(ntp_middle(ntp), now);
    Some(())
}

/// Seals and sends the compound of `len` bytes that lies in the outbox's current room.
fn send_compound(path: &mut Path, len: usize, out: &mut impl Outbox) {
    if len == 0 {
        return;
    }
    let Some(to) = path.transport.remote() else { return };
    let Some(buffer) = out.datagram() else { return };
    if let Some(sealed) = path.transport.seal_rtcp(buffer, len) {
        out.send(sealed, to);
        path.meters.rtcp_sent.add(sealed);
    }
}
