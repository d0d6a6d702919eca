//! The backend for hosts without io_uring: epoll, recvmmsg, sendmmsg.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Moment;
use super::counters::Counters;
use super::io::{BUFFER_LEN, DrainList, Io, MAX_DRAIN, MAX_RECEIVE_ERRORS, Transmit};
use super::socket::Socket;
use super::sys::{Epoll, ReceiveTable, SendQueue};
use super::wake::Waker;
use crate::room::Datagram;

/// One shard's socket and bell behind epoll.
pub(super) struct Mmsg {
    sender: Sender,
    waker: Arc<Waker>,
    epoll: Epoll,
    table: ReceiveTable,
    list: DrainList,
    /// Whether the socket may hold datagrams.
    readable: bool,
    /// Receives that failed since the last good one.
    failures: u32,
}

/// The half that sends.
pub(super) struct Sender {
    socket: Socket,
}

impl Mmsg {
    /// Receives from and sends through `socket`; woken by `waker`.
    pub fn new(socket: Socket, waker: Arc<Waker>) -> io::Result<Self> {
        let epoll = Epoll::watch([socket.as_fd(), waker.as_fd()])?;
        Ok(Self {
            sender: Sender { socket },
            waker,
            epoll,
            table: ReceiveTable::new(BUFFER_LEN)?,
            list: DrainList::new(),
            readable: true,
            failures: 0,
        })
    }

    /// How many datagrams `recvmmsg` got; only an error that stays is an error.
    fn receive(&mut self, counters: &mut Counters) -> io::Result<usize> {
        let error = match self.table.fill(self.sender.socket.as_fd()) {
            Ok(count) => {
                self.readable = count == MAX_DRAIN;
                self.failures = 0;
                return Ok(count);
            }
            Err(error) => error,
        };
        self.readable = false;
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => return Ok(0),
            _ if error.raw_os_error() == Some(libc::ENOBUFS) => counters.buffers_exhausted += 1,
            _ => counters.receive_errors += 1,
        }
        self.failures += 1;
        if self.failures < MAX_RECEIVE_ERRORS { Ok(0) } else { Err(error) }
    }
}

impl Io for Mmsg {
    type Sender = Sender;

    fn wait(&mut self, timeout: Option<Duration>, _: &mut Counters) -> io::Result<()> {
        if self.readable {
            return Ok(());
        }
        let [socket, bell] = match self.epoll.wait(whole_millis(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            readable => readable?,
        };
        self.readable = socket;
        if bell { self.waker.silence() } else { Ok(()) }
    }

    fn nap(&mut self, length: Duration) -> io::Result<()> {
        if self.readable { Ok(()) } else { self.waker.nap(length) }
    }

    fn drain(
        &mut self,
        moment: &Moment,
        counters: &mut Counters,
        take: impl FnOnce(&mut [Datagram<'_>], &mut Sender, &mut Counters),
    ) -> io::Result<()> {
        if !self.readable {
            return Ok(());
        }
        let count = self.receive(counters)?;
        counters.most_waiting = counters.most_waiting.max(count as u64);
        let mut list = self.list.lend();
        let messages = self.table.messages(count);
        list.extend(messages.filter_map(|message| message.admit(moment, counters)));
        if !list.is_empty() {
            take(&mut list, &mut self.sender, counters);
        }
        self.list.take_back(list);
        Ok(())
    }

    fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }
}

impl Transmit for Sender {
    fn transmit(&mut self, queue: &mut SendQueue, counters: &mut Counters) -> io::Result<()> {
        let mut next = 0;
        while next < queue.len() {
            match queue.send_from(next, self.socket.as_fd()) {
                Ok(taken) => {
                    (next..next + taken).for_each(|index| queue.taken(index, counters));
                    next += taken;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    queue.failed(next, &error, self.socket.as_fd(), counters);
                    next += 1;
                }
            }
        }
        queue.clear();
        Ok(())
    }
}

/// For `epoll_wait`, whose unit is the millisecond: rounded up, so that a timer is due when it
/// ends; -1 is for ever.
fn whole_millis(timeout: Option<Duration>) -> i32 {
    let Some(timeout) = timeout else { return -1 };
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_are_rounded_up() {
        assert_eq!(whole_millis(None), -1);
        assert_eq!(whole_millis(Some(Duration::ZERO)), 0);
        assert_eq!(whole_millis(Some(Duration::from_nanos(1))), 1);
        assert_eq!(whole_millis(Some(Duration::from_millis(5))), 5);
        assert_eq!(whole_millis(Some(Duration::MAX)), i32::MAX);
    }
}
