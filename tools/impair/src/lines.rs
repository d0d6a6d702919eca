//! All lines of a run: one for everybody, or one for each client, each with its two directions.

use std::collections::HashMap;
use std::time::Duration;

use crate::counters::Counters;
use crate::dice::Dice;
use crate::line::Line;
use crate::profile::Profile;
use crate::script::{Direction, Script, Timed, Turn};

/// Names a client's flow, and its line if it has one of its own.
pub type FlowId = u64;

/// The line that everybody shares has this name; flows are numbered from 1.
const SHARED: FlowId = 0;

/// The lines with their timeline. Time is the duration since the relay began.
pub struct Lines<P> {
    script: Script,
    /// The first change of the timeline that is still to come.
    upcoming: usize,
    /// When the first datagram came: the timeline's zero.
    begun: Option<Duration>,
    per_client: bool,
    lines: HashMap<FlowId, Both<P>>,
    /// Counters of the lines that are gone.
    gone: BothCounters,
}

struct Both<P> {
    up: Line<P>,
    down: Line<P>,
}

/// Counters of both directions.
#[derive(Clone, Debug, Default)]
pub struct BothCounters {
    /// From clients to the target.
    pub up: Counters,
    /// From the target to clients.
    pub down: Counters,
}

impl<P: Clone> Lines<P> {
    /// No line is there before its first packet.
    pub fn new(script: Script, per_client: bool) -> Self {
        let (lines, gone) = (HashMap::new(), BothCounters::default());
        Self { script, upcoming: 0, begun: None, per_client, lines, gone }
    }

    /// Sends a packet along the line of its flow.
    pub fn offer(&mut self, now: Duration, flow: FlowId, way: Direction, packet: P, size: usize) {
        self.begun.get_or_insert(now);
        let name = if self.per_client { flow } else { SHARED };
        let script = &self.script;
        let both = self.lines.entry(name).or_insert_with(|| Both {
            up: Line::new(seed(script.seed, name, Direction::Up), script.up.clone()),
            down: Line::new(seed(script.seed, name, Direction::Down), script.down.clone()),
        });
        // The line has counted the drop.
        let _dropped = both.direction(way).offer(now, packet, size);
    }

    /// Hands what has landed by `now` to `deliver`.
    pub fn land(&mut self, now: Duration, mut deliver: impl FnMut(Direction, P)) {
        for both in self.lines.values_mut() {
            for way in [Direction::Up, Direction::Down] {
                while let Some(packet) = both.direction(way).land(now) {
                    deliver(way, packet);
                }
            }
        }
    }

    /// When there is something to land or to change.
    pub fn next(&self) -> Option<Duration> {
        let lines = self.lines.values().flat_map(|both| [both.up.next(), both.down.next()]);
        lines.flatten().chain(self.next_turn()).min()
    }

    /// Makes the timeline's changes that are due; says which, for whoever watches.
    pub fn follow_timeline(&mut self, now: Duration) -> Option<Timed> {
        self.next_turn().filter(|at| *at <= now)?;
        let timed = self.script.timeline[self.upcoming].clone();
        self.upcoming += 1;
        self.turn(now, &timed.turn);
        Some(timed)
    }

    /// Changes all lines, those to come too.
    pub fn turn(&mut self, now: Duration, turn: &Turn) {
        self.script.turn(turn);
        for both in self.lines.values_mut() {
            for way in turn.directions() {
                both.direction(way).set(now, self.script.direction(way).clone());
            }
        }
    }

    /// Forgets a flow's own line, but not what it did.
    pub fn forget(&mut self, flow: FlowId) {
        if let Some(both) = self.lines.remove(&flow) {
            self.gone.up.merge(both.up.counters());
            self.gone.down.merge(both.down.counters());
        }
    }

    /// What all did so far.
    pub fn counters(&self) -> BothCounters {
        let mut sum = self.gone.clone();
        for both in self.lines.values() {
            sum.up.merge(both.up.counters());
            sum.down.merge(both.down.counters());
        }
        sum
    }

    fn next_turn(&self) -> Option<Duration> {
        Some(self.begun? + self.script.timeline.get(self.upcoming)?.at)
    }
}

impl<P> Both<P> {
    fn direction(&mut self, way: Direction) -> &mut Line<P> {
        match way {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl BothCounters {
    /// What happened since `earlier`, a copy of this one.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { up: self.up.since(&earlier.up), down: self.down.since(&earlier.down) }
    }
}

impl Script {
    fn direction(&self, way: Direction) -> &Profile {
        match way {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

fn seed(run: u64, line: FlowId, way: Direction) -> u64 {
    Dice::new(run, line * 2 + u64::from(way == Direction::Down)).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lines(up: &str, per_client: bool) -> Lines<u64> {
        let mut script = Script { seed: 5, ..Script::default() };
        script.turn(&format!("up {up}").parse().expect("settings"));
        Lines::new(script, per_client)
    }

    fn landed(lines: &mut Lines<u64>, now: Duration) -> Vec<u64> {
        let mut landed = Vec::new();
        lines.land(now, |_, packet| landed.push(packet));
        landed
    }

    #[test]
    fn a_shared_line_is_shared_and_an_own_one_is_not() {
        // 10 ms for each packet of 1222 + 28 bytes.
        for (per_client, expected) in [(false, 1), (true, 2)] {
            let mut lines = lines("rate=1M", per_client);
            for flow in [1, 2] {
                lines.offer(Duration::ZERO, flow, Direction::Up, flow, 1222);
            }
            assert_eq!(landed(&mut lines, 10 * MS).len(), expected);
        }
    }

    #[test]
    fn lines_of_their_own_lose_packets_of_their_own() {
        let mut lines = lines("loss=50%", true);
        for packet in 0..64 {
            lines.offer(Duration::ZERO, 1 + packet % 2, Direction::Up, packet / 2, 100);
        }
        let mut arrived = landed(&mut lines, Duration::ZERO);
        arrived.sort_unstable();
        assert!(arrived.windows(2).any(|pair| pair[0] == pair[1]), "both passed some");
        arrived.dedup();
        assert!(
            arrived.len() as u64 != lines.counters().up.delivered.packets / 2,
            "not the same ones"
        );
    }

    #[test]
    fn the_timeline_begins_with_the_first_datagram_and_is_for_lines_to_come_too() {
        let mut lines = lines("delay=1ms", true);
        lines.script.add("10ms up delay=20ms".parse().expect("a timed turn")).expect("room");
        assert_eq!(lines.next(), None);
        lines.offer(100 * MS, 1, Direction::Up, 1, 100);
        assert_eq!(landed(&mut lines, 101 * MS), [1]);
        assert_eq!(lines.next(), Some(110 * MS));
        assert_eq!(lines.follow_timeline(109 * MS), None);
        assert!(lines.follow_timeline(110 * MS).is_some());
        for flow in [1, 2] {
            lines.offer(110 * MS, flow, Direction::Up, flow, 100);
        }
        assert!(landed(&mut lines, 129 * MS).is_empty());
        assert_eq!(landed(&mut lines, 130 * MS).len(), 2);
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn what_a_forgotten_line_did_still_counts() {
        let mut lines = lines("loss=0%", true);
        lines.offer(Duration::ZERO, 1, Direction::Up, 1, 100);
        assert_eq!(landed(&mut lines, Duration::ZERO), [1]);
        lines.forget(1);
        assert_eq!(lines.counters().up.delivered.packets, 1);
    }
}
