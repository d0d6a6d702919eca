//! The media path's only clock, and the kernel's receive timestamps on its scale.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the two clock readings of a [`Moment`] may lie apart before they are taken again.
const CLOSE_ENOUGH: Duration = Duration::from_micros(20);
/// How often they are taken at most: the thread may be interrupted each time.
const ATTEMPTS: usize = 3;
/// Oldest believable arrival. A socket's receive buffer holds far less at any rate worth
/// forwarding; more means that somebody set the machine's clock.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Length of a `SCM_TIMESTAMPNS` control message, in bytes: header and `timespec`.
pub(super) const CONTROL_ROOM: usize = CMSG_HEADER + TIMESPEC;
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();
const TIMESPEC: usize = size_of::<libc::timespec>();
const _: () = assert!(CMSG_HEADER == 16 && TIMESPEC == 16, "written for 64-bit Linux");

/// One moment on both scales: the engine's monotonic one and the kernel timestamps' wall clock.
///
/// Taken anew in every turn of the loop, so a wall clock that is slewed or set disturbs no more
/// than what arrived in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The time that the engine is told.
    pub now: Instant,
    wall: Duration,
}

impl Moment {
    /// Reads the clocks.
    pub fn read() -> Self {
        Self::closest(Self::read_once)
    }

    /// The first reading that is close enough, or the closest of [`ATTEMPTS`].
    fn closest(mut read: impl FnMut() -> (Duration, Self)) -> Self {
        let (mut narrowest, mut moment) = read();
        for _ in 1..ATTEMPTS {
            if narrowest <= CLOSE_ENOUGH {
                break;
            }
            let (width, candidate) = read();
            if width < narrowest {
                (narrowest, moment) = (width, candidate);
            }
        }
        moment
    }

    /// The moment this much later, if both clocks run alike.
    #[cfg(test)]
    pub fn later(&self, by: Duration) -> Self {
        Self { now: self.now + by, wall: self.wall + by }
    }

    fn read_once() -> (Duration, Self) {
        let before = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Instant::now();
        (now - before, Self { now, wall })
    }

    /// When a datagram with these control messages arrived; never in the future, and `now` without
    /// a timestamp.
    pub fn arrival(&self, control: &[u8]) -> Instant {
        let Some(stamp) = timestamp(control) else { return self.now };
        let age = self.wall.saturating_sub(stamp).min(MAX_AGE);
        self.now.checked_sub(age).unwrap_or(self.now)
    }
}

/// The wall-clock time in the first control message, if that is a `SCM_TIMESTAMPNS`: no other is
/// asked for.
fn timestamp(control: &[u8]) -> Option<Duration> {
    let level = i32::from_ne_bytes(*control.get(8..)?.first_chunk()?);
    let kind = i32::from_ne_bytes(*control.get(12..)?.first_chunk()?);
    if (level, kind) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    let seconds = i64::from_ne_bytes(*control.get(CMSG_HEADER..)?.first_chunk()?);
    let nanos = i64::from_ne_bytes(*control.get(CMSG_HEADER + 8..)?.first_chunk()?);
    Some(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(stamp: Duration) -> Vec<u8> {
        let mut bytes = CONTROL_ROOM.to_ne_bytes().to_vec();
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(libc::SCM_TIMESTAMPNS.to_ne_bytes());
        bytes.extend((stamp.as_secs() as i64).to_ne_bytes());
        bytes.extend(i64::from(stamp.subsec_nanos()).to_ne_bytes());
        bytes
    }

    /// Reads of these widths, in microseconds, of which a moment takes some and keeps one.
    fn kept_and_taken(widths: [u64; ATTEMPTS]) -> (u64, usize) {
        let (now, mut taken) = (Instant::now(), 0);
        let moment = Moment::closest(|| {
            let width = Duration::from_micros(widths[taken]);
            taken += 1;
            (width, Moment { now, wall: width })
        });
        (moment.wall.as_micros() as u64, taken)
    }

    #[test]
    fn clocks_are_read_again_only_when_something_came_between() {
        assert_eq!(kept_and_taken([20, 1, 1]), (20, 1));
        assert_eq!(kept_and_taken([21, 5, 1]), (5, 2));
        assert_eq!(kept_and_taken([90, 30, 60]), (30, 3));
    }

    #[test]
    fn arrival_is_as_old_as_the_kernel_says() {
        let moment = Moment::read();
        let age = Duration::from_millis(7);
        assert_eq!(moment.arrival(&control(moment.wall - age)), moment.now - age);
    }

    #[test]
    fn arrival_is_never_in_the_future_nor_far_in_the_past() {
        let moment = Moment::read();
        let ahead = moment.wall + Duration::from_secs(3600);
        assert_eq!(moment.arrival(&control(ahead)), moment.now);
        let long_ago = moment.wall - Duration::from_secs(3600);
        assert_eq!(moment.arrival(&control(long_ago)), moment.now - MAX_AGE);
    }

    #[test]
    fn without_a_timestamp_it_arrived_now() {
        let moment = Moment::read();
        let whole = control(moment.wall - Duration::from_millis(7));
        for short in 0..whole.len() {
            assert_eq!(moment.arrival(&whole[..short]), moment.now, "{short}");
        }
        let mut foreign = whole;
        foreign[12] ^= 1;
        assert_eq!(moment.arrival(&foreign), moment.now);
    }
}
