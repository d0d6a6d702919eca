//! One simulated peer: signaling, ICE and DTLS as a browser does them; then its sockets go to a worker, and
//! what stays here is to consume what others produce.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock;
use crate::dtls::{self, Identity, Profile};
use crate::ice::{self, Agent, Remote};
use crate::offers::{self, Encoding, Producing};
use crate::plan::{Leaving, PeerPlan};
use crate::protoo::{self, Client, News};
use crate::recovery::Recovery;
use crate::settings::Settings;
use crate::soak::Soak;
use crate::source;
use crate::stamp::{Kind, Tracks};
use crate::tally::Times;
use crate::transport::NewTransport;
use crate::worker::{Name, Order};

/// A check is repeated this often.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Checks without an answer after which the server counts as unreachable.
const MAX_CHECKS: usize = 50;
/// How simulcast's bitrate is shared, lowest layer first: as Chromium does for 1.5, 0.5 and 0.15 Mbit/s.
const LAYERS: [(&str, f64); 3] = [("r0", 0.07), ("r1", 0.233), ("r2", 0.697)];
/// Reasons of failed joins that are kept.
const MAX_REASONS: usize = 5;
/// Until a transport is asked for again, where no shard had room for it.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Why the transports of a failed shard are closed, as the server says.
const SHARD_FAILED: &str = "shardFailed";
/// No shard works.
const UNAVAILABLE: u64 = 503;

/// What all peers share.
pub struct Crew {
    /// The run's settings.
    pub settings: Settings,
    /// Where signaling is.
    pub server: SocketAddr,
    /// Differs between runs, so that rooms of an earlier run are not met.
    pub run: String,
    /// Their certificate.
    pub identity: Identity,
    /// What they send.
    pub tracks: Arc<Tracks>,
    /// Their workers.
    pub workers: Vec<Sender<Order>>,
    /// Names that have been given to transports.
    pub names: Cell<Name>,
    /// Room to join before measuring.
    pub gate: Semaphore,
    /// When measuring began.
    pub begun: watch::Receiver<Option<Instant>>,
    /// Whether it is over.
    pub over: watch::Receiver<bool>,
    /// What became of the joins.
    pub joins: RefCell<Joins>,
    /// What else goes on, in a soak.
    pub soak: Option<Rc<Soak>>,
    /// Who was on a shard that failed, and what came of it.
    pub recovery: Recovery,
    /// Connections of peers that have left silently.
    pub silent: RefCell<Vec<Client>>,
}

/// What became of the joins.
#[derive(Default)]
pub struct Joins {
    /// Peers that joined, and how long it took.
    pub times: Times,
    /// Peers that joined before measuring.
    pub early: u64,
    /// Peers that failed.
    pub failed: u64,
    /// Why, the first few.
    pub reasons: Vec<String>,
    /// Requests to consume that were refused.
    pub refused: u64,
    /// Transports that the server closed, and connections that it ended, while they were needed.
    pub closed: u64,
    /// The protection profile of the last handshake.
    pub profile: Option<Profile>,
    /// The server's side of the transports that were made.
    pub remotes: Vec<Remote>,
}

/// Why a peer did not join.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Signaling(#[from] protoo::Error),
    #[error(transparent)]
    Dtls(#[from] dtls::Error),
    #[error("UDP: {0}")]
    Io(#[from] std::io::Error),
    #[error("STUN: {0}")]
    Stun(#[from] stun::Error),
    #[error("ICE: {0} does not answer")]
    Unreachable(SocketAddr),
}

impl Joins {
    fn note_reason(&mut self, failure: &Failure) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(failure.to_string());
        }
    }
}

impl Crew {
    /// A room's id.
    pub fn room(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }

    fn order(&self, name: Name, order: Order) {
        // A worker that is gone has been noticed elsewhere.
        let _ = self.workers[name as usize % self.workers.len()].send(order);
    }
}

/// Lives a peer's life from its join to its leave, or to the end of the run.
pub async fn live(crew: Rc<Crew>, plan: PeerPlan) {
    let (mut begun, mut over) = (crew.begun.clone(), crew.over.clone());
    let permit = match plan.joins {
        Some(after) => {
            let Ok(begun) = begun.wait_for(Option::is_some).await.map(|begun| *begun) else {
                return;
            };
            sleep_until(begun.unwrap_or_else(Instant::now) + after).await;
            None
        }
        None => crew.gate.acquire().await.ok(),
    };
    if *over.borrow() {
        return;
    }
    let began = clock::now();
    let joined = Peer::join(crew.clone(), plan.clone(), began).await;
    drop(permit);
    let mut peer = match joined {
        Ok(peer) => peer,
        Err(failure) => {
            let mut joins = crew.joins.borrow_mut();
            joins.failed += 1;
            joins.note_reason(&failure);
            return;
        }
    };
    {
        let mut joins = crew.joins.borrow_mut();
        joins.times.note(clock::now() - began);
        joins.early += u64::from(plan.joins.is_none());
    }
    let leave = async {
        let Some(after) = plan.leaves else { return std::future::pending().await };
        if let Ok(begun) = begun.wait_for(Option::is_some).await.map(|begun| *begun) {
            sleep_until(begun.unwrap_or_else(Instant::now) + after).await;
        }
    };
    tokio::select! {
        () = leave => {}
        _ = over.wait_for(|over| *over) => {}
        Err(failure) = peer.listen() => {
            let mut joins = crew.joins.borrow_mut();
            joins.closed += 1;
            joins.note_reason(&failure);
        }
    }
    if *crew.over.borrow() {
        // All are polite, and the workers have summed up, for which they need their transports.
        peer.client.close().await;
        return;
    }
    let let_go = match plan.leaving {
        Leaving::Silently => Order::Forsake,
        _ => Order::Remove,
    };
    for Path { name, .. } in [peer.sending, peer.receiving].into_iter().flatten() {
        crew.order(name, let_go(name));
    }
    match plan.leaving {
        Leaving::Abruptly => drop(peer.client),
        Leaving::Silently => crew.silent.borrow_mut().push(peer.client),
        Leaving::Politely => peer.client.close().await,
    }
}

/// A transport of a peer.
struct Path {
    name: Name,
    id: String,
}

struct Peer {
    crew: Rc<Crew>,
    plan: PeerPlan,
    client: Client,
    began: u64,
    capabilities: Value,
    sending: Option<Path>,
    receiving: Option<Path>,
    /// What others of the room produce: producers and their owners.
    producers: HashMap<String, String>,
    /// Its shard has failed.
    hit: bool,
    /// Requests to consume that wait for their answers, and whose track they want.
    pending: HashMap<u64, Option<usize>>,
}

impl Peer {
    async fn join(crew: Rc<Crew>, plan: PeerPlan, began: u64) -> Result<Self, Failure> {
        let (room, id) = (crew.room(plan.room), format!("p{}", plan.number));
        let path = format!("/ws?roomId={room}&peerId={id}");
        let mut client = Client::connect(crew.server, &crew.settings.server, &path).await?;
        let present = client.ask("joinRoom", json!({ "roomId": room, "peerId": id })).await?;
        let router = client.ask("getRouterRtpCapabilities", json!({ "roomId": room })).await?;
        let capabilities = offers::receiving(&router, crew.settings.feedback.is_some());
        let mut peer = Self {
            crew,
            plan,
            client,
            began,
            capabilities,
            sending: None,
            receiving: None,
            producers: HashMap::new(),
            hit: false,
            pending: HashMap::new(),
        };
        for other in present["peers"].as_array().into_iter().flatten() {
            for producer in other["producers"].as_array().into_iter().flatten() {
                peer.note_producer(&producer["producerId"], &other["peerId"]);
            }
        }
        peer.connect_all().await?;
        while !peer.pending.is_empty() {
            let news = peer.client.news().await?;
            peer.take(news).await?;
        }
        Ok(peer)
    }

    /// Goes on consuming, and makes transports anew that the server closed, until the connection ends.
    async fn listen(&mut self) -> Result<(), Failure> {
        loop {
            let news = self.client.news().await?;
            self.take(news).await?;
            while let Some(news) = self.client.queued() {
                self.take(news).await?;
            }
            self.connect_all().await?;
        }
    }

    /// Makes the transports that are not there, and all that belongs on them.
    async fn connect_all(&mut self) -> Result<(), Failure> {
        if self.plan.sends() && self.sending.is_none() {
            let path = self.connect(true).await?;
            self.produce(&path).await?;
            self.sending = Some(path);
        }
        if self.plan.receives && self.receiving.is_none() {
            let path = self.connect(false).await?;
            // Who sends now may have changed meanwhile.
            while let Some(news) = self.client.queued() {
                self.take(news).await?;
            }
            self.receiving = Some(path);
            for (producer, owner) in self.producers.clone() {
                self.consume(&producer, &owner).await?;
            }
        }
        Ok(())
    }

    /// Makes a transport, and connects it: ICE, DTLS.
    async fn connect(&mut self, producing: bool) -> Result<Path, Failure> {
        let wanted = json!({ "producing": producing, "consuming": !producing });
        let answer = loop {
            match self.client.ask("createWebRtcTransport", wanted.clone()).await {
                Err(protoo::Error::Refused(_, UNAVAILABLE, _)) if self.hit => {
                    sleep(RETRY_AFTER).await;
                }
                answer => break answer?,
            }
        };
        let created = offers::created(&answer).await?;
        let (library, profile) = (self.crew.settings.dtls, self.crew.settings.profile);
        let value = self.crew.identity.fingerprint(library);
        let fingerprints = [json!({ "algorithm": "sha-256", "value": value })];
        let dtls = json!({ "role": "client", "fingerprints": fingerprints });
        let connect = json!({ "transportId": created.id, "dtlsParameters": dtls });
        self.client.ask("connectTransport", connect).await?;

        let to = created.remote.address;
        self.crew.soak.iter().for_each(|soak| soak.note_media(to));
        let any = if to.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        let shared = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        let name = self.crew.names.get();
        self.crew.names.set(name + 1);
        let random = u64::from_be_bytes(random());
        let mut agent = Agent::new(&created.remote, random);
        check(&shared, &mut agent, to).await?;
        let (crew, offer) = (&self.crew, (library, profile));
        let keys = dtls::handshake(shared, &crew.identity, offer, &created.fingerprints).await?;
        {
            let mut joins = crew.joins.borrow_mut();
            joins.profile = Some(keys.profile);
            joins.remotes.push(created.remote);
        }
        let new = NewTransport {
            socket,
            seal: keys.seal,
            open: keys.open,
            agent,
            began: if self.hit { 0 } else { self.began },
            ssrc: random as u32,
            again: self.hit,
        };
        crew.order(name, Order::Add(name, Box::new(new)));
        Ok(Path { name, id: created.id })
    }

    async fn produce(&mut self, path: &Path) -> Result<(), Failure> {
        let (name, transport) = (path.name, &path.id[..]);
        let cname = format!("{}-{}", self.crew.run, name);
        if self.plan.audio.is_some() {
            let on = Producing { transport, mid: "0", cname: &cname };
            let ssrc = u32::from_be_bytes(random());
            let request = offers::produce_audio(&on, ssrc);
            self.client.ask("produce", request).await?;
            let turns = self.plan.turns(self.crew.settings.turn);
            let bitrate = self.crew.settings.audio_bitrate;
            self.add_source(
                name,
                Kind::Audio,
                source::Spec {
                    rid: None,
                    mid: "0".to_owned(),
                    ssrc,
                    bitrate,
                    turns,
                    ..self.spec()
                },
            );
        }
        if self.plan.video {
            let on = Producing { transport, mid: "1", cname: &cname };
            let encodings = self.encodings();
            let request = offers::produce_video(&on, &encodings);
            self.client.ask("produce", request).await?;
            for Encoding { rid, ssrcs: (ssrc, rtx_ssrc), bitrate } in encodings {
                let kind = if rid.is_some() { Kind::Layer } else { Kind::Video };
                let spec = source::Spec { rid, ssrc, rtx_ssrc, bitrate, ..self.spec() };
                self.add_source(name, kind, source::Spec { temporal: rid.is_some(), ..spec });
            }
        }
        Ok(())
    }

    fn encodings(&self) -> Vec<Encoding> {
        let settings = &self.crew.settings;
        let ssrcs = || (u32::from_be_bytes(random()), u32::from_be_bytes(random()));
        if !settings.simulcast {
            return vec![Encoding { rid: None, ssrcs: ssrcs(), bitrate: settings.bitrate }];
        }
        let layer = |(rid, share)| {
            let bitrate = (settings.bitrate as f64 * share) as u64;
            Encoding { rid: Some(rid), ssrcs: ssrcs(), bitrate }
        };
        LAYERS.map(layer).into()
    }

    /// What all sources of this peer have in common.
    fn spec(&self) -> source::Spec {
        let settings = &self.crew.settings;
        source::Spec {
            number: 0,
            rid: None,
            mid: "1".to_owned(),
            ssrc: 0,
            rtx_ssrc: 0,
            bitrate: 0,
            fps: settings.fps,
            packet: settings.packet,
            temporal: false,
            key_interval: settings.key_interval.map(clock::nanos),
            turns: None,
        }
    }

    fn add_source(&self, name: Name, kind: Kind, spec: source::Spec) {
        let (number, track) = self.crew.tracks.add(kind);
        self.crew.order(name, Order::AddSource(name, source::Spec { number, ..spec }, track));
    }

    /// Gives both back as what they are, if they are.
    fn note_producer<'a>(
        &mut self,
        producer: &'a Value,
        owner: &'a Value,
    ) -> Option<(&'a str, &'a str)> {
        let (producer, owner) = producer.as_str().zip(owner.as_str())?;
        self.producers.insert(producer.to_owned(), owner.to_owned());
        Some((producer, owner))
    }

    async fn consume(&mut self, producer: &str, owner: &str) -> Result<(), protoo::Error> {
        let Some(Path { id: transport, .. }) = &self.receiving else { return Ok(()) };
        let request = json!({
            "producerId": producer,
            "rtpCapabilities": self.capabilities,
            "transportId": transport,
        });
        let id = self.client.start("consume", request).await?;
        let number = owner.strip_prefix('p');
        self.pending.insert(id, number.and_then(|number| number.parse().ok()));
        Ok(())
    }

    async fn take(&mut self, news: News) -> Result<(), protoo::Error> {
        match news {
            News::Notice(method, data) => match &method[..] {
                "newProducer" => {
                    let announced = self.note_producer(&data["producerId"], &data["peerId"]);
                    if let Some((producer, owner)) = announced {
                        self.consume(producer, owner).await?;
                    }
                }
                "producerClosed" => {
                    self.producers.remove(data["producerId"].as_str().unwrap_or_default());
                }
                "transportClosed" => self.lose(&data),
                _ => {}
            },
            News::Answer(id, answer) => {
                let Some(owner) = self.pending.remove(&id) else { return Ok(()) };
                match answer {
                    Ok(consumer) => self.expect(&consumer, owner).await?,
                    // In a churn, a producer may be gone by now.
                    Err(_) => self.crew.joins.borrow_mut().refused += 1,
                }
            }
        }
        Ok(())
    }

    /// A transport is gone, with all that was on it.
    fn lose(&mut self, notice: &Value) {
        self.crew.joins.borrow_mut().closed += 1;
        if notice["reason"] == SHARD_FAILED {
            self.hit = true;
            self.crew.recovery.note_hit(self.plan.place());
        }
        for path in [&mut self.sending, &mut self.receiving] {
            if let Some(Path { name, .. }) = path.take_if(|it| notice["transportId"] == it.id) {
                if self.hit {
                    self.crew.order(name, Order::Hit(name));
                }
                self.crew.order(name, Order::Remove(name));
            }
        }
    }

    async fn expect(
        &mut self,
        consumer: &Value,
        owner: Option<usize>,
    ) -> Result<(), protoo::Error> {
        if let (Some(Path { name, .. }), Some(mut spec)) =
            (&self.receiving, offers::stream(consumer))
        {
            if let Some(owner) = owner {
                let recovery = &self.crew.recovery;
                spec.came = recovery.await_media(self.plan.place(), owner, spec.video);
            }
            self.crew.order(*name, Order::AddStream(*name, spec));
        }
        if let (Some(spotlight), "simulcast") =
            (self.plan.spotlight, consumer["type"].as_str().unwrap_or_default())
        {
            let spatial = if owner == Some(spotlight) { LAYERS.len() - 1 } else { 0 };
            let layers = json!({ "consumerId": consumer["id"], "spatialLayer": spatial });
            self.client.start("setConsumerPreferredLayers", layers).await?;
        }
        Ok(())
    }
}

/// Sends checks until one is answered.
async fn check(
    socket: &tokio::net::UdpSocket,
    agent: &mut Agent,
    to: SocketAddr,
) -> Result<(), Failure> {
    let mut buffer = [0; 1500];
    for _ in 0..MAX_CHECKS {
        let request = agent.check()?;
        socket.send(&request).await?;
        let answered = async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                if ice::is_stun(&buffer[..len]) && agent.is_answer(&buffer[..len]) {
                    return std::io::Result::Ok(());
                }
            }
        };
        if let Ok(answered) = timeout(CHECK_INTERVAL, answered).await {
            return Ok(answered?);
        }
    }
    Err(Failure::Unreachable(to))
}

/// Random bytes, from the source that transaction ids come from.
pub fn random<const N: usize>() -> [u8; N] {
    let id = stun::agent::TransactionId::new().0;
    std::array::from_fn(|index| id[index % id.len()])
}
