//! The conditions of all figures of a table: machine, kernel, interface.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::bench::Bench;

/// See the top.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// The processor's name.
    pub cpu: String,
    /// Its cores.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The interface that all datagrams pass.
    pub interface: &'static str,
    /// Whether it takes GSO sends whole; none: not known.
    pub tx_udp_segmentation: Option<bool>,
    /// Cores of the server and of the load.
    pub server_core: usize,
    /// See `server_core`.
    pub load_core: usize,
    /// The measured program runs with real-time priority.
    pub real_time: bool,
    /// Runnable tasks in the last minute when it began: much more than 0 says that the machine had other work.
    pub load_average: f64,
}

impl Conditions {
    /// Looks at this machine.
    pub fn of(bench: &Bench) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let average = read("/proc/loadavg");
        // Field 41 of proc(5)'s stat: the scheduling policy; 0 is the usual one. Our own name has no blanks.
        let policy = read("/proc/self/stat").split(' ').nth(40).map(str::to_owned);
        Self {
            cpu: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: cpu.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            interface: "lo",
            tx_udp_segmentation: tx_udp_segmentation(),
            server_core: bench.server_core,
            load_core: bench.load_core,
            real_time: policy.is_some_and(|policy| policy != "0"),
            load_average: average.split(' ').next().and_then(|a| a.parse().ok()).unwrap_or(0.0),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let segmentation = match self.tx_udp_segmentation {
            Some(true) => "on",
            Some(false) => "off",
            None => "not known (no ethtool)",
        };
        format!(
            "{} cores of {}, Linux {}, interface {}, tx-udp-segmentation {segmentation}; server on core {}, load on \
             core {}{}; load average {:.2} before",
            self.cores,
            self.cpu,
            self.kernel,
            self.interface,
            self.server_core,
            self.load_core,
            if self.real_time { ", real-time priority" } else { "" },
            self.load_average,
        )
    }
}

fn tx_udp_segmentation() -> Option<bool> {
    let said = Command::new("ethtool").args(["-k", "lo"]).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let line = said.lines().find_map(|line| line.trim().strip_prefix("tx-udp-segmentation:"))?;
    Some(line.trim().starts_with("on"))
}
