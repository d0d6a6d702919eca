//! The highest layer that anyone wants of a producer, for pausing what nobody wants.

use std::time::{Duration, Instant};

use crate::media::allocation::Layer;

/// A layer must have been unwanted for this long before the publisher is asked to stop it; it is asked
/// for again at once. As long as LiveKit's dynacast waits.
pub const PAUSE_HOLD: Duration = Duration::from_secs(5);

/// The highest layer that any of `wants` asks for, per dimension; `None` if none asks for any. What
/// counts is each consumer's wish, not what its line carries now: a layer that is not sent could
/// never be chosen again.
pub fn wanted_layers(wants: impl IntoIterator<Item = Option<Layer>>) -> Option<Layer> {
    wants.into_iter().fold(None, join)
}

/// What a publisher has been told about the layers wanted of one producer.
#[derive(Clone, Debug)]
pub struct WantedLayers {
    told: Option<Layer>,
    /// Less has been wanted since then, and at most this.
    lowering: Option<(Instant, Option<Layer>)>,
}

impl WantedLayers {
    /// A producer that sends layers up to `highest`, as it does until told otherwise.
    pub fn new(highest: Layer) -> Self {
        Self { told: Some(highest), lowering: None }
    }

    /// What the publisher has been told last; `None`: to send nothing.
    pub fn told(&self) -> Option<Layer> {
        self.told
    }

    /// Takes note that `wanted` (of [`wanted_layers`]) is the most that anyone wants now. Call it at each
    /// change and at [`Self::next_timeout`]. Returns what to tell the publisher, if that has changed:
    /// more at once, less when nobody has wanted more for [`PAUSE_HOLD`].
    pub fn update(&mut self, wanted: Option<Layer>, now: Instant) -> Option<Option<Layer>> {
        let raised = join(self.told, wanted);
        if raised != self.told {
            self.told = raised;
            self.lowering = (wanted != raised).then_some((now, wanted));
            return Some(raised);
        }
        let (since, most) = self.lowering.unwrap_or((now, None));
        let most = join(most, wanted);
        if most == self.told {
            self.lowering = None;
            return None;
        }
        if now.saturating_duration_since(since) < PAUSE_HOLD {
            self.lowering = Some((since, most));
            return None;
        }
        self.told = most;
        self.lowering = (wanted != most).then_some((now, wanted));
        Some(most)
    }

    /// When to call [`Self::update`] again even if nothing changes.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.lowering.map(|(since, _)| since + PAUSE_HOLD)
    }
}

/// What satisfies both wishes.
fn join(a: Option<Layer>, b: Option<Layer>) -> Option<Layer> {
    let (Some(a), Some(b)) = (a, b) else {
        return a.or(b);
    };
    Some(Layer { spatial: a.spatial.max(b.spatial), temporal: a.temporal.max(b.temporal) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: Layer = Layer { spatial: 2, temporal: 2 };

    fn layer(spatial: u8, temporal: u8) -> Option<Layer> {
        Some(Layer { spatial, temporal })
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_highest_wish_counts_in_each_dimension() {
        assert_eq!(wanted_layers([]), None);
        assert_eq!(wanted_layers([None, None]), None);
        assert_eq!(wanted_layers([layer(0, 2), None, layer(2, 0)]), layer(2, 2));
    }

    #[test]
    fn less_is_told_only_after_the_hold_and_more_at_once() {
        let (start, mut wanted) = (Instant::now(), WantedLayers::new(TOP));
        assert_eq!(wanted.update(layer(1, 2), start), None);
        assert_eq!(wanted.next_timeout(), Some(start + PAUSE_HOLD));
        assert_eq!(wanted.update(layer(1, 2), at(start, 4999)), None);
        assert_eq!(wanted.update(layer(1, 2), start + PAUSE_HOLD), Some(layer(1, 2)));
        assert_eq!(wanted.next_timeout(), None);
        assert_eq!(wanted.update(layer(2, 2), at(start, 5001)), Some(layer(2, 2)));
    }

    #[test]
    fn nobody_left_means_nothing_to_send_after_the_hold() {
        let (start, mut wanted) = (Instant::now(), WantedLayers::new(TOP));
        assert_eq!(wanted.update(None, start), None);
        assert_eq!(wanted.update(None, start + PAUSE_HOLD), Some(None));
        assert_eq!(wanted.update(layer(0, 0), at(start, 6000)), Some(layer(0, 0)));
    }

    #[test]
    fn a_wish_that_comes_and_goes_tells_the_publisher_nothing() {
        let (start, mut wanted) = (Instant::now(), WantedLayers::new(TOP));
        for i in 0..100u64 {
            let wish = if i % 4 == 0 { Some(TOP) } else { layer(0, 0) };
            assert_eq!(wanted.update(wish, at(start, i * 1000)), None, "at {i} s");
        }
    }

    #[test]
    fn what_was_wanted_during_the_hold_is_kept() {
        let (start, mut wanted) = (Instant::now(), WantedLayers::new(TOP));
        wanted.update(layer(0, 0), start);
        wanted.update(layer(1, 0), at(start, 2000));
        wanted.update(layer(0, 0), at(start, 3000));
        assert_eq!(wanted.update(layer(0, 0), start + PAUSE_HOLD), Some(layer(1, 0)));
        let second = start + PAUSE_HOLD + PAUSE_HOLD;
        assert_eq!(wanted.update(layer(0, 0), second), Some(layer(0, 0)));
    }
}
