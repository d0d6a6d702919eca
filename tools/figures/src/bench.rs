//! What all rows need: the programs, the cores, and how thoroughly to measure.

use std::error::Error;
use std::path::PathBuf;

/// Anything can go wrong with other programs; a row that fails is told, and the next one goes on.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The programs and the cores.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The server.
    pub server: PathBuf,
    /// `shardcast-load`.
    pub load: PathBuf,
    /// `benches/floor`; none: cargo builds it.
    pub floor: Option<PathBuf>,
    /// The server's core.
    pub server_core: usize,
    /// The load's core.
    pub load_core: usize,
    /// Only whether it works: everything small and short.
    pub quick: bool,
}

impl Bench {
    /// A size: the full one, or the quick one.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Seconds to measure.
    pub fn seconds(&self, full: f64) -> String {
        let seconds = if self.quick { 0.5 } else { full };
        seconds.to_string()
    }

    /// How often kinds that are compared take turns.
    pub fn rounds(&self) -> usize {
        self.size(3, 1)
    }

    /// Peers with two sockets each that one process may have, at most `wanted`.
    pub fn peers_within_limit(&self, wanted: usize) -> usize {
        /// Descriptors for everything else.
        const SPARE: u64 = 200;
        let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .unwrap_or((1024, 1024));
        wanted.min(usize::try_from(hard.saturating_sub(SPARE) / 2).unwrap_or(wanted))
    }
}

/// The middle of several values; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
