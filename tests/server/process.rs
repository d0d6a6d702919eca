//! The real binary as a child of the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{self, Denied};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; killed when the test is done with it.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Where it listens.
    pub http: SocketAddr,
    /// Its start-up line.
    pub ready: Value,
}

impl Server {
    /// Starts the binary with production logs on a free port, and waits until it is ready.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as(bare_command(env!("CARGO_BIN_EXE_shardcast")), settings)
    }

    /// As [`Self::start`], behind a shell's command that sets a limit.
    pub fn start_under(limit: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_as(shell_with(limit), settings)
    }

    /// As [`Self::start`], with these system calls and no others.
    pub fn start_confined(rules: &[Value], denied: Denied, settings: &[(&str, &str)]) -> Self {
        // A filter holds for the thread that sets it, and for what that starts.
        let confined = || {
            sandbox::confine(rules, denied);
            Self::start(settings)
        };
        std::thread::scope(|scope| scope.spawn(confined).join()).expect("a confined server")
    }

    fn start_as(mut command: Command, settings: &[(&str, &str)]) -> Self {
        command.env("HTTP_PORT", "0").env("HTTP_IP", "127.0.0.1").env("NODE_ENV", "production");
        command.envs(settings.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server's binary");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        let mut server = Self { child, lines, http: ([0, 0, 0, 0], 0).into(), ready: Value::Null };
        server.ready = server.log_line("Shardcast is ready");
        let http = server.ready["http"].as_str().expect("an address");
        server.http = http.parse().expect("an address");
        server
    }

    /// The next log line with this message.
    pub fn log_line(&self, message: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no log line {message:?} came"));
            let line: Value = serde_json::from_str(&line).expect("logs in JSON");
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Every log line that comes until the server ends.
    pub fn rest_of_logs(&mut self) -> Vec<String> {
        self.ended_within(PATIENCE).expect("an end in time");
        self.lines.iter().collect()
    }

    /// Its resident memory in bytes (proc(5), `status`).
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a living process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kilobytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
        kilobytes << 10
    }

    /// Its soft and hard limit of open descriptors (proc(5), `limits`).
    pub fn descriptor_limits(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id()));
        let limits = limits.expect("a living process");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let mut values = line.expect("the limit").split_whitespace().map(str::to_owned);
        (values.next().expect("soft"), values.next().expect("hard"))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill");
        assert!(sent.success());
    }

    /// How the server ended, if it does within `limit`.
    pub fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = bare_command(env!("CARGO_BIN_EXE_shardcast"));
    command.args(arguments).envs(settings.iter().copied());
    command.output().expect("the server's binary")
}

/// Runs the binary behind a shell's command that sets a limit, to its end; `None` if it can start under it.
pub fn refused_under(limit: &str) -> Option<Output> {
    let mut command = shell_with(limit);
    command.env("HTTP_PORT", "0").env("HTTP_IP", "127.0.0.1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the server's binary");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let is_ready = lines.map_while(Result::ok).any(|line| line.contains("Shardcast is ready"));
    if is_ready {
        child.kill().expect("a child");
    }
    let output = child.wait_with_output().expect("an end");
    (!is_ready).then_some(output)
}

fn shell_with(limit: &str) -> Command {
    let mut shell = bare_command("sh");
    let script = format!("{limit} && exec \"$0\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_shardcast")]);
    shell
}

/// A program without the settings that the test itself may run under.
fn bare_command(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in [
        "ANNOUNCED_IP",
        "AUTH_KEYS_FILE",
        "ALLOWED_ORIGINS",
        "DRAIN_TIMEOUT",
        "HTTP_IP",
        "HTTP_PORT",
        "HTTP_TIMEOUT",
        "IO_BACKEND",
        "EMPTY_ROOM_TIMEOUT",
        "LOG_LEVEL",
        "MAX_APP_DATA",
        "MAX_CONSUMERS_PER_PEER",
        "MAX_EMPTY_ROOMS",
        "MAX_PEERS_PER_ROOM",
        "MAX_PRODUCERS_PER_PEER",
        "MAX_ROOMS",
        "MAX_TRANSPORTS_PER_PEER",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "MAX_HALF_OPEN",
        "MAX_MESSAGE_BYTES",
        "MAX_QUEUED_MESSAGES",
        "MAX_ADDRESSES_PER_TRANSPORT",
        "MAX_DTLS_ATTEMPTS",
        "MAX_PRODUCER_BITRATE",
        "MAX_SSRCS_PER_TRANSPORT",
        "MAX_STRANGER_CHECKS",
        "MEDIASOUP_LOG_LEVEL",
        "METRICS_IP",
        "METRICS_PORT",
        "MESSAGES_PER_SECOND",
        "NODE_ENV",
        "NOTIFY_SOCKET",
        "REQUESTS_PER_SECOND",
        "RTC_MAX_PORT",
        "RTC_MIN_PORT",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "TRUSTED_PROXIES",
        "WORKERS",
    ] {
        command.env_remove(variable);
    }
    command
}
