//! The kernel's calls that no library wraps as the shards need them: batched datagrams from arrays
//! that are made once, memory that costs nothing until it is touched, a few descriptors and their limit.
//!
//! What leaves this file is safe to use.
#![allow(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, mmap, setsockopt, eventfd, epoll, poll, rlimit, scheduling, clock"
)]

use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use super::address::{self, NAME_ROOM, Name};
use super::clock::CONTROL_ROOM;
use super::counters::Counters;
use super::io::{MAX_DRAIN, Message};
use super::socket::Traits;
use super::train::{self, Refusals, Train};

/// By how much a thread that gives way raises its nice value: it has a third of a shard's weight then, which is
/// enough for signaling beside a shard that never sleeps.
const NICE: libc::c_int = 5;
/// A tenth of the usual turn. The kernel takes 0.1 ms to 100 ms.
const SHORT_TURN: Duration = Duration::from_micros(300);

/// What a system call returned, as a number or as the error that it left behind.
fn check(returned: libc::c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// A new eventfd, blocking, at 0.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is new and ours.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: as above, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Raises the limit of open descriptors to the most that the process may have, and returns what it
/// is then. A connection is a descriptor, and the usual soft limit of 1,024 is far below what we
/// serve.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, which outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the kernel reads one `rlimit`, which outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) })?;
    Ok(wanted.rlim_cur)
}

/// CPU time that the calling thread has used so far; zero where the system does not tell.
pub(super) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which outlives the call.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    match (read, time.tv_sec.try_into(), time.tv_nsec.try_into()) {
        (0, Ok(seconds), Ok(nanos)) => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    }
}

/// Gives the calling thread less weight than the shards have, for which one needs no privilege. Only weight: were it
/// ranked below them, as real-time policies do, a shard could wait for ever for a queue's writer that it keeps
/// from running.
pub fn give_way() {
    // SAFETY: no pointers. What is returned is the new value, -1 among others, and raising it cannot fail.
    unsafe { libc::nice(NICE) };
}

/// Lets the calling thread run soon after it wakes up, where threads share cores by weight: it asks for short turns
/// (Linux 6.12; earlier kernels do not mind).
pub(super) fn take_short_turns() -> io::Result<()> {
    // SAFETY: all-zero is a valid `sched_attr`: plain numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let len = size_of_val(&attributes) as libc::c_uint;
    // SAFETY: the kernel writes at most `len` bytes of `attributes`, which outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, len, 0) as libc::c_int
    })?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = SHORT_TURN.as_nanos() as u64;
    // SAFETY: the kernel reads `attributes`, which outlives the call and says its own size.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) as libc::c_int
    })
    .map(drop)
}

/// Sets an integer option of a `level` such as `SOL_SOCKET`.
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which outlives the call.
    let returned =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    check(returned).map(drop)
}

/// Lets `program` choose which of the sockets on `fd`'s port gets a datagram, by its place in their order
/// (Linux 4.5). It sees the datagram from its first byte on.
pub(super) fn steer(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let len = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the kernel reads a `sock_fprog` and copies the `len` steps that it points to; both outlive
    // the call.
    let returned = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const program).cast(), len)
    };
    check(returned).map(drop)
}

/// Whether `fd` becomes readable within so many milliseconds.
pub(super) fn readable_within(fd: BorrowedFd<'_>, millis: libc::c_int) -> io::Result<bool> {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes one `pollfd`, which outlives the call.
    check(unsafe { libc::poll(&raw mut wanted, 1, millis) }).map(|count| count > 0)
}

/// Waits for descriptors to become readable.
pub(super) struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// Watches two descriptors, level-triggered; [`Self::wait`] names them by their position.
    pub fn watch(watched: [BorrowedFd<'_>; 2]) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        for (position, target) in watched.iter().enumerate() {
            let mut event =
                libc::epoll_event { events: libc::EPOLLIN as u32, u64: position as u64 };
            // SAFETY: the kernel copies `event` during the call.
            let returned = unsafe {
                let add = libc::EPOLL_CTL_ADD;
                libc::epoll_ctl(fd.as_raw_fd(), add, target.as_raw_fd(), &raw mut event)
            };
            check(returned)?;
        }
        Ok(Self { fd })
    }

    /// Which of the two are readable, after at most `millis` (-1: as long as it takes).
    pub fn wait(&self, millis: libc::c_int) -> io::Result<[bool; 2]> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: the kernel writes at most as many events as the array holds.
        let returned = unsafe {
            let max = events.len() as libc::c_int;
            libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), max, millis)
        };
        let count = check(returned)?;
        let mut readable = [false; 2];
        for event in &events[..count] {
            readable[event.u64 as usize] = true;
        }
        Ok(readable)
    }
}

/// Zeroed memory of its own pages: page-aligned, and not resident before it is touched.
pub(super) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// `len` bytes, more than 0.
    pub fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other
        // memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The first byte; valid for reads and writes of the whole length while this lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is `len` initialised (zeroed) bytes and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` makes it the only reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; nobody can refer to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The kernel's description of `N` datagrams, each one piece of memory with an address.
///
/// Only the array's places are fixed here; the pointers in an entry are written anew for each use.
struct Table {
    names: Box<[Name]>,
    pieces: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Table {
    fn new(entries: usize) -> Self {
        let piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero is a valid `mmsghdr`: null pointers with zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            names: vec![[0; NAME_ROOM]; entries].into(),
            pieces: vec![piece; entries].into(),
            headers: vec![header; entries].into(),
        }
    }

    /// Lets entry `index` describe `bytes` with the first `name_len` bytes of its name and
    /// `control`.
    fn describe(&mut self, index: usize, bytes: &mut [u8], name_len: usize, control: &mut [u8]) {
        let piece = &mut self.pieces[index];
        *piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = piece;
        header.msg_iovlen = 1;
        header.msg_name = match name_len {
            0 => ptr::null_mut(),
            _ => self.names[index].as_mut_ptr().cast(),
        };
        header.msg_namelen = name_len as libc::socklen_t;
        header.msg_control = match control.len() {
            0 => ptr::null_mut(),
            _ => control.as_mut_ptr().cast(),
        };
        header.msg_controllen = control.len();
        header.msg_flags = 0;
    }
}

/// Length of a control message that says how long the datagrams of a train are: a header, 16 bits,
/// and padding to the next multiple of 8.
const SEGMENT_ROOM: usize = size_of::<libc::cmsghdr>() + 8;

fn write_segment_size(room: &mut [u8; SEGMENT_ROOM], segment: usize) {
    let size = segment as u16;
    let len = size_of::<libc::cmsghdr>() + size_of_val(&size);
    room[..8].copy_from_slice(&len.to_ne_bytes());
    room[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    room[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    room[16..18].copy_from_slice(&size.to_ne_bytes());
}

/// Datagrams on their way out: a fixed arena where they lie side by side, and the messages that they
/// leave in: neighbours that make a train leave as one.
///
/// The kernel reads the arena only while [`Self::send_from`] or [`Self::send_one_by_one`] runs, or
/// while somebody who called [`Self::message`] says so; [`Self::clear`] opens it for new datagrams.
pub(super) struct SendQueue {
    arena: Pages,
    used: usize,
    trains: Box<[Train]>,
    len: usize,
    table: Table,
    sizes: Box<[[u8; SEGMENT_ROOM]]>,
    traits: Traits,
    refusals: Refusals,
}

impl SendQueue {
    /// An empty queue of `messages` places over an arena of `bytes`, for a socket with these traits.
    pub fn new(messages: usize, bytes: usize, traits: Traits) -> io::Result<Self> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Self {
            arena: Pages::new(bytes)?,
            used: 0,
            trains: vec![Train::single(nowhere, 0, 0); messages].into(),
            len: 0,
            table: Table::new(messages),
            sizes: vec![[0; SEGMENT_ROOM]; messages].into(),
            traits,
            refusals: Refusals::new(!traits.takes_trains),
        })
    }

    /// The next `room` bytes of the arena; `None` when arena or table is full.
    pub fn room(&mut self, room: usize) -> Option<&mut [u8]> {
        if self.len == self.trains.len() {
            return None;
        }
        self.arena.get_mut(self.used..self.used + room)
    }

    /// Makes the first `len` bytes of the room given last a datagram for `to`.
    ///
    /// # Panics
    /// If no room was left.
    pub fn push(&mut self, len: usize, to: SocketAddr) {
        let start = self.used;
        self.used += len;
        if let Some(last) = self.trains[..self.len].last_mut()
            && last.takes(to, len)
            && self.refusals.allow(to)
        {
            last.append(len);
            let train = *last;
            return self.couple(self.len - 1, train);
        }
        let index = self.len;
        let name_len = match self.traits.is_connected {
            true => 0,
            false => address::encode(to, self.traits.is_v6, &mut self.table.names[index]),
        };
        let bytes = &mut self.arena[start..start + len];
        self.table.describe(index, bytes, name_len, &mut []);
        self.trains[index] = Train::single(to, start, len);
        self.len += 1;
    }

    /// Describes message `index` anew: it has become longer.
    fn couple(&mut self, index: usize, train: Train) {
        let bytes = &mut self.arena[train.start..train.start + train.len];
        let name_len = self.table.headers[index].msg_hdr.msg_namelen as usize;
        if train.segments == 2 {
            write_segment_size(&mut self.sizes[index], train.segment);
        }
        self.table.describe(index, bytes, name_len, &mut self.sizes[index]);
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the arena that are taken.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.used = 0;
        self.len = 0;
    }

    /// Sends from message `first` on without blocking; returns how many the kernel took. An error
    /// is that of message `first`.
    pub fn send_from(&mut self, first: usize, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let headers = &mut self.table.headers[first..self.len];
        // SAFETY: `push` let each of these headers describe live memory of this queue's arena,
        // names and sizes, which do not move; the kernel is done with them when the call returns.
        let returned = unsafe {
            let count = headers.len() as libc::c_uint;
            libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        check(returned)
    }

    /// The description of message `index`. What it points to stays as it is until [`Self::room`],
    /// [`Self::push`] or [`Self::clear`] is called.
    ///
    /// # Panics
    /// If there is no such message.
    pub fn message(&self, index: usize) -> *const libc::msghdr {
        &raw const self.table.headers[..self.len][index].msg_hdr
    }

    /// How many datagrams message `index` holds.
    ///
    /// # Panics
    /// If there is no such message.
    pub fn segments(&self, index: usize) -> u16 {
        self.trains[..self.len][index].segments
    }

    /// Counts message `index`, which the kernel took.
    pub fn taken(&mut self, index: usize, counters: &mut Counters) {
        let segments = self.segments(index);
        counters.took(segments);
        if segments > 1 {
            self.refusals.taken();
        }
    }

    /// Deals with message `index`, which the kernel refused with `error`: a train that is not wanted
    /// as one leaves in its parts, and its destination gets no more of them; all else is dropped and
    /// counted.
    pub fn failed(
        &mut self,
        index: usize,
        error: &io::Error,
        fd: BorrowedFd<'_>,
        counters: &mut Counters,
    ) {
        let train = self.trains[..self.len][index];
        if train.segments == 1 || !train::is_refusal(error.raw_os_error()) {
            return counters.drop_send(error, train.segments);
        }
        let sent = counters.sent;
        self.send_one_by_one(index, fd, counters);
        if counters.sent > sent {
            counters.trains_refused += 1;
            self.refusals.refused(train.to);
        }
    }

    /// Sends the datagrams of message `index` as messages of their own.
    fn send_one_by_one(&mut self, index: usize, fd: BorrowedFd<'_>, counters: &mut Counters) {
        let train = self.trains[..self.len][index];
        let end = train.start + train.len;
        for start in (train.start..end).step_by(train.segment) {
            let bytes = &mut self.arena[start..end.min(start + train.segment)];
            let name_len = self.table.headers[index].msg_hdr.msg_namelen as usize;
            self.table.describe(index, bytes, name_len, &mut []);
            let message = self.message(index);
            // SAFETY: the header has just been let describe live memory of this queue, and the kernel
            // is done with it when the call returns.
            let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), message, libc::MSG_DONTWAIT) };
            match sent {
                0.. => counters.took(1),
                _ => counters.drop_send(&io::Error::last_os_error(), 1),
            }
        }
    }
}

/// Room for one drain's datagrams, filled by one `recvmmsg`.
pub(super) struct ReceiveTable {
    buffers: Pages,
    buffer_len: usize,
    controls: Box<[[u8; CONTROL_ROOM]]>,
    table: Table,
}

impl ReceiveTable {
    /// [`MAX_DRAIN`] buffers of `buffer_len` bytes.
    pub fn new(buffer_len: usize) -> io::Result<Self> {
        let mut receive = Self {
            buffers: Pages::new(MAX_DRAIN * buffer_len)?,
            buffer_len,
            controls: vec![[0; CONTROL_ROOM]; MAX_DRAIN].into(),
            table: Table::new(MAX_DRAIN),
        };
        receive.reset(MAX_DRAIN);
        Ok(receive)
    }

    /// Makes the first `count` entries as long as their buffers again.
    fn reset(&mut self, count: usize) {
        let buffers = self.buffers.chunks_exact_mut(self.buffer_len);
        for (index, buffer) in buffers.enumerate().take(count) {
            self.table.describe(index, buffer, NAME_ROOM, &mut self.controls[index]);
        }
    }

    /// Takes what waits in the socket, without blocking, at most [`MAX_DRAIN`] datagrams; returns
    /// how many.
    pub fn fill(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let headers = &mut self.table.headers;
        // SAFETY: `reset` let every header describe a buffer, name and control room of this table,
        // which do not move; the kernel is done with them when the call returns.
        let returned = unsafe {
            let (count, flags) = (headers.len() as libc::c_uint, libc::MSG_DONTWAIT);
            libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags, ptr::null_mut())
        };
        check(returned)
    }

    /// Lends the first `count` messages that [`Self::fill`] got, and readies their entries for the
    /// next.
    pub fn messages(&mut self, count: usize) -> impl Iterator<Item = Message<'_>> {
        let buffers = self.buffers.chunks_exact_mut(self.buffer_len);
        let entries = self.table.headers.iter_mut().zip(&self.table.names).zip(&self.controls);
        buffers.zip(entries).take(count).map(|(buffer, ((entry, name), control))| {
            let header = &mut entry.msg_hdr;
            let name_len = (header.msg_namelen as usize).min(NAME_ROOM);
            let control_len = header.msg_controllen.min(CONTROL_ROOM);
            let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
            header.msg_namelen = NAME_ROOM as libc::socklen_t;
            header.msg_controllen = CONTROL_ROOM;
            let len = (entry.msg_len as usize).min(buffer.len());
            Message {
                name: &name[..name_len],
                control: &control[..control_len],
                truncated,
                bytes: &mut buffer[..len],
            }
        })
    }
}
