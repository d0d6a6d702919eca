//! The kernel's calls that no library wraps as a worker needs them: batches of datagrams in memory that is
//! made once, epoll over thousands of sockets, a few socket options, a thread's CPU time.
//!
//! What leaves this file is safe to use.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg, epoll, setsockopt, clock_gettime, rlimit")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Bytes of control messages per receive: a time stamp (32) and a segment size (24).
const CONTROL_LEN: usize = 64;
/// Most datagrams in one send: a large key frame's packets.
pub const MAX_SEND: usize = 256;
/// Sockets that one look at epoll may name.
pub const MAX_EVENTS: usize = 1024;

fn check(returned: libc::c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Room for the datagrams of one `recvmmsg`. The pointers within are written once: vectors keep their
/// memory where it is.
pub struct ReceiveBatch {
    buffers: Vec<u8>,
    buffer_len: usize,
    /// Words, so that the control messages are aligned.
    controls: Vec<[u64; CONTROL_LEN / 8]>,
    _pieces: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// One received datagram, or several of one size that the kernel put together.
pub struct Received<'a> {
    /// All bytes.
    pub bytes: &'a mut [u8],
    /// When the kernel got it: nanoseconds of the wall clock, 0 if it did not say.
    pub stamp: u64,
    /// The size of each datagram in `bytes`, except the last.
    pub segment: usize,
}

impl ReceiveBatch {
    /// `slots` buffers of `buffer_len` bytes.
    pub fn new(slots: usize, buffer_len: usize) -> Self {
        let mut buffers = vec![0; slots * buffer_len];
        let mut controls = vec![[0; CONTROL_LEN / 8]; slots];
        let mut pieces: Vec<_> = buffers
            .chunks_exact_mut(buffer_len)
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: buffer_len })
            .collect();
        let headers = (pieces.iter_mut().zip(&mut controls))
            .map(|(piece, control)| {
                // SAFETY: all-zero is a valid `mmsghdr`: null pointers with zero lengths.
                let mut header: libc::mmsghdr = unsafe { zeroed() };
                header.msg_hdr.msg_iov = piece;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL_LEN;
                header
            })
            .collect();
        Self { buffers, buffer_len, controls, _pieces: pieces, headers }
    }

    /// How many datagrams fit.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Takes what waits in the socket, without blocking; returns how many datagrams.
    pub fn fill(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: every header describes live memory of this batch, which does not move; the kernel is
        // done with it when the call returns.
        check(unsafe {
            let (count, flags) = (self.headers.len() as libc::c_uint, libc::MSG_DONTWAIT);
            libc::recvmmsg(fd.as_raw_fd(), self.headers.as_mut_ptr(), count, flags, ptr::null_mut())
        })
    }

    /// Datagram `index` of those that [`Self::fill`] got; readies its place for the next.
    pub fn take(&mut self, index: usize) -> Received<'_> {
        let header = &mut self.headers[index];
        let len = (header.msg_len as usize).min(self.buffer_len);
        let (stamp, segment) = controls(&self.controls[index], header.msg_hdr.msg_controllen);
        header.msg_hdr.msg_controllen = CONTROL_LEN;
        header.msg_hdr.msg_flags = 0;
        let bytes = &mut self.buffers[index * self.buffer_len..][..len];
        Received { bytes, stamp, segment: if segment == 0 { len } else { segment } }
    }
}

/// Time stamp and segment size out of control messages (cmsg(3)): each a length of 8 bytes, level and
/// type of 4 each, then the data.
fn controls(words: &[u64; CONTROL_LEN / 8], len: usize) -> (u64, usize) {
    let (mut stamp, mut segment, mut at) = (0, 0, 0);
    while at + 3 <= len.min(CONTROL_LEN).div_ceil(8) {
        let size = words[at] as usize;
        let (level, kind) = (words[at + 1] as i32, (words[at + 1] >> 32) as i32);
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if at + 4 <= words.len() => {
                stamp = words[at + 2] * 1_000_000_000 + words[at + 3];
            }
            (libc::SOL_UDP, libc::UDP_GRO) => segment = (words[at + 2] & 0xffff_ffff) as usize,
            _ => {}
        }
        at += size.div_ceil(8).max(2);
    }
    (stamp, segment)
}

/// Datagrams for one connected socket, sent by one `sendmmsg`.
pub struct SendBatch {
    arena: Vec<u8>,
    /// Where each datagram lies in the arena.
    spans: Vec<(usize, usize)>,
    pieces: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        let (arena, spans) = (Vec::with_capacity(1 << 18), Vec::with_capacity(MAX_SEND));
        let (pieces, headers) = (Vec::with_capacity(MAX_SEND), Vec::with_capacity(MAX_SEND));
        Self { arena, spans, pieces, headers }
    }

    /// Adds a datagram.
    pub fn push(&mut self, datagram: &[u8]) {
        self.spans.push((self.arena.len(), datagram.len()));
        self.arena.extend_from_slice(datagram);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// One of the datagrams that wait.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> &[u8] {
        let (start, len) = self.spans[index];
        &self.arena[start..start + len]
    }

    /// The datagrams that wait.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|&(start, len)| &self.arena[start..start + len])
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.spans.clear();
    }

    /// Sends all and forgets them. Returns how many the kernel did not take: its buffer is full, or
    /// nobody listens there any more.
    pub fn send(&mut self, fd: BorrowedFd<'_>) -> usize {
        self.pieces.clear();
        self.headers.clear();
        for &(start, len) in &self.spans {
            let bytes = &mut self.arena[start..start + len];
            self.pieces.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len });
        }
        for piece in &mut self.pieces {
            // SAFETY: all-zero is a valid `mmsghdr`: null pointers with zero lengths.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
        let (mut done, mut lost) = (0, 0);
        while done < self.headers.len() {
            let waiting = &mut self.headers[done..];
            // SAFETY: the headers describe memory of this batch that nothing moves before the call
            // returns; the kernel only reads it.
            let sent = check(unsafe {
                let count = waiting.len().min(MAX_SEND) as libc::c_uint;
                libc::sendmmsg(fd.as_raw_fd(), waiting.as_mut_ptr(), count, libc::MSG_DONTWAIT)
            });
            match sent {
                Ok(count) => done += count,
                // The error belongs to the first datagram; the next one may go.
                Err(_) => (done, lost) = (done + 1, lost + 1),
            }
        }
        self.clear();
        lost
    }
}

/// Tells which sockets have something to read.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// One that watches nothing.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS] })
    }

    /// Watches `target` until it is closed, level-triggered, under the name `name`.
    pub fn watch(&self, target: BorrowedFd<'_>, name: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: name };
        // SAFETY: the kernel copies `event` during the call.
        check(unsafe {
            let (epoll, add) = (self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD);
            libc::epoll_ctl(epoll, add, target.as_raw_fd(), &raw mut event)
        })
        .map(drop)
    }

    /// Watches `target` no more.
    pub fn forget(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the kernel ignores the event of a removal.
        check(unsafe {
            let (epoll, remove) = (self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL);
            libc::epoll_ctl(epoll, remove, target.as_raw_fd(), std::ptr::null_mut())
        })
        .map(drop)
    }

    /// Writes the names of the readable into `names`, without waiting.
    pub fn ready(&mut self, names: &mut Vec<u64>) -> io::Result<()> {
        // SAFETY: the kernel writes at most as many events as the array holds.
        let count = check(unsafe {
            let max = self.events.len() as libc::c_int;
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), max, 0)
        })?;
        names.clear();
        names.extend(self.events[..count].iter().map(|event| event.u64));
        Ok(())
    }
}

fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which outlives the call.
    let returned =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    check(returned).map(drop)
}

/// Asks for the kernel's time of every datagram.
pub fn stamp_arrivals(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Lets the kernel hand over runs of datagrams of one size as one (udp(7), UDP_GRO).
pub fn receive_runs(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Makes the receive buffer `bytes` large, or as small as it can be: beyond the system's limit if the process may, else up to it.
pub fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Datagrams that the kernel dropped because the socket's receive buffer was full (SO_MEMINFO).
pub fn dropped_by(fd: BorrowedFd<'_>) -> u64 {
    /// The index of the drops, behind eight figures about memory (linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes of `values` and their number to `len`.
    let returned = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
        libc::getsockopt(fd.as_raw_fd(), level, name, values.as_mut_ptr().cast(), &raw mut len)
    };
    check(returned).map_or(0, |_| u64::from(values[DROPS]))
}

/// CPU time of the calling thread in nanoseconds.
pub fn thread_cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets the calling thread wake when it asked to, not up to 50 µs later (prctl(2), PR_SET_TIMERSLACK).
pub fn wake_precisely() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
}

/// Raises the limit of open descriptors to the most that the process may have, and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, which outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit`, which outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Clock ticks per second in `/proc` (sysconf(3)).
pub fn ticks_per_second() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    /// Two sockets connected to each other.
    fn pair() -> (UdpSocket, UdpSocket) {
        let [a, b] = [0, 0].map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("a socket"));
        a.connect(b.local_addr().expect("its address")).expect("connected");
        b.connect(a.local_addr().expect("its address")).expect("connected");
        (a, b)
    }

    fn receive(batch: &mut ReceiveBatch, socket: &UdpSocket) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match batch.fill(socket.as_fd()) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "nothing came");
        }
    }

    #[test]
    fn a_batch_arrives_whole_and_stamped() {
        let (a, b) = pair();
        stamp_arrivals(b.as_fd()).expect("stamps");
        let (mut out, mut into) = (SendBatch::new(), ReceiveBatch::new(8, 100));
        for round in 0..2_u8 {
            (0..5_u8).for_each(|n| out.push(&[round * 10 + n; 30]));
            assert_eq!(out.send(a.as_fd()), 0);
            let mut got = Vec::new();
            while got.len() < 5 {
                let count = receive(&mut into, &b);
                for index in 0..count {
                    let received = into.take(index);
                    assert_eq!((received.bytes.len(), received.segment), (30, 30));
                    got.push(received.bytes[0]);
                }
            }
            assert_eq!(got, (0..5).map(|n| round * 10 + n).collect::<Vec<_>>());
        }
        // The kernel begins to stamp a moment after the machine's first socket asked for it.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            out.push(&[1; 30]);
            assert_eq!(out.send(a.as_fd()), 0);
            receive(&mut into, &b);
            let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let wall = wall.expect("after 1970").as_nanos() as u64;
            if into.take(0).stamp.abs_diff(wall) < 10_000_000_000 {
                break;
            }
            assert!(Instant::now() < deadline, "no stamps");
        }
    }

    #[test]
    fn control_messages_are_read_in_any_order() {
        let stamp = [32, 1 | (libc::SCM_TIMESTAMPNS as u64) << 32, 7, 5];
        let run = [20, libc::SOL_UDP as u64 | (libc::UDP_GRO as u64) << 32, 1200];
        let mut words = [0; CONTROL_LEN / 8];
        words[..4].copy_from_slice(&stamp);
        words[4..7].copy_from_slice(&run);
        assert_eq!(controls(&words, 56), (7_000_000_005, 1200));
        words[..3].copy_from_slice(&run);
        words[3..7].copy_from_slice(&stamp);
        assert_eq!(controls(&words, 56), (7_000_000_005, 1200));
        assert_eq!(controls(&words, 0), (0, 0));
    }

    #[test]
    fn drops_of_a_full_buffer_are_counted() {
        let (a, b) = pair();
        assert_eq!(dropped_by(b.as_fd()), 0);
        set(b.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).expect("a small buffer");
        (0..100).for_each(|_| drop(a.send(&[0; 1000])));
        assert!(dropped_by(b.as_fd()) > 50);
    }
}
