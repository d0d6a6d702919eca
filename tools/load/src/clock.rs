//! The two clocks: one that never goes back, for deadlines, and the wall's, in which the kernel stamps
//! arrivals.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the process first asked.
pub fn now() -> u64 {
    nanos(BEGIN.elapsed())
}

/// Nanoseconds of the wall clock since 1970.
pub fn wall() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in nanoseconds; the longest is 584 years.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// NTP time (RFC 3550 §4) of a wall-clock time.
pub fn ntp(wall: u64) -> u64 {
    /// Seconds from 1900 to 1970.
    const EPOCH: u64 = 2_208_988_800;
    let fraction = ((wall % SECOND) << 32) / SECOND;
    (wall / SECOND + EPOCH) << 32 | fraction
}
