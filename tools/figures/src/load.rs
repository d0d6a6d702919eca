//! Runs `shardcast-load` against a server, and reads its reports.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::{Bench, Result};
use crate::server::Server;

/// Longest run, whatever it does.
const LIMIT: Duration = Duration::from_secs(90);
/// Longest run of a step that may be too much: with real-time priority, who is overloaded lets nobody else on its core,
/// and joins do not end.
pub const STEP: Duration = Duration::from_secs(25);

/// A report of the load.
#[derive(Clone, Debug)]
pub struct Report(Value);

impl Report {
    /// The number at a path such as `/server/cores`.
    pub fn number(&self, path: &str) -> Result<f64> {
        let found = self.0.pointer(path).and_then(Value::as_f64);
        found.ok_or_else(|| format!("the load's report has no {path}").into())
    }

    /// Words at a path.
    pub fn text(&self, path: &str) -> &str {
        self.0.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// A percentile in µs: `/latency/audio` and `p50`, for three of them.
    pub fn percentiles(&self, path: &str) -> Result<[f64; 3]> {
        let at = |name| self.number(&format!("{path}/{name}"));
        Ok([at("p50")?, at("p99")?, at("p999")?])
    }

    /// CPU nanoseconds by thread: `/server/threads`, the busiest first.
    pub fn threads(&self, path: &str) -> Vec<(String, f64)> {
        let threads = self.0.pointer(path).and_then(Value::as_array);
        let thread = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_f64()?));
        threads.into_iter().flatten().filter_map(thread).collect()
    }

    /// Pairs of numbers at a path.
    pub fn points(&self, path: &str) -> Vec<(f64, f64)> {
        let points = self.0.pointer(path).and_then(Value::as_array);
        let point = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_f64()?));
        points.into_iter().flatten().filter_map(point).collect()
    }

    /// Why the load's figures mean nothing; empty: they do.
    pub fn faults(&self) -> Vec<String> {
        self.words("/load/faults")
    }

    /// Whether nothing was lost, nothing forged, no limit broken, and the load on time.
    pub fn holds(&self) -> bool {
        self.faults().is_empty() && self.words("/broken").is_empty()
    }

    fn words(&self, path: &str) -> Vec<String> {
        let words = self.0.pointer(path).and_then(Value::as_array);
        words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    }
}

/// A run with these flags against `server`.
pub fn report(bench: &Bench, server: &Server, flags: &[&str]) -> Result<Report> {
    report_within(bench, server, flags, LIMIT)
}

fn report_within(
    bench: &Bench,
    server: &Server,
    flags: &[&str],
    limit: Duration,
) -> Result<Report> {
    let (pid, core) = (server.pid().to_string(), bench.load_core.to_string());
    let mut child = Command::new(&bench.load)
        .args(["--json", "--quiet", "--server", &server.address, "--pid", &pid, "--cpus", &core])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", bench.load.display()))?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = String::new();
            // What cannot be read shows as a missing report.
            let _ = pipe.map(|mut pipe| pipe.read_to_string(&mut text));
            text
        })
    };
    let out = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let errors = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let deadline = Instant::now() + limit;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("the load took longer than {limit:?}").into());
        }
        thread::sleep(Duration::from_millis(20));
    };
    let (out, errors) = (out.join().unwrap_or_default(), errors.join().unwrap_or_default());
    // 0 to 3 come with a report; 4 has one if only some peers could not join.
    match serde_json::from_str(&out) {
        Ok(report) if code != Some(4) => Ok(Report(report)),
        _ => Err(format!("the load ended with {code:?}: {}", errors.trim()).into()),
    }
}

/// A run against a server of its own with these flags.
pub fn alone(bench: &Bench, server: &[&str], flags: &[&str]) -> Result<Report> {
    report(bench, &Server::start(bench, server)?, flags)
}

/// The same, for no longer than `limit`.
pub fn alone_within(bench: &Bench, limit: Duration, flags: &[&str]) -> Result<Report> {
    report_within(bench, &Server::start(bench, &[])?, flags, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = r#"{"server":{"cores":0.5,"threads":[["shard-0",9],["main",1]]},"broken":[],
            "load":{"faults":["late"]},"joining":{"memory":[[0,5],[10,7]]}}"#;
        let report = Report(serde_json::from_str(text).expect("JSON"));
        assert_eq!(report.number("/server/cores").expect("there"), 0.5);
        assert!(report.number("/server/ns_per_packet").is_err());
        assert_eq!(report.threads("/server/threads")[0], ("shard-0".to_owned(), 9.0));
        assert_eq!(report.points("/joining/memory"), [(0.0, 5.0), (10.0, 7.0)]);
        assert_eq!((report.faults(), report.holds()), (vec!["late".to_owned()], false));
    }
}
