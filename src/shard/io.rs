//! What a backend has to offer to the loop, and what both backends do alike.

use std::io;
use std::time::Duration;

use super::address;
use super::clock::Moment;
use super::counters::Counters;
use super::sys::SendQueue;
use crate::room::Datagram;
use crate::wire::MAX_DATAGRAM;

/// Datagrams that are handed to the rooms at once. Enough to share the system calls' cost, few
/// enough that the first one does not wait long and that timers are on time.
pub(super) const MAX_DRAIN: usize = 64;
/// Size of a receive buffer, in bytes, with what the backend puts beside the datagram.
pub(super) const BUFFER_LEN: usize = 2048;
/// Datagrams that leave in one batch, at most.
pub(super) const MAX_BATCH: usize = 256;
/// Size of the arena that they are sealed into, in bytes. With the receive buffers in use it stays
/// in a core's L2 cache (1 MB and more where servers run), and holds [`MAX_BATCH`] datagrams of 1
/// kB.
pub(super) const ARENA_LEN: usize = 256 << 10;
/// Receives that fail in a row before the socket is given up.
pub(super) const MAX_RECEIVE_ERRORS: u32 = 1000;

/// One shard's way to the kernel.
pub(super) trait Io: Sized {
    /// The half that sends, usable while a drain is lent out.
    type Sender: Transmit;

    /// Sleeps until datagrams may be there, the bell rings, or `timeout` is over (`None`: never).
    /// Returns at once if datagrams are left from the last drain.
    fn wait(&mut self, timeout: Option<Duration>, counters: &mut Counters) -> io::Result<()>;

    /// Sleeps for `length`, whatever comes in, unless the bell rings; returns at once if datagrams are left from
    /// the last drain. [`Self::wait`] follows.
    fn nap(&mut self, length: Duration) -> io::Result<()>;

    /// Lends up to [`MAX_DRAIN`] waiting datagrams to `take`, which is not called when there are
    /// none; their buffers are taken back when it returns.
    fn drain(
        &mut self,
        moment: &Moment,
        counters: &mut Counters,
        take: impl FnOnce(&mut [Datagram<'_>], &mut Self::Sender, &mut Counters),
    ) -> io::Result<()>;

    /// The half that sends.
    fn sender(&mut self) -> &mut Self::Sender;
}

/// Sends batches.
pub(super) trait Transmit {
    /// Sends everything in `queue` and empties it. Every datagram is taken by the kernel or dropped
    /// and counted when this returns: the arena may be written again. An error means that the
    /// backend is broken.
    fn transmit(&mut self, queue: &mut SendQueue, counters: &mut Counters) -> io::Result<()>;
}

/// One received message as the kernel described it.
pub(super) struct Message<'a> {
    /// The sender's address.
    pub name: &'a [u8],
    /// Control messages.
    pub control: &'a [u8],
    /// Whether the datagram was longer than its buffer.
    pub truncated: bool,
    /// The datagram.
    pub bytes: &'a mut [u8],
}

impl<'a> Message<'a> {
    /// The message for the rooms; `None` is a counted drop.
    pub fn admit(self, moment: &Moment, counters: &mut Counters) -> Option<Datagram<'a>> {
        if self.truncated || self.bytes.len() > MAX_DATAGRAM {
            counters.truncated += 1;
            return None;
        }
        let Some(from) = address::decode(self.name) else {
            counters.nameless += 1;
            return None;
        };
        counters.received += 1;
        Some(Datagram { from, received_at: moment.arrival(self.control), bytes: self.bytes })
    }
}

/// Room for the list of one drain's datagrams, allocated once.
#[derive(Default)]
pub(super) struct DrainList(Vec<Datagram<'static>>);

impl DrainList {
    /// An empty list with room for [`MAX_DRAIN`].
    pub fn new() -> Self {
        Self(Vec::with_capacity(MAX_DRAIN))
    }

    /// The empty list, for datagrams that live as long as `'a`.
    pub fn lend<'a>(&mut self) -> Vec<Datagram<'a>> {
        recycle(std::mem::take(&mut self.0))
    }

    /// Keeps the list's memory for the next drain.
    pub fn take_back(&mut self, list: Vec<Datagram<'_>>) {
        self.0 = recycle(list);
    }
}

/// The same memory for datagrams of another lifetime. Collecting a mapped `Vec` into one of the
/// same layout reuses its allocation; the test below would notice if it did not.
fn recycle<'a>(mut list: Vec<Datagram<'_>>) -> Vec<Datagram<'a>> {
    list.clear();
    list.into_iter().map(|_| -> Datagram<'a> { unreachable!("the list is empty") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Instant;

    #[test]
    fn a_drain_list_is_allocated_once() {
        let mut lists = DrainList::new();
        let memory = lists.0.as_ptr() as usize;
        for _ in 0..3 {
            let mut bytes = [1, 2, 3];
            let mut list = lists.lend();
            let from = SocketAddr::from(([127, 0, 0, 1], 9));
            list.push(Datagram { from, received_at: Instant::now(), bytes: &mut bytes });
            assert_eq!((list.as_ptr() as usize, list.capacity()), (memory, MAX_DRAIN));
            lists.take_back(list);
        }
    }
}
