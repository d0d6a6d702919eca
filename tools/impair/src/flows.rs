//! The sockets: those that clients send to, and one towards the target for each client, as NAT would have it,
//! so that the target sees every client at an address of its own.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use socket2::SockRef;

use crate::lines::FlowId;

/// Most clients at a time: a load tester's few thousand.
pub const MAX_FLOWS: usize = 8192;
/// A client from whom nothing came for so long loses its socket. Browsers check their path every few seconds.
pub const FLOW_IDLE: Duration = Duration::from_secs(120);
/// Most ports in a `--map`: the server's whole range and more.
const MAX_PORTS: u16 = 1024;
/// What the kernel may keep of a burst, bytes; it may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A socket to listen on, and where what comes there belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Where clients send to.
    pub listen: SocketAddr,
    /// Where that leads.
    pub target: SocketAddr,
}

/// One or more of them: `127.0.0.2:10000-10003=127.0.0.1:10000-10003`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps(pub Vec<Map>);

impl FromStr for Maps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "wanted is LISTEN=TARGET, each ADDRESS:PORT or ADDRESS:FIRST-LAST".to_owned();
        let (listen, target) = text.split_once('=').ok_or_else(bad)?;
        let (listen, count) = ports(listen).ok_or_else(bad)?;
        let (target, targets) = ports(target).ok_or_else(bad)?;
        if count != targets {
            return Err("both sides need as many ports".to_owned());
        }
        if target.port() == 0 {
            return Err("a target needs its port".to_owned());
        }
        if listen.ip().is_unspecified() {
            return Err("answers must leave from the address that clients know: name it".to_owned());
        }
        let nth = |first: SocketAddr, n| SocketAddr::new(first.ip(), first.port() + n);
        Ok(Self(
            (0..count).map(|n| Map { listen: nth(listen, n), target: nth(target, n) }).collect(),
        ))
    }
}

// The first address and how many ports there are from it.
fn ports(text: &str) -> Option<(SocketAddr, u16)> {
    if let Ok(address) = text.parse() {
        return Some((address, 1));
    }
    let (first, last) = text.rsplit_once('-')?;
    let (first, last): (SocketAddr, u16) = (first.parse().ok()?, last.parse().ok()?);
    let more = last.checked_sub(first.port()).filter(|more| *more < MAX_PORTS)?;
    (first.port() > 0).then_some((first, more + 1))
}

/// A socket that clients send to.
pub struct Listener {
    /// The bound socket.
    pub socket: UdpSocket,
    /// Where its packets go.
    pub target: SocketAddr,
}

impl Listener {
    /// Binds it.
    pub fn bind(map: Map) -> io::Result<Self> {
        Ok(Self { socket: prepared(UdpSocket::bind(map.listen)?)?, target: map.target })
    }
}

/// A client and its socket towards the target.
pub struct Flow {
    /// The client's address.
    pub client: SocketAddr,
    /// Which listener it sends to; answers leave from there.
    pub listener: usize,
    /// Connected to the target.
    pub upstream: UdpSocket,
    last_heard: Duration,
}

/// All clients.
#[derive(Default)]
pub struct Flows {
    flows: HashMap<FlowId, Flow>,
    by_client: HashMap<(usize, SocketAddr), FlowId>,
    count: FlowId,
}

impl Flows {
    /// The flow of a client that is known, from whom something came.
    pub fn heard(&mut self, now: Duration, listener: usize, client: SocketAddr) -> Option<FlowId> {
        let id = *self.by_client.get(&(listener, client))?;
        self.flows.get_mut(&id)?.last_heard = now;
        Some(id)
    }

    /// Makes a flow for a client that is not known. None if there is no room or no socket.
    pub fn open(
        &mut self,
        now: Duration,
        listener: usize,
        client: SocketAddr,
        target: SocketAddr,
    ) -> Option<FlowId> {
        if self.flows.len() >= MAX_FLOWS {
            return None;
        }
        let upstream = connected(target).ok()?;
        self.count += 1;
        self.flows.insert(self.count, Flow { client, listener, upstream, last_heard: now });
        self.by_client.insert((listener, client), self.count);
        Some(self.count)
    }

    /// A flow, unless it is gone.
    pub fn find(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// Takes one that was idle for too long out.
    pub fn take_idle(&mut self, now: Duration) -> Option<(FlowId, Flow)> {
        let idle = |flow: &Flow| now.saturating_sub(flow.last_heard) >= FLOW_IDLE;
        let id = *self.flows.iter().find(|(_, flow)| idle(flow))?.0;
        let flow = self.flows.remove(&id)?;
        self.by_client.remove(&(flow.listener, flow.client));
        Some((id, flow))
    }
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(target)?;
    prepared(socket)
}

fn prepared(socket: UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_single_or_ranges() {
        let Maps(maps) = "127.0.0.2:0=127.0.0.1:10000".parse().expect("a map");
        assert_eq!(maps.len(), 1);
        let Maps(maps) = "[::1]:20000-20002=127.0.0.1:10000-10002".parse().expect("a range");
        let last = Map {
            listen: "[::1]:20002".parse().expect("v6"),
            target: "127.0.0.1:10002".parse().expect("v4"),
        };
        assert_eq!((maps.len(), maps[2]), (3, last));
    }

    #[test]
    fn maps_with_mistakes_are_refused() {
        for text in [
            "",
            "127.0.0.1:1",
            "127.0.0.1=127.0.0.1:1",
            "127.0.0.1:1=127.0.0.1:0",
            "0.0.0.0:1=127.0.0.1:1",
            "127.0.0.1:2-1=127.0.0.1:2-1",
            "127.0.0.1:1-2=127.0.0.1:1",
            "127.0.0.1:0-2=127.0.0.1:1-3",
            "127.0.0.1:1-60000=127.0.0.1:1-60000",
        ] {
            assert!(text.parse::<Maps>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_flow_lives_while_its_client_speaks() {
        let (client, target) =
            ("127.0.0.1:9".parse().expect("v4"), "127.0.0.1:10".parse().expect("v4"));
        let mut flows = Flows::default();
        let start = Duration::ZERO;
        assert_eq!(flows.heard(start, 0, client), None);
        let id = flows.open(start, 0, client, target).expect("a socket");
        let half = FLOW_IDLE / 2;
        assert_eq!(flows.heard(half, 0, client), Some(id));
        assert_eq!(flows.heard(half, 1, client), None, "another listener is another flow");
        assert!(flows.take_idle(FLOW_IDLE).is_none());
        assert!(flows.take_idle(half + FLOW_IDLE).is_some());
        assert_eq!((flows.heard(FLOW_IDLE * 2, 0, client), flows.count()), (None, 0));
    }
}
