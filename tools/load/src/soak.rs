//! A soak: whether a server under churn and malformed traffic loses nothing, and keeps nothing.
//!
//! While a churn is measured, strangers send junk to the media ports, and one client asks and never reads the
//! answers. The server's own metrics tell before the first join, at a quarter of the time, at its end and after
//! the last leave what it holds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use shardcast_impair::dice::Dice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::protoo::Client;
use crate::spoil;

/// What must be back where it was when everybody has gone.
const HELD: [&str; 8] = [
    "shardcast_rooms",
    "shardcast_peers",
    "shardcast_connections",
    "shardcast_transports",
    "shardcast_producers",
    "shardcast_replicas",
    "shardcast_consumers",
    "process_open_fds",
];
const MEMORY: &str = "process_resident_memory_bytes";

/// What resident memory may grow by from a quarter of the time to its end, as a share.
const MAX_GROWTH: f64 = 0.05;
/// How long what is gone may be held: consent expires after 30 s, and silent connections after two pings of 10 s.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// A connection that never reads is given up for a new one after so long.
const DEAF_FOR: Duration = Duration::from_secs(30);
/// A write that takes longer will not be taken: the connection is full.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Addresses that junk comes from.
const STRANGERS: usize = 16;
/// How often they send.
const JUNK_TICK: Duration = Duration::from_millis(10);
/// Longest wait for the metrics.
const PATIENCE: Duration = Duration::from_secs(10);

/// A soak under way.
pub struct Soak {
    server: SocketAddr,
    begin: Held,
    /// At a quarter of the measured time, and at its end: resident memory in bytes.
    memory: RefCell<Vec<f64>>,
    /// Where junk goes: the ports that peers were told of.
    media: RefCell<BTreeSet<SocketAddr>>,
    junk: Cell<u64>,
    deaf: Cell<u64>,
    tasks: RefCell<Vec<AbortHandle>>,
}

/// What the server holds, by metric: the sum over its shards.
type Held = BTreeMap<String, f64>;

/// How it went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Malformed copies of packets that peers sent.
    pub spoilt: u64,
    /// Datagrams from strangers.
    pub junk: u64,
    /// Connections that never read.
    pub deaf: u64,
    /// Resident memory in bytes before the first join, at a quarter of the measured time, and at its end.
    pub resident: [f64; 3],
    /// Open descriptors before the first join and after the last leave.
    pub descriptors: [f64; 2],
    /// Seconds from the last leave until nothing was held any more.
    pub let_go_after: Option<f64>,
    /// What is wrong.
    pub broken: Vec<String>,
}

impl Soak {
    /// Looks at a server that nobody has joined yet.
    pub async fn begin(server: SocketAddr) -> Result<Rc<Self>, String> {
        let begin = read(server).await?;
        Ok(Rc::new(Self {
            server,
            begin,
            memory: RefCell::default(),
            media: RefCell::default(),
            junk: Cell::default(),
            deaf: Cell::default(),
            tasks: RefCell::default(),
        }))
    }

    /// Peers were told to send their media there.
    pub fn note_media(&self, to: SocketAddr) {
        self.media.borrow_mut().insert(to);
    }

    /// Lets strangers send `junk` datagrams per second, and the deaf client join `room`.
    pub fn disturb(self: &Rc<Self>, junk: f64, host: &str, room: &str) {
        let (me, per_tick) = (self.clone(), junk * JUNK_TICK.as_secs_f64());
        let strangers = tokio::task::spawn_local(async move {
            // Without sockets there is no junk, which the report shows.
            let _ = me.send_junk(per_tick).await;
        });
        let (me, host, room) = (self.clone(), host.to_owned(), room.to_owned());
        let deaf = tokio::task::spawn_local(async move {
            loop {
                me.be_deaf(&host, &room).await;
            }
        });
        let tasks = [strangers.abort_handle(), deaf.abort_handle()];
        self.tasks.borrow_mut().extend(tasks);
    }

    /// Takes note of the server's memory.
    pub async fn weigh(&self) {
        let memory = read(self.server).await.ok().and_then(|held| held.get(MEMORY).copied());
        self.memory.borrow_mut().push(memory.unwrap_or(f64::NAN));
    }

    /// Nobody disturbs any more.
    pub fn calm(&self) {
        self.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
    }

    /// Waits until the server holds no more than before everybody came, and judges.
    pub async fn end(&self, spoilt: u64) -> Outcome {
        let started = Instant::now();
        let (let_go_after, kept, end) = loop {
            let end = read(self.server).await.unwrap_or_default();
            let kept = self.kept(&end);
            let waited = started.elapsed();
            if kept.is_empty() {
                break (Some(waited.as_secs_f64()), kept, end);
            }
            if waited > LET_GO_WITHIN {
                break (None, kept, end);
            }
            sleep(Duration::from_millis(250)).await;
        };
        let memory = self.memory.borrow();
        let at = |index: usize| memory.get(index).copied().unwrap_or(f64::NAN);
        let descriptors = |held: &Held| held.get("process_open_fds").copied().unwrap_or(f64::NAN);
        let mut outcome = Outcome {
            spoilt,
            junk: self.junk.get(),
            deaf: self.deaf.get(),
            resident: [self.begin.get(MEMORY).copied().unwrap_or(f64::NAN), at(0), at(1)],
            descriptors: [descriptors(&self.begin), descriptors(&end)],
            let_go_after,
            broken: kept,
        };
        outcome.judge_memory();
        outcome
    }

    /// What is held beyond the beginning.
    fn kept(&self, now: &Held) -> Vec<String> {
        let of = |held: &Held, name: &str| held.get(name).copied().unwrap_or(f64::NAN);
        let kept = HELD.iter().filter_map(|name| {
            let (before, after) = (of(&self.begin, name), of(now, name));
            // What is not told is not good either.
            let is_back = after <= before;
            (!is_back).then(|| format!("{name}: {before} before, {after} after the last leave"))
        });
        kept.collect()
    }

    async fn send_junk(&self, per_tick: f64) -> std::io::Result<()> {
        let mut sockets = Vec::new();
        for _ in 0..STRANGERS {
            sockets.push(UdpSocket::bind("0.0.0.0:0").await?);
        }
        let (mut dice, mut due) = (Dice::new(1, 0), 0.0);
        loop {
            due += per_tick;
            while due >= 1.0 {
                due -= 1.0;
                let media = self.media.borrow();
                let place = dice.draw() as usize % media.len().max(1);
                let Some(to) = media.iter().nth(place) else { break };
                let from = &sockets[dice.draw() as usize % STRANGERS];
                if from.try_send_to(&spoil::junk(&mut dice), *to).is_ok() {
                    self.junk.set(self.junk.get() + 1);
                }
            }
            sleep(JUNK_TICK).await;
        }
    }

    /// Joins, and asks and asks without reading an answer.
    async fn be_deaf(&self, host: &str, room: &str) {
        let number = self.deaf.get();
        let path = format!("/ws?roomId={room}&peerId=deaf{number}");
        let Ok(mut client) = Client::connect(self.server, host, &path).await else {
            return sleep(STUCK_AFTER).await;
        };
        self.deaf.set(number + 1);
        let until = Instant::now() + DEAF_FOR;
        let _ = client.start("joinRoom", json!({})).await;
        while Instant::now() < until {
            let asked = client.start("getRouterRtpCapabilities", json!({}));
            match timeout(STUCK_AFTER, asked).await {
                Ok(Ok(_)) => {}
                // The server has given it up, as it should.
                Ok(Err(_)) => return sleep(STUCK_AFTER).await,
                // Its end is full; wait for that.
                Err(_) => sleep(STUCK_AFTER).await,
            }
        }
    }
}

impl Outcome {
    fn judge_memory(&mut self) {
        let [_, quarter, end] = self.resident;
        let growth = end / quarter - 1.0;
        let is_flat = growth <= MAX_GROWTH;
        if !is_flat {
            let (quarter, end) = (quarter / 1e6, end / 1e6);
            self.broken.push(format!(
                "resident memory: {quarter:.1} MB at a quarter of the time, {end:.1} MB at its end"
            ));
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let [empty, quarter, end] = self.resident.map(|bytes| bytes / 1e6);
        let [before, after] = self.descriptors;
        let let_go = match self.let_go_after {
            Some(seconds) => format!("nothing held {seconds:.1} s after the last leave"),
            None => "not everything let go".to_owned(),
        };
        format!(
            "malformed     {} copies, {} from strangers; {} connections that never read\n\
             held          {empty:.1} MB empty, {quarter:.1} MB at a quarter, {end:.1} MB at the end ({:+.1} %); \
             {before} descriptors before, {after} after; {let_go}\n",
            self.spoilt,
            self.junk,
            self.deaf,
            (end / quarter - 1.0) * 100.0,
        )
    }
}

/// Reads the server's metrics.
async fn read(server: SocketAddr) -> Result<Held, String> {
    let whole = async {
        let mut stream = TcpStream::connect(server).await?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, whole).await;
    let answer =
        answer.map_err(|_| "no answer".to_owned()).and_then(|it| it.map_err(|e| e.to_string()));
    let answer = answer.map_err(|why| format!("/metrics of {server}: {why}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200") {
        let status = head.lines().next().unwrap_or_default();
        return Err(format!("/metrics of {server}: {status}; a soak needs them"));
    }
    Ok(sums(body))
}

/// Sums of gauges and counters over their labels.
fn sums(text: &str) -> Held {
    let mut sums = Held::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        *sums.entry(name.to_owned()).or_default() += value.parse().unwrap_or(f64::NAN);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(begin: &str) -> Soak {
        Soak {
            server: ([127, 0, 0, 1], 1).into(),
            begin: sums(begin),
            memory: RefCell::default(),
            media: RefCell::default(),
            junk: Cell::default(),
            deaf: Cell::default(),
            tasks: RefCell::default(),
        }
    }

    #[test]
    fn what_is_kept_is_named_and_what_is_not_told_is_not_good() {
        let all = HELD.map(|name| format!("{name} 1\n")).concat();
        let soak = soak(&all);
        assert_eq!(soak.kept(&sums(&all)), [""; 0]);
        let more = format!("{all}shardcast_transports{{shard=\"1\"}} 2\n");
        let kept = soak.kept(&sums(&more));
        assert_eq!(kept, ["shardcast_transports: 1 before, 3 after the last leave"]);
        assert_eq!(soak.kept(&sums("")).len(), HELD.len());
    }

    #[test]
    fn memory_may_grow_a_little() {
        for (end, is_fine) in [(104.0, true), (80.0, true), (106.0, false), (f64::NAN, false)] {
            let mut outcome = Outcome { resident: [50.0, 100.0, end], ..Outcome::default() };
            outcome.judge_memory();
            assert_eq!(outcome.broken.is_empty(), is_fine, "{end}");
        }
    }
}
