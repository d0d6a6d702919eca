//! Runs `benches/floor`, and reads its lines.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::bench::{Bench, Result};

/// One subject of one scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// Such as `video 1:100`.
    pub scenario: String,
    /// A floor, or a shard.
    pub subject: String,
    /// CPU nanoseconds per forwarded packet.
    pub ns_per_packet: f64,
    /// Only of shards.
    pub floor_over_ours: Option<f64>,
    /// Share of what had to be delivered.
    pub delivered: f64,
    /// Share of bursts that left late.
    pub late: f64,
}

/// Measures a scenario; its name is enough.
pub fn lines(bench: &Bench, scenario: &str, gro: bool) -> Result<Vec<Line>> {
    let mut command = match &bench.floor {
        Some(program) => {
            let mut command = Command::new(program);
            command.arg("--bench");
            command
        }
        None => {
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
            let mut command = Command::new("cargo");
            command
                .args(["bench", "--quiet", "--bench", "floor", "--manifest-path"])
                .arg(manifest)
                .arg("--");
            command
        }
    };
    let rounds = bench.rounds().to_string();
    command.args([
        "--json",
        "--only",
        scenario,
        "--rounds",
        &rounds,
        "--seconds",
        &bench.seconds(0.4),
    ]);
    if gro {
        command.arg("--gro");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the floor ended with {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line.scenario == scenario).collect();
    if lines.is_empty() {
        return Err(format!("the floor knows no {scenario}").into());
    }
    Ok(lines)
}
