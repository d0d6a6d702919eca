//! What the process takes of the machine (proc(5)), under the names that all Prometheus clients use.

use std::fs;

/// What the process takes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors that may be open at a time.
    pub most_descriptors: u64,
}

impl Usage {
    /// As the kernel tells; what it does not tell is 0.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            resident: number_behind(&status, "VmRSS:") << 10,
            // The listing itself needs one.
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64 - 1),
            most_descriptors: number_behind(&limits, "Max open files"),
        }
    }
}

/// The number that follows `label` on its line.
fn number_behind(text: &str, label: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(label));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        let usage = Usage::read();
        assert!(usage.resident > 1 << 20 && usage.descriptors >= 3);
        assert!(usage.most_descriptors >= usage.descriptors);
    }

    #[test]
    fn what_is_not_told_is_0() {
        assert_eq!(number_behind("VmRSS:\t  12 kB\n", "VmRSS:"), 12);
        assert_eq!(number_behind("VmRSS:\t  unlimited\n", "VmRSS:"), 0);
        assert_eq!(number_behind("", "VmRSS:"), 0);
    }
}
