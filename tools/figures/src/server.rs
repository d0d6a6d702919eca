//! The server under test: a process of its own on its core, ended by its process id.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bench::{Bench, Result};

/// Longest wait for the line that says where it listens.
const START: Duration = Duration::from_secs(20);
/// Longest wait for its end.
const END: Duration = Duration::from_secs(10);
/// Ports beside those that the system gives out by itself; taken ones are skipped.
const PORTS: (u16, u16) = (10_000, 30_000);

/// A running server.
pub struct Server {
    child: Child,
    /// Host and port of signaling.
    pub address: String,
    /// `uring` or `mmsg`.
    pub backend: String,
}

impl Server {
    /// Starts it on its core with these flags more.
    pub fn start(bench: &Bench, flags: &[&str]) -> Result<Self> {
        let (first, last) = (PORTS.0.to_string(), PORTS.1.to_string());
        let fixed = [
            ["--http-ip", "127.0.0.1"],
            ["--http-port", "0"],
            ["--node-env", "production"],
            ["--rtc-min-port", &first],
            ["--rtc-max-port", &last],
        ];
        let mut child = Command::new("taskset")
            .args(["-c", &bench.server_core.to_string()])
            .arg(&bench.server)
            .args(fixed.as_flattened())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("taskset {}: {error}", bench.server.display()))?;
        let Some(out) = child.stdout.take() else { return Err("no output of the server".into()) };
        let (tell, told) = channel();
        // Reads on to the end, or the server would wait for room in the pipe.
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                if let Some(ready) = ready(&line) {
                    // Whoever started it may have given up.
                    let _ = tell.send(ready);
                }
            }
        });
        let mut server = Self { child, address: String::new(), backend: String::new() };
        (server.address, server.backend) =
            told.recv_timeout(START).map_err(|_| "the server did not start")?;
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) {
        // Already gone is as good.
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Address and backend out of the line with which the server starts.
fn ready(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let of = |name: &str| {
        let field = line.get(name).or_else(|| line["fields"].get(name))?;
        Some(field.as_str()?.to_owned())
    };
    Some((of("http")?, of("io_backend")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_up_line_tells_where_it_listens() {
        let fields =
            r#""message":"Shardcast is ready","http":"127.0.0.1:40001","io_backend":"uring""#;
        let wanted = Some(("127.0.0.1:40001".to_owned(), "uring".to_owned()));
        assert_eq!(ready(&format!(r#"{{"level":"INFO","fields":{{{fields}}}}}"#)), wanted);
        assert_eq!(ready(&format!("{{{fields}}}")), wanted);
        assert_eq!(ready("Shardcast is ready"), None);
        assert_eq!(ready(r#"{"message":"Room closed"}"#), None);
    }
}
