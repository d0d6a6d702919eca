//! Sharing a transport's estimated bandwidth among its consumers.
//!
//! `share.rs` says what fits; [`Allocator`] decides when to follow it; [`WantedLayers`] tells a
//! publisher which of its layers nobody needs. A layer is paid for with everything it builds on, so the
//! same rules serve simulcast and SVC.
//!
//! Down at once, up with care: a consumer leaves a layer as soon as it does not fit any more, and takes
//! a higher one only after the estimate has exceeded the new need of all consumers by
//! [`HEADROOM_PERCENT`] without a break for [`UPGRADE_HOLD`]. If the bandwidth forced it down before, that
//! must last for its back-off and by [`AMPLE_PERCENT`]. Only new consumers take what fits at once.

use std::time::{Duration, Instant};

mod share;
#[cfg(test)]
mod tests;
mod wanted;

pub use self::share::{MAX_LAYERS, SCREEN_FLOOR};
pub use self::wanted::{PAUSE_HOLD, WantedLayers, wanted_layers};

use self::share::Ladder;

/// How much higher than the need the estimate must be before anything is added, in percent. Above the
/// ±10 % by which estimates commonly swing.
pub const HEADROOM_PERCENT: u64 = 12;

/// With this much headroom the line has changed rather than swung: a consumer that was forced down need
/// only wait for its back-off. With less, it waits for [`BACK_OFF_MAX`].
pub const AMPLE_PERCENT: u64 = 35;

/// For how long there must be headroom without a break before a consumer goes up.
pub const UPGRADE_HOLD: Duration = Duration::from_millis(500);

/// The same for a consumer that the bandwidth has forced down: no upgrade for this long.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(2);

/// The back-off doubles up to here each time that a consumer is forced down soon after it went up.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// A layer that a consumer has kept for this long was no mistake: its back-off is forgotten.
pub const STABLE_AFTER: Duration = Duration::from_secs(20);

/// Consumers per transport that take part: two streams of each of a thousand peers. Others are paused.
pub const MAX_CONSUMERS: usize = 2048;

/// A quality of one producer: the higher, the better; spatial counts before temporal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer {
    /// Simulcast encoding or SVC spatial layer, lowest is 0.
    pub spatial: u8,
    /// Temporal layer, lowest is 0.
    pub temporal: u8,
}

/// What it costs to forward a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRate {
    /// As in [`Layer`].
    pub spatial: u8,
    /// As in [`Layer`].
    pub temporal: u8,
    /// Bit/s of the layer and all that it builds on; 0: not being sent.
    pub bits_per_second: u64,
}

/// What a consumer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sound, which is always forwarded.
    Audio,
    /// A camera's picture.
    Camera,
    /// A shared screen, which is the last to be paused.
    Screen,
}

/// What one consumer asks for. Paused consumers ask for nothing: leave them out.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, K> {
    /// Whose request it is; equal priorities are served in this order.
    pub id: K,
    /// What it carries.
    pub kind: Kind,
    /// 1 (lowest, also for 0) to 255: turns per round in which layers are handed out.
    pub priority: u8,
    /// The most it wants, in both dimensions.
    pub preferred: Layer,
    /// The producer's layers in any order; those beyond [`MAX_LAYERS`] are left out.
    pub layers: &'a [LayerRate],
    /// What is being forwarded. Counts only when the allocator does not know the consumer yet; later
    /// it goes on from what it granted, since a switch takes effect only with a key frame.
    pub current: Option<Layer>,
}

/// Why a consumer got what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// All that it wants.
    Preferred,
    /// The best (or nothing) of what is being sent, which is less than it wants.
    NotSent,
    /// More does not fit.
    Bandwidth,
    /// More would fit, but it is not yet sure to last.
    Hysteresis,
    /// More consumers than [`MAX_CONSUMERS`].
    TooMany,
}

/// What one consumer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<K> {
    /// Whose it is.
    pub id: K,
    /// What to forward; `None`: nothing for now.
    pub layer: Option<Layer>,
    /// Why not more, or why not at all.
    pub reason: Reason,
}

/// The outcome of one allocation.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a, K> {
    /// One per request, in the order of the requests.
    pub grants: &'a [Grant<K>],
    /// Bit/s that everything wanted and sent would cost. To get there, the estimate must exceed it by
    /// [`HEADROOM_PERCENT`]: the goal of probing.
    pub desired: u64,
    /// Bit/s that the grants cost. At most what is available, or what audio and [`SCREEN_FLOOR`] take.
    pub granted: u64,
    /// When to allocate again even if nothing changes: a hold or a back-off ends.
    pub next_timeout: Option<Instant>,
}

/// Decides which layers a transport's consumers get.
#[derive(Debug)]
pub struct Allocator<K> {
    /// Sorted by id: the consumers of the last allocation.
    known: Vec<State<K>>,
    /// When the first allocation was: times are counted from it.
    epoch: Option<Instant>,
}

/// Milliseconds since an allocator's first allocation, modulo 2^32, which is 49 days: only differences count.
type Millis = u32;

/// Scratch space for all allocators of a thread: several times as large as what each of them remembers. All but
/// `turns` is in the order of the requests.
#[derive(Debug)]
pub struct Workspace<K> {
    states: Vec<State<K>>,
    ladders: Vec<Ladder<K>>,
    heights: Vec<usize>,
    turns: Vec<usize>,
    grants: Vec<Grant<K>>,
}

/// What is remembered of a consumer between allocations.
#[derive(Clone, Debug)]
struct State<K> {
    id: K,
    granted: Option<Layer>,
    preferred: Layer,
    /// Whether there is no present layer to protect: it takes what fits.
    fresh: bool,
    /// What there has been headroom for.
    safe: Rising,
    /// What there has been ample headroom for.
    ample: Rising,
    /// How long there must be headroom, in ms: more than [`UPGRADE_HOLD`] is a back-off.
    hold: u16,
    /// When it went up, unless it was forced down since.
    went_up: Option<Millis>,
}

// Every consumer of video has one.
const _: () = assert!(size_of::<State<u32>>() <= 36);
const _: () = assert!(BACK_OFF_MAX.as_millis() <= u16::MAX as u128);

/// A chance to go up: since when there has been one without a break, and the least that it was for.
#[derive(Clone, Copy, Debug, Default)]
struct Rising(Option<(Millis, Option<Layer>)>);

impl<K> Default for Allocator<K> {
    fn default() -> Self {
        Self { known: Vec::new(), epoch: None }
    }
}

impl<K> Default for Workspace<K> {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            ladders: Vec::new(),
            heights: Vec::new(),
            turns: Vec::new(),
            grants: Vec::new(),
        }
    }
}

impl<K: Copy + Ord> Allocator<K> {
    /// Shares `available` bit/s among `requests`, which name every consumer of the transport that is
    /// not paused; those that are not named are forgotten. No id may occur twice.
    pub fn allocate<'a>(
        &mut self,
        work: &'a mut Workspace<K>,
        requests: &[Request<'_, K>],
        available: u64,
        now: Instant,
    ) -> Outcome<'a, K> {
        let (served, refused) = requests.split_at(requests.len().min(MAX_CONSUMERS));
        work.states.clear();
        let known = &self.known;
        work.states.extend(served.iter().map(|request| {
            let found = known.binary_search_by(|state| state.id.cmp(&request.id));
            found.map_or_else(|_| State::new(request), |index| known[index].clone())
        }));
        let epoch = *self.epoch.get_or_insert(now);
        let since = now.saturating_duration_since(epoch).as_millis() as Millis;
        work.climb(served, available, since);
        self.known.clear();
        self.known.reserve_exact(work.states.len());
        self.known.extend_from_slice(&work.states);
        self.known.sort_unstable_by_key(|state| state.id);
        let wait = work.states.iter().filter_map(|state| state.wait(since)).min();
        work.outcome(refused, available, wait.map(|wait| now + wait))
    }

    /// What was available last was a guess at a line of which hardly anything is known: that it was too little for
    /// somebody says nothing against trying again soon.
    pub fn forgive(&mut self) {
        self.known.iter_mut().for_each(|state| state.hold = millis(UPGRADE_HOLD));
    }
}

impl<K: Copy + Ord> Workspace<K> {
    /// Finds out for each how high it may stand, and what is to be remembered of that.
    fn climb(&mut self, served: &[Request<'_, K>], available: u64, now: Millis) {
        self.ladders.clear();
        let pairs = served.iter().zip(&self.states);
        self.ladders.extend(pairs.map(|(request, state)| Ladder::new(request, state.granted)));
        share::order(&self.ladders, &mut self.turns);

        self.share(without_headroom(available, AMPLE_PERCENT));
        for (i, state) in self.states.iter_mut().enumerate() {
            state.ample.track(&self.ladders[i], state.granted, self.heights[i], now);
        }
        self.share(without_headroom(available, HEADROOM_PERCENT));
        for (i, state) in self.states.iter_mut().enumerate() {
            state.safe.track(&self.ladders[i], state.granted, self.heights[i], now);
        }
        for (i, state) in self.states.iter_mut().enumerate() {
            self.ladders[i].cap = state.cap(&self.ladders[i], served[i].preferred, now);
        }
        self.share(available);
        let mut is_short = false;
        for (i, state) in self.states.iter_mut().enumerate() {
            is_short |= state.settle(&self.ladders[i], self.heights[i], now);
        }
        if is_short {
            // What one had to give up is no chance for another: the estimate has just proved unsteady.
            self.states.iter_mut().for_each(State::back_off);
        }
    }

    fn share(&mut self, available: u64) {
        share::share(&self.ladders, &self.turns, available, &mut self.heights);
    }

    fn outcome(
        &mut self,
        refused: &[Request<'_, K>],
        available: u64,
        next_timeout: Option<Instant>,
    ) -> Outcome<'_, K> {
        let stands = || self.ladders.iter().zip(&self.heights);
        let granted = stands().map(|(ladder, height)| ladder.cost(*height)).sum();
        let desired = self.ladders.iter().map(|ladder| ladder.cost(ladder.top())).sum();
        let spare = available.saturating_sub(granted);
        self.grants.clear();
        self.grants.extend(stands().zip(&self.states).map(|((ladder, height), state)| {
            let (layer, reason) = (ladder.layer(*height), ladder.reason(*height, spare));
            Grant { id: state.id, layer, reason }
        }));
        let refuse = |request: &Request<'_, K>| Grant {
            id: request.id,
            layer: None,
            reason: Reason::TooMany,
        };
        self.grants.extend(refused.iter().map(refuse));
        Outcome { grants: &self.grants, desired, granted, next_timeout }
    }
}

impl<K: Copy + Ord> State<K> {
    fn new(request: &Request<'_, K>) -> Self {
        Self {
            id: request.id,
            granted: request.current,
            preferred: request.preferred,
            fresh: request.current.is_none(),
            safe: Rising::default(),
            ample: Rising::default(),
            hold: millis(UPGRADE_HOLD),
            went_up: None,
        }
    }

    /// How high the consumer may climb now.
    fn cap(&mut self, ladder: &Ladder<K>, preferred: Layer, now: Millis) -> usize {
        let wished = std::mem::replace(&mut self.preferred, preferred) != preferred;
        let stands = ladder.height(self.granted);
        let is_lost = self.granted.is_some() && stands == 0;
        if self.fresh || is_lost {
            return ladder.top();
        }
        if self.went_up.is_some_and(|at| now.wrapping_sub(at) >= millis(STABLE_AFTER).into()) {
            self.hold = millis(UPGRADE_HOLD);
        }
        let safe = self.safe.reaches(ladder, if wished { 0 } else { self.patience() }, now);
        let ample = self.ample.reaches(ladder, self.hold, now);
        stands.max(safe).max(ample)
    }

    /// Takes note of the height that the consumer got. Returns whether it was forced down.
    fn settle(&mut self, ladder: &Ladder<K>, height: usize, now: Millis) -> bool {
        let stood = ladder.height(self.granted);
        if height < stood {
            let kept_for = self.went_up.take().map(|at| now.wrapping_sub(at));
            let (least, most) = (millis(BACK_OFF_MIN), millis(BACK_OFF_MAX));
            self.hold = match kept_for {
                Some(time) if time < millis(STABLE_AFTER).into() => {
                    (2 * self.hold).clamp(least, most)
                }
                Some(_) => least,
                None => self.hold.max(least),
            };
        }
        if height > stood {
            self.went_up = Some(now);
        }
        // Moved, or allowed to and not able: the wait begins again.
        if height != stood || ladder.cap > stood {
            (self.safe, self.ample) = (Rising::default(), Rising::default());
        }
        self.granted = ladder.layer(height);
        self.fresh = ladder.top() == 0;
        height < stood
    }

    fn back_off(&mut self) {
        self.hold = self.hold.max(millis(BACK_OFF_MIN));
        (self.safe, self.ample) = (Rising::default(), Rising::default());
    }

    /// How long headroom that is not ample must last.
    fn patience(&self) -> u16 {
        let least = millis(UPGRADE_HOLD);
        if self.hold > least { millis(BACK_OFF_MAX) } else { least }
    }

    /// How long it has to wait yet for what it has a chance of.
    fn wait(&self, now: Millis) -> Option<Duration> {
        let left = |rising: &Rising, hold: u16| {
            rising.0.map(|(since, _)| Millis::from(hold).saturating_sub(now.wrapping_sub(since)))
        };
        let all = [left(&self.safe, self.patience()), left(&self.ample, self.hold)];
        all.into_iter().flatten().min().map(|left| Duration::from_millis(left.into()))
    }
}

impl Rising {
    /// Takes note of the height that there is headroom for now.
    fn track<K: Copy + Ord>(
        &mut self,
        ladder: &Ladder<K>,
        granted: Option<Layer>,
        height: usize,
        now: Millis,
    ) {
        let goal = ladder.layer(height);
        let chance = self.0.map_or((now, goal), |(since, least)| (since, least.min(goal)));
        self.0 = (height > ladder.height(granted)).then_some(chance);
    }

    /// The height that there has been headroom for during the whole of `hold`; 0 if for none.
    /// It is given in ms.
    fn reaches<K: Copy + Ord>(&self, ladder: &Ladder<K>, hold: u16, now: Millis) -> usize {
        match self.0 {
            Some((since, least)) if now.wrapping_sub(since) >= hold.into() => ladder.height(least),
            _ => 0,
        }
    }
}

/// One of the times above in ms, all of which are short.
const fn millis(time: Duration) -> u16 {
    time.as_millis() as u16
}

/// The part of `available` that leaves `percent` of headroom.
fn without_headroom(available: u64, percent: u64) -> u64 {
    (u128::from(available) * 100 / u128::from(100 + percent)) as u64
}
