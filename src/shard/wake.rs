//! Waking a shard that waits for packets, with no system call while it is awake.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::sys;

/// A shard's bell. Whoever puts something into one of the shard's queues rings it afterwards; the
/// shard looks into its queues between [`Self::about_to_sleep`] and the wait, so no ring is lost.
pub(super) struct Waker {
    bell: File,
    asleep: AtomicBool,
}

impl Waker {
    /// A bell for a shard that is awake.
    pub fn new() -> io::Result<Self> {
        Ok(Self { bell: sys::eventfd()?.into(), asleep: AtomicBool::new(false) })
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
