//! The backend on io_uring: one multishot receive into a ring of provided buffers, sends submitted
//! in batches.
//!
//! A receive buffer is the kernel's while it is in the buffer ring, and ours from its completion
//! until the end of its drain. A send buffer is the kernel's from submit until its completion is
//! reaped, which [`Transmit::transmit`] waits for; with `MSG_DONTWAIT` that is within the submit.
#![allow(unsafe_code, reason = "the kernel reads and writes memory that submissions point to")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fixed, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::address::NAME_ROOM;
use super::clock::{CONTROL_ROOM, Moment};
use super::counters::Counters;
use super::io::{
    BUFFER_LEN, DrainList, Io, MAX_BATCH, MAX_DRAIN, MAX_RECEIVE_ERRORS, Message, Transmit,
};
use super::socket::Socket;
use super::sys::{Pages, SendQueue};
use super::wake::Waker;
use crate::room::Datagram;
use crate::wire::MAX_DATAGRAM;

/// Receive buffers: 1 MB, of which an idle shard touches little. What does not fit waits in the
/// socket.
const BUFFERS: u16 = 512;
/// Submission queue entries: a whole batch, the receive and the bell.
const SUBMISSIONS: u32 = 512;
/// Completion queue entries: every buffer, every send and a few more can complete before one is
/// reaped, so the queue never overflows.
const COMPLETIONS: u32 = 1024;
/// Submits that the kernel refuses for want of memory before the ring is given up.
const SUBMIT_ATTEMPTS: u32 = 1000;
/// What the kernel puts before the datagram: its own header, the address, the control messages.
const PREFIX: usize = HEADER + NAME_ROOM + CONTROL_ROOM;
/// Length of `struct io_uring_recvmsg_out`: four 32-bit numbers.
const HEADER: usize = 16;
/// The group of the provided buffers.
const GROUP: u16 = 0;

const _: () = assert!(BUFFERS.is_power_of_two(), "the kernel masks the ring's indices");
const _: () = assert!(SUBMISSIONS as usize >= MAX_BATCH + 2);
const _: () = assert!(COMPLETIONS as usize >= BUFFERS as usize + MAX_BATCH + 16);
// One byte more than is accepted, so that a longer one shows.
const _: () = assert!(PREFIX + MAX_DATAGRAM < BUFFER_LEN);

/// The registered descriptors.
const SOCKET: Fixed = Fixed(0);
const BELL: Fixed = Fixed(1);

/// What a completion belongs to. Sends add their message's place in the queue to theirs.
const RECEIVE: u64 = 1;
const RING: u64 = 2;
const SEND: u64 = 3;

/// One shard's ring.
pub(super) struct Uring {
    // First, since fields are dropped in this order: the kernel lets go before memory is unmapped.
    sender: Sender,
    buffers: Buffers,
    list: DrainList,
    /// Buffers lent to the drain that runs.
    lent: Vec<u16>,
}

/// The half that sends; it owns the ring, and sets aside what else completes meanwhile.
pub(super) struct Sender {
    ring: IoUring,
    /// Datagrams that were received and wait for a drain.
    waiting: VecDeque<Received>,
    /// Sends submitted and not reaped.
    unfinished: usize,
    /// How the sends of this batch ended that did not simply succeed: message and errno.
    failed: Vec<(usize, i32)>,
    /// Whether the multishot receive is under way.
    receiving: bool,
    /// Whether a read of the bell is under way.
    listening: bool,
    /// Whether the bell rang since the last wait.
    rang: bool,
    /// Receives that failed since the last good one, and how.
    failures: u32,
    failure: i32,
    targets: Box<Targets>,
    // The kernel holds references of its own; these keep the descriptors' numbers ours.
    socket: Socket,
    waker: Arc<Waker>,
}

/// Where the long-lived requests point; boxed, so that it does not move.
struct Targets {
    /// How much room for name and control messages a received message gets.
    receive: libc::msghdr,
    bell: [u8; 8],
}

#[derive(Clone, Copy)]
struct Received {
    buffer: u16,
    /// With the prefix.
    len: usize,
}

impl Uring {
    /// Receives from and sends through `socket`; woken by `waker`. To be used on the calling thread
    /// only.
    pub fn new(socket: Socket, waker: Arc<Waker>) -> io::Result<Self> {
        let ring = build_ring()?;
        let descriptors = [socket.as_fd().as_raw_fd(), waker.as_fd().as_raw_fd()];
        ring.submitter().register_files(&descriptors)?;
        let mut buffers = Buffers::register(&ring)?;
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
        let mut receive: libc::msghdr = unsafe { std::mem::zeroed() };
        receive.msg_namelen = NAME_ROOM as libc::socklen_t;
        receive.msg_controllen = CONTROL_ROOM;
        let sender = Sender {
            ring,
            waiting: VecDeque::with_capacity(usize::from(BUFFERS)),
            unfinished: 0,
            failed: Vec::with_capacity(MAX_BATCH),
            receiving: false,
            listening: false,
            rang: false,
            failures: 0,
            failure: 0,
            targets: Box::new(Targets { receive, bell: [0; 8] }),
            socket,
            waker,
        };
        Ok(Self { sender, buffers, list: DrainList::new(), lent: Vec::with_capacity(MAX_DRAIN) })
    }
}

/// The newest set-up that this kernel has: `DEFER_TASKRUN` came with Linux 6.1, `SINGLE_ISSUER`
/// with 6.0.
fn build_ring() -> io::Result<IoUring> {
    let builder = || {
        let mut builder = IoUring::builder();
        // A failing request must not keep the rest of its batch from being submitted.
        builder.setup_submit_all().setup_single_issuer().setup_taskrun_flag();
        builder.setup_cqsize(COMPLETIONS);
        builder
    };
    match builder().setup_defer_taskrun().build(SUBMISSIONS) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder().setup_coop_taskrun().build(SUBMISSIONS)
        }
        ring => ring,
    }
}

impl Io for Uring {
    type Sender = Sender;

    fn wait(&mut self, timeout: Option<Duration>, counters: &mut Counters) -> io::Result<()> {
        let sender = &mut self.sender;
        sender.reap(counters);
        sender.arm()?;
        let timeout =
            if sender.waiting.is_empty() && !sender.rang { timeout } else { Some(Duration::ZERO) };
        let entered = match timeout {
            Some(Duration::ZERO) if sender.has_nothing_to_enter_for() => Ok(0),
            // Submits, runs what the kernel has put off, and comes back.
            Some(Duration::ZERO) => sender.ring.submit(),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                sender.ring.submitter().submit_with_args(1, &args)
            }
            None => sender.ring.submit_and_wait(1),
        };
        if let Err(error) = entered {
            let passing = [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY];
            if !error.raw_os_error().is_some_and(|errno| passing.contains(&errno)) {
                return Err(error);
            }
        }
        sender.reap(counters);
        sender.rang = false;
        if sender.failures < MAX_RECEIVE_ERRORS {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(sender.failure))
    }

    fn nap(&mut self, length: Duration) -> io::Result<()> {
        if self.sender.waiting.is_empty() { self.sender.waker.nap(length) } else { Ok(()) }
    }

    fn drain(
        &mut self,
        moment: &Moment,
        counters: &mut Counters,
        take: impl FnOnce(&mut [Datagram<'_>], &mut Sender, &mut Counters),
    ) -> io::Result<()> {
        let Self { sender, buffers, list: lists, lent } = self;
        counters.most_waiting = counters.most_waiting.max(sender.waiting.len() as u64);
        let count = sender.waiting.len().min(MAX_DRAIN);
        let mut list = lists.lend();
        for received in sender.waiting.drain(..count) {
            lent.push(received.buffer);
            // SAFETY: the buffer is ours since its completion was reaped, and is given back below,
            // after the last use of `list`. Each completion names another buffer, so the slices do
            // not overlap.
            let bytes = unsafe { buffers.slice(received) };
            let message = parse(bytes, &sender.targets.receive);
            list.extend(message.and_then(|message| message.admit(moment, counters)));
        }
        if !list.is_empty() {
            take(&mut list, sender, counters);
        }
        lists.take_back(list);
        if !lent.is_empty() {
            lent.drain(..).for_each(|buffer| buffers.give(buffer));
            buffers.publish();
        }
        Ok(())
    }

    fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }
}

/// The parts of a message that the kernel wrote with the lengths that `template` asked for.
fn parse<'a>(bytes: &'a mut [u8], template: &libc::msghdr) -> Option<Message<'a>> {
    let out = RecvMsgOut::parse(bytes, template).ok()?;
    let (name_len, control_len) = (out.name_data().len(), out.control_data().len());
    let (len, truncated) = (out.payload_data().len(), out.is_payload_truncated());
    let (prefix, payload) = bytes.split_at_mut_checked(PREFIX)?;
    let (name, control) = prefix[HEADER..].split_at(NAME_ROOM);
    Some(Message {
        name: &name[..name_len],
        control: &control[..control_len],
        truncated,
        bytes: &mut payload[..len],
    })
}

impl Sender {
    /// Queues the two long-lived requests where they have ended. To be called while no drain runs.
    fn arm(&mut self) -> io::Result<()> {
        // Without a free buffer the receive would only end again.
        if !self.receiving && self.waiting.len() < usize::from(BUFFERS) {
            let message = &raw const self.targets.receive;
            let receive = opcode::RecvMsgMulti::new(SOCKET, message, GROUP).build();
            self.push(&receive.user_data(RECEIVE))?;
            self.receiving = true;
        }
        if !self.listening {
            let bell = &mut self.targets.bell;
            let read = opcode::Read::new(BELL, bell.as_mut_ptr(), bell.len() as u32).build();
            self.push(&read.user_data(RING))?;
            self.listening = true;
        }
        Ok(())
    }

    /// Whether neither we have requests for the kernel nor the kernel work that waits for us.
    fn has_nothing_to_enter_for(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Queues one request. What it points to must live, and lie still, until its last completion is
    /// reaped: `targets` for as long as the ring, a send's message until `transmit` returns.
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: as said above, for all three callers.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }

    /// Submits all that is queued, however many calls that takes.
    fn submit(&mut self) -> io::Result<()> {
        let mut attempts = 0;
        while !self.ring.submission().is_empty() {
            let Err(error) = self.ring.submit() else { continue };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EBUSY) if attempts < SUBMIT_ATTEMPTS => {
                    attempts += 1;
                    std::thread::yield_now();
                }
                _ => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts the messages of a batch, all of which have ended, and sends refused trains apart.
    fn conclude(&mut self, queue: &mut SendQueue, counters: &mut Counters) {
        self.failed.sort_unstable();
        let mut failed = self.failed.drain(..).peekable();
        for index in 0..queue.len() {
            match failed.next_if(|(message, _)| *message == index) {
                None => queue.taken(index, counters),
                Some((_, errno)) => {
                    let error = io::Error::from_raw_os_error(errno);
                    queue.failed(index, &error, self.socket.as_fd(), counters);
                }
            }
        }
    }

    /// Takes all completions that are there.
    fn reap(&mut self, counters: &mut Counters) {
        let Self { ring, waiting, unfinished, failed, receiving, listening, rang, .. } = self;
        for completion in ring.completion() {
            match completion.user_data() {
                send @ SEND.. => {
                    *unfinished -= 1;
                    if completion.result() < 0 {
                        failed.push(((send - SEND) as usize, -completion.result()));
                    }
                }
                RECEIVE => {
                    *receiving = cqueue::more(completion.flags());
                    match (completion.result(), cqueue::buffer_select(completion.flags())) {
                        (len @ 0.., Some(buffer)) => {
                            waiting.push_back(Received { buffer, len: len as usize });
                            self.failures = 0;
                        }
                        (result, _) if result == -libc::ENOBUFS => counters.buffers_exhausted += 1,
                        (result, _) => {
                            counters.receive_errors += 1;
                            self.failures += 1;
                            self.failure = -result.min(0);
                        }
                    }
                }
                _ => {
                    *listening = false;
                    *rang = true;
                }
            }
        }
    }
}

impl Transmit for Sender {
    fn transmit(&mut self, queue: &mut SendQueue, counters: &mut Counters) -> io::Result<()> {
        for index in 0..queue.len() {
            let send = opcode::SendMsg::new(SOCKET, queue.message(index));
            let send = send.flags(libc::MSG_DONTWAIT as u32).build();
            self.push(&send.user_data(SEND + index as u64))?;
            self.unfinished += 1;
        }
        self.submit()?;
        self.reap(counters);
        counters.late_sends += self.unfinished as u64;
        // Should a kernel ever finish one later, the arena still must not be written before.
        while self.unfinished > 0 {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => self.reap(counters),
            }
        }
        self.conclude(queue, counters);
        queue.clear();
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Waits until the kernel has let go of buffers and targets. If it cannot say so there is
        // nothing better to do: closing the ring cancels, too, a moment later.
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
    }
}

/// The provided buffers, and the ring through which they are given to the kernel.
struct Buffers {
    memory: Pages,
    entries: Pages,
    /// How many were ever given, as the kernel counts: modulo 2^16.
    tail: u16,
}

impl Buffers {
    /// An empty ring, made known to `ring` as [`GROUP`]. Must outlive `ring`'s requests.
    fn register(ring: &IoUring) -> io::Result<Self> {
        let memory = Pages::new(usize::from(BUFFERS) * BUFFER_LEN)?;
        let entries = Pages::new(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let address = entries.as_ptr().as_ptr() as u64;
        // SAFETY: page-aligned memory of exactly that many entries, unmapped only after the ring is
        // gone (`Uring` drops its fields in that order).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        Ok(Self { memory, entries, tail: 0 })
    }

    /// Gives `buffer` to the kernel, with the next [`Self::publish`].
    fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail % BUFFERS);
        let start = self.memory.as_ptr().as_ptr().wrapping_add(usize::from(buffer) * BUFFER_LEN);
        let entries = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `place` is within the mapping of `BUFFERS` entries; zeroed bytes are a valid
        // entry; the kernel reads the entry only after `publish`. The three setters leave the tail,
        // which shares the first entry's memory, alone.
        let entry = unsafe { entries.add(place).as_mut() };
        entry.set_addr(start as u64);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see all buffers given so far.
    fn publish(&mut self) {
        let base = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the ring's first entry, in a live mapping, aligned to a page; the
        // kernel only reads the tail, and does so atomically.
        unsafe {
            let tail = BufRingEntry::tail(base.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// What was received into a buffer.
    ///
    /// # Safety
    /// The buffer's completion has been reaped and the slice is dropped before the buffer is given
    /// back.
    unsafe fn slice<'a>(&self, received: Received) -> &'a mut [u8] {
        let offset = usize::from(received.buffer % BUFFERS) * BUFFER_LEN;
        let len = received.len.min(BUFFER_LEN);
        // SAFETY: within the mapping, which outlives the drain; the caller keeps kernel and others
        // away.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().as_ptr().add(offset), len) }
    }
}
