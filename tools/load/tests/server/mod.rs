//! A server in the test's own process, and the load's binary against it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use shardcast::control::requests::DtlsFingerprint;
use shardcast::control::rooms::Announced;
use shardcast::control::{Control, Order};
use shardcast::shard::mailbox::dtls;
use shardcast::shard::{self, Backend, Limits, Shards, ShardsConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ports beside those that the system gives out by itself; taken ones are skipped.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=30_000;

/// A server in this process.
pub struct Server {
    http: SocketAddr,
    orders: UnboundedSender<Order>,
    control: Option<JoinHandle<()>>,
}

impl Server {
    /// `prepare` runs first on its control thread.
    pub fn start_with(
        backend: Backend,
        ping_interval: Duration,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (orders, given) = unbounded_channel();
        let (tell, told) = channel();
        let control = std::thread::spawn(move || {
            prepare();
            let identity = Arc::new(dtls::Identity::generate().expect("a certificate"));
            let value = identity.fingerprint().value();
            let fingerprint = DtlsFingerprint { algorithm: "sha-256".to_owned(), value };
            let config = ShardsConfig {
                workers: 2,
                ports: PORTS,
                bind: Ipv4Addr::LOCALHOST.into(),
                backend,
                limits: Limits::default(),
            };
            let Shards { mailboxes, events, threads, .. } =
                shard::start(&config, identity).expect("shards");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("its own")).expect("the test waits");
                let announced = Announced { address: "127.0.0.1".to_owned(), fingerprint };
                let control = Control::new(listener, announced, mailboxes, events);
                Control { ping_interval, ..control }.run(given).await;
            });
            threads.shutdown(PATIENCE).expect("shards that end well");
        });
        let http = told.recv_timeout(PATIENCE).expect("a server");
        Self { http, orders, control: Some(control) }
    }

    /// Runs the load with these flags.
    pub fn load(&self, flags: &[&str]) -> Output {
        let server = self.http.to_string();
        let fixed = ["--server", &server, "--quiet", "--json", "--warmup", "0.2", "--seconds", "1"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast-load"));
        command.args(fixed).args(flags).output().expect("it runs")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended is reported below.
        let _ = self.orders.send(Order::Stop);
        if let Some(Err(_)) = self.control.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("the server did not end well");
        }
    }
}
