//! Socket addresses between Rust and the kernel's `sockaddr_in` and `sockaddr_in6`, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Length of `sockaddr_in`, in bytes.
const V4_LEN: usize = 16;
/// Length of `sockaddr_in6`, in bytes.
const V6_LEN: usize = 28;
/// Room for either, a multiple of 8 so that what follows it in a receive buffer is aligned.
pub(super) const NAME_ROOM: usize = 32;

/// A kernel address as it lies in memory.
pub(super) type Name = [u8; NAME_ROOM];

/// Writes `address` for a socket of the given family; returns the length that the kernel is told.
///
/// An IPv6 socket takes IPv4 addresses in their mapped form (RFC 4291 §2.5.5.2). An IPv6 address on
/// an IPv4 socket is written as it is: the kernel refuses the send.
pub(super) fn encode(address: SocketAddr, socket_is_v6: bool, name: &mut Name) -> usize {
    let (ip, scope) = match address {
        SocketAddr::V4(v4) if !socket_is_v6 => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&v4.port().to_be_bytes());
            name[4..8].copy_from_slice(&v4.ip().octets());
            name[8..V4_LEN].fill(0);
            return V4_LEN;
        }
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    name[4..8].fill(0);
    name[8..24].copy_from_slice(&ip.octets());
    name[24..V6_LEN].copy_from_slice(&scope.to_ne_bytes());
    V6_LEN
}

/// Reads what the kernel wrote; `None` if it is no internet address.
///
/// One peer must have one address: mapped IPv4 becomes IPv4 again, and the flow label is left out.
pub(super) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let octets: &[u8; 4] = rest.first_chunk()?;
            Some(SocketAddr::from((Ipv4Addr::from(*octets), port)))
        }
        libc::AF_INET6 => {
            let octets: &[u8; 16] = rest.get(4..20)?.first_chunk()?;
            let scope: &[u8; 4] = rest.get(20..24)?.first_chunk()?;
            Some(match Ipv6Addr::from(*octets).to_canonical() {
                IpAddr::V4(v4) => SocketAddr::from((v4, port)),
                IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, u32::from_ne_bytes(*scope)).into(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(address: &str, socket_is_v6: bool) -> (usize, SocketAddr) {
        // What an earlier, longer address left behind must not shine through.
        let mut name = [0xff; NAME_ROOM];
        let len = encode(address.parse().unwrap(), socket_is_v6, &mut name);
        (len, decode(&name[..len]).unwrap())
    }

    #[test]
    fn addresses_survive_the_round_trip() {
        for (address, socket_is_v6, len) in [
            ("192.0.2.7:5004", false, V4_LEN),
            ("192.0.2.7:5004", true, V6_LEN),
            ("[2001:db8::9]:5004", true, V6_LEN),
            ("[fe80::1%3]:5004", true, V6_LEN),
        ] {
            assert_eq!(
                there_and_back(address, socket_is_v6),
                (len, address.parse().unwrap()),
                "{address}"
            );
        }
    }

    #[test]
    fn short_or_foreign_names_are_refused() {
        let mut name = [0; NAME_ROOM];
        let len = encode("[2001:db8::9]:1".parse().unwrap(), true, &mut name);
        for short in 0..len {
            assert_eq!(decode(&name[..short]), None, "{short}");
        }
        name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(decode(&name), None);
    }
}
