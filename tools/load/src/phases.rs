//! What the server needs beside forwarding: while peers join, and while all are there and nobody sends.

use serde::Serialize;
use tokio::time::{Duration, Instant, sleep};

use crate::process::{self, Snapshot, Usage};

/// Memory is looked at when this share of the peers has come.
const MEMORY_STEP: f64 = 0.05;

/// What the server used over a time.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Its length.
    pub seconds: f64,
    /// Cores that the server kept busy.
    pub cores: f64,
    /// See [`Usage`].
    #[serde(flatten)]
    pub usage: Usage,
}

impl Phase {
    fn since(earlier: &Snapshot, now: &Snapshot, begun: Instant) -> Self {
        let (seconds, usage) = (begun.elapsed().as_secs_f64(), now.since(earlier));
        Self { seconds, cores: usage.cpu_ns as f64 / 1e9 / seconds.max(1e-9), usage }
    }
}

/// The time from the first join to the last of those before measuring.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Joining {
    /// Its length.
    pub seconds: f64,
    /// Peers that joined, per second.
    pub per_second: f64,
    /// The server's part.
    pub server: Option<Phase>,
    /// Peers and the server's resident memory in bytes, as they grew.
    pub memory: Vec<(u64, u64)>,
}

/// Watches peers join.
pub struct JoinWatch {
    pid: Option<u32>,
    before: Option<Snapshot>,
    begun: Instant,
    step: u64,
    next: u64,
    memory: Vec<(u64, u64)>,
}

impl JoinWatch {
    /// `planned` peers will join; `before` is the server without them.
    pub fn new(pid: Option<u32>, before: Option<Snapshot>, planned: u64) -> Self {
        let memory = before.iter().map(|before| (0, before.resident)).collect();
        let step = ((planned as f64 * MEMORY_STEP) as u64).max(1);
        Self { pid, before, begun: Instant::now(), step, next: step, memory }
    }

    /// So many have joined.
    pub fn see(&mut self, joined: u64) {
        if joined < self.next {
            return;
        }
        self.next = joined + self.step;
        let resident = self.pid.and_then(process::resident);
        self.memory.extend(resident.map(|bytes| (joined, bytes)));
    }

    /// All have joined.
    pub fn end(self, joined: u64) -> Joining {
        let seconds = self.begun.elapsed().as_secs_f64();
        let now = self.pid.and_then(Snapshot::of);
        let server =
            self.before.zip(now).map(|(before, now)| Phase::since(&before, &now, self.begun));
        Joining {
            seconds,
            per_second: joined as f64 / seconds.max(1e-9),
            server,
            memory: self.memory,
        }
    }
}

/// Watches the server for a while; none if there is nothing to watch, or no time.
pub async fn rest(pid: Option<u32>, length: Duration) -> Option<Phase> {
    let pid = pid.filter(|_| !length.is_zero())?;
    let (before, begun) = (Snapshot::of(pid)?, Instant::now());
    sleep(length).await;
    Some(Phase::since(&before, &Snapshot::of(pid)?, begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_noted_as_peers_come() {
        let own = std::process::id();
        let mut watch = JoinWatch::new(Some(own), Snapshot::of(own), 100);
        [1, 4, 5, 6, 9, 30, 100].into_iter().for_each(|joined| watch.see(joined));
        let joining = watch.end(100);
        let seen: Vec<_> = joining.memory.iter().map(|(joined, _)| *joined).collect();
        assert_eq!(seen, [0, 5, 30, 100]);
        assert!(joining.memory.iter().all(|(_, bytes)| *bytes > 0) && joining.per_second > 0.0);
        assert!(joining.server.is_some());
        assert!(JoinWatch::new(None, None, 3).end(3).server.is_none());
    }
}
