//! Rooms of synthetic talkers: syllables, coughs, clicks, fans, silence suppression, loss.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

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

fn talker(speech: Span) -> Person {
    talker_in_turns(std::iter::once(speech))
}

fn talker_in_turns(speech: impl Iterator<Item = Span>) -> Person {
    Person { speech: speech.collect(), ..Person::default() }
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
        if let Some(turn) = self.person.speech.iter().find(|span| span.contains(&millis)) {
            dbov = dbov.max(self.speech(millis - turn.start, millis, rng));
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

    /// Four to five syllables per second, but for the first words a longer pause after every tenth.
    fn speech(&mut self, spoken: u64, millis: u64, rng: &mut StdRng) -> f64 {
        let syllable = &mut self.syllable;
        if spoken == 0 || millis >= syllable.began + syllable.vowel + syllable.dip {
            let is_pause = spoken > 600 && rng.random_bool(0.1);
            let dip = if is_pause { 200..=500 } else { 20..=100 };
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

/// Prints how long after somebody began to speak that was announced, and checks that it was `within`.
fn report(name: &str, mut delays: Vec<u64>, within: u64) {
    delays.sort_unstable();
    let [p50, p95, max] = [0.5, 0.95, 1.0].map(|part| percentile(&delays, part));
    println!("{name}: {} changes, ms to switch p50 {p50} p95 {p95} max {max}", delays.len());
    assert!(max <= within, "{name}: {max} ms");
}

/// Delay of the change to `speaker` after `onset`.
fn delay(log: &Log, onset: u64, speaker: usize) -> u64 {
    let change = log.iter().find(|(millis, who)| *millis >= onset && *who == Some(speaker));
    change.map_or(u64::MAX, |(millis, _)| millis - onset)
}

#[test]
fn the_first_speaker_in_a_silent_room_is_found_within_600_ms() {
    let run = |seed| {
        let people = [talker(3000..6000), Person::default(), Person::default()];
        delay(&Room::new(people, seed).run(6000), 3000, 0)
    };
    report("first words", (0..500).map(run).collect(), 600);
}

#[test]
fn turns_in_a_dialogue_are_seen_within_600_ms_and_nothing_else_is() {
    let mut delays = Vec::new();
    for seed in 0..100 {
        // One takes over from the other without a gap, or after 200 ms.
        let gap = (seed % 2) * 200;
        let turns: Vec<Span> = (1..8).map(|i| i * 4000 + gap..(i + 1) * 4000).collect();
        let talker = |who| talker_in_turns(turns.iter().skip(who).step_by(2).cloned());
        let room = Room::new([talker(0), talker(1), Person::default()], seed);
        let log = room.run(32_000);
        for (i, turn) in turns.iter().enumerate() {
            delays.push(delay(&log, turn.start, i % 2));
        }
        assert_eq!(log.len(), turns.len(), "seed {seed}: one change per turn: {log:?}");
    }
    report("dialogue", delays, 600);
}

/// Everything but speech: each kind of disturbance beside somebody who speaks, and in a silent room.
#[test]
fn coughs_clicks_and_noise_never_make_a_speaker() {
    let cough =
        Person { coughs: vec![5000..5200, 9000..9200, 14_000..14_200], ..Person::default() };
    let typing = (0..40).map(|i| 4000 + i * 137).collect();
    let clicks = Person { clicks: typing, ..Person::default() };
    let fan = Person { fan: Some((4000..u64::MAX, -45.0)), ..Person::default() };
    let loud_fan = Person { fan: Some((4000..9000, -30.0)), ..Person::default() };
    let always = Person { fan: Some((0..u64::MAX, -45.0)), ..Person::default() };
    let both = Person { coughs: cough.coughs.clone(), ..fan.clone() };
    let kinds = [("cough", cough), ("clicks", clicks), ("fan", fan), ("loud fan", loud_fan)];
    let kinds = kinds.into_iter().chain([("constant fan", always), ("cough in a fan", both)]);
    for (name, person) in kinds {
        for seed in 0..100 {
            let log = Room::new([Person::default(), person.clone()], seed).run(20_000);
            assert_eq!(log, [], "{name} in a silent room, seed {seed}");
            let room = Room::new([talker(1000..20_000), person.clone()], seed);
            let log = room.run(20_000);
            assert_eq!(log.len(), 1, "{name} beside a speaker, seed {seed}: {log:?}");
        }
    }
}

#[test]
fn an_interjection_hardly_ever_takes_the_floor() {
    let mut changes = 0;
    for seed in 0..200 {
        let interjections = (2..10).map(|i| i * 2000..i * 2000 + 400);
        let room = Room::new([talker(1000..20_000), talker_in_turns(interjections)], seed);
        changes += room.run(20_000).len() - 1;
    }
    println!("interjections of 400 ms: 1600, changes {changes}");
    assert!(changes <= 48, "{changes}: each that succeeds makes two");
}

#[test]
fn two_who_talk_at_once_do_not_make_the_picture_jump() {
    let mut changes = 0;
    for seed in 0..60 {
        let room = Room::new([talker(1000..21_000), talker(2000..21_000)], seed);
        changes += room.run(21_000).len() - 1;
    }
    println!("two at once: {changes} changes in 20 minutes");
    assert!(changes <= 40, "{changes}");
}

#[test]
fn silence_suppression_loss_and_jitter_are_borne() {
    let mut delays = Vec::new();
    for seed in 0..200 {
        let people = [talker(3000..7000), talker(7000..11_000), Person::default()];
        let quiet = |person: Person| Person { dtx: true, ..person };
        let room = Room { loss: 0.1, jitter: 40, ..Room::new(people.map(quiet), seed) };
        let log = room.run(16_000);
        delays.extend([delay(&log, 3000, 0), delay(&log, 7000, 1)]);
        let (ended, nobody) = *log.last().expect("changes");
        assert_eq!(nobody, None, "seed {seed}");
        assert!((13_500..=14_500).contains(&ended), "seed {seed}: silence told at {ended}");
    }
    report("DTX, 10 % loss, 40 ms jitter", delays, 700);
}

#[test]
fn a_dominant_speaker_who_leaves_is_told_at_once() {
    let (mut speakers, mut left) = (Speakers::default(), None);
    Room::new([talker(0..5000)], 1).drive(3000, &mut speakers, |speakers, millis, now| {
        let change = speakers.poll(now);
        if millis == 2000 {
            assert_eq!(speakers.dominant(), Some(0));
            speakers.remove(0);
            left = speakers.poll(now);
        } else if millis > 2000 {
            assert_eq!(change, None, "a stranger's summaries are ignored");
        }
    });
    assert_eq!(left, Some(Change { speaker: None }));
}

#[test]
fn a_silent_producer_costs_no_summaries_and_a_silent_room_no_timers() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let (mut loudness, mut speakers, mut summaries) = (Loudness::default(), Speakers::default(), 0);
    speakers.add(());
    for millis in (0..60_000).step_by(20) {
        if millis < 30_000 {
            loudness.packet(75, true, at(millis));
        }
        if millis % 100 == 0
            && let Some(summary) = loudness.take_summary(at(millis))
        {
            summaries += 1;
            speakers.summary((), &summary, at(millis));
        }
        assert_eq!(speakers.poll(at(millis)), None);
    }
    assert!(summaries <= 1, "{summaries} summaries of even noise and of nothing");
    assert_eq!(speakers.next_timeout(), None);
}

/// RFC 6464 §3: the flag says whether there is voice, if the sender knows.
#[test]
fn the_voice_flag_counts_only_if_the_sender_uses_it() {
    let heard = |first_flag| {
        let (start, mut loudness) = (Instant::now(), Loudness::default());
        let at = |millis| start + Duration::from_millis(millis);
        loudness.packet(80, first_flag, start);
        for (i, level) in [80, 30, 50, 30].into_iter().cycle().take(30).enumerate() {
            loudness.packet(level, false, at(20 * i as u64 + 20));
        }
        (0..7)
            .filter_map(|i| loudness.take_summary(at(i * 100)))
            .any(|summary| !summary.is_silent())
    };
    assert!(heard(false), "never set: no flag");
    assert!(!heard(true), "set once: unset means no voice");
}

#[test]
fn levels_name_those_who_can_be_heard() {
    let (mut speakers, mut heard) = (Speakers::default(), [0; 2]);
    let room = Room::new([talker(0..10_000), Person::default()], 3);
    room.drive(10_000, &mut speakers, |speakers, _, now| {
        for (key, level) in speakers.levels(now) {
            heard[key] += 1;
            assert!((-80..=-10).contains(&level), "{level} dBov");
        }
    });
    assert!(heard[0] > 800, "heard in {} of 1000 samples", heard[0]);
    assert_eq!(heard[1], 0);
}

#[test]
fn the_loudest_keep_their_places_until_somebody_needs_them() {
    let turns = [0..4000, 4000..8000, 8000..12_000, 4000..12_000];
    let people = turns.map(talker);
    let (mut speakers, mut swaps, mut last) = (Speakers::default(), 0, Vec::new());
    Room::new(people, 5).drive(12_000, &mut speakers, |speakers, millis, now| {
        speakers.poll(now);
        let mut loudest = speakers.loudest(2, now).to_vec();
        loudest.sort_unstable();
        assert_eq!(loudest.len(), 2, "places are not left empty");
        let dominant = speakers.dominant();
        assert!(dominant.is_none_or(|key| loudest.contains(&key)));
        if millis == 7000 {
            assert_eq!(loudest, [1, 3]);
        }
        if millis == 11_900 {
            assert_eq!(loudest, [2, 3]);
        }
        swaps += usize::from(loudest != last);
        last = loudest;
    });
    assert!(swaps <= 6, "{swaps} changes of the set for 3 changes of talkers");
}

#[test]
fn members_are_bounded() {
    let mut speakers = Speakers::default();
    assert!((0..MAX_MEMBERS).all(|key| speakers.add(key)));
    assert!(speakers.add(0), "is a member already");
    assert!(!speakers.add(MAX_MEMBERS));
    speakers.remove(7);
    assert!(speakers.add(MAX_MEMBERS));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Levels and times come from the network: nothing panics, no level leaves its range.
    #[test]
    fn any_levels_at_any_times_are_survived(
        packets in proptest::collection::vec((0u8..=255, any::<bool>(), 0u64..3000), 1..300),
    ) {
        let (start, mut millis) = (Instant::now(), 0u64);
        let (mut loudness, mut speakers) = (Loudness::default(), Speakers::default());
        speakers.add(());
        for (level, voice, step) in packets {
            // Mostly small steps, sometimes back in time, sometimes far ahead.
            millis = if step > 2900 { millis.saturating_sub(step) } else { millis + step / 20 };
            let now = start + Duration::from_millis(if step == 2900 { millis + 1_000_000_000 } else { millis });
            loudness.packet(level, voice, now);
            if let Some(summary) = loudness.take_summary(now) {
                prop_assert!(summary.levels.iter().all(|&level| level <= SILENT));
                speakers.summary((), &summary, now);
            }
            speakers.poll(now);
            prop_assert!(speakers.loudest(1, now).len() == 1);
        }
    }
}
