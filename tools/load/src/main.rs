//! Simulated WebRTC peers that load an SFU, and what it delivers and costs.
//!
//! `plan.rs` says who takes part and `peer.rs` lets each of them join, with real signaling (`protoo.rs`,
//! `offers.rs`), ICE (`ice.rs`) and DTLS (`dtls.rs`). From then on a worker (`worker.rs`, `transport.rs`) sends
//! what its sources make (`source.rs`) and watches what its streams receive (`stream.rs`, `feedback.rs`).
//! Latency is known without opening every packet: `stamp.rs` tells how. `run.rs` puts it in order of time, and
//! `report.rs` says what came out.
#![deny(unsafe_code, missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod clock;
mod dtls;
mod feedback;
mod flood;
mod ice;
mod live;
mod offers;
mod peer;
mod phases;
mod plan;
mod process;
mod protoo;
mod recovery;
mod report;
mod run;
mod settings;
mod soak;
mod source;
mod spoil;
mod stamp;
mod stream;
mod sys;
mod tally;
mod transport;
mod wheel;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::live::Live;
use crate::settings::{Arguments, Settings};

/// Loss in percent at which a ramp ends, if no limit is given.
const RAMP_LOSS: f64 = 0.1;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match arguments.settings() {
        Ok(settings) => settings,
        Err(reason) => {
            eprintln!("shardcast-load: {reason}");
            return ExitCode::from(2);
        }
    };
    if let Some(id) = settings.cpus.last() {
        core_affinity::set_for_current(core_affinity::CoreId { id: *id });
    }
    if let Err(error) = sys::raise_descriptor_limit() {
        eprintln!("shardcast-load: cannot raise the limit of open descriptors: {error}");
    }
    match run_all(&arguments, settings) {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            eprintln!("shardcast-load: {reason}");
            ExitCode::from(4)
        }
    }
}

/// The run, or one for each step of the ramp until one does not hold. A ramp's code is that of its first step:
/// that a later one breaks is what it looks for.
fn run_all(arguments: &Arguments, settings: Settings) -> Result<u8, Box<dyn std::error::Error>> {
    if arguments.ramp.is_empty() {
        let report = run_one(arguments, &settings)?;
        return Ok(report.code());
    }
    let mut limits = settings.limits.clone();
    if limits.loss.is_none() && limits.p99.is_none() {
        limits.loss = Some(RAMP_LOSS);
    }
    let (mut held, mut code) = (None, None);
    for &peers in &arguments.ramp {
        let report =
            run_one(arguments, &Settings { peers, limits: limits.clone(), ..settings.clone() })?;
        code.get_or_insert(report.code());
        if !report.holds() {
            break;
        }
        held = Some(peers);
    }
    if !arguments.json {
        match held {
            Some(peers) => println!("the highest step that holds: {peers} peers"),
            None => println!("no step holds"),
        }
    }
    Ok(code.unwrap_or_default())
}

fn run_one(
    arguments: &Arguments,
    settings: &Settings,
) -> Result<report::Report, Box<dyn std::error::Error>> {
    let live = Live::new(arguments.quiet);
    let report = run::run(settings, &live);
    live.clear();
    let report = report?;
    match arguments.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{}", report.text()),
    }
    Ok(report)
}
