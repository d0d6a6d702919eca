//! Random wishes, losses and reordering: no decoder ever misses what was not lost.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::decoders::Decoder;
use super::room::Room;
use super::streams::{Format, Packet, Shape};
use crate::media::layers::Kind;

const RUNS: u64 = 1400;
const PICTURES: u64 = 160;

const SHAPES: &[(Kind, Shape)] = &[
    (Kind::Simulcast, shape(Format::Vp8, 1, 3, false)),
    (Kind::Simulcast, shape(Format::Vp8, 1, 1, false)),
    (Kind::Simulcast, shape(Format::H264, 1, 1, false)),
    (Kind::Simulcast, shape(Format::Vp9Flexible, 1, 3, false)),
    (Kind::Simulcast, shape(Format::Vp9Pattern, 1, 3, false)),
    (Kind::Simulcast, shape(Format::Av1, 1, 3, false)),
    (Kind::Simulcast, shape(Format::H264Layered, 1, 3, false)),
    (Kind::Svc, shape(Format::Vp9Flexible, 3, 3, false)),
    (Kind::Svc, shape(Format::Vp9Flexible, 3, 3, true)),
    (Kind::Svc, shape(Format::Vp9Pattern, 3, 3, false)),
    (Kind::Svc, shape(Format::Vp9Pattern, 3, 3, true)),
    (Kind::Svc, shape(Format::Vp9Pattern, 1, 3, false)),
    (Kind::Svc, shape(Format::Av1, 3, 3, false)),
    (Kind::Svc, shape(Format::Av1, 3, 3, true)),
];

const fn shape(format: Format, spatial: u8, temporal: u8, key_svc: bool) -> Shape {
    Shape { format, spatial, temporal, key_svc }
}

struct Run {
    shape: Shape,
    rng: StdRng,
    room: Room,
    /// On their way, by time of arrival.
    flying: BTreeMap<(u64, u64), (usize, Packet)>,
    time: u64,
    sent: u64,
    loss: f64,
    max_delay: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (kind, shape) = SHAPES[(seed % SHAPES.len() as u64) as usize];
        let mut rng = StdRng::seed_from_u64(seed);
        let encodings = if kind == Kind::Simulcast { 3 } else { 1 };
        let room = Room::new(kind, shape, encodings, rng.random());
        let loss = [0.0, 0.0, 0.01, 0.1][rng.random_range(0..4)];
        let max_delay = [0, 0, 4, 40][rng.random_range(0..4)];
        let flying = BTreeMap::new();
        Self { shape, rng, room, flying, time: 0, sent: 0, loss, max_delay }
    }

    fn go(mut self) -> Decoder {
        self.room.wish(0, 0);
        for _ in 0..PICTURES {
            if self.rng.random_ratio(1, 12) {
                self.wish();
            }
            for index in 0..self.room.encoders.len() {
                self.send_picture(index);
            }
            self.deliver(self.time);
        }
        self.deliver(u64::MAX);
        self.room.decode(self.shape.format)
    }

    fn wish(&mut self) {
        if self.rng.random_ratio(1, 8) {
            return self.room.selector.set_target(None);
        }
        let layers = [self.rng.random_range(0..3), self.rng.random_range(0..3)];
        self.room.wish(layers[0], layers[1]);
    }

    fn send_picture(&mut self, index: usize) {
        let wanted = self.room.selector.needs_key_frame() == Some(index as u8);
        let key = wanted && self.rng.random_ratio(1, 4) || self.rng.random_ratio(1, 60);
        let encoder = &mut self.room.encoders[index];
        let mut active = encoder.active;
        if (key || encoder.may_change_layers()) && self.rng.random_ratio(1, 3) {
            active = self.rng.random_range(1..=self.shape.spatial);
        }
        for packet in encoder.picture(key, active, self.rng.random_range(1..5)) {
            self.time += 1;
            self.sent += 1;
            if self.rng.random_bool(self.loss) {
                continue;
            }
            let late = self.max_delay > 0 && self.rng.random_ratio(1, 5);
            let delay = if late { self.rng.random_range(1..=self.max_delay) } else { 0 };
            self.flying.insert((self.time + delay, self.sent), (index, packet));
        }
    }

    fn deliver(&mut self, until: u64) {
        while let Some(next) = self.flying.first_entry()
            && next.key().0 <= until
        {
            let (index, packet) = next.remove();
            self.room.arrive(index, packet);
        }
    }
}

#[test]
fn decoders_miss_nothing_that_was_not_lost() {
    let mut failed = Vec::new();
    let mut decoded = BTreeMap::<_, usize>::new();
    for seed in 0..RUNS {
        let outcome = std::panic::catch_unwind(|| Run::new(seed).go());
        let Ok(decoder) = outcome else {
            failed.push(seed);
            continue;
        };
        for ((_, spatial, temporal), count) in decoder.frames {
            let shape = seed % SHAPES.len() as u64;
            *decoded.entry((shape, spatial, temporal)).or_default() += count;
        }
    }
    assert!(failed.is_empty(), "broken runs, by seed: {failed:?}");
    for (index, (_, shape)) in SHAPES.iter().enumerate() {
        for spatial in 0..shape.spatial {
            for temporal in 0..shape.temporal {
                let frames = decoded.get(&(index as u64, spatial, temporal)).copied();
                println!("{shape:?} {spatial}/{temporal}: {} frames", frames.unwrap_or(0));
                assert!(frames.unwrap_or(0) > 100, "{shape:?}: layer {spatial}/{temporal}");
            }
        }
    }
}
