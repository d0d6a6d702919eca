//! The line to one receiver: what it carries, who of the transport's consumers gets how much of it, and
//! what leaves beside live media.

use std::time::{Duration, Instant};

use crate::id::{Extension, MediaKind, Ssrc};
use crate::media::allocation::{Allocator, Kind, LayerRate, Request};
use crate::media::bandwidth::{Estimator, Limits, Reason, SentKind, Update};
use crate::room::pacer::Run;
use crate::room::paths::Path;
use crate::room::timers::Timer;
use crate::room::{Engine, Outbox};
use crate::wire::rtcp::TransportCc;

/// Bandwidth is shared out anew this often: a layer that falls silent is left within this time.
const ALLOT_INTERVAL: Duration = Duration::from_millis(200);

/// This often where there is nothing to choose and room for twice as much, or nothing is sent: thousands of receivers of
/// one encoding must not take turns five times a second.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// While a line is new, the smallest sizes of what is wanted are sent even beyond the estimate, up to this many
/// bit/s, and one picture whatever it takes: without sending nothing is learnt, and a lone size may well be
/// faster than any cautious guess. Histories of those sizes, at most 1.75 s of each, may take as much.
const NEWCOMERS: u64 = 5_000_000;

/// A line is new until its receiver has been heard for this long: time enough for the first probes.
const NEW_FOR: Duration = Duration::from_secs(3);

/// The last picture is not given up before it takes more than this many times the estimate: estimates err, and one
/// that was taken away cannot show that the line is better than it seemed.
const DOUBT: u64 = 2;

/// From this much standing queue on, less is handed out than the estimate, so that the queue goes away.
const TALL_QUEUE: Duration = Duration::from_millis(40);

/// The part of a queue that is to be gone in a second, in percent, up to [`MOST_DRAINED`] of what the line carries.
const DRAINED: u64 = 100;
const MOST_DRAINED: u64 = 50;

/// With this much of a queue nothing of a layer that is too large is sent any more: the key frame of the smaller
/// one would be lost behind it.
const FULL_QUEUE: Duration = Duration::from_millis(100);

/// An estimator whose deadline has passed is not asked again before this, whatever it says.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// What probes aim at, in percent of what all wishes cost. The estimator adds a fifth of its own; so the goal lies
/// above what [`crate::media::allocation::AMPLE_PERCENT`] asks for, and who was forced down need not wait long.
const GOAL_PERCENT: u64 = 120;

/// Headers below RTP in bytes: IPv4 and UDP (RFC 791 §3.1, RFC 768), which the line carries, too.
pub(super) const IP_UDP: usize = 28;

/// What sealing and our own header extensions add to a packet that a publisher sent, with [`IP_UDP`].
pub(super) const OVERHEAD: usize = IP_UDP + 16 + 16;

/// Made for a transport's first consumer of video.
pub(super) struct Line {
    pub(super) estimator: Estimator,
    /// Knows consumers by their SSRCs, of which a transport never has one twice.
    allocator: Allocator<Ssrc>,
    /// Whether the receiver says what it gets: transport-wide feedback was negotiated, or a REMB has come.
    /// Without either, nothing is known, and everything is sent.
    is_measured: bool,
    /// When the receiver first said so.
    heard_at: Option<Instant>,
    /// What all wishes cost, and what was granted of them, in bit/s.
    desired: u64,
    granted: u64,
}

impl Line {
    fn new(now: Instant) -> Self {
        Self {
            estimator: Estimator::new(now, Limits::default()),
            allocator: Allocator::default(),
            is_measured: false,
            heard_at: None,
            desired: 0,
            granted: 0,
        }
    }

    /// Bit/s, as far as the receiver lets us know.
    pub(super) fn estimate(&self) -> Option<u64> {
        self.is_measured.then(|| self.estimator.estimate())
    }

    /// Part of our packets that was lost of late, 0 to 1, as far as the receiver lets us know.
    pub(super) fn loss(&self) -> Option<f32> {
        self.is_measured.then(|| self.estimator.loss() as f32)
    }

    /// Bit/s that may be handed out to `requests`.
    fn available(&self, requests: &[Request<'_, Ssrc>], now: Instant) -> u64 {
        let Some(estimate) = self.estimate() else { return u64::MAX };
        let audio = requests.iter().filter(|request| request.kind == Kind::Audio);
        let video = requests.iter().filter(|request| request.kind != Kind::Audio);
        let audio: u64 = audio.filter_map(lowest).sum();
        let one = audio + video.clone().filter_map(lowest).min().unwrap_or(0);
        if self.is_new(now) {
            let sizes = video.filter_map(smallest_size);
            let all = audio + sizes.clone().sum::<u64>();
            return estimate.max(all.min(NEWCOMERS)).max(audio + sizes.min().unwrap_or(0));
        }
        let drained = estimate - estimate * self.drained(now) / 100;
        drained.max(one.min(estimate.saturating_mul(DOUBT)))
    }

    /// Whether too little has been heard to trust the estimate, and nothing bad.
    fn is_new(&self, now: Instant) -> bool {
        let is_young = |at| now.saturating_duration_since(at) < NEW_FOR;
        let warned = !matches!(
            self.estimator.reason(),
            Reason::Initial | Reason::Growth | Reason::Probe | Reason::Limits
        );
        !warned && self.heard_at.is_none_or(is_young)
    }

    /// Bit/s that may be sent from histories beside live media; `None` if nothing is known of the line.
    pub(super) fn spare(&self, now: Instant) -> Option<u64> {
        let spare = self.estimate()?.saturating_sub(self.granted);
        match (self.is_queueing(now), self.is_new(now)) {
            (true, _) => Some(0),
            (false, true) => Some(spare.max(NEWCOMERS)),
            (false, false) => Some(spare),
        }
    }

    /// Whether what is sent waits long in front of the line.
    pub(super) fn is_queueing(&self, now: Instant) -> bool {
        self.estimator.queueing(now) >= TALL_QUEUE
    }

    /// Percent of the estimate that the line needs for what waits in front of it.
    fn drained(&self, now: Instant) -> u64 {
        if !self.is_queueing(now) {
            return 0;
        }
        (self.estimator.queueing(now).as_millis() as u64 * DRAINED / 1000).min(MOST_DRAINED)
    }

    /// What the estimate would have to be for all wishes to be granted, in bit/s.
    fn goal(&self) -> u64 {
        self.desired.saturating_mul(GOAL_PERCENT) / 100
    }
}

impl Path {
    /// Notes a packet with a transport-wide number that leaves: `size` bytes of UDP payload.
    pub(super) fn note_sent(
        &mut self,
        seq: Option<u16>,
        now: Instant,
        size: usize,
        kind: SentKind,
    ) {
        if let (Some(seq), Some(line)) = (seq, &mut self.line) {
            let size = u16::try_from(size + IP_UDP).unwrap_or(u16::MAX);
            line.estimator.sent(seq, now, size, kind);
        }
    }
}

impl Engine {
    /// Shares out what a transport's line carries: each consumer of video is told which layers to aim at. The
    /// caller asks for the key frames that are needed then ([`Self::ask_for_key_frames`]).
    pub(super) fn allot(&mut self, now: Instant, key: usize) {
        let Self { paths, producers, consumers, timers, sharing, .. } = self;
        let Some(path) = paths.get_mut(key) else { return };
        if !path.transport.is_connected() {
            return;
        }
        for consumer in path.consumers.values() {
            producers[consumers[*consumer].producer].measure_layers(now);
        }
        // Reports, which look as well, may be seldom.
        path.follow_sent_bytes(now);
        let mut is_video = false;
        let mut is_silent = true;
        let mut has_newcomers = false;
        let mut requests: Vec<Request<'_, Ssrc>> = Vec::with_capacity(path.consumers.len());
        let mut keys = Vec::with_capacity(path.consumers.len());
        for &consumer_key in path.consumers.values() {
            let consumer = &consumers[consumer_key];
            let producer = &producers[consumer.producer];
            if consumer.paused || producer.paused {
                continue;
            }
            let kind = match producer.kind {
                MediaKind::Audio => Kind::Audio,
                MediaKind::Video if producer.is_screen => Kind::Screen,
                MediaKind::Video => Kind::Camera,
            };
            is_video |= kind != Kind::Audio;
            is_silent &= kind == Kind::Audio || producer.is_at_rest(now);
            has_newcomers |= producer.has_newcomers();
            requests.push(Request {
                id: consumer.ssrc,
                kind,
                priority: consumer.priority,
                preferred: consumer.preferred(),
                layers: producer.layer_rates(),
                current: consumer.target(),
            });
            keys.push(consumer_key);
        }
        if !is_video {
            return;
        }
        let line = path.line.get_or_insert_with(|| Box::new(Line::new(now)));
        line.is_measured |= keys
            .iter()
            .any(|key| consumers[*key].extensions.id(Extension::TransportWideCc).is_some());
        let is_measured = line.is_measured;
        let available = line.available(&requests, now);
        let outcome = line.allocator.allocate(sharing, &requests, available, now);
        let is_new = line.is_new(now);
        if is_new {
            line.allocator.forgive();
        }
        // What was asked for again, too, needs room.
        let spare = available.saturating_sub(outcome.granted).max(available / 8);
        path.pacer.set_spare(is_measured.then_some(spare), now);
        let is_full = line.estimator.queueing(now) >= FULL_QUEUE;
        (line.desired, line.granted) = (outcome.desired, outcome.granted);
        let is_calm = is_silent
            || !(is_measured && is_new || has_newcomers)
                && leave_no_choice(&requests, outcome.desired, available);
        for (consumer, grant) in keys.into_iter().zip(outcome.grants) {
            let consumer = &mut consumers[consumer];
            consumer.aim(grant, &producers[consumer.producer], is_full, now);
        }
        // A deadline that has passed is of no use before something else changes.
        let wish = outcome.next_timeout.filter(|wish| *wish > now);
        let at = now + if is_calm { CALM_INTERVAL } else { ALLOT_INTERVAL };
        timers.schedule(Timer::Allot(key), wish.map_or(at, |wish| wish.min(at)));
    }

    /// Shares out the lines of all of a producer's receivers: it sends something new, which is measured at once.
    pub(super) fn allot_receivers(&mut self, now: Instant, producer: usize) {
        self.producers[producer].measure_layers(now);
        self.producers[producer].has_news = false;
        for index in 0..self.producers[producer].consumers.len() {
            let consumer = self.producers[producer].consumers[index];
            self.allot(now, self.consumers[consumer].transport);
        }
    }

    /// Shares out a line, and asks for what its consumers need then.
    pub(super) fn allot_and_ask(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.allot(now, key);
        self.ask_for_key_frames(now, key, out);
        self.begin_probe(now, key, out);
    }

    /// Asks for the key frames without which a transport's consumers cannot go where they aim.
    fn ask_for_key_frames(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(path) = self.paths.get(key) else { return };
        let keys: Vec<usize> = path.consumers.values().copied().collect();
        for key in keys {
            let consumer = &mut self.consumers[key];
            let producer = consumer.producer;
            if let Some(encoding) = consumer.new_need(now)
                && !self.producers[producer].paused
            {
                self.serve_key_frame(now, key, encoding, out);
            }
        }
    }

    /// A receiver tells what arrived when (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub(super) fn hear_arrivals(
        &mut self,
        now: Instant,
        key: usize,
        feedback: &TransportCc<'_>,
        received_at: Instant,
        out: &mut impl Outbox,
    ) {
        let Some(line) = &mut self.paths[key].line else { return };
        let statuses = feedback.statuses();
        let update = line.estimator.feedback(received_at, statuses, feedback.reference_time);
        line.heard_at.get_or_insert(now);
        self.follow_estimate(now, key, update, out);
    }

    /// A receiver tells what its line carries (draft-alvestrand-rmcat-remb-03), in bit/s.
    pub(super) fn hear_max_bitrate(
        &mut self,
        now: Instant,
        key: usize,
        bitrate: u64,
        out: &mut impl Outbox,
    ) {
        let Some(line) = &mut self.paths[key].line else { return };
        line.is_measured = true;
        line.heard_at.get_or_insert(now);
        let update = line.estimator.remb(now, bitrate);
        self.follow_estimate(now, key, update, out);
    }

    /// An estimator's deadline has passed.
    pub(super) fn mind_line(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(line) = self.paths.get_mut(key).and_then(|path| path.line.as_mut()) else {
            return;
        };
        let update = line.estimator.handle_timeout(now);
        self.follow_estimate(now, key, update, out);
    }

    /// Less than is being sent counts at once; more can wait for the next turn.
    fn follow_estimate(&mut self, now: Instant, key: usize, update: Update, out: &mut impl Outbox) {
        let Some(line) = &self.paths[key].line else { return };
        if update.changed && update.estimate < line.granted {
            self.allot_and_ask(now, key, out);
        } else {
            self.begin_probe(now, key, out);
        }
    }

    /// Sends a probe if the estimator wants one and there is a stream that can carry it.
    fn begin_probe(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Self { paths, consumers, timers, .. } = self;
        let Some(path) = paths.get_mut(key) else { return };
        let Some(line) = path.line.as_mut().filter(|line| line.is_measured) else { return };
        let carrier = path.consumers.values().find(|key| consumers[**key].can_carry_padding());
        let goal = if carrier.is_some() { line.goal() } else { 0 };
        let probe = line.estimator.poll_probe(now, goal);
        if let Some(at) = line.estimator.next_timeout() {
            timers.schedule(Timer::Line(key), at.max(now + SHORTEST_WAIT));
        }
        if let (Some(probe), Some(&carrier)) = (probe, carrier) {
            path.pacer.probe = Some(Run::new(probe, consumers[carrier].id, now));
            self.pace(now, key, out);
        }
    }
}

/// Whether of each one layer is sent, and a line with so many bit/s `available` has room for twice as much as they take.
/// What is silent may begin at any time.
fn leave_no_choice(requests: &[Request<'_, Ssrc>], desired: u64, available: u64) -> bool {
    available / 2 >= desired && requests.iter().all(|request| sent(request).count() == 1)
}

/// The layers that its producer sends.
fn sent<'a>(request: &Request<'a, Ssrc>) -> impl Iterator<Item = &'a LayerRate> + Clone {
    request.layers.iter().filter(|rate| rate.bits_per_second > 0)
}

/// What the least costs that it can be had for, in bit/s.
fn lowest(request: &Request<'_, Ssrc>) -> Option<u64> {
    sent(request).map(|rate| rate.bits_per_second).min()
}

/// What its smallest size costs at its full frame rate, in bit/s.
fn smallest_size(request: &Request<'_, Ssrc>) -> Option<u64> {
    let sent = sent(request);
    let smallest = sent.clone().map(|rate| rate.spatial).min()?;
    sent.filter(|rate| rate.spatial == smallest).map(|rate| rate.bits_per_second).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::allocation::Layer;

    #[test]
    fn a_line_is_calm_where_there_is_nothing_to_choose_and_room() {
        let rate = |spatial, bits_per_second| LayerRate { spatial, temporal: 0, bits_per_second };
        let (lone, silent, simulcast) =
            ([rate(0, 900), rate(1, 0)], [rate(0, 0), rate(1, 0)], [rate(0, 200), rate(1, 700)]);
        let request = |layers| Request {
            id: Ssrc(1),
            kind: Kind::Camera,
            priority: 1,
            preferred: Layer { spatial: 1, temporal: 0 },
            layers,
            current: None,
        };
        assert!(leave_no_choice(&[request(&lone)], 900, 1800));
        assert!(!leave_no_choice(&[request(&lone), request(&silent)], 900, u64::MAX));
        assert!(!leave_no_choice(&[request(&lone)], 900, 1799));
        assert!(!leave_no_choice(&[request(&lone), request(&simulcast)], 900, u64::MAX));
    }
}
