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
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock;
use crate::dtls::{self, Identity, Profile};
use crate::ice::{self, Agent, Remote};
use crate::offers::{self, Encoding, Producing};
use crate::plan::{Leaving, PeerPlan};
use crate::protoo::{self, Client, News};
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
            if joins.reasons.len() < MAX_REASONS {
                joins.reasons.push(failure.to_string());
            }
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
        _ = peer.listen() => crew.joins.borrow_mut().closed += 1,
    }
    for name in [peer.sending, peer.receiving].into_iter().flatten() {
        // At the end the workers have summed up, and need their transports for it.
        if !*crew.over.borrow() {
            crew.order(name, Order::Remove(name));
        }
    }
    // How a peer leaves by itself; at the end all are polite.
    match plan.leaving {
        Leaving::Abruptly if !*crew.over.borrow() => drop(peer.client),
        Leaving::Silently if !*crew.over.borrow() => {
            crew.silent.borrow_mut().push(peer.client);
        }
        _ => peer.client.close().await,
    }
}

struct Peer {
    crew: Rc<Crew>,
    plan: PeerPlan,
    client: Client,
    began: u64,
    capabilities: Value,
    sending: Option<Name>,
    receiving: Option<Name>,
    receiving_id: String,
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
            receiving_id: String::new(),
            pending: HashMap::new(),
        };
        if peer.plan.video || peer.plan.audio.is_some() {
            let (name, id) = peer.connect(true).await?;
            peer.sending = Some(name);
            peer.produce(name, &id).await?;
        }
        if peer.plan.receives {
            let (name, id) = peer.connect(false).await?;
            (peer.receiving, peer.receiving_id) = (Some(name), id);
            for other in present["peers"].as_array().into_iter().flatten() {
                for producer in other["producers"].as_array().into_iter().flatten() {
                    peer.consume(&producer["producerId"], &other["peerId"]).await?;
                }
            }
            while !peer.pending.is_empty() {
                let news = peer.client.news().await?;
                peer.take(news).await?;
            }
        }
        Ok(peer)
    }

    /// Goes on consuming, until the connection ends.
    async fn listen(&mut self) -> protoo::Error {
        loop {
            let news = match self.client.news().await {
                Ok(news) => news,
                Err(error) => return error,
            };
            if let Err(error) = self.take(news).await {
                return error;
            }
        }
    }

    /// Makes a transport, and connects it: ICE, DTLS.
    async fn connect(&mut self, producing: bool) -> Result<(Name, String), Failure> {
        let wanted = json!({ "producing": producing, "consuming": !producing });
        let answer = self.client.ask("createWebRtcTransport", wanted).await?;
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
            began: self.began,
            ssrc: random as u32,
        };
        crew.order(name, Order::Add(name, Box::new(new)));
        Ok((name, created.id))
    }

    async fn produce(&mut self, name: Name, transport: &str) -> Result<(), Failure> {
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

    async fn consume(&mut self, producer: &Value, owner: &Value) -> Result<(), protoo::Error> {
        let request = json!({
            "producerId": producer,
            "rtpCapabilities": self.capabilities,
            "transportId": self.receiving_id,
        });
        let id = self.client.start("consume", request).await?;
        let number = owner.as_str().and_then(|owner| owner.strip_prefix('p'));
        self.pending.insert(id, number.and_then(|number| number.parse().ok()));
        Ok(())
    }

    async fn take(&mut self, news: News) -> Result<(), protoo::Error> {
        match news {
            News::Notice(method, data) => match &method[..] {
                "newProducer" if self.receiving.is_some() => {
                    self.consume(&data["producerId"], &data["peerId"]).await?;
                }
                "transportClosed" => self.crew.joins.borrow_mut().closed += 1,
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

    async fn expect(
        &mut self,
        consumer: &Value,
        owner: Option<usize>,
    ) -> Result<(), protoo::Error> {
        if let (Some(name), Some(spec)) = (self.receiving, offers::stream(consumer)) {
            self.crew.order(name, Order::AddStream(name, spec));
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
