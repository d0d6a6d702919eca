//! Waking a shard that waits for packets, with no system call while it is awake; and seeing that it lives.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use super::sys;

/// A shard's bell. Whoever puts something into one of the shard's queues rings it afterwards; the
/// shard looks into its queues between [`Self::about_to_sleep`] and the wait, so no ring is lost.
pub(super) struct Waker {
    bell: File,
    asleep: AtomicBool,
    /// Turns of the shard's loop; written by the shard alone.
    turns: AtomicU64,
    /// Nobody waits for this shard any more.
    given_up: AtomicBool,
}

impl Waker {
    /// A bell for a shard that is awake.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bell: sys::eventfd()?.into(),
            asleep: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        })
    }

    /// Wakes the shard if it sleeps, or is about to. Call it after the queue was written.
    pub fn wake(&self) {
        // Pairs with the fence below: either the shard sees the queue's new content, or this sees
        // it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // The counter cannot overflow: it grows by one per sleep.
            let _ = (&self.bell).write(&1_u64.to_ne_bytes());
        }
    }

    /// The shard is going to wait unless its queues, looked at after this call, hold something.
    pub fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake and will look into its queues before it waits again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        self.turns.store(self.turns() + 1, Ordering::Relaxed);
    }

    /// How often the shard has woken up.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// The shard stood still for too long: should it go on, it is to end instead.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether [`Self::give_up`] was called in this life of the shard. To be looked at, like the queues, before it
    /// waits.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// The same as the error with which a shard ends.
    pub fn still_counts(&self) -> io::Result<()> {
        if self.is_given_up() {
            return Err(io::Error::other("it stood still for too long"));
        }
        Ok(())
    }

    /// For a shard that begins anew. A ring from before is heard once more and does no harm.
    pub fn begin(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        self.given_up.store(false, Ordering::Relaxed);
    }

    /// Sleeps for `length`, rounded down to milliseconds, or until the bell rings, and leaves it ringing.
    pub fn nap(&self, length: Duration) -> io::Result<()> {
        let millis = i32::try_from(length.as_millis()).unwrap_or(i32::MAX);
        match sys::readable_within(self.bell.as_fd(), millis) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Silences the bell; blocks if it has not rung.
    pub fn silence(&self) -> io::Result<()> {
        (&self.bell).read_exact(&mut [0; 8])
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the bell has rung since it was silenced last.
    fn rings(waker: &Waker) -> u64 {
        // A ring of our own keeps the read from blocking.
        (&waker.bell).write_all(&1_u64.to_ne_bytes()).unwrap();
        let mut count = [0; 8];
        (&waker.bell).read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count) - 1
    }

    #[test]
    fn rings_once_per_sleep_and_never_while_awake() {
        let waker = Waker::new().unwrap();
        waker.wake();
        assert_eq!(rings(&waker), 0);
        waker.about_to_sleep();
        waker.wake();
        waker.wake();
        assert_eq!(rings(&waker), 1);
        waker.about_to_sleep();
        waker.awake();
        waker.wake();
        assert_eq!(rings(&waker), 0);
    }
}
