//! Transport-wide feedback does not wake the shard.
//!
//! Every receiver of video tells ten times a second which packets arrived when. Waking up for each of
//! these datagrams would cost more than all that is done with them, and nothing in them is urgent: what
//! is (NACK, PLI) comes in others, and the kernel notes when they arrived. So it puts them into a socket
//! of their own on the same port. That one is emptied when the shard is awake anyway, and otherwise
//! after [`LONGEST_WAIT`].

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::clock::Moment;
use super::counters::Counters;
use super::io::{BUFFER_LEN, DrainList, MAX_DRAIN};
use super::socket::Socket;
use super::sys::ReceiveTable;
use crate::room::Datagram;

/// An awake shard looks into the socket this often: so that many datagrams share the system call.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
/// A sleeping shard wakes up to look after this. Not before: video of 25 frames/s and more wakes it sooner.
/// Less than half of the receivers' own interval, 100 ms.
const LONGEST_WAIT: Duration = Duration::from_millis(40);
/// It wakes up no more if nothing was found for this long, which is three of those intervals. Whoever
/// sends media is awake for that; and without media there is nothing to tell.
const QUIET: Duration = Duration::from_millis(300);

/// The first two bytes of transport-wide feedback: RTCP version 2, format 15, packet type 205
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1). SRTCP leaves them readable (RFC 3711 §3.4).
const TRANSPORT_WIDE: u32 = 0x8fcd;
/// All bits of these but the one that says whether there is padding.
const BUT_PADDING: u32 = 0xdfff;
/// Most that SRTCP adds behind a packet, in bytes: index and tag (RFC 7714 §9.1).
const SRTCP_TRAILER: u32 = 20;

/// How the kernel chooses between two sockets on one port: 1, the second, for a datagram that holds
/// transport-wide feedback and no other packet behind it, else 0. Reading beyond a datagram's end is 0, too.
pub(super) const STEERING: [libc::sock_filter; 11] = [
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0),
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, BUT_PADDING),
    jump(libc::BPF_JEQ | libc::BPF_K, TRANSPORT_WIDE, 0, 7),
    // The longest that it can be alone: its length field counts words, less one (RFC 3550 §6.4.1).
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 2),
    step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, 4),
    step(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 4 + SRTCP_TRAILER),
    step(libc::BPF_MISC | libc::BPF_TAX, 0),
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
    jump(libc::BPF_JGT | libc::BPF_X, 0, 1, 0),
    step(libc::BPF_RET | libc::BPF_K, 1),
    step(libc::BPF_RET | libc::BPF_K, 0),
];

const fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Leaves out the next `then` steps if the comparison holds, else the next `otherwise`.
const fn jump(comparison: u32, k: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    let code = (libc::BPF_JMP | comparison) as u16;
    libc::sock_filter { code, jt: then, jf: otherwise, k }
}

/// The socket that wakes nobody.
pub(super) struct Feedback {
    socket: Socket,
    table: ReceiveTable,
    list: DrainList,
    looked_at: Option<Instant>,
    found_at: Option<Instant>,
    /// The last look may have left something.
    has_more: bool,
}

impl Feedback {
    /// Receives from `socket`.
    pub fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            socket,
            table: ReceiveTable::new(BUFFER_LEN)?,
            list: DrainList::new(),
            looked_at: None,
            found_at: None,
            has_more: false,
        })
    }

    /// When to wake up and look, if nothing else wakes the shard.
    pub fn next_look(&self) -> Option<Instant> {
        let (looked_at, found_at) = (self.looked_at?, self.found_at?);
        let is_quiet = looked_at.saturating_duration_since(found_at) > QUIET;
        let wait = if self.has_more { Duration::ZERO } else { LONGEST_WAIT };
        (!is_quiet).then_some(looked_at + wait)
    }

    /// Lends what waits, at most [`MAX_DRAIN`] datagrams, to `take`, if it is time to look.
    pub fn drain(
        &mut self,
        moment: &Moment,
        counters: &mut Counters,
        take: impl FnOnce(&mut [Datagram<'_>], &mut Counters),
    ) {
        let is_early = |at| moment.now.saturating_duration_since(at) < SHORTEST_WAIT;
        if !self.has_more && self.looked_at.is_some_and(is_early) {
            return;
        }
        self.looked_at = Some(moment.now);
        // An error, but for an empty socket, is one datagram's that is lost.
        let count = self.table.fill(self.socket.as_fd()).unwrap_or(0);
        self.has_more = count == MAX_DRAIN;
        if count == 0 {
            return;
        }
        self.found_at = Some(moment.now);
        let mut list = self.list.lend();
        let messages = self.table.messages(count);
        list.extend(messages.filter_map(|message| message.admit(moment, counters)));
        counters.feedback += list.len() as u64;
        if !list.is_empty() {
            take(&mut list, counters);
        }
        self.list.take_back(list);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    /// A datagram that begins like RTCP of this format, type and length, `len` bytes long.
    fn rtcp(first: u8, kind: u8, words: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let head = [first, kind, 0, words];
        let count = len.min(head.len());
        bytes[..count].copy_from_slice(&head[..count]);
        bytes
    }

    /// The lengths of what comes in to `socket`, in order, up to one of `last` bytes.
    fn lengths(socket: &Socket, last: usize) -> Vec<usize> {
        let socket = UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut lengths = Vec::new();
        while lengths.last() != Some(&last) {
            lengths.push(socket.recv(&mut [0; 2048]).unwrap());
        }
        lengths
    }

    #[test]
    fn feedback_alone_comes_in_apart() {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let prompt = Socket::bind(address).unwrap();
        let patient = prompt.split(&STEERING).unwrap();
        let port = UdpSocket::from(prompt.as_fd().try_clone_to_owned().unwrap());
        let to = port.local_addr().unwrap();
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let alone = [rtcp(0x8f, 205, 9, 60), rtcp(0xaf, 205, 9, 54), rtcp(0x8f, 205, 9, 44)];
        let others = [
            rtcp(0x8f, 205, 9, 61),
            rtcp(0x81, 205, 3, 36),
            rtcp(0x8f, 206, 9, 59),
            rtcp(0x8f, 205, 0, 3),
            rtcp(0x90, 96, 0, 1200),
            Vec::new(),
        ];
        for datagram in alone.iter().chain(&others).chain([&rtcp(0, 0, 0, 9), &alone[1]]) {
            peer.send_to(datagram, to).unwrap();
        }
        assert_eq!(lengths(&prompt, 9), [61, 36, 59, 3, 1200, 0, 9]);
        assert_eq!(lengths(&patient, 54), [60, 54]);
        assert_eq!(lengths(&patient, 54), [44, 54]);
    }

    #[test]
    fn a_split_port_is_still_taken() {
        let prompt = Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let _patient = prompt.split(&STEERING).unwrap();
        let port = UdpSocket::from(prompt.as_fd().try_clone_to_owned().unwrap());
        let port = port.local_addr().unwrap().port();
        let next = Socket::bind_next(Ipv4Addr::LOCALHOST.into(), &mut (port..=port)).unwrap();
        assert!(next.is_none());
    }

    #[test]
    fn what_waits_is_looked_for_while_there_is_something() {
        let prompt = Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let split = prompt.split(&STEERING).unwrap();
        let port = UdpSocket::from(prompt.as_fd().try_clone_to_owned().unwrap());
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut feedback = Feedback::new(split).unwrap();
        let mut counters = Counters::default();
        let mut look = |feedback: &mut Feedback, moment: &Moment| {
            let mut seen = 0;
            feedback.drain(moment, &mut counters, |drain, _| seen = drain.len());
            seen
        };
        assert_eq!(feedback.next_look(), None);
        peer.send_to(&rtcp(0x8f, 205, 9, 60), port.local_addr().unwrap()).unwrap();
        // Loopback delivers within the send.
        let found = Moment::read();
        assert_eq!(look(&mut feedback, &found), 1);
        assert_eq!(feedback.next_look(), Some(found.now + LONGEST_WAIT));

        peer.send_to(&rtcp(0x8f, 205, 9, 60), port.local_addr().unwrap()).unwrap();
        assert_eq!(look(&mut feedback, &found.later(SHORTEST_WAIT / 2)), 0, "just looked");
        assert_eq!(look(&mut feedback, &found.later(SHORTEST_WAIT)), 1);
        let empty = found.later(QUIET);
        assert_eq!(look(&mut feedback, &empty), 0);
        assert_eq!(feedback.next_look(), Some(empty.now + LONGEST_WAIT));
        look(&mut feedback, &empty.later(QUIET));
        assert_eq!(feedback.next_look(), None, "nobody tells anything");
    }
}
