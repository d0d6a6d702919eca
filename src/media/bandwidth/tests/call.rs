//! One receiver's call behind a line: media in layers, probes, and the estimator in between.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::line::{Line, Profile};
use crate::media::bandwidth::{Bitrate, Estimator, Limits, Probe, Reason, SentKind};
use crate::wire::rtcp::{Compound, Packet};

/// A camera's layers, in bit/s; below all of them there is only sound.
pub const LAYERS: [Bitrate; 4] = [150_000, 500_000, 1_500_000, 2_500_000];
const AUDIO: Bitrate = 32_000;

/// What is sent beside sound.
#[derive(Clone, Debug)]
pub struct Media {
    /// One of these, in bit/s.
    pub layers: Vec<Bitrate>,
    /// How big the key frame is that begins a layer, in ordinary frames.
    pub key_frame: f64,
}

impl Media {
    pub fn camera() -> Self {
        Self { layers: LAYERS.into(), key_frame: 4.0 }
    }

    /// So many streams that they leave hardly any of the estimate unused.
    pub fn crowd() -> Self {
        Self { layers: (1..60).map(|step| step * 50_000).collect(), key_frame: 1.0 }
    }
}

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const FRAME_INTERVAL: Duration = Duration::from_micros(33_333);
/// What of the estimate is used.
const USED: f64 = 0.9;
const PACKET_SIZE: u32 = 1200;
/// How often a room would send padding.
const PROBE_TICK: Duration = Duration::from_millis(5);
const STEP: Duration = Duration::from_millis(1);

/// The call at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub estimate: Bitrate,
    pub reason: Reason,
    /// What is sent without probes: nominal bit/s.
    pub media: Bitrate,
    pub layer: Option<usize>,
}

/// What happened.
pub struct Outcome {
    /// One for each 10 ms.
    pub samples: Vec<Sample>,
    /// When each packet left the queue, and after how long.
    pub waits: Vec<(Duration, Duration)>,
    pub probes: usize,
}

impl Outcome {
    /// The samples from `from` to `to`, in s.
    pub fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Sample> {
        let range = Duration::from_secs_f64(from)..Duration::from_secs_f64(to);
        self.samples.iter().filter(move |sample| range.contains(&sample.at))
    }

    /// The least and the greatest estimate from `from` to `to`, in s.
    pub fn extremes(&self, from: f64, to: f64) -> (Bitrate, Bitrate) {
        let estimates = || self.between(from, to).map(|sample| sample.estimate);
        (estimates().min().unwrap(), estimates().max().unwrap())
    }

    /// How long after `from` (in s) the condition begins to hold for at least a second.
    pub fn settles(&self, from: f64, holds: impl Fn(&Sample) -> bool) -> Option<f64> {
        let mut since = None;
        for sample in self.between(from, f64::from(u32::MAX)) {
            let at = sample.at.as_secs_f64();
            if !holds(sample) {
                since = None;
            } else if at - *since.get_or_insert(at) >= 1.0 {
                return since.map(|since| since - from);
            }
        }
        None
    }

    /// Share of the time from `from` to `to` (in s) in which at least layer `layer` was sent.
    pub fn share_at_least(&self, layer: usize, from: f64, to: f64) -> f64 {
        let all = self.between(from, to).count();
        let good = self.between(from, to).filter(|sample| sample.layer >= Some(layer)).count();
        good as f64 / all as f64
    }

    /// The waiting time that 95 % of the packets do not exceed, from `from` s on.
    pub fn wait_p95(&self, from: f64) -> Duration {
        let from = Duration::from_secs_f64(from);
        let late = self.waits.iter().filter(|(at, _)| *at >= from);
        let mut waits: Vec<_> = late.map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        waits[waits.len() * 95 / 100]
    }
}

/// Runs a call of `length` that sends `media` behind the line that `profile` describes;
/// repeatable by `seed`.
pub fn run(profile: Profile, media: Media, length: Duration, seed: u64) -> Outcome {
    let mut call = Call::new(profile, media, seed);
    let mut samples = Vec::new();
    let mut probes = 0;
    while call.now - call.epoch < length {
        probes += usize::from(call.step());
        if samples.len() < (call.now - call.epoch).as_millis() as usize / 10 {
            samples.push(call.sample());
        }
    }
    let epoch = call.epoch;
    let waits = call.line.waits.iter().map(|(at, wait)| (*at - epoch, *wait)).collect();
    Outcome { samples, waits, probes }
}

struct Call {
    media: Media,
    epoch: Instant,
    now: Instant,
    line: Line,
    estimator: Estimator,
    random: StdRng,
    seq: u16,
    layer: Option<usize>,
    key_frame: bool,
    frame_due: Instant,
    audio_due: Instant,
    probe: Option<Sending>,
}

/// A probe being sent.
struct Sending {
    probe: Probe,
    began: Instant,
    due: Instant,
    packets: u32,
}

impl Call {
    fn new(profile: Profile, media: Media, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            media,
            epoch: now,
            now,
            line: Line::new(profile, now, seed),
            estimator: Estimator::new(now, Limits::default()),
            random: StdRng::seed_from_u64(!seed),
            seq: 65_000,
            layer: None,
            key_frame: true,
            frame_due: now,
            audio_due: now + Duration::from_millis(7),
            probe: None,
        }
    }

    /// Moves on by one step; returns whether a probe began.
    fn step(&mut self) -> bool {
        if let Some(rtcp) = self.line.advance(self.now) {
            self.feedback(&rtcp);
        }
        if self.estimator.next_timeout().is_some_and(|due| due <= self.now) {
            self.estimator.handle_timeout(self.now);
        }
        self.choose_layer();
        self.send_media();
        let began = self.begin_probe();
        self.send_probe();
        self.now += STEP;
        began
    }

    fn sample(&self) -> Sample {
        Sample {
            at: self.now - self.epoch,
            estimate: self.estimator.estimate(),
            reason: self.estimator.reason(),
            media: AUDIO + self.layer.map_or(0, |layer| self.media.layers[layer]),
            layer: self.layer,
        }
    }

    fn feedback(&mut self, rtcp: &[u8]) {
        for packet in Compound::parse(rtcp).expect("well-formed") {
            let Ok(Packet::TransportCc(feedback)) = packet else { panic!("not feedback") };
            let reference = feedback.reference_time;
            self.estimator.feedback(self.now, feedback.statuses(), reference);
        }
    }

    fn choose_layer(&mut self) {
        let usable = (self.estimator.estimate() as f64 * USED) as Bitrate;
        let layer = self.media.layers.iter().rposition(|layer| layer + AUDIO <= usable);
        self.key_frame |= layer != self.layer;
        self.layer = layer;
    }

    fn send_media(&mut self) {
        if self.now >= self.audio_due {
            self.audio_due += AUDIO_INTERVAL;
            self.send((AUDIO / 8 / 50) as u16, SentKind::Media);
        }
        if self.now < self.frame_due {
            return;
        }
        self.frame_due += FRAME_INTERVAL;
        let Some(layer) = self.layer else { return };
        let key_frame =
            if std::mem::take(&mut self.key_frame) { self.media.key_frame } else { 1.0 };
        let varied = self.random.random_range(0.7..1.3) * key_frame;
        let bytes =
            (self.media.layers[layer] as f64 * FRAME_INTERVAL.as_secs_f64() / 8.0 * varied) as u32;
        let packets = bytes.div_ceil(PACKET_SIZE);
        for _ in 0..packets {
            self.send((bytes / packets) as u16, SentKind::Media);
        }
    }

    fn begin_probe(&mut self) -> bool {
        let wanted = self.media.layers[self.media.layers.len() - 1] + AUDIO;
        let Some(probe) = self.estimator.poll_probe(self.now, wanted) else { return false };
        self.probe = Some(Sending { probe, began: self.now, due: self.now, packets: 0 });
        true
    }

    fn send_probe(&mut self) {
        let now = self.now;
        let Some(sending) = self.probe.as_mut().filter(|sending| now >= sending.due) else {
            return;
        };
        let Probe { cluster, bitrate, bytes, packets } = sending.probe;
        sending.due += PROBE_TICK;
        // What ought to have left by the end of this tick.
        let elapsed = (sending.due - sending.began).as_secs_f64();
        let size = bytes.div_ceil(packets);
        let target = (elapsed * bitrate as f64 / 8.0 / f64::from(size)).round() as u32;
        let count = target.min(packets).saturating_sub(sending.packets);
        sending.packets += count;
        if sending.packets >= packets {
            self.probe = None;
        }
        for _ in 0..count {
            self.send(size as u16, SentKind::Probe(cluster));
        }
    }

    fn send(&mut self, size: u16, kind: SentKind) {
        self.estimator.sent(self.seq, self.now, size, kind);
        self.line.send(self.now, self.seq, size);
        self.seq = self.seq.wrapping_add(1);
    }
}
