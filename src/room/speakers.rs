//! Who speaks: loudness is measured where audio arrives, and judged on the room's home shard.

use std::time::{Duration, Instant};

use crate::id::{Extension, ProducerId, RoomKey, ShardId};
use crate::media::speaker::{SUMMARY, Speakers, Summary};
use crate::room::forward::Opened;
use crate::room::loudest::Choice;
use crate::room::parcel::Note;
use crate::room::producer::Source;
use crate::room::spec::Event;
use crate::room::timers::Timer;
use crate::room::{Engine, Outbox};
use crate::wire::extension::AudioLevel;

/// A room whose home this shard is.
#[derive(Default)]
pub(super) struct Voices {
    pub(super) speakers: Speakers<ProducerId>,
    /// Which of them are forwarded.
    pub(super) choice: Choice,
    /// How often control wants the levels.
    interval: Option<Duration>,
}

impl Engine {
    /// Notes how loud an audio packet says that it is (RFC 6464).
    pub(super) fn note_level(&mut self, now: Instant, packet: &[u8], opened: &Opened) {
        let producer = &mut self.producers[opened.producer];
        // A replica's voice is heard where it arrives.
        if producer.paused || !matches!(producer.source, Source::Transport(_)) {
            return;
        }
        let level = opened.element(Extension::AudioLevel, packet).and_then(AudioLevel::parse);
        let (Some(loudness), Some(level)) = (&mut producer.loudness, level) else { return };
        loudness.packet(level.level, level.voice, opened.received_at);
        self.timers.schedule(Timer::Loudness(opened.producer), now + SUMMARY);
    }

    /// Tells a producer's loudness to the room's home.
    pub(super) fn send_loudness(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        let Some(summary) = producer.loudness.as_mut().and_then(|l| l.take_summary(now)) else {
            return;
        };
        self.timers.schedule(Timer::Loudness(key), now + SUMMARY);
        self.tell_home(now, key, Some(summary), out);
    }

    /// A producer of audio is gone or paused: its room forgets its voice.
    pub(super) fn silence(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let producer = &mut self.producers[key];
        if let Some(loudness) = &mut producer.loudness {
            // When it is heard again it is a new voice, which nobody has muted.
            loudness.forgotten();
            let id = producer.id;
            self.set_muted(id, false, out);
            self.tell_home(now, key, None, out);
        }
    }

    /// What another shard, or this one, has to tell of a producer's voice; `None`: it is gone.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        from: ShardId,
        (room, producer): (RoomKey, ProducerId),
        summary: Option<Summary>,
        out: &mut impl Outbox,
    ) {
        let voices = self.voices.entry(room).or_default();
        match summary {
            Some(summary) => {
                if voices.speakers.add(producer) {
                    voices.choice.add(producer, from);
                }
                voices.speakers.summary(producer, &summary, now);
            }
            None => {
                voices.speakers.remove(producer);
                voices.choice.remove(producer);
            }
        }
        self.judge(now, room);
        self.choose_loudest(now, room, out);
    }

    /// Decides who speaks in a room.
    pub(super) fn judge(&mut self, now: Instant, room: RoomKey) {
        let Some(voices) = self.voices.get_mut(&room) else { return };
        if let Some(change) = voices.speakers.poll(now) {
            self.events.push_back(Event::ActiveSpeaker { room, producer: change.speaker });
        }
        if let Some(at) = voices.speakers.next_timeout() {
            self.timers.schedule(Timer::Speaker(room), at);
        }
        let is_idle = voices.interval.is_none() && !voices.choice.is_limited();
        if voices.speakers.is_empty() && is_idle {
            self.voices.remove(&room);
        }
    }

    /// Control wants a room's levels every so often, or no more.
    pub(super) fn subscribe_levels(
        &mut self,
        now: Instant,
        room: RoomKey,
        interval: Option<Duration>,
    ) {
        self.voices.entry(room).or_default().interval = interval;
        self.timers.cancel(Timer::Levels(room));
        match interval {
            Some(interval) => self.timers.schedule(Timer::Levels(room), now + interval),
            None => self.judge(now, room),
        }
    }

    /// Tells control a room's levels.
    pub(super) fn tell_levels(&mut self, now: Instant, room: RoomKey) {
        let Some(voices) = self.voices.get(&room) else { return };
        let Some(interval) = voices.interval else { return };
        let levels = voices.speakers.levels(now).collect();
        self.events.push_back(Event::Levels { room, levels });
        self.timers.schedule(Timer::Levels(room), now + interval);
    }

    fn tell_home(
        &mut self,
        now: Instant,
        key: usize,
        summary: Option<Summary>,
        out: &mut impl Outbox,
    ) {
        let producer = &self.producers[key];
        let (room, home, id) = (producer.room, producer.home, producer.id);
        if home == self.shard {
            return self.hear(now, home, (room, id), summary, out);
        }
        self.hand_over(home, Note::Loudness { room, producer: id, summary }, out);
    }
}
