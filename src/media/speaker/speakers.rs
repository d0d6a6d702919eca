//! The members of one room: who is dominant, how loud everybody is, who are the loudest.

use std::hash::Hash;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::media::speaker::activity::{Activity, Scores};
use crate::media::speaker::{SILENT, SUMMARY, Summary};

/// Audio producers of one room that take part; more are not listened to.
pub const MAX_MEMBERS: usize = 4096;

/// When nobody has spoken for this long, nobody is dominant.
pub const SILENCE: Duration = Duration::from_secs(3);

/// For this long after a member was heard last, only a louder one takes its place among the loudest.
pub const LOUDEST_HOLD: Duration = Duration::from_secs(2);

/// Decisions are at least this far apart, however the summaries of many shards trickle in.
const DECISION_INTERVAL: Duration = Duration::from_millis(50);

/// A summary this late is lost, or was never sent because there was silence.
const LATE: Duration = Duration::from_millis(150);

/// By how much a member must be louder to take another's place among the loudest, in 1/16 dB: 6 dB.
const LOUDER: u16 = 6 * 16;

/// By how much the remembered loudness falls per 100 ms of silence: 0.5 dB.
const FADE: u16 = 8;

/// The dominant speaker has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<K> {
    /// Who speaks now; `None`: nobody.
    pub speaker: Option<K>,
}

/// Everybody in a room who may speak.
#[derive(Debug)]
pub struct Speakers<K> {
    scores: Scores,
    /// In the order in which they came.
    members: Vec<Member<K>>,
    index: FxHashMap<K, usize>,
    dominant: Option<K>,
    /// What was said last by [`Self::poll`].
    told: Option<K>,
    /// Somebody's newest block was active.
    last_sound: Option<Instant>,
    last_decision: Option<Instant>,
    due: Option<Instant>,
    loudest: Vec<K>,
}

#[derive(Clone, Debug)]
struct Member<K> {
    key: K,
    activity: Activity,
    /// Up to when `activity` reaches.
    updated: Option<Instant>,
    heard: Option<Instant>,
    /// Rises fast, fades slowly; in 1/16 dB above silence.
    loudness: u16,
}

impl<K> Default for Speakers<K> {
    fn default() -> Self {
        Self {
            scores: Scores::new(),
            members: Vec::new(),
            index: FxHashMap::default(),
            dominant: None,
            told: None,
            last_sound: None,
            last_decision: None,
            due: None,
            loudest: Vec::new(),
        }
    }
}

impl<K: Copy + Eq + Hash> Speakers<K> {
    /// Whether nobody takes part.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a member in. Returns whether it takes part: not if there are [`MAX_MEMBERS`].
    pub fn add(&mut self, key: K) -> bool {
        if self.index.contains_key(&key) {
            return true;
        }
        if self.members.len() >= MAX_MEMBERS {
            return false;
        }
        self.index.insert(key, self.members.len());
        self.members.push(Member::new(key));
        true
    }

    /// Lets a member go, or takes note that it is paused: add it again when it resumes. If it was
    /// dominant, the next [`Self::poll`] says so.
    pub fn remove(&mut self, key: K) {
        let Some(position) = self.index.remove(&key) else {
            return;
        };
        self.members.remove(position);
        for (position, member) in self.members.iter().enumerate().skip(position) {
            self.index.insert(member.key, position);
        }
        self.loudest.retain(|&chosen| chosen != key);
        if self.dominant == Some(key) {
            self.dominant = None;
            self.due = self.last_decision;
        }
    }

    /// Takes note of a summary; those of unknown members are ignored.
    pub fn summary(&mut self, key: K, summary: &Summary, now: Instant) {
        let Some(&position) = self.index.get(&key) else {
            return;
        };
        let member = &mut self.members[position];
        member.catch_up(now);
        member.push(summary, now);
        if member.activity.is_active() {
            self.last_sound = Some(now);
        }
        let earliest = self.last_decision.map_or(now, |last| now.max(last + DECISION_INTERVAL));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Decides if it is time to, and returns whether the dominant speaker has changed.
    pub fn poll(&mut self, now: Instant) -> Option<Change<K>> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.last_decision = Some(now);
        for member in &mut self.members {
            member.catch_up(now);
        }
        if let Some(challenger) = self.challenger() {
            self.dominant = Some(challenger);
        } else if self.last_sound.is_some_and(|at| now.saturating_duration_since(at) >= SILENCE) {
            self.dominant = None;
        }
        // Without summaries nothing but the silence can make a difference.
        self.due = self.dominant.and(self.last_sound).map(|at| at + SILENCE);
        if self.dominant == self.told {
            return None;
        }
        self.told = self.dominant;
        Some(Change { speaker: self.dominant })
    }

    /// When to call [`Self::poll`]; `None` while nothing is going on.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Who is dominant.
    pub fn dominant(&self) -> Option<K> {
        self.dominant
    }

    /// Who can be heard now, and how loud they are: -127 to 0 dBov, the loudest 20 ms of the last summary.
    pub fn levels(&self, now: Instant) -> impl Iterator<Item = (K, i8)> + '_ {
        let is_fresh = move |member: &&Member<K>| {
            let age = member.updated.map(|at| now.saturating_duration_since(at));
            age.is_some_and(|age| age < SUMMARY + LATE) && member.activity.volume() > 0
        };
        let level = |member: &Member<K>| member.activity.volume() as i8 - SILENT as i8;
        self.members.iter().filter(is_fresh).map(move |member| (member.key, level(member)))
    }

    /// The up to `n` members to forward if only the loudest are: the dominant speaker and whoever else
    /// is loud or was lately. A place is kept until somebody needs it: at once after
    /// [`LOUDEST_HOLD`] of silence, otherwise only somebody louder by 6 dB.
    pub fn loudest(&mut self, n: usize, now: Instant) -> &[K] {
        for member in &mut self.members {
            member.catch_up(now);
        }
        let mut chosen = std::mem::take(&mut self.loudest);
        while chosen.len() > n {
            let quietest = self.quietest(&chosen, now);
            chosen.swap_remove(quietest);
        }
        while let Some((key, loudness)) = self.loudest_outsider(&chosen, now) {
            if chosen.len() < n {
                chosen.push(key);
                continue;
            }
            if chosen.is_empty() {
                break;
            }
            let quietest = self.quietest(&chosen, now);
            let incumbent = self.loudness(chosen[quietest], now);
            let margin = if incumbent == 0 { 0 } else { LOUDER };
            if loudness <= incumbent + margin {
                break;
            }
            chosen[quietest] = key;
        }
        self.loudest = chosen;
        &self.loudest
    }

    /// Who of the others beats the dominant speaker most clearly.
    fn challenger(&self) -> Option<K> {
        let none = Activity::default();
        let position = self.dominant.and_then(|key| self.index.get(&key).copied());
        let dominant = position.map_or(&none, |position| &self.members[position].activity);
        let mut best: Option<&Member<K>> = None;
        for (i, member) in self.members.iter().enumerate() {
            let activity = &member.activity;
            if Some(i) == position
                || !activity.has_evidence()
                || !self.scores.beats(activity, dominant)
            {
                continue;
            }
            let rank = |member: &Member<K>| (member.activity.long(), member.loudness);
            if best.is_none_or(|best| rank(member) > rank(best)) {
                best = Some(member);
            }
        }
        best.map(|member| member.key)
    }

    /// How firmly `key` holds a place among the loudest.
    fn loudness(&self, key: K, now: Instant) -> u16 {
        if self.dominant == Some(key) {
            return u16::MAX - LOUDER;
        }
        let member = self.index.get(&key).map(|&position| &self.members[position]);
        member.map_or(0, |member| member.loudness_at(now))
    }

    /// Position of the quietest of `chosen`, which is not empty.
    fn quietest(&self, chosen: &[K], now: Instant) -> usize {
        let loudness = |&i: &usize| self.loudness(chosen[i], now);
        (0..chosen.len()).min_by_key(loudness).unwrap_or(0)
    }

    fn loudest_outsider(&self, chosen: &[K], now: Instant) -> Option<(K, u16)> {
        let outsiders = self.members.iter().map(|m| m.key).filter(|key| !chosen.contains(key));
        // Of equals the first counts.
        outsiders.map(|key| (key, self.loudness(key, now))).rev().max_by_key(|(_, loud)| *loud)
    }
}

impl<K> Member<K> {
    fn new(key: K) -> Self {
        Self { key, activity: Activity::default(), updated: None, heard: None, loudness: 0 }
    }

    fn push(&mut self, summary: &Summary, now: Instant) {
        self.activity.push(summary);
        self.updated = Some(now);
        let volume = 16 * u16::from(self.activity.volume());
        if volume > 0 {
            self.heard = Some(now);
        }
        if volume > self.loudness {
            self.loudness = (self.loudness + volume).div_ceil(2);
        } else {
            self.loudness = self.loudness.saturating_sub(FADE).max(volume);
        }
    }

    /// Where summaries are missing by now there was silence.
    fn catch_up(&mut self, now: Instant) {
        let Some(updated) = self.updated else {
            return;
        };
        let overdue = now.saturating_duration_since(updated).saturating_sub(LATE);
        let missing = (overdue.as_millis() / SUMMARY.as_millis()) as u64;
        if missing == 0 {
            return;
        }
        self.activity.push_silence(missing);
        self.loudness = self.loudness.saturating_sub(FADE.saturating_mul(missing.min(1000) as u16));
        self.updated = Some(updated + SUMMARY * missing.min(u64::from(u32::MAX)) as u32);
    }

    fn loudness_at(&self, now: Instant) -> u16 {
        let is_held = self.heard.is_some_and(|at| now.saturating_duration_since(at) < LOUDEST_HOLD);
        if is_held { self.loudness } else { 0 }
    }
}
