//! Rooms whose shards only write down what they are asked, and clients without a network.

use std::sync::mpsc;

use serde_json::{Value, json};

use crate::config::RoomLimits;
use crate::control::identity::Identity;
use crate::control::refusal::Refusal;
use crate::control::requests::DtlsFingerprint;
use crate::control::rooms::{Announced, Rooms};
use crate::control::session::{self, Caller, Line, Outgoing, SessionId};
use crate::shard::mailbox::{Command, ConsumerSpec, Event, Mailbox, ShardId, StatsReport, dtls};

pub const OPUS: &str = include_str!(
    "../../../tests/fixtures/browsers/chromium156-msc3.24.1-produce-opus-default.json"
);
pub const VP8: &str =
    include_str!("../../../tests/fixtures/browsers/chromium156-msc3.24.1-produce-vp8-single.json");
pub const CAPABILITIES: &str =
    include_str!("../../../tests/fixtures/browsers/chromium156-msc3.24.1-recvRtpCapabilities.json");
/// A SHA-256 fingerprint of nobody's certificate.
pub const FINGERPRINT: &str = "00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
                               10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

/// Messages that may wait for a client.
pub const QUEUE: usize = 1024;

pub struct Lab {
    pub rooms: Rooms,
    shards: Vec<mpsc::Receiver<Command>>,
    clients: u64,
}

pub struct Client {
    pub id: SessionId,
    pub line: Line,
    requests: u64,
    /// Notifications that came before a response.
    news: Vec<(&'static str, Value)>,
}

impl Lab {
    pub fn new(shards: u16) -> Self {
        let (mailboxes, shards) = (0..shards).map(mailbox).unzip();
        Self { rooms: rooms(mailboxes), shards, clients: 0 }
    }

    /// One shard, and clients that need a token.
    pub fn guarded(identity: Identity) -> Self {
        let mut lab = Self::new(1);
        lab.rooms.identity = identity;
        lab
    }

    pub fn limited(limits: RoomLimits) -> Self {
        let mut lab = Self::new(1);
        lab.rooms.limits = limits;
        lab
    }

    /// A shard that had failed works again; what it is asked from now on comes out of the receiver.
    pub fn restart(&mut self, shard: u16) -> mpsc::Receiver<Command> {
        let (mailbox, asked) = mailbox(shard);
        self.rooms.shard_restarted(mailbox);
        asked
    }

    pub fn connect(&mut self) -> Client {
        self.clients += 1;
        let (id, (link, line)) = (SessionId(self.clients), session::pair(QUEUE));
        self.rooms.open(id, link, Caller::default());
        Client { id, line, requests: 0, news: Vec::new() }
    }

    /// A client that has joined `room` as `peer`.
    pub fn join(&mut self, room: &str, peer: &str) -> Client {
        let mut client = self.connect();
        self.ask(&mut client, "joinRoom", json!({ "roomId": room, "peerId": peer })).unwrap();
        client
    }

    pub fn ask(
        &mut self,
        client: &mut Client,
        method: &str,
        data: Value,
    ) -> Result<Value, Refusal> {
        client.requests += 1;
        self.rooms.request(client.id, client.requests, method, data);
        loop {
            match *client.line.outgoing.try_recv().expect("no response") {
                Outgoing::Notification { method, data } => {
                    client.news.push((method, (*data).clone()))
                }
                Outgoing::Response { tag, result } => {
                    assert_eq!(tag, client.requests);
                    return result;
                }
            }
        }
    }

    /// Sends a request without waiting for its answer, and gives its tag.
    pub fn send(&mut self, client: &mut Client, method: &str, data: Value) -> u64 {
        client.requests += 1;
        self.rooms.request(client.id, client.requests, method, data);
        client.requests
    }

    /// A shard answers a stats call.
    pub fn answer(&mut self, shard: ShardId, token: u64, report: Option<StatsReport>) {
        self.rooms.shard_event(shard, Event::Stats { token, report: report.map(Box::new) });
    }

    /// The tokens of the stats calls that came to a shard since the last time.
    pub fn tokens(&mut self, shard: usize) -> Vec<u64> {
        let token = |command| match command {
            Command::Stats { token, .. } => Some(token),
            _ => None,
        };
        self.shards[shard].try_iter().filter_map(token).collect()
    }

    /// The status with which a request is refused.
    pub fn refusal(&mut self, client: &mut Client, method: &str, data: Value) -> Refusal {
        self.ask(client, method, data.clone()).expect_err(&format!("{method} {data} was accepted"))
    }

    pub fn transport(&mut self, client: &mut Client) -> String {
        text(&self.ask(client, "createWebRtcTransport", json!({})).unwrap()["id"])
    }

    pub fn produce(&mut self, client: &mut Client, fixture: &str) -> String {
        let transport = self.transport(client);
        let request = produce_request(&transport, fixture);
        text(&self.ask(client, "produce", request).unwrap()["id"])
    }

    /// Consumes on the client's consuming transport, and gives the whole answer.
    pub fn consume(&mut self, client: &mut Client, producer: &str) -> Value {
        self.ask(client, "consume", consume_request(producer)).unwrap()
    }

    /// What a shard was asked since the last time, in short.
    pub fn commands(&mut self, shard: usize) -> Vec<String> {
        self.shards[shard].try_iter().map(|command| shorthand(&command)).collect()
    }

    /// As [`Self::commands`], unabridged.
    pub fn raw_commands(&mut self, shard: usize) -> Vec<Command> {
        self.shards[shard].try_iter().collect()
    }

    pub fn forget_commands(&mut self) {
        self.shards.iter().for_each(|shard| shard.try_iter().for_each(drop));
    }
}

impl Client {
    /// The responses since the last time, by tag.
    pub fn responses(&mut self) -> Vec<(u64, Result<Value, Refusal>)> {
        let mut responses = Vec::new();
        while let Ok(outgoing) = self.line.outgoing.try_recv() {
            match *outgoing {
                Outgoing::Notification { method, data } => {
                    self.news.push((method, (*data).clone()))
                }
                Outgoing::Response { tag, result } => responses.push((tag, result)),
            }
        }
        responses
    }

    /// What the client was told since the last time.
    pub fn news(&mut self) -> Vec<(&'static str, Value)> {
        while let Ok(outgoing) = self.line.outgoing.try_recv() {
            match *outgoing {
                Outgoing::Notification { method, data } => {
                    self.news.push((method, (*data).clone()))
                }
                Outgoing::Response { tag, .. } => panic!("response {tag} was not asked for"),
            }
        }
        std::mem::take(&mut self.news)
    }
}

/// Ada, who sends, and what; Bob, who receives it, and as what. Nobody has news.
pub fn two(lab: &mut Lab, sent: &str) -> (Client, String, Client, String) {
    let mut ada = lab.join("r", "ada");
    let mut bob = lab.join("r", "bob");
    let producer = lab.produce(&mut ada, sent);
    lab.transport(&mut bob);
    let consumer = text(&lab.consume(&mut bob, &producer)["id"]);
    lab.forget_commands();
    ada.news();
    bob.news();
    (ada, producer, bob, consumer)
}

/// Ada sends on shard 0, Bob receives on shard 1: Ada, Bob, producer, consumer. Nobody has news.
pub fn two_shards(sent: &str) -> (Lab, Client, Client, String, String) {
    let mut lab = Lab::new(2);
    let (ada, producer, bob, consumer) = two(&mut lab, sent);
    (lab, ada, bob, producer, consumer)
}

pub fn mailbox(shard: u16) -> (Mailbox, mpsc::Receiver<Command>) {
    let (commands, asked) = mpsc::channel();
    let port = 10_000 + shard;
    (Mailbox::new(ShardId(shard), None, port, commands, Box::new(|| ())), asked)
}

/// Rooms in which everybody may do everything.
pub fn rooms(shards: Vec<Mailbox>) -> Rooms {
    Rooms::new(Identity::default(), RoomLimits::DEFAULT, announced(), shards)
}

fn announced() -> Announced {
    let fingerprint = DtlsFingerprint { algorithm: "sha-256".into(), value: FINGERPRINT.into() };
    Announced { address: "192.0.2.7".into(), fingerprint }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

pub fn fixture(fixture: &str) -> Value {
    serde_json::from_str(fixture).unwrap()
}

pub fn produce_request(transport: &str, recorded: &str) -> Value {
    let mut request = fixture(recorded);
    request["transportId"] = transport.into();
    request["appData"] = json!({ "source": "test" });
    request
}

pub fn consume_request(producer: &str) -> Value {
    json!({ "producerId": producer, "rtpCapabilities": fixture(CAPABILITIES) })
}

pub fn shorthand(command: &Command) -> String {
    match command {
        Command::AddTransport { id, .. } => format!("AddTransport {id}"),
        Command::AddPresetTransport { id, .. } => format!("AddPresetTransport {id}"),
        Command::ConnectTransport { id, peer: dtls::Peer { role, .. } } => {
            format!("ConnectTransport {id} {role:?}")
        }
        Command::RestartIce { id, .. } => format!("RestartIce {id}"),
        Command::RemoveTransport(id) => format!("RemoveTransport {id}"),
        Command::AddProducer(spec) => format!("AddProducer {}", spec.id),
        Command::AddReplica { producer, home } => format!("AddReplica {} {}", producer.id, home.0),
        Command::Lend { producer, to } => format!("Lend {producer} {}", to.0),
        Command::Withdraw { producer, from } => format!("Withdraw {producer} {}", from.0),
        Command::SetProducerPaused { id, paused } => format!("SetProducerPaused {id} {paused}"),
        Command::RemoveProducer(id) => format!("RemoveProducer {id}"),
        Command::AddConsumer(spec) => {
            let ConsumerSpec { id, producer, paused, .. } = &**spec;
            format!("AddConsumer {id} {producer} {paused}")
        }
        Command::SetConsumerPaused { id, paused } => format!("SetConsumerPaused {id} {paused}"),
        Command::RequestKeyFrame(id) => format!("RequestKeyFrame {id}"),
        Command::SetPreferredLayers { id, spatial, temporal } => {
            format!("SetPreferredLayers {id} {spatial} {temporal:?}")
        }
        Command::SetPriority { id, priority } => format!("SetPriority {id} {priority}"),
        Command::Stats { token, of } => format!("Stats {token} {of:?}"),
        Command::SubscribeLevels { room, interval } => {
            format!("SubscribeLevels {} {interval:?}", room.0)
        }
        Command::ForwardLoudest { room, count } => format!("ForwardLoudest {} {count:?}", room.0),
        Command::RemoveConsumer(id) => format!("RemoveConsumer {id}"),
        Command::Snapshot { token } => format!("Snapshot {token}"),
        Command::Shutdown => "Shutdown".to_owned(),
    }
}
