//! A run from its first join to its report.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::dtls::Identity;
use crate::flood::Running;
use crate::live::{Live, View};
use crate::peer::{self, Crew, Joins};
use crate::phases::{self, JoinWatch};
use crate::plan::{self, Scenario};
use crate::process::Snapshot;
use crate::recovery::Recovery;
use crate::report::{Figures, Report};
use crate::settings::Settings;
use crate::soak::Soak;
use crate::stamp::Tracks;
use crate::tally::{Gauges, Reading, Tally};
use crate::transport::Measure;
use crate::worker::{self, Order};

/// Longest time for all to join, and how much more for each peer.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// See [`JOIN_LIMIT`].
const JOIN_LIMIT_EACH: Duration = Duration::from_millis(50);
/// How often the view is renewed.
const TICK: Duration = Duration::from_millis(250);
/// After the last frame it is looked this often whether all has come.
const DRAIN: Duration = Duration::from_millis(500);
/// What is under way may arrive, and be repaired, this long after the last frame: who came last is first sent what was
/// recorded, at the pace of its line, and is a second and more behind.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long peers may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// The threads of a run.
struct Workers {
    orders: Vec<Sender<Order>>,
    gauges: Vec<Arc<Gauges>>,
    threads: Vec<JoinHandle<()>>,
}

/// Runs, shows how it goes, and reports.
pub fn run(settings: &Settings, live: &Live) -> Result<Report, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, whole(settings, live))
}

async fn whole(settings: &Settings, live: &Live) -> Result<Report, Box<dyn std::error::Error>> {
    let host = &settings.server;
    let found = tokio::net::lookup_host(host).await.map_err(|error| format!("{host}: {error}"))?;
    let server = { found }.next().ok_or_else(|| format!("{host}: no address"))?;
    let empty = settings.pid.and_then(Snapshot::of);
    if settings.pid.is_some() && empty.is_none() {
        return Err("pid: no such process, or not ours to look at".into());
    }
    let soak = match settings.scenario {
        Scenario::Soak => Some(Soak::begin(server).await?),
        _ => None,
    };
    let tracks = Arc::new(Tracks::default());
    let workers = Workers::start(settings, &tracks)?;
    let (begin, begun) = watch::channel(None);
    let (end, over) = watch::channel(false);
    let crew = Rc::new(Crew {
        settings: settings.clone(),
        server,
        run: format!("load-{}-{}", std::process::id(), crate::clock::wall() / 1_000_000),
        identity: Identity::generate()?,
        tracks,
        workers: workers.orders.clone(),
        names: Cell::new(0),
        gate: Semaphore::new(settings.joining),
        begun,
        over,
        joins: RefCell::new(Joins::default()),
        soak: soak.clone(),
        recovery: Recovery::default(),
        silent: RefCell::default(),
    });
    let plans = plan::peers(settings);
    let early = plans.iter().filter(|plan| plan.joins.is_none()).count() as u64;
    let planned = plans.len();
    let mut peers = JoinSet::new();
    for plan in &plans {
        peers.spawn_local(peer::live(crew.clone(), plan.clone()));
    }
    let mut watch = JoinWatch::new(settings.pid, empty.clone(), early);
    join_all(&crew, early, live, &mut watch).await;
    let joining = watch.end(crew.joins.borrow().early);
    if crew.joins.borrow().early == 0 {
        let reasons = crew.joins.borrow().reasons.join("; ");
        workers.stop();
        return Err(format!("nobody could join: {reasons}").into());
    }
    sleep(settings.warmup).await;
    let watch = soak.as_ref().map(|soak| disturb(soak, &crew));
    let flood = settings.flood.map(|flood| {
        let core = settings.cpus.last().copied();
        flood.start(&crew.joins.borrow().remotes, core)
    });
    let flood = flood.transpose()?;
    if let Some(after) = settings.kill_shard {
        tokio::task::spawn_local(kill_shard(crew.clone(), after));
    }
    let (before, window) = measure(settings, &workers, &begin, live).await;
    let flood = flood.and_then(Running::stop);
    if let (Some(soak), Some(watch)) = (&soak, watch) {
        watch.abort();
        soak.weigh().await;
        soak.calm();
    }
    workers.tell(|| Order::Hush);
    let tally = drain(&workers).await;
    let rest = phases::rest(settings.pid, settings.rest).await;
    let after = settings.pid.and_then(Snapshot::of);
    // Nobody is left if the worker or the peers are gone.
    let _ = end.send(true);
    let _ =
        tokio::time::timeout(GOODBYE, async { while peers.join_next().await.is_some() {} }).await;
    workers.stop();
    crew.silent.take();
    let soak = match &soak {
        Some(soak) => Some(soak.end(tally.spoilt).await),
        None => None,
    };
    let recovery = settings.kill_shard.map(|_| {
        let limit = settings.limits.recovery;
        crew.recovery.outcome(&plans, &tally, limit)
    });
    let joins = crew.joins.take();
    let memory = empty.zip(after).map(|(empty, after)| (empty.resident, after.resident));
    let bursts = crew.tracks.bursts();
    let figures = Figures {
        planned,
        joins,
        joining,
        tally,
        bursts,
        before,
        window,
        rest,
        memory,
        soak,
        recovery,
        server,
        flood,
    };
    Ok(Report::new(settings, figures))
}

/// Waits until all has come that was sent, and sums up.
async fn drain(workers: &Workers) -> Tally {
    let deadline = Instant::now() + DRAIN_LIMIT;
    loop {
        sleep(DRAIN).await;
        let tally = workers.report();
        if tally.delivered >= tally.expected || Instant::now() > deadline {
            return tally;
        }
    }
}

/// Lets malformed traffic begin, and the server be weighed at a quarter of the time.
fn disturb(soak: &Rc<Soak>, crew: &Rc<Crew>) -> AbortHandle {
    // Peers send their part themselves.
    let sent = |settings: &Settings| {
        let packets = settings.bitrate as f64 / 8.0 / settings.packet as f64 + 50.0;
        packets * (settings.peers * settings.rooms) as f64
    };
    let settings = &crew.settings;
    soak.disturb(sent(settings) * settings.malformed / 2.0, &settings.server, &crew.room(0));
    let (soak, quarter, mut begun) = (soak.clone(), settings.seconds / 4, crew.begun.clone());
    let weigh = tokio::task::spawn_local(async move {
        if begun.wait_for(Option::is_some).await.is_ok() {
            sleep(quarter).await;
            soak.weigh().await;
        }
    });
    weigh.abort_handle()
}

/// Makes the shard of the first peer fail.
async fn kill_shard(crew: Rc<Crew>, after: Duration) {
    if crew.begun.clone().wait_for(Option::is_some).await.is_err() {
        return;
    }
    sleep(after).await;
    let port = crew.joins.borrow().remotes.first().map(|remote| remote.address);
    if let Some(port) = port {
        // If it could not be sent, no shard fails, which the report says.
        let _ = crew.recovery.fail(port).await;
    }
}

async fn join_all(crew: &Crew, early: u64, live: &Live, watch: &mut JoinWatch) {
    let deadline = Instant::now() + JOIN_LIMIT + JOIN_LIMIT_EACH * early as u32;
    loop {
        let (joined, failed) = {
            let joins = crew.joins.borrow();
            (joins.early, joins.failed)
        };
        live.joining(joined, early, failed);
        watch.see(joined);
        if joined + failed >= early || Instant::now() > deadline {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What was read over the measured time.
pub struct Window {
    /// Its length in seconds.
    pub seconds: f64,
    /// What the workers did.
    pub reading: Reading,
    /// The server at its end.
    pub server: Option<Snapshot>,
}

async fn measure(
    settings: &Settings,
    workers: &Workers,
    begin: &watch::Sender<Option<Instant>>,
    live: &Live,
) -> (Option<Snapshot>, Window) {
    workers.tell(|| Order::Mark);
    // The mark sets the gauges back: wait until every worker has come around.
    sleep(2 * settings.poll + Duration::from_millis(20)).await;
    let look = || (settings.pid.and_then(Snapshot::of), workers.read());
    let (before, first) = look();
    let started = Instant::now();
    // Without peers that wait for it, nobody listens.
    let _ = begin.send(Some(started));
    let deadline = started + settings.seconds;
    let (mut last, mut last_at) = (first, started);
    while Instant::now() < deadline {
        sleep_until(deadline.min(Instant::now() + TICK)).await;
        let (now, reading) = (Instant::now(), workers.read());
        let seconds = (now - last_at).as_secs_f64().max(1e-3);
        let share = (now - started).as_secs_f64() / settings.seconds.as_secs_f64();
        live.measuring(&View { share, seconds, reading: reading.since(&last) });
        (last, last_at) = (reading, now);
    }
    let (server, reading) = look();
    let seconds = started.elapsed().as_secs_f64();
    (before, Window { seconds, reading: reading.since(&first), server })
}

impl Workers {
    fn start(settings: &Settings, tracks: &Arc<Tracks>) -> std::io::Result<Self> {
        let mut workers = Self { orders: Vec::new(), gauges: Vec::new(), threads: Vec::new() };
        for index in 0..settings.threads {
            let (orders, taken) = channel();
            let gauges = Arc::new(Gauges::default());
            let how = worker::Settings {
                poll: settings.poll,
                feedback: settings.feedback,
                runs: settings.gro,
                network: settings.network.clone(),
                spoil: settings.malformed / 2.0,
            };
            let (tracks, sample) = (tracks.clone(), settings.sample);
            let measure = Measure { tracks, sample, counts: false };
            let core = settings.cpus.get(index % settings.cpus.len().max(1)).copied();
            workers.threads.push(worker::start(how, measure, taken, gauges.clone(), core)?);
            workers.orders.push(orders);
            workers.gauges.push(gauges);
        }
        Ok(workers)
    }

    fn tell(&self, order: impl Fn() -> Order) {
        // A worker that is gone shows when its report is missing.
        self.orders.iter().for_each(|worker| drop(worker.send(order())));
    }

    fn read(&self) -> Reading {
        Reading::of(self.gauges.iter().map(|gauges| &**gauges))
    }

    /// Adds up all workers' tallies.
    fn report(&self) -> Tally {
        let mut sum = Tally::default();
        for worker in &self.orders {
            let (to, from) = channel();
            if worker.send(Order::Report(to)).is_ok()
                && let Ok(tally) = from.recv()
            {
                sum.add(&tally);
            }
        }
        sum
    }

    fn stop(self) {
        self.tell(|| Order::Stop);
        // A worker's panic has been printed where it happened.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}
