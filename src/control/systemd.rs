//! What systemd is told, if it started us: sd_notify(3), in as much of it as a server needs.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// Whoever started the process; nobody, by default.
#[derive(Debug, Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` say, which are systemd's variables and no settings.
    pub fn from_environment() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        let socket = address.and_then(|address| connect(&address));
        let socket = socket.inspect_err(|error| warn!(%error, "Cannot reach NOTIFY_SOCKET")).ok();
        let period = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let watchdog = period.filter(|period| *period > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// How often it wants to hear that we live: twice as often as it must.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// Tells one state, such as `READY=1`.
    pub fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            warn!(%error, state, "Cannot tell systemd");
        }
    }
}

fn connect(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    // It must not hold us up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
