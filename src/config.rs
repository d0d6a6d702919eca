//! The environment and the command line, validated once into a [`Config`].
//!
//! Every setting is a variable and a flag; the flag wins. Nothing after the start looks at the
//! environment again.

mod http;
mod media;
mod metrics;
mod rooms;

use std::ffi::OsString;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread::available_parallelism;

use clap::Parser;
use tracing::level_filters::LevelFilter;

pub use self::media::MediaLimits;
pub use self::rooms::RoomLimits;
pub use http::{Http, Limits, Network, Origins, TlsFiles};
pub use metrics::Metrics;

/// Most shards: more cores than any one machine gives to an SFU today.
pub const MAX_WORKERS: u16 = 128;

/// The settings of one run, all of them usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For people or for log collectors.
    pub environment: Environment,
    /// TCP port of HTTP and WebSocket; 0 lets the kernel choose.
    pub http_port: u16,
    /// TCP address of HTTP and WebSocket.
    pub http_ip: IpAddr,
    /// IPv4 address, IPv6 address or host name for the ICE candidates.
    pub announced_ip: String,
    /// How many shards: 1 to [`MAX_WORKERS`], and at most one per port of `rtc_ports`.
    pub workers: u16,
    /// The UDP ports that shards may bind; never empty.
    pub rtc_ports: RangeInclusive<u16>,
    /// How much the server logs.
    pub log_level: LevelFilter,
    /// How much the media engine logs.
    pub media_log_level: LevelFilter,
    /// How shards talk to the network.
    pub io_backend: IoBackend,
    /// The keys that tokens are checked with; `None`: nobody is asked for one.
    pub auth_keys_file: Option<PathBuf>,
    /// What clients may make the server keep.
    pub rooms: RoomLimits,
    /// How HTTP, WebSocket and Socket.IO are served.
    pub http: Http,
    /// How much of a shard one peer, or strangers, may take.
    pub media_limits: MediaLimits,
}

/// `NODE_ENV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Logs for people.
    Development,
    /// Logs in JSON.
    Production,
}

/// `IO_BACKEND`: how shards receive and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// `mmsg`, which every kernel allows.
    Auto,
    /// io_uring, or no start.
    Uring,
    /// epoll with `recvmmsg` and `sendmmsg`.
    Mmsg,
}

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum Stop {
    /// A value cannot be used: print one line and leave with code 2.
    Unusable(Unusable),
    /// `--help`, `--version` or a flag that does not exist: clap has its own words and codes.
    Usage(clap::Error),
}

/// A setting with a value that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} cannot be used: allowed is {allowed}")]
pub struct Unusable {
    variable: &'static str,
    value: String,
    allowed: String,
}

impl Config {
    /// Reads `arguments` (the program's name first) and the environment.
    pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        let settings = Settings::try_parse_from(arguments).map_err(Stop::Usage)?;
        settings.validate().map_err(Stop::Unusable)
    }
}

/// An SFU for Linux: per-core shards forward WebRTC audio and video.
///
/// Every setting is also an environment variable; a flag wins over it.
#[derive(Parser)]
#[command(name = "shardcast", version)]
struct Settings {
    /// `development` (logs for people) or `production` (logs in JSON).
    #[arg(long, env, default_value = "development")]
    node_env: String,
    /// TCP port of HTTP and WebSocket, 0 to 65535; 0 lets the kernel choose.
    #[arg(long, env, default_value = "3000")]
    http_port: String,
    /// TCP address of HTTP and WebSocket.
    #[arg(long, env, default_value = "0.0.0.0")]
    http_ip: String,
    /// IPv4 address, IPv6 address or host name that clients send media to.
    #[arg(long, env, default_value = "127.0.0.1")]
    announced_ip: String,
    /// Number of shards, or `auto` for one per core.
    #[arg(long, env, default_value = "1")]
    workers: String,
    /// First UDP port that a shard may bind, 1 to 65535.
    #[arg(long, env, default_value = "10000")]
    rtc_min_port: String,
    /// Last UDP port that a shard may bind, RTC_MIN_PORT to 65535.
    #[arg(long, env, default_value = "10100")]
    rtc_max_port: String,
    /// How much the server logs: `ERROR`, `WARN`, `INFO` or `DEBUG`.
    #[arg(long, env, default_value = "INFO")]
    log_level: String,
    /// How much the media engine logs: `none`, `error`, `warn`, `info` or `debug`
    /// [default: `debug` in development, `warn` in production].
    #[arg(long, env)]
    mediasoup_log_level: Option<String>,
    /// How shards talk to the network: `auto`, `uring` (io_uring) or `mmsg` (epoll).
    #[arg(long, env, default_value = "auto")]
    io_backend: String,
    /// File with the keys that clients' tokens are signed with, a JWK set; reread on SIGHUP. Without
    /// it, everybody may do everything.
    #[arg(long, env)]
    auth_keys_file: Option<PathBuf>,
    #[command(flatten)]
    rooms: rooms::RoomSettings,
    #[command(flatten)]
    http: http::HttpSettings,
    #[command(flatten)]
    media: media::MediaSettings,
}

impl Settings {
    fn validate(self) -> Result<Config, Unusable> {
        let environment = choose("NODE_ENV", &self.node_env, &ENVIRONMENTS)?;
        let rtc_ports = ports(&self.rtc_min_port, &self.rtc_max_port)?;
        let media_log_level = match &self.mediasoup_log_level {
            Some(level) => choose("MEDIASOUP_LOG_LEVEL", level, &MEDIA_LOG_LEVELS)?,
            None if environment == Environment::Development => LevelFilter::DEBUG,
            None => LevelFilter::WARN,
        };
        Ok(Config {
            environment,
            http_port: number("HTTP_PORT", &self.http_port, 0..=u16::MAX)?,
            http_ip: self.http_ip.parse().map_err(|_| {
                unusable("HTTP_IP", &self.http_ip, "an IPv4 or IPv6 address of this host")
            })?,
            announced_ip: announced("ANNOUNCED_IP", &self.announced_ip)?,
            workers: workers(&self.workers, &rtc_ports)?,
            rtc_ports,
            log_level: choose("LOG_LEVEL", &self.log_level, &LOG_LEVELS)?,
            media_log_level,
            io_backend: choose("IO_BACKEND", &self.io_backend, &IO_BACKENDS)?,
            // An empty variable is one that is not set.
            auth_keys_file: self.auth_keys_file.filter(|path| !path.as_os_str().is_empty()),
            rooms: self.rooms.validate()?,
            http: self.http.validate()?,
            media_limits: self.media.validate()?,
        })
    }
}

const ENVIRONMENTS: [(&str, Environment); 2] =
    [("development", Environment::Development), ("production", Environment::Production)];

const LOG_LEVELS: [(&str, LevelFilter); 4] = [
    ("ERROR", LevelFilter::ERROR),
    ("WARN", LevelFilter::WARN),
    ("INFO", LevelFilter::INFO),
    ("DEBUG", LevelFilter::DEBUG),
];

const MEDIA_LOG_LEVELS: [(&str, LevelFilter); 5] = [
    ("none", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
];

const IO_BACKENDS: [(&str, IoBackend); 3] =
    [("auto", IoBackend::Auto), ("uring", IoBackend::Uring), ("mmsg", IoBackend::Mmsg)];

fn unusable(variable: &'static str, value: &str, allowed: impl Into<String>) -> Unusable {
    Unusable { variable, value: value.to_owned(), allowed: allowed.into() }
}

/// One of a few words, in any case.
fn choose<T: Copy>(
    variable: &'static str,
    value: &str,
    words: &[(&str, T)],
) -> Result<T, Unusable> {
    if let Some((_, chosen)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)) {
        return Ok(*chosen);
    }
    let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Err(unusable(variable, value, format!("one of {}", allowed.join(", "))))
}

/// A whole number in a range.
fn number<T: FromStr + PartialOrd + Display>(
    variable: &'static str,
    value: &str,
    range: RangeInclusive<T>,
) -> Result<T, Unusable> {
    let parsed = value.parse().ok().filter(|number| range.contains(number));
    let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
    parsed.ok_or_else(|| unusable(variable, value, allowed()))
}

fn ports(min: &str, max: &str) -> Result<RangeInclusive<u16>, Unusable> {
    let first = number("RTC_MIN_PORT", min, 1..=u16::MAX)?;
    number("RTC_MAX_PORT", max, 1..=u16::MAX)?;
    let last = max.parse().ok().filter(|last| *last >= first).ok_or_else(|| {
        unusable("RTC_MAX_PORT", max, format!("a port from RTC_MIN_PORT ({first}) to 65535"))
    })?;
    Ok(first..=last)
}

/// A shard binds one port, so there cannot be more shards than ports.
fn workers(value: &str, ports: &RangeInclusive<u16>) -> Result<u16, Unusable> {
    let most = ports.end().saturating_sub(*ports.start()).saturating_add(1).min(MAX_WORKERS);
    if value.eq_ignore_ascii_case("auto") {
        let cores = available_parallelism().map_or(1, usize::from);
        return Ok(u16::try_from(cores).unwrap_or(u16::MAX).min(most));
    }
    let parsed = value.parse().ok().filter(|count| (1..=most).contains(count));
    parsed.ok_or_else(|| {
        let (first, last) = (ports.start(), ports.end());
        let range = format!("auto or 1 to {most} (one shard per port of {first} to {last})");
        unusable("WORKERS", value, range)
    })
}

/// An address that somebody can send to, or a host name (RFC 1123 §2.1).
fn announced(variable: &'static str, value: &str) -> Result<String, Unusable> {
    let usable = match value.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified() && !address.is_multicast(),
        Err(_) => is_host_name(value),
    };
    let allowed = "an IPv4 address, an IPv6 address or a host name that clients reach";
    usable.then(|| value.to_owned()).ok_or_else(|| unusable(variable, value, allowed))
}

fn is_host_name(text: &str) -> bool {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name of digits and dots is a mistyped address.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.len() <= 253 && !numeric && text.split('.').all(label_fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Config, Stop> {
        let arguments = ["shardcast"].iter().chain(arguments).map(OsString::from);
        Config::load(arguments)
    }

    fn complaint(arguments: &[&str]) -> String {
        match load(arguments) {
            Err(Stop::Unusable(unusable)) => unusable.to_string(),
            other => panic!("{arguments:?} gave {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_original_server() {
        let config = load(&[]).unwrap();
        assert_eq!(config.environment, Environment::Development);
        assert_eq!(config.http_port, 3000);
        assert_eq!(config.http_ip.to_string(), "0.0.0.0");
        assert_eq!(config.announced_ip, "127.0.0.1");
        assert_eq!(config.workers, 1);
        assert_eq!(config.rtc_ports, 10_000..=10_100);
        assert_eq!(config.log_level, LevelFilter::INFO);
        assert_eq!(config.media_log_level, LevelFilter::DEBUG);
        assert_eq!(config.io_backend, IoBackend::Auto);
    }

    #[test]
    fn media_engine_logs_less_in_production() {
        let config = load(&["--node-env", "production"]).unwrap();
        assert_eq!(config.media_log_level, LevelFilter::WARN);
    }

    #[test]
    fn addresses_and_host_names_can_be_announced() {
        for usable in ["192.0.2.1", "2001:db8::1", "media.example.org", "localhost", "a-1"] {
            assert_eq!(load(&["--announced-ip", usable]).unwrap().announced_ip, usable);
        }
        for wrong in ["", "0.0.0.0", "::", "1.2.3", "a b", "-a", "x..y", "224.0.0.1", "[::1]"] {
            let flag = format!("--announced-ip={wrong}");
            assert!(complaint(&[&flag]).starts_with("ANNOUNCED_IP="));
        }
    }

    #[test]
    fn auto_workers_never_outnumber_the_ports() {
        let ports = ["--rtc-min-port", "20000", "--rtc-max-port", "20000"];
        let config = load(&[&["--workers", "auto"], &ports[..]].concat()).unwrap();
        assert_eq!(config.workers, 1);
    }

    #[test]
    fn an_empty_rooms_time_can_be_endless() {
        assert_eq!(load(&[]).unwrap().rooms, RoomLimits::DEFAULT);
        let rooms = load(&["--empty-room-timeout", "0", "--max-rooms", "5"]).unwrap().rooms;
        assert_eq!((rooms.empty_for, rooms.rooms), (None, 5));
    }

    #[test]
    fn a_complaint_is_one_line_with_variable_value_and_what_is_allowed() {
        let cases: [(&[&str], &str); 15] = [
            (&["--node-env", "test"], "NODE_ENV=\"test\""),
            (&["--http-port", "65536"], "HTTP_PORT=\"65536\""),
            (&["--http-ip", "localhost\n"], "HTTP_IP=\"localhost\\n\""),
            (&["--workers", "0"], "WORKERS=\"0\""),
            (&["--workers", "102"], "WORKERS=\"102\""),
            (&["--workers=-1"], "WORKERS=\"-1\""),
            (&["--rtc-min-port", "0"], "RTC_MIN_PORT=\"0\""),
            (&["--rtc-max-port", "9999"], "RTC_MAX_PORT=\"9999\""),
            (&["--log-level", "loud"], "LOG_LEVEL=\"loud\""),
            (&["--io-backend", "dpdk"], "IO_BACKEND=\"dpdk\""),
            (&["--max-rooms", "0"], "MAX_ROOMS=\"0\""),
            (&["--empty-room-timeout", "soon"], "EMPTY_ROOM_TIMEOUT=\"soon\""),
            (&["--max-consumers-per-peer", "2049"], "MAX_CONSUMERS_PER_PEER=\"2049\""),
            (&["--max-producer-bitrate", "0"], "MAX_PRODUCER_BITRATE=\"0\""),
            (&["--max-addresses-per-transport", "65"], "MAX_ADDRESSES_PER_TRANSPORT=\"65\""),
        ];
        for (arguments, start) in cases {
            let line = complaint(arguments);
            assert!(line.starts_with(start), "{line}");
            assert!(line.contains("allowed is"), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
        assert!(complaint(&["--workers", "102"]).contains("1 to 101"));
        let media = complaint(&["--mediasoup-log-level", "x"]);
        assert!(media.starts_with("MEDIASOUP_LOG_LEVEL="), "{media}");
    }
}
