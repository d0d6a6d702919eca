//! What Shardcast costs and keeps on this machine: one line per figure, with what it must be and aims to be.
//!
//! `rows/` says what is measured and demanded, one function per row. A row starts the server (`server.rs`) on
//! its core, lets `shardcast-load` (`load.rs`) work on another, or runs `benches/floor` (`floor.rs`), and ends
//! both. What came out (`figure.rs`) is kept in a file per row, so that a run can be resumed; `table.rs` and
//! `plot.rs` turn all of them into the document's table and plots.
#![deny(unsafe_code, missing_docs)]

mod bench;
mod conditions;
mod figure;
mod floor;
mod load;
mod plot;
mod rows;
mod server;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::ProgressBar;

use crate::bench::{Bench, Result};
use crate::conditions::Conditions;
use crate::figure::{Figure, Outcome, Verdict};
use crate::rows::{ROWS, Row};
use crate::table::Kept;

/// Prints what Shardcast costs and keeps on this machine: one line per figure, with its limits.
///
/// Build first: cargo build --release --workspace && cargo bench --workspace --no-run --bench floor. The server runs on one core, the
/// load on another; keep the machine quiet. Exit code: 0 all rows were measured, 1 a row failed or an
/// output could not be written, 2 unusable flags. That a limit is missed is told, and no failure.
#[derive(Parser)]
#[command(name = "shardcast-figures", version)]
struct Args {
    /// Only these rows, by name
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Print the names of all rows
    #[arg(long)]
    list: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Everything small and short: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Where a file per row, the table and the plots are written
    #[arg(long, value_name = "FOLDER", default_value = "target/figures")]
    out: PathBuf,
    /// Measure only rows that have no file there yet, or one that says that they failed
    #[arg(long)]
    resume: bool,
    /// Measure nothing: print what the files say, and write table and plots
    #[arg(long)]
    no_run: bool,
    /// Puts the table between the document's lines <!-- figures --> and <!-- /figures -->, and the plots into
    /// a folder beside it with the document's name
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The server [default: beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// The load [default: beside this program]
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// The compiled benches/floor [default: the newest in deps/ beside this program, else cargo builds it]
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// The server's core [default: the first]
    #[arg(long, value_name = "CORE")]
    server_core: Option<usize>,
    /// The load's core [default: the second]
    #[arg(long, value_name = "CORE")]
    load_core: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        ROWS.iter().for_each(|row| println!("{:<12} {}", row.name, row.about));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = args.only.iter().find(|name| !ROWS.iter().any(|row| row.name == **name))
    {
        eprintln!("shardcast-figures: --only {unknown}: no such row; --list tells them");
        return ExitCode::from(2);
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shardcast-figures: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no row failed.
fn run(args: &Args) -> Result<bool> {
    let bench = bench(args)?;
    let conditions = Conditions::of(&bench);
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("{}: {error}", args.out.display()))?;
    if args.json {
        println!("{}", serde_json::to_string(&conditions)?);
    } else {
        println!("{}\n", conditions.line());
    }
    let mut all_good = true;
    for row in
        ROWS.iter().filter(|row| args.only.is_empty() || args.only.iter().any(|n| n == row.name))
    {
        let path = args.out.join(format!("{}.json", row.name));
        let known = Kept::read(&path);
        let kept = match known {
            Some(kept) if args.no_run || args.resume && !kept.failed() => kept,
            None if args.no_run => continue,
            _ => {
                let kept = measure(&bench, row);
                kept.write(&path)?;
                kept
            }
        };
        all_good &= !kept.failed();
        print(args.json, row, &kept)?;
    }
    let kept =
        ROWS.iter().filter_map(|row| Kept::read(&args.out.join(format!("{}.json", row.name))));
    table::write_all(
        &args.out,
        args.document.as_deref(),
        &conditions.line(),
        &kept.collect::<Vec<_>>(),
    )?;
    Ok(all_good)
}

fn bench(args: &Args) -> Result<Bench> {
    let own = std::env::current_exe()?;
    let beside = |name: &str| own.with_file_name(name);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = |index: usize| cores.get(index).or(cores.last()).map_or(0, |core| core.id);
    let bench = Bench {
        server: args.server.clone().unwrap_or_else(|| beside("shardcast")),
        load: args.load.clone().unwrap_or_else(|| beside("shardcast-load")),
        floor: args.floor.clone().or_else(|| built_floor(&own)),
        server_core: args.server_core.unwrap_or_else(|| core(0)),
        load_core: args.load_core.unwrap_or_else(|| core(1)),
        quick: args.quick,
    };
    for program in [&bench.server, &bench.load] {
        if !Path::new(program).exists() {
            return Err(format!(
                "{}: not there; cargo build --release --workspace",
                program.display()
            )
            .into());
        }
    }
    Ok(bench)
}

/// The newest `deps/floor-HASH` beside this program.
fn built_floor(own: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(own.with_file_name("deps")).ok()?.flatten();
    let floors = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("floor-") && !name.contains('.')
    });
    let newest =
        floors.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok())?;
    Some(newest.path())
}

fn measure(bench: &Bench, row: &Row) -> Kept {
    let bar = ProgressBar::new_spinner();
    bar.set_message(format!("{}: {}", row.name, row.about));
    bar.enable_steady_tick(Duration::from_millis(250));
    let begun = Instant::now();
    let outcome = (row.measure)(bench).unwrap_or_else(|error| Outcome {
        figures: vec![Figure::failed(row.about, &error.to_string())],
        curves: Vec::new(),
    });
    bar.finish_and_clear();
    Kept {
        row: row.name.to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        quick: bench.quick,
        outcome,
    }
}

fn print(json: bool, row: &Row, kept: &Kept) -> Result<()> {
    for figure in &kept.outcome.figures {
        if json {
            let mut line = serde_json::to_value(figure)?;
            line["row"] = row.name.into();
            println!("{line}");
            continue;
        }
        let Figure { name, conditions, value, with_gro, must, aim, verdict } = figure;
        let mut line = format!("{name}: {value}");
        if !with_gro.is_empty() {
            line += &format!("; with UDP_GRO {with_gro}");
        }
        if !must.is_empty() {
            line += &format!("; must {must}, aim {aim}");
        }
        if *verdict != Verdict::Told {
            line += &format!("; {}", verdict.name());
        }
        println!("{line} [{conditions}]");
    }
    Ok(())
}
