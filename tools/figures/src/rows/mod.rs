//! The rows of the table, in its order. Each starts what it needs, and ends it.

mod costs;
mod floor;
mod joins;
mod latency;
mod overload;
mod rooms;

use crate::bench::{Bench, Result};
use crate::figure::{Bound, Outcome, with_unit};
use crate::load::Report;
use crate::plot::Plot;

/// One row: some lines of the table, measured together.
#[derive(Clone, Copy)]
pub struct Row {
    /// For `--only`.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Measures it.
    pub measure: fn(&Bench) -> Result<Outcome>,
}

const VIDEO: Bound = Bound::AtLeast { must: 0.65, aim: 0.85 };
const AUDIO: Bound = Bound::AtLeast { must: 0.6, aim: 0.8 };

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "video-20",
        about: "floor / ours, video to 20",
        measure: |bench| floor::row(bench, "video 1:20", VIDEO),
    },
    Row {
        name: "video-100",
        about: "floor / ours, video to 100",
        measure: |bench| floor::row(bench, "video 1:100", VIDEO),
    },
    Row {
        name: "video-500",
        about: "floor / ours, video to 500",
        measure: |bench| floor::row(bench, "video 1:500", VIDEO),
    },
    Row {
        name: "audio-20x5",
        about: "floor / ours, 20 audio rooms of 5",
        measure: |bench| floor::row(bench, "audio 20x5", AUDIO),
    },
    Row {
        name: "audio-1x50",
        about: "floor / ours, an audio room of 50",
        measure: |bench| floor::row(bench, "audio 1x50", AUDIO),
    },
    Row {
        name: "feedback",
        about: "what transport-wide feedback costs the server",
        measure: costs::feedback,
    },
    Row {
        name: "meeting",
        about: "a meeting of 50 with simulcast, and more",
        measure: rooms::meeting,
    },
    Row { name: "audio-rooms", about: "100 audio rooms of 10", measure: rooms::audio_rooms },
    Row { name: "many-rooms", about: "1,000 rooms of 10 against one", measure: rooms::many_rooms },
    Row { name: "latency", about: "added latency against load", measure: latency::latency },
    Row {
        name: "key-frames",
        about: "a key frame's way to the last",
        measure: latency::key_frames,
    },
    Row { name: "handshakes", about: "handshakes per second", measure: joins::handshakes },
    Row { name: "storm", about: "media while 500 peers join in a second", measure: joins::storm },
    Row { name: "idle", about: "10,000 idle peers: memory and CPU", measure: joins::idle },
    Row { name: "consumers", about: "memory of a consumer", measure: joins::consumers },
    Row { name: "shards", about: "a room on two shards", measure: rooms::shards },
    Row { name: "overload", about: "more than what holds", measure: overload::overload },
    Row {
        name: "profiles",
        about: "AES-128-GCM against the other profiles",
        measure: costs::profiles,
    },
    Row { name: "fan-out", about: "cost per packet against fan-out", measure: costs::fan_out },
];

/// All plots.
pub const PLOTS: &[Plot] = &[latency::PLOT, costs::PLOT, joins::PLOT, overload::PLOT];

/// The conditions that a run's report tells: profile, receivers, rate.
fn conditions(report: &Report) -> Result<String> {
    let rate = with_unit(report.number("/packets/received_per_second")?, "packets/s");
    Ok(format!("{}, {rate}", report.text("/profile")))
}
