//! A timer wheel: thousands of deadlines, most of them a few milliseconds away, for a few nanoseconds each.

/// Nanoseconds of one slot, as a power of two: 262 µs. What is due is told exactly; a slot only groups.
const SLOT_BITS: u32 = 18;
/// Slots of one turn: 1.07 s. What is further away waits in its slot for a later turn.
const SLOTS: u64 = 4096;

/// Deadlines in nanoseconds of any clock that never goes back.
pub struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    /// All earlier slots are empty.
    current: u64,
    len: usize,
}

impl<T: Copy> Wheel<T> {
    /// An empty one whose clock shows `now`.
    pub fn new(now: u64) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { slots, current: now >> SLOT_BITS, len: 0 }
    }

    /// Wants `item` told at `due`; what is past is told next.
    pub fn insert(&mut self, due: u64, item: T) {
        let slot = (due >> SLOT_BITS).max(self.current);
        self.slots[(slot % SLOTS) as usize].push((due, item));
        self.len += 1;
    }

    /// Moves all that is due by `now` into `told`, each with its deadline; by slots in order.
    pub fn expire(&mut self, now: u64, told: &mut Vec<(u64, T)>) {
        let last = now >> SLOT_BITS;
        // After a long sleep, once around is enough.
        let first = self.current.max(last.saturating_sub(SLOTS - 1));
        for slot in first..=last {
            let entries = &mut self.slots[(slot % SLOTS) as usize];
            let mut index = 0;
            while index < entries.len() {
                if entries[index].0 <= now {
                    told.push(entries.swap_remove(index));
                    self.len -= 1;
                } else {
                    index += 1;
                }
            }
        }
        self.current = last.max(self.current);
    }

    /// The next deadline, or some moment before it.
    pub fn next(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        for slot in self.current..self.current + SLOTS {
            let due = self.slots[(slot % SLOTS) as usize].iter().map(|entry| entry.0);
            let next = due.filter(|due| due >> SLOT_BITS <= slot).min();
            if next.is_some() {
                return next;
            }
        }
        // All are further away than one turn.
        Some((self.current + SLOTS) << SLOT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_due_is_told_once_and_not_before() {
        let mut wheel = Wheel::new(5 * MS);
        assert_eq!(wheel.next(), None);
        wheel.insert(10 * MS, 'a');
        wheel.insert(10 * MS + 1, 'b');
        wheel.insert(MS, 'c');
        let mut told = Vec::new();
        wheel.expire(5 * MS, &mut told);
        assert_eq!(told, [(MS, 'c')]);
        assert_eq!(wheel.next(), Some(10 * MS));
        told.clear();
        wheel.expire(10 * MS, &mut told);
        assert_eq!(told, [(10 * MS, 'a')]);
        assert_eq!(wheel.next(), Some(10 * MS + 1));
        wheel.expire(100_000 * MS, &mut told);
        assert_eq!((told.len(), wheel.next()), (2, None));
    }

    proptest! {
        /// Whatever the deadlines and however the clock jumps, a heap would tell the same.
        #[test]
        fn it_tells_what_a_heap_would(
            dues in prop::collection::vec(0_u64..5_000 * MS, 1..200),
            steps in prop::collection::vec(1_u64..700 * MS, 1..50),
        ) {
            let mut wheel = Wheel::new(0);
            let mut waiting = dues.clone();
            dues.iter().for_each(|due| wheel.insert(*due, *due));
            let mut now = 0;
            for step in steps {
                now += step;
                let mut told = Vec::new();
                if let Some(next) = wheel.next() {
                    prop_assert!(waiting.iter().all(|due| *due >= next));
                }
                wheel.expire(now, &mut told);
                let mut told: Vec<u64> = told.into_iter().map(|(_, item)| item).collect();
                let mut expected: Vec<u64> = waiting.extract_if(.., |due| *due <= now).collect();
                told.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(told, expected);
            }
        }
    }
}
