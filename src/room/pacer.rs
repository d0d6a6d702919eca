//! What leaves beside live media, in small portions: retransmissions and probes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::ConsumerId;
use crate::media::bandwidth::{Cluster, Probe, SentKind};
use crate::media::budget::Budget;
use crate::media::layers::PayloadShift;
use crate::room::consumer::Consumer;
use crate::room::forward::{Form, write_header};
use crate::room::line::IP_UDP;
use crate::room::paths::Path;
use crate::room::timers::Timer;
use crate::room::{Drop, Engine, Outbox};
use crate::wire::MAX_DATAGRAM;

/// Time between two portions.
const TICK: Duration = Duration::from_millis(5);

/// Retransmissions that wait for their turn: more than one NACK can ask for. Others are dropped.
const MAX_WAITING: usize = 256;

/// What has waited for this long comes too late to be played.
const MAX_WAIT: Duration = Duration::from_millis(400);

/// The rate for a line of which nothing is known, in bit/s.
const UNKNOWN_RATE: u64 = 20_000_000;

/// Even the slowest line gets this, in bit/s.
const LEAST_RATE: u64 = 50_000;

/// Most padding that one packet can have, in bytes, its count included (RFC 3550 §5.1).
const MAX_PADDING: usize = 255;

/// One transport's portions.
pub(super) struct Pacer {
    budget: Budget,
    waiting: VecDeque<(Instant, Waiting)>,
    pub(super) probe: Option<Run>,
}

/// A packet that is to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The consumer's key.
    pub(super) consumer: usize,
    /// Its number as the receiver knows it.
    pub(super) wire: u16,
}

/// A probe on its way.
pub(super) struct Run {
    probe: Probe,
    carrier: ConsumerId,
    began: Instant,
    packets: u32,
    bytes: u64,
}

impl Default for Pacer {
    fn default() -> Self {
        let budget = Budget::new(UNKNOWN_RATE, burst(UNKNOWN_RATE));
        Self { budget, waiting: VecDeque::new(), probe: None }
    }
}

impl Pacer {
    /// Follows what live media leaves of the line, in bit/s, if that is known.
    pub(super) fn set_spare(&mut self, spare: Option<u64>, now: Instant) {
        let rate = spare.map_or(UNKNOWN_RATE, |spare| spare.clamp(LEAST_RATE, UNKNOWN_RATE));
        if rate != self.budget.rate() {
            self.budget.set(rate, burst(rate), now);
        }
    }

    /// Whether `bytes` may leave now.
    pub(super) fn allow(&mut self, bytes: usize, now: Instant) -> bool {
        self.budget.allow(bytes, now)
    }

    /// Whether nothing waits, so that whoever comes may leave at once if the budget allows it.
    pub(super) fn is_free(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a packet wait for its turn; `false` if too many do.
    pub(super) fn wait(&mut self, packet: Waiting, now: Instant) -> bool {
        let fits = self.waiting.len() < MAX_WAITING;
        if fits {
            self.waiting.push_back((now, packet));
        }
        fits
    }

    /// A consumer is gone, or what it was sent before is of no use any more.
    pub(super) fn forget(&mut self, consumer: usize) {
        self.waiting.retain(|(_, packet)| packet.consumer != consumer);
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.probe.is_none()
    }
}

/// What may leave at once at `rate` bit/s: a tick's worth, and at least one datagram.
fn burst(rate: u64) -> usize {
    let bytes = rate / 8 * TICK.as_millis() as u64 / 1000;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(MAX_DATAGRAM)
}

impl Run {
    pub(super) fn new(probe: Probe, carrier: ConsumerId, now: Instant) -> Self {
        Self { probe, carrier, began: now, packets: 0, bytes: 0 }
    }

    /// Bytes that are to have left by the end of the tick that begins now.
    fn due(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.began) + TICK;
        let bytes = u128::from(self.probe.bitrate) * elapsed.as_micros() / 8_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn is_done(&self) -> bool {
        self.bytes >= u64::from(self.probe.bytes) && self.packets >= self.probe.packets
    }

    /// Size of a packet on the wire.
    fn packet_size(&self) -> usize {
        (self.probe.bytes / self.probe.packets.max(1)) as usize
    }
}

impl Engine {
    /// Sends the portion that is due.
    pub(super) fn pace(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.send_waiting(now, key, out);
        self.send_probe(now, key, out);
        if self.paths.get(key).is_some_and(|path| !path.pacer.is_idle()) {
            self.timers.schedule(Timer::Pace(key), now + TICK);
        }
    }

    fn send_waiting(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        while let Some(path) = self.paths.get_mut(key) {
            let Some(&(since, next)) = path.pacer.waiting.front() else { return };
            let is_late = now.saturating_duration_since(since) > MAX_WAIT;
            if is_late || self.is_moot(now, key, next) {
                self.paths[key].pacer.waiting.pop_front();
                self.counters.drop(Drop::ResendBudget);
                continue;
            }
            let len = self.resend_len(next);
            if len.is_some_and(|len| !self.paths[key].pacer.allow(len, now)) {
                return;
            }
            self.paths[key].pacer.waiting.pop_front();
            self.send_again(now, key, next, out);
        }
    }

    /// Sends as much of the present probe as its bitrate allows by the end of this tick.
    fn send_probe(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(path) = self.paths.get_mut(key) else { return };
        let Some(mut run) = path.pacer.probe.take() else { return };
        let consumer = self.consumer_keys.get(&run.carrier).map(|key| &mut self.consumers[*key]);
        let Some(consumer) = consumer.filter(|consumer| consumer.can_carry_padding()) else {
            return;
        };
        while !run.is_done() && run.bytes < run.due(now) {
            let size = run.packet_size();
            let Some(sent) = send_padding(consumer, path, size, run.probe.cluster, now, out) else {
                return;
            };
            run.packets += 1;
            run.bytes += (sent + IP_UDP) as u64;
        }
        if !run.is_done() {
            path.pacer.probe = Some(run);
        }
    }
}

/// Sends one packet of nothing but padding on a consumer's retransmission stream, about `size` bytes long on
/// the wire. Returns the bytes of the datagram; `None` if it could not be sent.
fn send_padding(
    consumer: &mut Consumer,
    path: &mut Path,
    size: usize,
    cluster: Cluster,
    now: Instant,
    out: &mut impl Outbox,
) -> Option<usize> {
    let to = path.transport.remote()?;
    let buffer = out.datagram()?;
    let (seq, fields) = consumer.padding_fields()?;
    let form = Form { fields, seq: None, shift: PayloadShift::default(), structure: None };
    let header = write_header(consumer, path, None, &form, now, buffer)?;
    let overhead = IP_UDP + header.len + SRTP_TAG;
    let padding = size.saturating_sub(overhead).clamp(1, MAX_PADDING);
    let len = header.len + padding;
    let room = buffer.get_mut(header.len..len)?;
    room.fill(0);
    room[padding - 1] = padding as u8;
    let sealed = path.transport.seal_rtp(seq, buffer, len)?;
    out.send(sealed, to);
    path.note_sent(header.transport_wide, now, sealed, SentKind::Probe(cluster));
    path.meters.probation_sent.add(sealed, now);
    path.meters.sent.add(sealed, now);
    Some(sealed)
}

/// What sealing adds at most, in bytes (RFC 7714 §14.2).
const SRTP_TAG: usize = 16;
