//! A shard's UDP socket: the first free port, large buffers, receive timestamps.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Type};

use super::sys;

/// Wanted size of the socket's receive buffer, in bytes: some 30 ms of 1 Gbit/s while the shard is
/// busy. The kernel cuts it to `net.core.rmem_max` unless the process may administer the network.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Wanted size of the send buffer, in bytes: several full arenas on their way through a device's
/// queue.
const SEND_BUFFER: usize = 4 << 20;

/// A bound datagram socket.
pub(super) struct Socket {
    fd: OwnedFd,
    /// What a sender has to know of it.
    pub traits: Traits,
}

/// How messages must look for a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// Whether addresses must be written in IPv6 form.
    pub is_v6: bool,
    /// Whether it has one fixed peer, so that messages carry no address.
    pub is_connected: bool,
    /// Whether a message may be a train (Linux 4.18).
    pub takes_trains: bool,
}

impl Socket {
    /// Binds the first free port of `ports` and takes it, and what lies before it, out of the
    /// range. `None` when none is free.
    pub fn bind_next(
        bind: IpAddr,
        ports: &mut RangeInclusive<u16>,
    ) -> io::Result<Option<(Self, u16)>> {
        for port in ports {
            match Self::bind(SocketAddr::new(bind, port)) {
                Ok(socket) => return Ok(Some((socket, port))),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Binds this very port, which nobody else may have.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = unbound(address)?;
        socket.bind(&address.into())?;
        Ok(Self::configured(socket, address))
    }

    /// A second socket on the same port, which gets what `program` says 1 of. Nobody else can take the
    /// port, since only a socket that was bound alone has let this one in.
    pub fn split(&self, program: &[libc::sock_filter]) -> io::Result<Self> {
        let address = SockRef::from(&self.fd).local_addr()?;
        let socket = unbound(address.as_socket().ok_or(ErrorKind::Unsupported)?)?;
        for fd in [self.fd.as_fd(), socket.as_fd()] {
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        socket.bind(&address)?;
        sys::steer(self.fd.as_fd(), program)?;
        Ok(Self::configured(socket, address.as_socket().ok_or(ErrorKind::Unsupported)?))
    }

    fn configured(socket: socket2::Socket, address: SocketAddr) -> Self {
        let fd = OwnedFd::from(socket);
        // Where there is none, a datagram has arrived when it is received.
        let _ = sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        enlarge(fd.as_fd(), libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
        enlarge(fd.as_fd(), libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
        // 0 is what it is anyway: each train says its own. Kernels without trains know no such option.
        let takes_trains = sys::set_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let is_v6 = address.is_ipv6();
        Self { fd, traits: Traits { is_v6, is_connected: false, takes_trains } }
    }

    /// The same socket once more: it stays bound as long as one of them is open.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, traits: self.traits })
    }

    /// One end of a socket pair: for the probe, and for tests that must be able to fill a buffer.
    pub fn paired(end: std::os::unix::net::UnixDatagram) -> Self {
        let traits = Traits { is_v6: false, is_connected: true, takes_trains: false };
        Self { fd: end.into(), traits }
    }
}

/// A new socket; for IPv6 it takes IPv4, too.
fn unbound(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Best effort: small buffers cost packets under load, not function.
fn enlarge(fd: BorrowedFd<'_>, privileged: i32, ordinary: i32, bytes: usize) {
    let bytes = bytes as i32;
    if sys::set_option(fd, libc::SOL_SOCKET, privileged, bytes).is_err() {
        let _ = sys::set_option(fd, libc::SOL_SOCKET, ordinary, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    #[test]
    fn counts_on_past_a_taken_port() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let first = taken.local_addr().unwrap().port();
        let mut ports = first..=first.saturating_add(20);
        let (_socket, port) =
            Socket::bind_next(Ipv4Addr::LOCALHOST.into(), &mut ports).unwrap().unwrap();
        assert!(port > first);
        assert_eq!(*ports.start(), port + 1);
    }

    #[test]
    fn a_used_up_range_is_no_error_of_the_kernel() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let bound = Socket::bind_next(Ipv4Addr::LOCALHOST.into(), &mut (port..=port)).unwrap();
        assert!(bound.is_none());
    }
}
