//! The relay's command line: see the library beside this.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use clap::{Parser, ValueEnum};
use shardcast_impair::flows::Maps;
use shardcast_impair::profile::{Change, duration};
use shardcast_impair::relay;
use shardcast_impair::script::{Script, Timed};

/// How often figures are shown to whoever watches.
const EVERY: Duration = Duration::from_secs(5);

/// A UDP relay that limits, delays, loses, copies and reorders, each direction by itself.
///
/// Settings: rate=500k|off queue=200ms|64kB overhead=28 delay=30ms jitter=5ms loss=2%
/// burst=ENTER/LEAVE[/LOSS[/GOODLOSS]]|off duplicate=1% reorder=1% hold=10ms.
/// While it runs, standard input takes: up|down|both SETTINGS, stats, quit.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// Where clients send to, and where that leads: 127.0.0.2:10000=127.0.0.1:10000. Port 0 listens on any
    /// free one; FIRST-LAST on both sides is a range. May be repeated
    #[arg(long = "map", value_name = "LISTEN=TARGET", required = true)]
    maps: Vec<Maps>,
    /// A profile file in JSON; the flags below change what it says
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Settings for both directions
    #[arg(long, value_name = "SETTINGS")]
    both: Option<Change>,
    /// Settings from clients to the target
    #[arg(long, value_name = "SETTINGS")]
    up: Option<Change>,
    /// Settings from the target to clients
    #[arg(long, value_name = "SETTINGS")]
    down: Option<Change>,
    /// A change, timed from the first datagram: "10s down rate=500k". May be repeated
    #[arg(long, value_name = "TIME WHICH SETTINGS")]
    at: Vec<Timed>,
    /// The same seed decides the same
    #[arg(long)]
    seed: Option<u64>,
    /// Whether all clients share one line, or each has its own
    #[arg(long, value_enum, default_value_t = Line::Shared)]
    line: Line,
    /// How often to print figures to standard error (0s: never) [default: 5s on a terminal]
    #[arg(long, value_parser = time)]
    every: Option<Duration>,
    /// Answer in JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Line {
    Shared,
    Client,
}

fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("impair: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut script = match &args.profile {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Script::from_json(&text)?
        }
        None => Script::default(),
    };
    for change in [&args.both, &args.up].into_iter().flatten() {
        change.apply(&mut script.up);
    }
    for change in [&args.both, &args.down].into_iter().flatten() {
        change.apply(&mut script.down);
    }
    for timed in args.at {
        script.add(timed)?;
    }
    script.seed = args.seed.unwrap_or(script.seed);
    let watched = io::stderr().is_terminal().then_some(EVERY);
    relay::run(relay::Settings {
        maps: args.maps.into_iter().flat_map(|Maps(maps)| maps).collect(),
        script,
        per_client: args.line == Line::Client,
        every: args.every.or(watched).filter(|every| !every.is_zero()),
        json: args.json,
    })?;
    Ok(())
}

fn time(text: &str) -> Result<Duration, &'static str> {
    duration(text).ok_or("wanted is a time with its unit: 500ms, 5s")
}
