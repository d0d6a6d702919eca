//! What fits: bandwidth handed out in steps from one layer to the next.
//!
//! 1. Sound takes what it needs, whatever is available.
//! 2. Every picture takes its lowest layer if that fits: screens first, then cameras, each by priority.
//! 3. Round after round, each picture goes up as many layers as its priority says, the highest priority
//!    first, a screen before a camera of the same; until nobody can go up any more.
//!
//! The rounds are mediasoup's. What is left never grows, so whoever is stuck stays stuck. That makes the
//! outcome monotone: a higher priority never gets a consumer less.

use std::cmp::Reverse;

use crate::media::allocation::{Kind, Layer, Reason, Request};

/// Layers of one producer that take part: four spatial with four temporal ones each.
pub const MAX_LAYERS: usize = 16;

/// The lowest layer of one screen is forwarded even beyond the estimate if it costs no more than this,
/// in bit/s: a still screen sends so little that the estimate says nothing about the line (Jitsi lets
/// screens go over by 500 kbit/s), and unlike a camera it cannot be done without.
pub const SCREEN_FLOOR: u64 = 150_000;

/// A rate that no stream has; keeps sums far from overflow.
const MAX_RATE: u64 = 1 << 40;

/// The layers that one consumer can have, in steps that each cost at least as much as the one below.
#[derive(Clone, Debug)]
pub(super) struct Ladder<K> {
    id: K,
    kind: Kind,
    priority: u8,
    rungs: [Rung; MAX_LAYERS],
    len: usize,
    /// How high it may climb in this allocation; 0 is off the ladder.
    pub(super) cap: usize,
    /// Whether something is wanted above the highest rung that the producer has but does not send.
    missing: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    layer: Layer,
    /// Bit/s of standing on this rung.
    cost: u64,
}

impl<K: Copy + Ord> Ladder<K> {
    /// What `request` can have. The layer `granted` before stays on the ladder while it is sent, even
    /// if a better one should happen to cost less at the moment.
    pub(super) fn new(request: &Request<'_, K>, granted: Option<Layer>) -> Self {
        let mut ladder = Self {
            id: request.id,
            kind: request.kind,
            priority: request.priority.max(1),
            rungs: [Rung::default(); MAX_LAYERS],
            len: 0,
            cap: MAX_LAYERS,
            missing: false,
        };
        if request.kind == Kind::Audio {
            let rates = request.layers.iter().map(|rate| rate.bits_per_second);
            ladder.push(Rung { layer: Layer::default(), cost: rates.max().unwrap_or(0) });
            return ladder;
        }
        ladder.collect(request);
        ladder.straighten(granted);
        ladder
    }

    /// Rungs on the ladder: the height of the highest.
    pub(super) fn top(&self) -> usize {
        self.len
    }

    /// The layer at `height`; `None` off the ladder.
    pub(super) fn layer(&self, height: usize) -> Option<Layer> {
        let index = height.checked_sub(1)?;
        Some(self.rungs[index].layer)
    }

    /// Bit/s of standing at `height`.
    pub(super) fn cost(&self, height: usize) -> u64 {
        height.checked_sub(1).map_or(0, |index| self.rungs[index].cost)
    }

    /// The height of the highest rung that is not above `layer`.
    pub(super) fn height(&self, layer: Option<Layer>) -> usize {
        let reachable = |layer| self.rungs().iter().rposition(|rung| rung.layer <= layer);
        layer.and_then(reachable).map_or(0, |index| index + 1)
    }

    /// Why a consumer stands at `height` while `spare` bit/s are left.
    pub(super) fn reason(&self, height: usize, spare: u64) -> Reason {
        if height < self.len {
            let step = self.cost(height + 1) - self.cost(height);
            return if step <= spare { Reason::Hysteresis } else { Reason::Bandwidth };
        }
        if self.missing || self.len == 0 { Reason::NotSent } else { Reason::Preferred }
    }

    fn rungs(&self) -> &[Rung] {
        &self.rungs[..self.len]
    }

    fn push(&mut self, rung: Rung) {
        if self.len < MAX_LAYERS {
            self.rungs[self.len] = Rung { cost: rung.cost.min(MAX_RATE), ..rung };
            self.len += 1;
        }
    }

    /// Takes the layers that are sent and wanted, lowest first.
    fn collect(&mut self, request: &Request<'_, K>) {
        let layers = &request.layers[..request.layers.len().min(MAX_LAYERS)];
        let sent = layers.iter().filter(|rate| rate.bits_per_second > 0);
        // With nothing sent at or below the wanted size, the next one must do.
        let smallest = sent.clone().map(|rate| rate.spatial).min().unwrap_or(0);
        let spatial = request.preferred.spatial.max(smallest);
        let is_wanted =
            |layer: Layer| layer.spatial <= spatial && layer.temporal <= request.preferred.temporal;
        for rate in sent {
            let layer = Layer { spatial: rate.spatial, temporal: rate.temporal };
            if is_wanted(layer) {
                self.push(Rung { layer, cost: rate.bits_per_second });
            }
        }
        self.rungs[..self.len].sort_unstable_by_key(|rung| (rung.layer, rung.cost));
        let highest = self.layer(self.len);
        self.missing = layers.iter().any(|rate| {
            let layer = Layer { spatial: rate.spatial, temporal: rate.temporal };
            rate.bits_per_second == 0 && is_wanted(layer) && Some(layer) > highest
        });
    }

    /// Leaves out rungs that cost as much as a higher one, and lets no step have a negative price.
    fn straighten(&mut self, granted: Option<Layer>) {
        let mut cheapest_above = u64::MAX;
        let mut kept = [false; MAX_LAYERS];
        for (rung, keep) in self.rungs[..self.len].iter().zip(&mut kept).rev() {
            *keep = rung.cost < cheapest_above || Some(rung.layer) == granted;
            cheapest_above = cheapest_above.min(rung.cost);
        }
        let (before, mut floor) = (self.rungs, 0);
        let len = std::mem::take(&mut self.len);
        for (rung, _) in before[..len].iter().zip(kept).filter(|(_, keep)| *keep) {
            floor = rung.cost.max(floor);
            self.push(Rung { cost: floor, ..*rung });
        }
    }
}

/// Order in which turns are taken, as indices into `ladders`.
pub(super) fn order<K: Copy + Ord>(ladders: &[Ladder<K>], turns: &mut Vec<usize>) {
    turns.clear();
    turns.extend(0..ladders.len());
    turns.sort_unstable_by_key(|&i| {
        let ladder = &ladders[i];
        (Reverse(ladder.priority), ladder.kind == Kind::Camera, ladder.id)
    });
}

/// Hands out `available` bit/s: how high each of `ladders` gets, at most to its cap.
pub(super) fn share<K: Copy + Ord>(
    ladders: &[Ladder<K>],
    turns: &[usize],
    available: u64,
    heights: &mut Vec<usize>,
) {
    heights.clear();
    heights.resize(ladders.len(), 0);
    let mut left = available;
    let of_kind = |kind| turns.iter().copied().filter(move |&i| ladders[i].kind == kind);
    for i in of_kind(Kind::Audio) {
        heights[i] = 1;
        left = left.saturating_sub(ladders[i].cost(1));
    }
    let mut spared = SCREEN_FLOOR;
    for i in of_kind(Kind::Screen) {
        if climb(&ladders[i], &mut heights[i], left.max(spared)) > 0 {
            left = left.saturating_sub(ladders[i].cost(1));
            spared = 0;
        }
    }
    for i in of_kind(Kind::Camera) {
        left -= climb(&ladders[i], &mut heights[i], left);
    }
    loop {
        let mut moved = false;
        for &i in turns {
            for _ in 0..ladders[i].priority {
                let before = heights[i];
                if ladders[i].kind == Kind::Audio || before == 0 {
                    break;
                }
                left -= climb(&ladders[i], &mut heights[i], left);
                if heights[i] == before {
                    break;
                }
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

/// Goes up one rung if the cap allows it and the step costs at most `left`. Returns what it costs.
fn climb<K: Copy + Ord>(ladder: &Ladder<K>, height: &mut usize, left: u64) -> u64 {
    if *height >= ladder.cap.min(ladder.top()) {
        return 0;
    }
    let step = ladder.cost(*height + 1) - ladder.cost(*height);
    if step > left {
        return 0;
    }
    *height += 1;
    step
}
