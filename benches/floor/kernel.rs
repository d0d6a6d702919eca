//! The system calls of both sides, with as little around them as possible.
#![allow(clippy::undocumented_unsafe_blocks, reason = "one note at the head of each impl")]

use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{IoUring, cqueue, opcode, types};

/// Datagrams that are received at once, as the shards do.
pub const MAX_DRAIN: usize = 64;
/// Messages that are sent at once, as the shards do.
pub const MAX_BATCH: usize = 256;
/// Bytes of the send arena, as the shards have.
pub const ARENA_LEN: usize = 256 << 10;
/// Bytes that one datagram may need.
const ROOM: usize = 1600;
/// Bytes of one train: what fits a datagram's length field.
const MAX_TRAIN_BYTES: usize = 65_000;
/// Segments of one train that every kernel takes.
const MAX_SEGMENTS: usize = 64;
/// Room for a timestamp and a segment size.
const CONTROL: usize = 64;

/// What a system call returned, or the error that it left.
fn check(returned: libc::c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// CPU time, user and system, that a thread of this process has taken.
pub fn cpu_time(tid: i32) -> Duration {
    // The kernel's name for "the CPU clock of thread `tid`".
    let clock = (!tid << 3) | 6;
    // SAFETY: the kernel writes one `timespec`.
    let time = unsafe {
        let mut time: libc::timespec = zeroed();
        assert_eq!(libc::clock_gettime(clock, &mut time), 0, "clock of thread {tid}");
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The calling thread's number.
pub fn thread_id() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Sets an integer option.
pub fn set_option(socket: &UdpSocket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes of `value`.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4)
    })
    .map(drop)
}

/// An IPv4 address as the kernel reads it.
fn name(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = address else { panic!("loopback is IPv4 here") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn address(name: &libc::sockaddr_in) -> SocketAddr {
    let ip = name.sin_addr.s_addr.to_ne_bytes();
    SocketAddrV4::new(ip.into(), u16::from_be(name.sin_port)).into()
}

/// How datagrams leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Over a ring, or with `sendmmsg`.
    pub uring: bool,
    /// Most datagrams of one train; 1 is no GSO.
    pub train: usize,
    /// Over a connected socket per peer.
    pub connected: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
    _pad: [u8; 6],
}

/// The send arena with its descriptions. The kernel reads what they point to only within
/// [`Self::flush`]; none of the boxes ever moves its contents.
pub struct Outgoing {
    how: Sending,
    arena: Box<[u8]>,
    used: usize,
    count: usize,
    peers: Vec<libc::sockaddr_in>,
    entries: Box<[Entry]>,
    headers: Box<[libc::mmsghdr]>,
    pieces: Box<[libc::iovec]>,
    sizes: Box<[SegmentSize]>,
    /// Messages and datagrams that the kernel took.
    pub messages: u64,
    pub datagrams: u64,
    pub refused: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    peer: usize,
    segment: usize,
    segments: usize,
    /// A shorter segment ends a train.
    ended: bool,
}

impl Outgoing {
    pub fn new(how: Sending, peers: &[SocketAddr]) -> Self {
        let entry = Entry { peer: 0, segment: 0, segments: 0, ended: false };
        // SAFETY: all of these are plain data for which zeroes are valid.
        let (header, size) = unsafe { (zeroed(), zeroed()) };
        Self {
            how,
            arena: vec![0; ARENA_LEN].into(),
            used: 0,
            count: 0,
            peers: peers.iter().map(|peer| name(*peer)).collect(),
            entries: vec![entry; MAX_BATCH].into(),
            headers: vec![header; MAX_BATCH].into(),
            pieces: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_BATCH].into(),
            sizes: vec![size; MAX_BATCH].into(),
            messages: 0,
            datagrams: 0,
            refused: 0,
        }
    }

    /// Room for a datagram, if there is some left.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        if self.count == MAX_BATCH {
            return None;
        }
        self.arena.get_mut(self.used..self.used + ROOM)
    }

    /// The first `len` bytes of the room go to `peer`.
    pub fn push(&mut self, len: usize, peer: usize) {
        let start = self.used;
        self.used += len;
        if self.count > 0 {
            let last = &mut self.entries[self.count - 1];
            let fits = last.segments < self.how.train.min(MAX_SEGMENTS)
                && (last.segments + 1) * last.segment <= MAX_TRAIN_BYTES;
            if last.peer == peer && len <= last.segment && !last.ended && fits {
                last.segments += 1;
                last.ended = len < last.segment;
                self.pieces[self.count - 1].iov_len += len;
                return;
            }
        }
        self.entries[self.count] = Entry { peer, segment: len, segments: 1, ended: false };
        self.pieces[self.count] =
            libc::iovec { iov_base: self.arena[start..].as_mut_ptr().cast(), iov_len: len };
        self.count += 1;
    }

    /// Fills in the headers. One pass at the end: a train's length is known only then.
    fn describe(&mut self) {
        for index in 0..self.count {
            let entry = self.entries[index];
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &mut self.pieces[index];
            header.msg_iovlen = 1;
            (header.msg_name, header.msg_namelen) = match self.how.connected {
                true => (ptr::null_mut(), 0),
                false => ((&raw mut self.peers[entry.peer]).cast(), 16),
            };
            (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
            if entry.segments > 1 {
                let size = &mut self.sizes[index];
                size.header.cmsg_len = size_of::<libc::cmsghdr>() + 2;
                size.header.cmsg_level = libc::SOL_UDP;
                size.header.cmsg_type = libc::UDP_SEGMENT;
                size.size = entry.segment as u16;
                header.msg_control = (&raw mut *size).cast();
                header.msg_controllen = size_of::<SegmentSize>();
            }
        }
    }

    /// Sends everything: through `ring`, or with system calls on `socket`.
    pub fn flush(&mut self, socket: i32, ring: Option<&mut Ring>) {
        self.describe();
        match ring {
            Some(ring) => self.flush_ring(ring),
            None => self.flush_mmsg(socket),
        }
        self.used = 0;
        self.count = 0;
    }

    fn flush_mmsg(&mut self, fd: i32) {
        let mut next = 0;
        while next < self.count {
            let count = self.count - next;
            // SAFETY: `describe` has just written `count` headers.
            let sent = check(unsafe {
                let first = self.headers[next..].as_mut_ptr();
                libc::sendmmsg(fd, first, count as u32, libc::MSG_DONTWAIT)
            });
            let taken = sent.unwrap_or(0);
            for entry in &self.entries[next..next + taken] {
                self.messages += 1;
                self.datagrams += entry.segments as u64;
            }
            if taken == 0 {
                self.refused += self.entries[next].segments as u64;
            }
            next += taken.max(1);
        }
    }

    fn flush_ring(&mut self, ring: &mut Ring) {
        for index in 0..self.count {
            let entry = self.entries[index];
            let fd = Fixed(if self.how.connected { entry.peer as u32 + 1 } else { 0 });
            let send = if self.how.connected && entry.segments == 1 {
                let piece = self.pieces[index];
                let send = opcode::Send::new(fd, piece.iov_base.cast(), piece.iov_len as u32);
                send.flags(libc::MSG_DONTWAIT).build()
            } else {
                let send = opcode::SendMsg::new(fd, &self.headers[index].msg_hdr);
                send.flags(libc::MSG_DONTWAIT as u32).build()
            };
            // SAFETY: what it points to stays until the completions are reaped below.
            unsafe { ring.ring.submission().push(&send.user_data(index as u64)).expect("room") };
        }
        let mut open = self.count;
        while open > 0 {
            ring.ring.submit().expect("submit");
            for completion in ring.ring.completion() {
                let index = completion.user_data();
                if index >= MAX_BATCH as u64 {
                    ring.waiting.push((completion.result(), completion.flags()));
                    if !cqueue::more(completion.flags()) {
                        ring.ended.push((index & !RECEIVE) as usize);
                    }
                    continue;
                }
                open -= 1;
                let segments = self.entries[index as usize].segments as u64;
                if completion.result() >= 0 {
                    self.messages += 1;
                    self.datagrams += segments;
                } else {
                    self.refused += segments;
                }
            }
        }
    }
}

/// One received message: whose, where in the buffer, and the length of its datagrams.
#[derive(Clone, Copy)]
pub struct Train {
    pub from: SocketAddr,
    pub start: usize,
    pub len: usize,
    pub segment: usize,
    /// When it came, in nanoseconds of the wall clock; 0 if nobody asked.
    pub stamp: u64,
}

/// The datagrams' length and the time of arrival that the kernel tells with a train of `len` bytes.
fn controls(control: &[u8], len: usize) -> (usize, u64) {
    let (mut at, mut segment, mut stamp) = (0, len, 0);
    while let Some(header) = control.get(at..at + 16) {
        let word = |from| i32::from_ne_bytes(header[from..from + 4].try_into().expect("four"));
        let (size, level, kind) = (word(0) as usize, word(8), word(12));
        let value = &control[at + 16..control.len().min(at + size.max(16))];
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let value = value.first_chunk().expect("four");
                segment = i32::from_ne_bytes(*value) as usize;
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let (seconds, nanos) = value.split_first_chunk().expect("a timespec");
                let nanos = nanos.first_chunk().expect("a timespec");
                stamp = u64::from_ne_bytes(*seconds) * 1_000_000_000 + u64::from_ne_bytes(*nanos);
            }
            _ => {}
        }
        at += size.max(16).next_multiple_of(8);
    }
    (segment, stamp)
}

/// Receives with `recvmmsg`. The kernel writes to the boxes only within [`Self::fill`].
pub struct Incoming {
    pub buffer: Box<[u8]>,
    buffer_len: usize,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[[u8; CONTROL]]>,
    pieces: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Incoming {
    pub fn new(count: usize, buffer_len: usize) -> Self {
        // SAFETY: plain data for which zeroes are valid.
        let (name, header) = unsafe { (zeroed(), zeroed()) };
        Self {
            buffer: vec![0; count * buffer_len].into(),
            buffer_len,
            names: vec![name; count].into(),
            controls: vec![[0; CONTROL]; count].into(),
            pieces: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; count].into(),
            headers: vec![header; count].into(),
        }
    }

    /// What waits in the socket.
    pub fn fill(&mut self, fd: i32, trains: &mut Vec<Train>) {
        for index in 0..self.headers.len() {
            let start = index * self.buffer_len;
            self.pieces[index] = libc::iovec {
                iov_base: self.buffer[start..].as_mut_ptr().cast(),
                iov_len: self.buffer_len,
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &mut self.pieces[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = 16;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: the headers have just been written.
        let count = check(unsafe {
            let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
            libc::recvmmsg(fd, headers, count, libc::MSG_DONTWAIT, ptr::null_mut())
        });
        for index in 0..count.unwrap_or(0) {
            let header = &self.headers[index];
            let len = header.msg_len as usize;
            let control = &self.controls[index][..header.msg_hdr.msg_controllen.min(CONTROL)];
            let (segment, stamp) = controls(control, len);
            trains.push(Train {
                from: address(&self.names[index]),
                start: index * self.buffer_len,
                len,
                segment,
                stamp,
            });
        }
    }
}

/// Waits until `fd` is readable, at most `millis`.
pub fn poll(fd: i32, millis: i32) {
    let mut fd = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel writes to one entry.
    unsafe { libc::poll(&mut fd, 1, millis) };
}

/// A ring with a multishot receive per socket into provided buffers. Dropped with the buffers that
/// the kernel writes to, ring first.
pub struct Ring {
    ring: IoUring,
    waiting: Vec<(i32, u32)>,
    /// What is received into; taken out while it is worked on.
    pub buffer: Box<[u8]>,
    start: u64,
    buffer_len: usize,
    entries: Box<[[u64; 2]]>,
    template: Box<libc::msghdr>,
    tail: u16,
    lent: Vec<u16>,
    /// Sockets whose receive has ended and must be asked for again.
    ended: Vec<usize>,
}

/// Marks the completions of receives.
const RECEIVE: u64 = 1 << 32;

impl Ring {
    pub fn new(fds: &[i32], buffers: usize, buffer_len: usize) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_single_issuer().setup_taskrun_flag();
        builder.setup_defer_taskrun().setup_cqsize(4096);
        let ring = builder.build(1024)?;
        ring.submitter().register_files(fds)?;
        // SAFETY: plain data for which zeroes are valid.
        let mut template: libc::msghdr = unsafe { zeroed() };
        (template.msg_namelen, template.msg_controllen) = (16, CONTROL);
        // Entries must lie on a page of their own.
        let memory: &'static mut [[u64; 2]] = {
            let bytes = buffers * 16;
            let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a layout");
            // SAFETY: fresh zeroed memory of that size; leaked, as a measurement may.
            unsafe {
                let start = std::alloc::alloc_zeroed(layout).cast::<[u64; 2]>();
                std::slice::from_raw_parts_mut(start, buffers)
            }
        };
        let buffer: Box<[u8]> = vec![0; buffers * buffer_len].into();
        let mut ring = Self {
            ring,
            waiting: Vec::with_capacity(4096),
            start: buffer.as_ptr() as u64,
            buffer,
            buffer_len,
            // SAFETY: never freed: see `drop` below.
            entries: unsafe { Box::from_raw(memory) },
            template: Box::new(template),
            tail: 0,
            lent: Vec::new(),
            ended: (0..fds.len()).collect(),
        };
        let start = ring.entries.as_ptr() as u64;
        // SAFETY: page-aligned entries that are never freed.
        unsafe {
            ring.ring.submitter().register_buf_ring_with_flags(start, buffers as u16, 0, 0)?;
        }
        (0..buffers as u16).for_each(|buffer| ring.give(buffer));
        Ok(ring)
    }

    fn arm(&mut self, fd: usize) {
        let template = &raw const *self.template;
        let receive = opcode::RecvMsgMulti::new(Fixed(fd as u32), template, 0).build();
        let receive = receive.user_data(RECEIVE | fd as u64);
        // SAFETY: the template lives as long as the ring.
        while unsafe { self.ring.submission().push(&receive).is_err() } {
            self.ring.submit().expect("submit");
        }
    }

    fn give(&mut self, buffer: u16) {
        let mask = self.entries.len() as u16 - 1;
        let address = self.start + u64::from(buffer) * self.buffer_len as u64;
        let entry = &raw mut self.entries[usize::from(self.tail & mask)];
        // SAFETY: within the ring; the tail in the last two bytes of the first entry is left alone.
        unsafe {
            let entry = entry.cast::<u8>();
            entry.cast::<u64>().write(address);
            entry.add(8).cast::<u32>().write(self.buffer_len as u32);
            entry.add(12).cast::<u16>().write(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = self.entries.as_mut_ptr().cast::<u8>().add(14).cast::<u16>();
            std::sync::atomic::AtomicU16::from_ptr(tail)
                .store(self.tail, std::sync::atomic::Ordering::Release);
        }
    }

    /// Waits for completions, at most `millis`.
    pub fn wait(&mut self, millis: u64) {
        if !self.waiting.is_empty() {
            return;
        }
        while let Some(fd) = self.ended.pop() {
            self.arm(fd);
        }
        let timespec = types::Timespec::from(Duration::from_millis(millis));
        let args = types::SubmitArgs::new().timespec(&timespec);
        let _ = self.ring.submitter().submit_with_args(1, &args);
        let Self { ring, waiting, ended, .. } = self;
        for completion in ring.completion() {
            waiting.push((completion.result(), completion.flags()));
            if !cqueue::more(completion.flags()) {
                ended.push((completion.user_data() & !RECEIVE) as usize);
            }
        }
    }

    /// Takes what was received, at most a drain; buffers are given back by [`Self::give_back`].
    pub fn take(&mut self, buffer: &[u8], trains: &mut Vec<Train>) {
        let count = self.waiting.len().min(MAX_DRAIN);
        for (result, flags) in self.waiting.drain(..count) {
            let (1.., Some(id)) = (result, cqueue::buffer_select(flags)) else { continue };
            self.lent.push(id);
            let start = usize::from(id) * self.buffer_len;
            let bytes = &buffer[start..start + result as usize];
            let Ok(out) = types::RecvMsgOut::parse(bytes, &self.template) else { continue };
            let len = out.payload_data().len();
            let (segment, stamp) = controls(out.control_data(), len);
            // SAFETY: the kernel has written an IPv4 name there.
            let name =
                unsafe { out.name_data().as_ptr().cast::<libc::sockaddr_in>().read_unaligned() };
            trains.push(Train {
                from: address(&name),
                start: start + 16 + 16 + CONTROL,
                len,
                segment,
                stamp,
            });
        }
    }

    pub fn give_back(&mut self) {
        while let Some(buffer) = self.lent.pop() {
            self.give(buffer);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        use io_uring::types::CancelBuilder;
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        // Over-aligned: not the allocation that a box would free.
        std::mem::forget(std::mem::take(&mut self.entries));
    }
}
