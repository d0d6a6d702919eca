//! Settings of the TCP side: encryption, origins, proxies, bounds and the end.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::metrics::{Metrics, MetricsSettings};
use super::{Unusable, number, unusable};

/// How HTTP, WebSocket and Socket.IO are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// The certificate; without one, no TLS.
    pub tls: Option<TlsFiles>,
    /// The pages of other hosts that may use the server.
    pub origins: Origins,
    /// Who is believed when it says for whom it asks (`X-Forwarded-For`, `X-Forwarded-Host`).
    pub proxies: Vec<Network>,
    /// How long peers have to leave by themselves after SIGTERM.
    pub drain: Duration,
    /// Where the metrics are served.
    pub metrics: Metrics,
    /// What clients may do at most.
    pub limits: Limits,
}

/// Where the certificate is; both are in PEM (RFC 7468).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`: the server's certificate first, then those that sign it.
    pub certificate: PathBuf,
    /// `TLS_KEY_FILE`: its private key.
    pub key: PathBuf,
}

/// `ALLOWED_ORIGINS`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// `*`
    Any,
    /// These, as browsers write them (RFC 6454 §6.2): in lower case, without a default port.
    Listed(Vec<String>),
}

impl Default for Origins {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// What clients may do at most. Loopback addresses are not counted: what connects from there is the
/// operator's own, or a proxy for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; as many Socket.IO sessions, which need no connection of their own.
    pub connections: u32,
    /// Of these, from one address (IPv6: one network of 64 bits).
    pub connections_per_address: u32,
    /// Connections that have not sent a whole request yet.
    pub half_open: u32,
    /// A TLS handshake, a request's head and its body must each be whole within this time.
    pub http_timeout: Duration,
    /// Requests per second from one address, WebSocket handshakes among them.
    pub requests_per_second: u32,
    /// Signaling messages per second from one connection.
    pub messages_per_second: u32,
    /// Longest message and request body, in bytes.
    pub message_bytes: u32,
    /// Messages that may wait for one client.
    pub queued_messages: u32,
}

impl Limits {
    /// What holds if nothing is set.
    pub const DEFAULT: Self = Self {
        connections: 16_384,
        // An office or a lecture hall behind one address.
        connections_per_address: 256,
        half_open: 1_024,
        http_timeout: Duration::from_secs(20),
        requests_per_second: 100,
        messages_per_second: 100,
        message_bytes: 64 * 1024,
        // Everything that a room of a few hundred peers says at once, and little for a stalled client to hold.
        queued_messages: 1_024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Longest drain in seconds: a day.
const MAX_DRAIN: u64 = 86_400;
/// Seconds for peers to leave. With 2 s for their goodbye and 2 s for the shards, the process ends within
/// the 10 s that Docker waits.
const DRAIN: u64 = 5;

// As clap reads them. (A `///` here would become the head of `--help`.)
#[derive(Args)]
pub(super) struct HttpSettings {
    /// PEM file with the certificate and those that sign it; with TLS_KEY_FILE, HTTPS and WSS are served.
    #[arg(long, env)]
    tls_cert_file: Option<String>,
    /// PEM file with the certificate's private key.
    #[arg(long, env)]
    tls_key_file: Option<String>,
    /// Origins of other hosts' pages that may use the server, such as `https://app.example.org`, with
    /// commas between them, or `*`.
    #[arg(long, env, default_value = "")]
    allowed_origins: String,
    /// Addresses or networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Host are believed, with
    /// commas between them.
    #[arg(long, env, default_value = "")]
    trusted_proxies: String,
    /// Seconds that peers have to leave after SIGTERM, 0 to 86400.
    #[arg(long, env, default_value_t = DRAIN.to_string())]
    drain_timeout: String,
    #[command(flatten)]
    metrics: MetricsSettings,
    /// Connections at a time, 1 to 1000000.
    #[arg(long, env, default_value_t = Limits::DEFAULT.connections.to_string())]
    max_connections: String,
    /// Connections at a time from one address, or IPv6 network of 64 bits, 1 to 1000000.
    #[arg(long, env, default_value_t = Limits::DEFAULT.connections_per_address.to_string())]
    max_connections_per_address: String,
    /// Connections without a whole request; beyond it, the oldest is closed. 1 to 1000000.
    #[arg(long, env, default_value_t = Limits::DEFAULT.half_open.to_string())]
    max_half_open: String,
    /// Seconds for a TLS handshake, a request's head and its body, each; 1 to 600.
    #[arg(long, env, default_value_t = Limits::DEFAULT.http_timeout.as_secs().to_string())]
    http_timeout: String,
    /// Requests per second from one address, 1 to 1000000; five seconds' worth may come at once.
    #[arg(long, env, default_value_t = Limits::DEFAULT.requests_per_second.to_string())]
    requests_per_second: String,
    /// Signaling messages per second of one connection, 1 to 1000000; ten seconds' worth may come at once.
    #[arg(long, env, default_value_t = Limits::DEFAULT.messages_per_second.to_string())]
    messages_per_second: String,
    /// Longest signaling message and request body in bytes, 16384 to 1048576.
    #[arg(long, env, default_value_t = Limits::DEFAULT.message_bytes.to_string())]
    max_message_bytes: String,
    /// Messages that may wait for a client that does not read, 64 to 65536.
    #[arg(long, env, default_value_t = Limits::DEFAULT.queued_messages.to_string())]
    max_queued_messages: String,
}

impl HttpSettings {
    pub(super) fn validate(&self) -> Result<Http, Unusable> {
        Ok(Http {
            tls: tls(self.tls_cert_file.as_deref(), self.tls_key_file.as_deref())?,
            origins: origins("ALLOWED_ORIGINS", &self.allowed_origins)?,
            proxies: networks("TRUSTED_PROXIES", &self.trusted_proxies)?,
            drain: seconds("DRAIN_TIMEOUT", &self.drain_timeout, 0..=MAX_DRAIN)?,
            metrics: self.metrics.validate()?,
            limits: self.limits()?,
        })
    }

    fn limits(&self) -> Result<Limits, Unusable> {
        let many = 1..=1_000_000;
        let per_address = &self.max_connections_per_address;
        Ok(Limits {
            connections: number("MAX_CONNECTIONS", &self.max_connections, many.clone())?,
            connections_per_address: number(
                "MAX_CONNECTIONS_PER_ADDRESS",
                per_address,
                many.clone(),
            )?,
            half_open: number("MAX_HALF_OPEN", &self.max_half_open, many.clone())?,
            http_timeout: seconds("HTTP_TIMEOUT", &self.http_timeout, 1..=600)?,
            requests_per_second: number(
                "REQUESTS_PER_SECOND",
                &self.requests_per_second,
                many.clone(),
            )?,
            messages_per_second: number("MESSAGES_PER_SECOND", &self.messages_per_second, many)?,
            // A join or a produce with everything that a browser offers has 10 kB.
            message_bytes: number("MAX_MESSAGE_BYTES", &self.max_message_bytes, 1 << 14..=1 << 20)?,
            queued_messages: number(
                "MAX_QUEUED_MESSAGES",
                &self.max_queued_messages,
                64..=1 << 16,
            )?,
        })
    }
}

fn seconds(
    variable: &'static str,
    value: &str,
    range: RangeInclusive<u64>,
) -> Result<Duration, Unusable> {
    number(variable, value, range).map(Duration::from_secs)
}

fn tls(certificate: Option<&str>, key: Option<&str>) -> Result<Option<TlsFiles>, Unusable> {
    // An empty variable is what a container has that leaves it out.
    let given = |path: Option<&str>| path.filter(|path| !path.is_empty()).map(PathBuf::from);
    let missing = |variable, other| {
        let allowed = format!("the path of a PEM file, since {other} is set");
        Err(unusable(variable, "", allowed))
    };
    match (given(certificate), given(key)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, Some(_)) => missing("TLS_CERT_FILE", "TLS_KEY_FILE"),
        (Some(_), None) => missing("TLS_KEY_FILE", "TLS_CERT_FILE"),
    }
}

/// The parts of a list, without those that are empty.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn origins(variable: &'static str, value: &str) -> Result<Origins, Unusable> {
    if value.trim() == "*" {
        return Ok(Origins::Any);
    }
    let origin = |part: &str| {
        let allowed = "`*`, or origins such as https://app.example.org, with commas between them";
        as_origin(part).ok_or_else(|| unusable(variable, value, allowed))
    };
    Ok(Origins::Listed(parts(value).map(origin).collect::<Result<_, _>>()?))
}

/// As browsers write it; `None` if no browser would.
fn as_origin(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let default = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    let authority = authority.strip_suffix(default).unwrap_or(authority);
    (!authority.is_empty() && authority.bytes().all(sound))
        .then(|| format!("{scheme}://{authority}"))
}

/// Addresses that share their first bits (RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it; an IPv4 address in IPv6 clothes (RFC 4291 §2.5.5.2) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shares = |ours: u128, theirs: u128, bits: u32| {
            let differ = (ours ^ theirs) >> (bits - u32::from(self.prefix)).min(127);
            self.prefix == 0 || differ == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                shares(ours.to_bits().into(), theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => shares(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(drop)?;
        if prefix > most { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

fn networks(variable: &'static str, value: &str) -> Result<Vec<Network>, Unusable> {
    let network = |part: &str| {
        let allowed = "addresses or networks such as 10.0.0.0/8, with commas between them";
        part.parse().map_err(|()| unusable(variable, value, allowed))
    };
    parts(value).map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(value: &str) -> Vec<String> {
        match origins("ALLOWED_ORIGINS", value) {
            Ok(Origins::Listed(listed)) => listed,
            other => panic!("{value} gave {other:?}"),
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_write_them() {
        assert!(listed("").is_empty());
        let several =
            "https://App.example.org/, http://localhost:5173,https://a:443,http://[::1]:80";
        let kept =
            ["https://app.example.org", "http://localhost:5173", "https://a", "http://[::1]"];
        assert_eq!(listed(several), kept);
        assert_eq!(origins("ALLOWED_ORIGINS", " * "), Ok(Origins::Any));
        for wrong in ["app.example.org", "ftp://a", "https://", "https://a/b", "https://a b", "*,*"]
        {
            assert!(origins("ALLOWED_ORIGINS", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        for (network, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("::/0", "2001:db8::1"),
            ("2001:db8::/64", "2001:db8::ffff"),
            ("::1", "::1"),
        ] {
            assert!(holds(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("2001:db8::/64", "2001:db8:0:1::"),
            ("::1/128", "::2"),
        ] {
            assert!(!holds(network, address), "{network} {address}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0.0/", "proxy", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
