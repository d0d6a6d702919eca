//! A line with one queue, and the receiver behind it that sends feedback.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::id::Ssrc;
use crate::media::arrivals::Arrivals;
use crate::wire::rtcp::{FeedbackFields, write_transport_cc};

/// libwebrtc's usual interval.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// What the line is like.
#[derive(Clone, Debug)]
pub struct Profile {
    /// From when on it carries how many bit/s, in order; the first entry at zero.
    pub rates: Vec<(Duration, u64)>,
    /// One way, without queueing.
    pub delay: Duration,
    /// What the queue holds at the present rate; more is dropped at its tail.
    pub queue: Duration,
    /// Share of packets lost at random, each way.
    pub loss: f64,
    /// Each packet is late by up to this much, without overtaking.
    pub jitter: Duration,
}

impl Profile {
    /// A line of `rate` bit/s as they are: 20 ms each way, 300 ms of queue, 1 ms of jitter.
    pub fn constant(rate: u64) -> Self {
        Self {
            rates: vec![(Duration::ZERO, rate)],
            delay: Duration::from_millis(20),
            queue: Duration::from_millis(300),
            loss: 0.0,
            jitter: Duration::from_millis(1),
        }
    }

    pub fn rate(&self, since: Duration) -> u64 {
        let past = self.rates.iter().take_while(|(from, _)| *from <= since);
        past.last().expect("an entry at zero").1
    }
}

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
struct Packet {
    seq: u16,
    size: u16,
    queued: Instant,
}

/// The line towards the receiver, the receiver's feedback, and the line back.
pub struct Line {
    profile: Profile,
    random: StdRng,
    epoch: Instant,
    queue: VecDeque<Packet>,
    free: Instant,
    last_arrival: Instant,
    arriving: VecDeque<(Instant, u16)>,
    arrivals: Arrivals,
    feedback_due: Instant,
    feedback_count: u8,
    /// Feedback on its way back.
    returning: VecDeque<(Instant, Vec<u8>)>,
    /// What each packet waited in the queue, and when it left it.
    pub waits: Vec<(Instant, Duration)>,
}

impl Line {
    pub fn new(profile: Profile, now: Instant, seed: u64) -> Self {
        Self {
            profile,
            random: StdRng::seed_from_u64(seed),
            epoch: now,
            queue: VecDeque::new(),
            free: now,
            last_arrival: now,
            arriving: VecDeque::new(),
            // The receiver's clock is not ours.
            arrivals: Arrivals::new(now - Duration::from_secs(1)),
            feedback_due: now + FEEDBACK_INTERVAL,
            feedback_count: 0,
            returning: VecDeque::new(),
            waits: Vec::new(),
        }
    }

    pub fn send(&mut self, now: Instant, seq: u16, size: u16) {
        let backlog: u64 = self.queue.iter().map(|packet| u64::from(packet.size)).sum();
        let room = self.profile.queue.as_secs_f64() * self.profile.rate(now - self.epoch) as f64;
        if backlog as f64 * 8.0 > room {
            return;
        }
        self.queue.push_back(Packet { seq, size, queued: now });
    }

    /// Moves packets along until `now`; returns feedback that has come back, as RTCP.
    pub fn advance(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some(packet) = self.queue.front().copied() {
            let begins = self.free.max(packet.queued);
            if begins > now {
                break;
            }
            self.queue.pop_front();
            self.serve(packet, begins);
        }
        while let Some((at, seq)) = self.arriving.pop_front_if(|(at, _)| *at <= now) {
            self.arrivals.record(seq, at);
        }
        if now >= self.feedback_due {
            self.feedback_due += FEEDBACK_INTERVAL;
            self.send_feedback(now);
        }
        self.returning.pop_front_if(|(at, _)| *at <= now).map(|(_, feedback)| feedback)
    }

    fn serve(&mut self, packet: Packet, begins: Instant) {
        let rate = self.profile.rate(begins - self.epoch) as f64;
        self.free = begins + Duration::from_secs_f64(f64::from(packet.size) * 8.0 / rate);
        self.waits.push((begins, begins - packet.queued));
        if self.random.random_bool(self.profile.loss) {
            return;
        }
        let late = self.profile.jitter.mul_f64(self.random.random());
        let arrival = (self.free + self.profile.delay + late).max(self.last_arrival);
        self.last_arrival = arrival;
        self.arriving.push_back((arrival, packet.seq));
    }

    fn send_feedback(&mut self, now: Instant) {
        let Some((base_sequence, times)) = self.arrivals.pending() else { return };
        let fields = FeedbackFields {
            sender: Ssrc(1),
            media: Ssrc(2),
            base_sequence,
            feedback_count: self.feedback_count,
        };
        let mut buffer = vec![0; 1200];
        let written = write_transport_cc(&mut buffer, &fields, times).expect("something arrived");
        self.arrivals.reported(usize::from(written.covered));
        self.feedback_count = self.feedback_count.wrapping_add(1);
        buffer.truncate(written.len);
        if !self.random.random_bool(self.profile.loss) {
            self.returning.push_back((now + self.profile.delay, buffer));
        }
    }
}
