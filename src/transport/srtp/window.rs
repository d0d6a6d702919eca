//! Replay windows (RFC 3711 §3.3.2).

/// Which of the latest indices have been seen: the highest one, and the `WORDS - 1` times 64 before
/// it for certain.
///
/// The bits lie in a ring of words, as RFC 6479 proposes, so that moving on clears whole words and
/// shifts nothing; the word that is being filled is the one that cannot be counted on in full.
#[derive(Clone, Debug)]
pub(super) struct Window<const WORDS: usize> {
    highest: u64,
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    /// How far behind the highest index another is still told apart; at that distance it is too old.
    pub(super) const LEN: u64 = (WORDS as u64 - 1) * 64;

    /// The window of a sender whose first packet has `index`.
    pub(super) fn starting_at(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.mark(index);
        window
    }

    /// The highest index seen.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` is neither seen nor too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        self.highest - index < Self::LEN && self.seen[Self::word(index)] & Self::bit(index) == 0
    }

    /// Remembers `index`, which [`Self::is_fresh`] and has been authenticated.
    pub(super) fn insert(&mut self, index: u64) {
        if index > self.highest {
            let (from, to) = (self.highest / 64 + 1, index / 64);
            for word in from..=to.min(from + WORDS as u64 - 1) {
                self.seen[Self::word(word * 64)] = 0;
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        self.seen[Self::word(index)] |= Self::bit(index);
    }

    fn word(index: u64) -> usize {
        (index / 64 % WORDS as u64) as usize
    }

    fn bit(index: u64) -> u64 {
        1 << (index % 64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    type Small = Window<3>;

    #[test]
    fn tells_the_whole_length_and_not_one_more() {
        let mut window = Small::starting_at(1000);
        assert!(!window.is_fresh(1000));
        assert!(window.is_fresh(1000 - Small::LEN + 1));
        assert!(!window.is_fresh(1000 - Small::LEN));
        window.insert(1000 - Small::LEN + 1);
        assert!(!window.is_fresh(1000 - Small::LEN + 1));
        assert_eq!(window.highest(), 1000);
    }

    #[test]
    fn a_jump_forgets_what_it_leaps_over() {
        let mut window = Small::starting_at(0);
        (1..192).for_each(|index| window.insert(index));
        window.insert(192 * 5 + 7);
        let unseen = (192 * 5 + 7 - Small::LEN + 1)..192 * 5 + 7;
        assert!(unseen.clone().all(|index| window.is_fresh(index)));
        assert!(!window.is_fresh(unseen.start - 1));
    }

    proptest! {
        /// The ring agrees with a set that forgets nothing.
        #[test]
        fn agrees_with_a_set(start in 0u64..1000, steps in prop::collection::vec(-150i64..100, 1..400)) {
            let mut window = Small::starting_at(start);
            let mut seen = HashSet::from([start]);
            for step in steps {
                let Some(index) = window.highest().checked_add_signed(step) else { continue };
                let highest = *seen.iter().max().unwrap();
                let fresh = !seen.contains(&index) && index + Small::LEN > highest;
                prop_assert_eq!(window.is_fresh(index), fresh, "{} behind {}", index, highest);
                if fresh {
                    window.insert(index);
                    seen.insert(index);
                }
            }
        }
    }
}
