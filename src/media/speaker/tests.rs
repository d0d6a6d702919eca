//! Rooms of synthetic talkers: syllables, coughs, clicks, fans, silence suppression, loss.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Half-open times in milliseconds.
type Span = std::ops::Range<u64>;

/// What one person's microphone hears.
#[derive(Clone, Debug, Default)]
struct Person {
    speech: Vec<Span>,
    /// Loud for the whole span, dying away within 100 ms after it.
    coughs: Vec<Span>,
    clicks: Vec<u64>,
    /// Even noise and its level in dBov.
    fan: Option<(Span, f64)>,
    /// Whether silence is sent as one packet per 400 ms (discontinuous transmission).
    dtx: bool,
}

fn talker(speech: &[Span]) -> Person {
    Person { speech: speech.to_vec(), ..Person::default() }
}

/// What happened: who was dominant from when on, in milliseconds.
type Log = Vec<(u64, Option<usize>)>;

struct Room {
    people: Vec<Person>,
    /// Part of the packets that get lost.
    loss: f64,
    /// Most that a packet is late, in milliseconds.
    jitter: u64,
    seed: u64,
}

impl Room {
    fn new(people: impl IntoIterator<Item = Person>, seed: u64) -> Self {
        Self { people: people.into_iter().collect(), loss: 0.0, jitter: 10, seed }
    }

    /// Runs until `end` and returns the changes of the dominant speaker.
    fn run(&self, end: u64) -> Log {
        let (mut log, mut speakers) = (Log::new(), Speakers::default());
        self.drive(end, &mut speakers, |speakers, millis, now| {
            if speakers.next_timeout().is_some_and(|due| due <= now)
                && let Some(change) = speakers.poll(now)
            {
                log.push((millis, change.speaker));
            }
        });
        log
    }

    /// Feeds `speakers` and calls `each` every 10 ms.
    fn drive(
        &self,
        end: u64,
        speakers: &mut Speakers<usize>,
        mut each: impl FnMut(&mut Speakers<usize>, u64, Instant),
    ) {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(self.seed));
        let at = |millis| start + Duration::from_millis(millis);
        let mut voices: Vec<Voice> = self.people.iter().map(|p| Voice::new(p, &mut rng)).collect();
        (0..voices.len()).for_each(|key| assert!(speakers.add(key)));
        let mut under_way: Vec<(u64, usize, u8)> = Vec::new();
        for millis in (0..end).step_by(10) {
            for (key, voice) in voices.iter_mut().enumerate() {
                if millis % 20 != 0 {
                    continue;
                }
                let level = voice.level(millis, &mut rng);
                if let Some(level) = level.filter(|_| !rng.random_bool(self.loss)) {
                    under_way.push((millis + rng.random_range(0..=self.jitter), key, level));
                }
            }
            under_way.retain(|&(arrival, key, level)| {
                let has_arrived = arrival <= millis;
                if has_arrived {
                    voices[key].loudness.packet(level, true, at(arrival));
                }
                !has_arrived
            });
            for (key, voice) in voices.iter_mut().enumerate() {
                if (millis + voice.phase) % 100 != 0 {
                    continue;
                }
                if let Some(summary) = voice.loudness.take_summary(at(millis)) {
                    speakers.summary(key, &summary, at(millis));
                }
            }
            each(speakers, millis, at(millis));
        }
    }
}

/// A person in the room, with what the simulation remembers of it.
struct Voice<'a> {
    person: &'a Person,
    loudness: Loudness,
    /// When in each 100 ms the summary is taken.
    phase: u64,
    /// How loud this voice is, and its room, in dBov.
    peak: f64,
    background: f64,
    syllable: Syllable,
    last_sent: u64,
}

/// Part of speech under way: a vowel with its on- and offset, then a dip.
#[derive(Clone, Copy, Debug, Default)]
struct Syllable {
    began: u64,
    vowel: u64,
    dip: u64,
    loudness: f64,
}

impl<'a> Voice<'a> {
    fn new(person: &'a Person, rng: &mut StdRng) -> Self {
        Self {
            person,
            loudness: Loudness::default(),
            phase: 10 * rng.random_range(0..10),
            peak: rng.random_range(-34.0..-20.0),
            background: rng.random_range(-85.0..-65.0),
            syllable: Syllable::default(),
            last_sent: 0,
        }
    }

    /// The level that the packet of `millis` carries; `None` if none is sent.
    fn level(&mut self, millis: u64, rng: &mut StdRng) -> Option<u8> {
        let mut dbov = self.background + rng.random_range(-2.0..2.0);
        if self.person.speech.iter().any(|span| span.contains(&millis)) {
            dbov = dbov.max(self.speech(millis, rng));
        }
        for cough in &self.person.coughs {
            let after = millis.saturating_sub(cough.end) as f64;
            if millis >= cough.start {
                dbov = dbov.max(-18.0 - after * 0.4 + rng.random_range(-5.0..5.0));
            }
        }
        if self.person.clicks.iter().any(|&click| (click..click + 20).contains(&millis)) {
            dbov = dbov.max(-20.0);
        }
        if let Some((span, level)) = &self.person.fan
            && span.contains(&millis)
        {
            dbov = dbov.max(level + rng.random_range(-1.5..1.5));
        }
        let is_quiet = dbov < -60.0;
        if self.person.dtx && is_quiet && millis < self.last_sent + 400 {
            return None;
        }
        self.last_sent = millis;
        Some((-dbov).clamp(0.0, 127.0) as u8)
    }

    /// Four to five syllables per second; every few of them a longer pause for breath.
    fn speech(&mut self, millis: u64, rng: &mut StdRng) -> f64 {
        let syllable = &mut self.syllable;
        if millis >= syllable.began + syllable.vowel + syllable.dip {
            let breath = millis > syllable.began + 1000 || rng.random_bool(0.9);
            let dip = if breath { 20..=100 } else { 200..=500 };
            *syllable = Syllable {
                began: millis,
                vowel: rng.random_range(100..=220),
                dip: rng.random_range(dip),
                loudness: self.peak + rng.random_range(-5.0..3.0),
            };
        }
        let within = millis - syllable.began;
        if within >= syllable.vowel {
            return syllable.loudness - rng.random_range(18.0..35.0);
        }
        // Rises in 40 ms, falls slowly.
        let onset = (40.0 - within as f64).max(0.0) * 0.3;
        let decay = 8.0 * within as f64 / syllable.vowel as f64;
        syllable.loudness - onset - decay + rng.random_range(-2.0..2.0)
    }
}

/// Sorted; `part` of 1 is the largest.
fn percentile(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Prints and checks how long after `onsets` (from which on somebody speaks) changes were announced.
fn report(name: &str, mut delays: Vec<u64>) {
    delays.sort_unstable();
    let [p50, p95, max] = [0.5, 0.95, 1.0].map(|part| percentile(&delays, part));
    println!("{name}: {} changes, ms to switch p50 {p50} p95 {p95} max {max}", delays.len());
    assert!(max <= 600, "{name}: {max} ms");
}

/// Delay of the change to `speaker` after `onset`.
fn delay(log: &Log, onset: u64, speaker: usize) -> u64 {
    let change = log.iter().find(|(millis, who)| *millis >= onset && *who == Some(speaker));
    change.map_or(u64::MAX, |(millis, _)| millis - onset)
}

#[test]
fn the_first_speaker_in_a_silent_room_is_found_within_600_ms() {
    let run = |seed| {
        let people = [talker(&[3000..6000]), Person::default(), Person::default()];
        delay(&Room::new(people, seed).run(6000), 3000, 0)
    };
    report("first words", (0..500).map(run).collect());
}

#[test]
fn turns_in_a_dialogue_are_seen_within_600_ms_and_nothing_else_is() {
    let mut delays = Vec::new();
    for seed in 0..200 {
        // From one second of overlap-free talk to the next: no gap, or 200 ms of it.
        let gap = (seed % 2) * 200;
        let turns: Vec<Span> = (1..8).map(|i| i * 4000 + gap..(i + 1) * 4000).collect();
        let of = |who| turns.iter().skip(who).step_by(2).cloned().collect::<Vec<_>>();
        let room = Room::new([talker(&of(0)), talker(&of(1)), Person::default()], seed);
        let log = room.run(32_000);
        for (i, turn) in turns.iter().enumerate() {
            delays.push(delay(&log, turn.start, i % 2));
        }
        assert_eq!(log.len(), turns.len(), "seed {seed}: one change per turn: {log:?}");
    }
    report("dialogue", delays);
}
