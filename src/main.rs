//! Arguments, start control and shards, wait for the signal; nothing else.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardcast::config::{self, Config, Environment, IoBackend, MediaLimits, Metrics, Stop};
use shardcast::control::identity::{Identity, KeyFile};
use shardcast::control::requests::DtlsFingerprint;
use shardcast::control::rooms::Announced;
use shardcast::control::systemd::Systemd;
use shardcast::control::tls::Certificates;
use shardcast::control::{Control, Order, logs, runtime};
use shardcast::shard::mailbox::{Mailbox, dtls};
use shardcast::shard::{
    self, Backend, Limits, Running, Shards, ShardsConfig, StartError, TransportLimits,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{debug, error, info, warn};

/// How long shards have to end. With control's goodbye of 2 s that leaves a second of the 5 s that a
/// supervisor waits at least.
const SHARDS_END: Duration = Duration::from_secs(2);

const _: () = assert!(config::MAX_WORKERS as usize <= shard::MAX_SHARDS);

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os()) {
        Ok(config) => config,
        Err(Stop::Usage(usage)) => usage.exit(),
        Err(Stop::Unusable(unusable)) => {
            eprintln!("shardcast: {unusable}");
            return ExitCode::from(2);
        }
    };
    logs::start(&config);
    logs::tell_panics();
    if cfg!(feature = "test-hooks") {
        warn!("Built for tests: whoever reaches a media port can stop its shard");
    }
    match shard::raise_descriptor_limit() {
        Ok(limit) => debug!(limit, "Descriptors that may be open at a time"),
        Err(error) => warn!(%error, "Cannot raise the limit of open descriptors"),
    }
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!(%reason, "Shardcast cannot go on");
            eprintln!("shardcast: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let http = SocketAddr::new(config.http_ip, config.http_port);
    let listener = TcpListener::bind(http).map_err(|error| {
        let (ip, port) = (http.ip(), http.port());
        format!("HTTP_IP=\"{ip}\" HTTP_PORT=\"{port}\": cannot bind TCP {http}: {error}")
    })?;
    listener.set_nonblocking(true)?;
    let metrics = metrics_listener(config.http.metrics)?;
    let certificates = config.http.tls.clone().map(Certificates::load).transpose()?.map(Arc::new);
    let (keys, identity) = keys(config)?;
    let certificate = Arc::new(dtls::Identity::generate()?);
    let announced = announced(config, &certificate.fingerprint());
    let begin = Instant::now();
    let shards =
        shard::start(&shards(config), certificate).map_err(|error| blame(config, &error))?;
    let Shards { mailboxes, events, backend, threads } = shards;
    let shards_ready_in = begin.elapsed();
    let metrics_at = metrics.as_ref().map(TcpListener::local_addr).transpose()?;
    let listeners = (listener.local_addr()?, metrics_at);

    // This thread is control's from here on; where it shares a core with a shard, media comes first.
    shard::give_way();
    // Who keeps the shards off io_uring wants the process off it.
    let uring = config.io_backend != IoBackend::Mmsg;
    runtime::block_on(uring, async {
        let orders = orders()?;
        say_hello(listeners, &identity, &mailboxes, backend, shards_ready_in);
        if !identity.is_on() && config.environment == Environment::Production {
            warn!(
                "AUTH_KEYS_FILE is not set: whoever reaches this port may join any room and close it"
            );
        }
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let control = Control {
            http: config.http.clone(),
            metrics: metrics.map(tokio::net::TcpListener::from_std).transpose()?,
            certificates,
            identity,
            keys,
            limits: config.rooms,
            systemd: Systemd::from_environment(),
            ..Control::new(listener, announced, mailboxes, events)
        };
        control.run(orders).await;
        info!("Shardcast stops");
        std::io::Result::Ok(())
    })??;

    if let Err(unclean) = threads.shutdown(SHARDS_END) {
        // The process ends all the same, and the kernel takes back what they had.
        warn!(%unclean, "Shards did not end well");
    }
    info!("Shardcast has stopped");
    Ok(())
}

/// The listener of the metrics, if they have one of their own.
fn metrics_listener(metrics: Metrics) -> Result<Option<TcpListener>, Box<dyn Error>> {
    let Metrics::Own(address) = metrics else { return Ok(None) };
    let listener = TcpListener::bind(address).map_err(|error| {
        let (ip, port) = (address.ip(), address.port());
        format!("METRICS_IP=\"{ip}\" METRICS_PORT=\"{port}\": cannot bind TCP {address}: {error}")
    })?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// The tokens' keys, or nobody is asked for a token.
fn keys(config: &Config) -> Result<(Option<KeyFile>, Identity), String> {
    let Some(path) = &config.auth_keys_file else { return Ok((None, Identity::default())) };
    let (file, identity) = KeyFile::open(path.clone())
        .map_err(|error| format!("AUTH_KEYS_FILE={:?}: {error}", path.display().to_string()))?;
    Ok((Some(file), identity))
}

/// Signals, as what they order (signal(7)).
fn orders() -> std::io::Result<UnboundedReceiver<Order>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (give, orders) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (signal, order) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", Order::Drain),
                _ = interrupt.recv() => ("SIGINT", Order::Stop),
                _ = hang_up.recv() => ("SIGHUP", Order::Reload),
            };
            info!(signal, ?order, "Signal");
            if give.send(order).is_err() {
                return;
            }
        }
    });
    Ok(orders)
}

/// The start-up error behind the settings that it comes from.
fn blame(config: &Config, error: &StartError) -> String {
    let (first, last) = (config.rtc_ports.start(), config.rtc_ports.end());
    match error {
        StartError::Workers(_) => format!("WORKERS=\"{}\": {error}", config.workers),
        StartError::NoPort { .. } => {
            format!("RTC_MIN_PORT=\"{first}\" RTC_MAX_PORT=\"{last}\": {error}")
        }
        StartError::Bind { .. } => format!("ANNOUNCED_IP={:?}: {error}", config.announced_ip),
        StartError::Uring(_) => format!("IO_BACKEND=\"uring\": {error}"),
        StartError::Thread(_) => error.to_string(),
    }
}

fn announced(config: &Config, fingerprint: &dtls::Fingerprint) -> Announced {
    let algorithm = fingerprint.algorithm().to_owned();
    let fingerprint = DtlsFingerprint { algorithm, value: fingerprint.value() };
    Announced { address: config.announced_ip.clone(), fingerprint }
}

fn shards(config: &Config) -> ShardsConfig {
    ShardsConfig {
        workers: usize::from(config.workers),
        ports: config.rtc_ports.clone(),
        bind: media_address(&config.announced_ip),
        backend: match config.io_backend {
            IoBackend::Auto => Backend::Auto,
            IoBackend::Uring => Backend::Uring,
            IoBackend::Mmsg => Backend::Mmsg,
        },
        limits: limits(&config.media_limits),
    }
}

fn limits(given: &MediaLimits) -> Limits {
    Limits {
        producer_bitrate: Some(given.producer_bitrate),
        ssrcs: given.ssrcs,
        stranger_checks: given.stranger_checks,
        transport: TransportLimits { addresses: given.addresses, hellos: given.dtls_attempts },
    }
}

/// Where media sockets are bound. On a host with several addresses, answers must leave from the one that
/// clients were told: so that one is bound if it is the host's own. Behind NAT it is not, and then it is
/// the wildcard of its family; a host name may mean either family, and `::` takes both, where there is IPv6.
fn media_address(announced: &str) -> IpAddr {
    let can_bind = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    let (v4, v6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    match announced.parse::<IpAddr>() {
        Ok(address) if can_bind(address) => address,
        Ok(IpAddr::V4(_)) => v4,
        Ok(IpAddr::V6(_)) => v6,
        Err(_) if can_bind(v6) => v6,
        Err(_) => v4,
    }
}

fn say_hello(
    (http, metrics): (SocketAddr, Option<SocketAddr>),
    identity: &Identity,
    mailboxes: &[Mailbox],
    backend: Running,
    took: Duration,
) {
    let each = mailboxes.iter().map(|mailbox| match mailbox.core {
        Some(core) => format!("{} on core {core} port {}", mailbox.shard.0, mailbox.port),
        None => format!("{} unpinned port {}", mailbox.shard.0, mailbox.port),
    });
    info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %http,
        metrics = metrics.map(tracing::field::display),
        auth = if identity.is_on() { "on" } else { "off" },
        shards = each.collect::<Vec<_>>().join(", "),
        io_backend = %backend,
        shards_ready_in = ?took,
        "Shardcast is ready"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_up_error_names_the_variable_and_its_value() {
        let arguments = ["shardcast", "--rtc-min-port", "20000", "--rtc-max-port", "20001"];
        let config = Config::load(arguments.map(Into::into)).unwrap();
        let no_port = StartError::NoPort { first: 20_000, last: 20_001, shard: 0 };
        for (error, start) in [
            (no_port, "RTC_MIN_PORT=\"20000\" RTC_MAX_PORT=\"20001\": no free UDP port"),
            (StartError::Uring("set-up".to_owned()), "IO_BACKEND=\"uring\": io_uring cannot"),
        ] {
            let line = blame(&config, &error);
            assert!(line.starts_with(start) && line.lines().count() == 1, "{line}");
        }
    }
}
