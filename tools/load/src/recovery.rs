//! What it costs that a shard fails: how soon its peers have media again, and what the others lose.
//!
//! While it is measured, a datagram to one shard's port makes it fail. Only a server built with the feature
//! `test-hooks` obeys it. The shard's peers are told that their transports are closed, and make new ones, as
//! clients do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;

use crate::clock;
use crate::plan::PeerPlan;
use crate::report::Percentiles;
use crate::tally::{Tally, Times};

/// Known to builds for tests alone: see `src/shard/hooks.rs`.
const FAIL: &[u8] = b"\xffshardcast-test: fail";

/// When a stream's media came first, by our clock: of video, the first whole key frame. 0: not yet.
pub type Came = Arc<AtomicU64>;
/// A peer: its room and its number there.
pub type Place = (usize, usize);

/// What is known of a failure, from before it on.
#[derive(Default)]
pub struct Recovery {
    shard: Cell<Option<SocketAddr>>,
    /// When the shard was made to fail, by our clock.
    failed: Cell<u64>,
    hit: RefCell<BTreeSet<Place>>,
    streams: RefCell<Vec<Awaited>>,
}

/// A stream that a peer consumes.
struct Awaited {
    to: Place,
    from: usize,
    video: bool,
    made: u64,
    came: Came,
}

/// How it went.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The port of the shard that failed.
    pub shard: Option<SocketAddr>,
    /// Peers that had their transports there, and peers that had not.
    pub hit: usize,
    /// See `hit`.
    pub spared: usize,
    /// Peers of it that neither have all media again nor are received again by all.
    pub missing: usize,
    /// From the failure until a peer of the shard has all that others of its room send.
    pub media_again: Option<Percentiles>,
    /// From the failure until all others of its room have what it sends, too.
    pub whole_again: Option<Percentiles>,
    /// Packets that peers of other shards should have got, and those that they lost.
    pub expected_elsewhere: u64,
    /// See `expected_elsewhere`.
    pub lost_elsewhere: u64,
    /// What is wrong.
    pub broken: Vec<String>,
}

impl Recovery {
    /// Makes the shard behind `port` fail.
    pub async fn fail(&self, port: SocketAddr) -> std::io::Result<()> {
        let any: SocketAddr = match port {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        self.shard.set(Some(port));
        self.failed.set(clock::now());
        socket.send_to(FAIL, port).await?;
        Ok(())
    }

    /// A peer was told that its shard failed.
    pub fn note_hit(&self, peer: Place) {
        self.hit.borrow_mut().insert(peer);
    }

    /// Peer `to` is going to receive from peer `from` of its room.
    pub fn await_media(&self, to: Place, from: usize, video: bool) -> Came {
        let came = Came::default();
        let awaited = Awaited { to, from, video, made: clock::now(), came: came.clone() };
        self.streams.borrow_mut().push(awaited);
        came
    }

    /// Judges. Nobody has come or gone among `plans` since the failure, which may cost `limit`.
    pub fn outcome(&self, plans: &[PeerPlan], tally: &Tally, limit: Duration) -> Outcome {
        let hit = self.hit.borrow();
        let (mut media, mut whole, mut missing) = (Times::default(), Times::default(), 0);
        for plan in plans.iter().filter(|plan| hit.contains(&plan.place())) {
            let others = plans.iter().filter(|it| it.room == plan.room && it.number != plan.number);
            let (mut received, mut sent) = (Some(0), Some(0));
            for other in others {
                received = received.max_of(self.back(plan, other));
                sent = sent.max_of(self.back(other, plan));
            }
            // Who receives nothing waits for nothing.
            if let Some(nanos @ 1..) = received {
                media.note(nanos);
            }
            match received.max_of(sent) {
                Some(nanos) => whole.note(nanos),
                None => missing += 1,
            }
        }
        let mut outcome = Outcome {
            shard: self.shard.get(),
            hit: hit.len(),
            spared: plans.len() - hit.len(),
            missing,
            media_again: Percentiles::of(&media),
            whole_again: Percentiles::of(&whole),
            expected_elsewhere: tally.kept_expected,
            lost_elsewhere: tally.kept_expected.saturating_sub(tally.kept_delivered),
            broken: Vec::new(),
        };
        outcome.judge(whole.max_micros(), limit);
        outcome
    }

    /// Nanoseconds from the failure until `to` has all that `from` sends; none: it has not.
    fn back(&self, to: &PeerPlan, from: &PeerPlan) -> Option<u64> {
        let sends = [(false, from.audio.is_some()), (true, from.video)];
        let mut back = Some(0);
        for (video, _) in sends.into_iter().filter(|(_, sends)| to.receives && *sends) {
            back = back.max_of(self.came(to.place(), from.number, video));
        }
        back
    }

    fn came(&self, to: Place, from: usize, video: bool) -> Option<u64> {
        let (streams, failed) = (self.streams.borrow(), self.failed.get());
        let wanted = |it: &&Awaited| (it.to, it.from, it.video) == (to, from, video);
        let again = streams.iter().filter(wanted).filter(|stream| stream.made >= failed);
        let came = again.map(|stream| stream.came.load(Ordering::Acquire));
        came.filter(|came| *came > 0).map(|came| came.saturating_sub(failed)).min()
    }
}

/// The later of two times, if both came.
trait MaxOf {
    fn max_of(self, other: Self) -> Self;
}

impl MaxOf for Option<u64> {
    fn max_of(self, other: Self) -> Self {
        Some(self?.max(other?))
    }
}

impl Outcome {
    fn judge(&mut self, longest: Option<f64>, limit: Duration) {
        let Self { hit, missing, lost_elsewhere, .. } = *self;
        if hit == 0 {
            self.broken.push("no shard failed: is the server built with `test-hooks`?".to_owned());
        }
        if missing > 0 {
            self.broken.push(format!("{missing} of {hit} peers of the failed shard are not back"));
        }
        if let Some(micros) = longest.filter(|micros| *micros > limit.as_micros() as f64) {
            let (seconds, limit) = (micros / 1e6, limit.as_secs_f64());
            self.broken.push(format!("recovery in s: {seconds:.3}, allowed is {limit}"));
        }
        if lost_elsewhere > 0 {
            self.broken.push(format!("{lost_elsewhere} packets lost by peers of other shards"));
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { hit, spared, missing, expected_elsewhere, lost_elsewhere, .. } = self;
        let shard = self.shard.map_or_else(|| "none".to_owned(), |port| port.to_string());
        let mut text = format!(
            "failed shard  {shard}: {hit} peers hit, {spared} spared; {missing} not back\n"
        );
        for (name, times) in
            [("media again", &self.media_again), ("whole again", &self.whole_again)]
        {
            if let Some(times) = times {
                text.push_str(&format!("{name:<12}  {}\n", times.line()));
            }
        }
        text.push_str(&format!(
            "elsewhere     expected {expected_elsewhere}, lost {lost_elsewhere}\n"
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::settings::Settings;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Peer 0 of three in a meeting is hit; its media comes and goes again at `came` ms after the failure.
    fn outcome(came: [u64; 8], kept: (u64, u64)) -> Outcome {
        let scenario = plan::Scenario::Meeting;
        let plans = plan::peers(&Settings { scenario, peers: 3, ..Settings::default() });
        let recovery = Recovery::default();
        recovery.failed.set(1);
        recovery.note_hit((0, 0));
        let pairs = [(0, 1), (0, 2), (1, 0), (2, 0)];
        let streams = pairs.into_iter().flat_map(|pair| [(pair, false), (pair, true)]);
        for (((to, from), video), millis) in streams.zip(came) {
            let at = if millis == 0 { 0 } else { millis * clock::MS + 1 };
            recovery.await_media((0, to), from, video).store(at, Ordering::Release);
        }
        let (kept_expected, kept_delivered) = kept;
        let tally = Tally { kept_expected, kept_delivered, ..Tally::default() };
        recovery.outcome(&plans, &tally, LIMIT)
    }

    #[test]
    fn a_peer_is_back_when_all_has_come_both_ways() {
        let outcome = outcome([100, 200, 300, 50, 400, 500, 100, 100], (90, 90));
        assert_eq!((outcome.hit, outcome.spared, outcome.missing), (1, 2, 0));
        assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
        let text = outcome.text();
        assert!(text.contains("media again   p50 300"), "{text}");
        assert!(text.contains("whole again   p50 500"), "{text}");
    }

    #[test]
    fn what_is_missing_late_or_lost_is_broken() {
        for (came, kept, what) in [
            ([9, 9, 9, 9, 9, 9, 9, 0], (9, 9), "1 of 1 peers of the failed shard are not back"),
            ([9, 9, 9, 9, 9, 9, 9, 5100], (9, 9), "recovery in s: 5.1"),
            ([9; 8], (9, 8), "1 packets lost"),
        ] {
            let broken = outcome(came, kept).broken;
            assert!(broken.len() == 1 && broken[0].starts_with(what), "{broken:?}");
        }
        let nobody = Recovery::default().outcome(&[], &Tally::default(), LIMIT);
        assert!(nobody.broken[0].contains("test-hooks"));
    }
}
