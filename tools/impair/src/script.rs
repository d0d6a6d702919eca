//! What a run is made of: both directions' profiles, what changes when, and the commands of standard input.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::profile::{BadSetting, Change, Profile, duration};

/// Most changes in a timeline: a change each second for an hour and more.
const MAX_TIMELINE: usize = 10_000;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// A change for one direction or both: `down rate=500k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    text: String,
    directions: &'static [Direction],
    change: Change,
}

impl Turn {
    /// The directions that it changes.
    pub fn directions(&self) -> impl Iterator<Item = Direction> {
        self.directions.iter().copied()
    }

    /// What changes in each.
    pub fn change(&self) -> &Change {
        &self.change
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What can be written to standard input.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Change a line.
    Turn(Turn),
    /// Print the counters.
    Stats,
    /// Print them a last time and end.
    Quit,
}

/// A turn at its time after the first datagram: `10s down rate=500k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// After the first datagram.
    pub at: Duration,
    /// What changes.
    pub turn: Turn,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// Decides what chance decides.
    pub seed: u64,
    /// From clients to the target.
    pub up: Profile,
    /// From the target to clients.
    pub down: Profile,
    /// In the order of time.
    pub timeline: Vec<Timed>,
}

/// Something written that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadScript {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// No such command.
    #[error("{0:?}: wanted is up, down or both with settings, stats, or quit")]
    Command(String),
    /// No such change.
    #[error("{0:?}: wanted is a time with its unit, then up, down or both with settings")]
    Timed(String),
    /// No such file.
    #[error("the profile is not of the form that the README shows: {0}")]
    File(String),
    /// Too many changes.
    #[error("a timeline has at most {MAX_TIMELINE} changes")]
    TooLong,
}

impl FromStr for Turn {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Self, BadScript> {
        let text = text.trim();
        let (name, settings) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let directions: &[Direction] = match name {
            "up" => &[Direction::Up],
            "down" => &[Direction::Down],
            "both" => &[Direction::Up, Direction::Down],
            _ => return Err(BadScript::Command(text.to_owned())),
        };
        Ok(Self { text: text.to_owned(), directions, change: settings.parse()? })
    }
}

impl FromStr for Command {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Self, BadScript> {
        match text.trim() {
            "stats" => Ok(Self::Stats),
            "quit" => Ok(Self::Quit),
            turn => turn.parse().map(Self::Turn),
        }
    }
}

impl FromStr for Timed {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Self, BadScript> {
        let bad = || BadScript::Timed(text.to_owned());
        let (at, turn) = text.trim().split_once(char::is_whitespace).ok_or_else(bad)?;
        Ok(Self { at: duration(at).ok_or_else(bad)?, turn: turn.parse()? })
    }
}

/// A profile file, in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    both: String,
    #[serde(default)]
    up: String,
    #[serde(default)]
    down: String,
    #[serde(default)]
    timeline: Vec<String>,
}

impl Script {
    /// Reads a profile file's text.
    pub fn from_json(text: &str) -> Result<Self, BadScript> {
        let file: File = serde_json::from_str(text).map_err(|e| BadScript::File(e.to_string()))?;
        let mut script = Self { seed: file.seed, ..Self::default() };
        for (name, settings) in [("both", file.both), ("up", file.up), ("down", file.down)] {
            script.turn(&format!("{name} {settings}").parse()?);
        }
        for timed in &file.timeline {
            script.add(timed.parse()?)?;
        }
        Ok(script)
    }

    /// Changes what the run begins with.
    pub fn turn(&mut self, turn: &Turn) {
        for direction in turn.directions() {
            turn.change().apply(match direction {
                Direction::Up => &mut self.up,
                Direction::Down => &mut self.down,
            });
        }
    }

    /// Puts a change into the timeline, behind those of the same time.
    pub fn add(&mut self, timed: Timed) -> Result<(), BadScript> {
        if self.timeline.len() >= MAX_TIMELINE {
            return Err(BadScript::TooLong);
        }
        let place = self.timeline.partition_point(|earlier| earlier.at <= timed.at);
        self.timeline.insert(place, timed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_the_whole_run() {
        let script = Script::from_json(
            r#"{
              "seed": 7, "both": "delay=30ms", "down": "rate=5M",
              "timeline": ["20s down rate=5M", "10s down rate=500k"]
            }"#,
        )
        .expect("a good file");
        let delay = Duration::from_millis(30);
        assert_eq!((script.seed, script.up.delay, script.down.delay), (7, delay, delay));
        assert_eq!((script.up.rate, script.down.rate), (None, Some(5_000_000)));
        let times: Vec<_> = script.timeline.iter().map(|timed| timed.at.as_secs()).collect();
        assert_eq!(times, [10, 20]);
    }

    #[test]
    fn files_with_mistakes_are_refused() {
        for text in [
            "",
            "7",
            r#"{"sed": 7}"#,
            r#"{"up": "rate=x"}"#,
            r#"{"timeline": ["down rate=1M"]}"#,
            r#"{"timeline": ["5s sideways rate=1M"]}"#,
            r#"{"seed": -1}"#,
        ] {
            assert!(Script::from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn commands() {
        assert_eq!("stats".parse(), Ok(Command::Stats));
        assert_eq!(" quit ".parse(), Ok(Command::Quit));
        let turn = "both loss=2%".parse::<Turn>().expect("a turn");
        assert_eq!(turn.directions().count(), 2);
        assert_eq!("both loss=2%".parse(), Ok(Command::Turn(turn)));
        assert_eq!("halt".parse::<Command>(), Err(BadScript::Command("halt".to_owned())));
        assert!("down rate".parse::<Command>().is_err());
    }
}
