//! The server from outside: its CPU time and memory, by `/proc` (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::sys;

/// CPU time of a thread or a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Nanoseconds on a core.
    pub total: u64,
    /// Clock ticks in its own code.
    user: u64,
    /// Clock ticks in the kernel.
    system: u64,
}

/// A process at a moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By thread id, with its name.
    threads: BTreeMap<u32, (String, Cpu)>,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// What a process used between two moments.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Usage {
    /// CPU nanoseconds, all threads.
    pub cpu_ns: u64,
    /// Share of that in its own code, 0 to 1; to a clock tick.
    pub user_share: f64,
    /// Each thread that did anything: its name, and CPU nanoseconds.
    pub threads: Vec<(String, u64)>,
    /// Resident memory in bytes, at the end.
    pub resident: u64,
}

impl Snapshot {
    /// Looks at process `pid`; none if it is not there.
    pub fn of(pid: u32) -> Option<Self> {
        let root = format!("/proc/{pid}");
        let mut snapshot = Self::default();
        for entry in fs::read_dir(format!("{root}/task")).ok()?.flatten() {
            // A thread may end meanwhile.
            let Some(thread) = thread(&entry.path()) else { continue };
            let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
            snapshot.threads.insert(id, thread);
        }
        snapshot.resident = resident(pid)?;
        snapshot.descriptors =
            fs::read_dir(format!("{root}/fd")).map_or(0, |fds| fds.count() as u64);
        Some(snapshot)
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Usage {
        let (mut sum, mut threads) = (Cpu::default(), Vec::new());
        for (id, (name, cpu)) in &self.threads {
            let before = earlier.threads.get(id).map_or(Cpu::default(), |(_, cpu)| *cpu);
            let used = cpu.total.saturating_sub(before.total);
            sum.total += used;
            sum.user += cpu.user.saturating_sub(before.user);
            sum.system += cpu.system.saturating_sub(before.system);
            if used > 0 {
                threads.push((name.clone(), used));
            }
        }
        threads.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        let ticks = (sum.user + sum.system).max(1);
        Usage {
            cpu_ns: sum.total,
            user_share: sum.user as f64 / ticks as f64,
            threads,
            resident: self.resident,
        }
    }
}

/// Resident memory of process `pid` in bytes.
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

fn thread(path: &Path) -> Option<(String, Cpu)> {
    let stat = fs::read_to_string(path.join("stat")).ok()?;
    let (name, mut cpu) = read_stat(&stat)?;
    // Nanoseconds on the core; some kernels have none, then ticks must do.
    let schedstat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
    let exact = schedstat.split(' ').next().and_then(|field| field.parse::<u64>().ok());
    let tick = 1_000_000_000 / sys::ticks_per_second();
    cpu.total = exact.filter(|nanos| *nanos > 0).unwrap_or((cpu.user + cpu.system) * tick);
    Some((name, cpu))
}

/// Name and ticks out of a `stat` file. A name may hold blanks and parentheses.
fn read_stat(text: &str) -> Option<(String, Cpu)> {
    let (name, rest) = (text.find('(')?, text.rfind(')')?);
    // Behind the name: state, then ten others, then user and system time.
    let mut fields = text.get(rest + 1..)?.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse().ok();
    let (user, system) = (next()?, next()?);
    Some((text.get(name + 1..rest)?.to_owned(), Cpu { total: 0, user, system }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_may_be_anything() {
        let text = "12 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 31 42 0 0";
        let (name, cpu) = read_stat(text).expect("sound");
        assert_eq!((&name[..], cpu.user, cpu.system), ("a) (b c", 31, 42));
        assert_eq!(read_stat("12 (a) S 1"), None);
        assert_eq!(read_stat(""), None);
    }

    #[test]
    fn own_work_shows() {
        let before = Snapshot::of(std::process::id()).expect("we are there");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let usage = Snapshot::of(std::process::id()).expect("we are there").since(&before);
            if usage.cpu_ns > 30_000_000 {
                assert!(usage.resident > 0 && !usage.threads.is_empty());
                return;
            }
            assert!(Instant::now() < deadline, "working shows as nothing: {usage:?}");
        }
    }

    #[test]
    fn a_missing_process_is_none() {
        assert!(Snapshot::of(u32::MAX).is_none());
    }
}
