//! The same work by a whole shard, with the load's peers as its transports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shardcast::id::MediaKind;
use shardcast::shard::mailbox::dtls::Identity;
use shardcast::shard::mailbox::{Command, ShardEvent};
use shardcast::shard::{Backend, Limits, Shards, ShardsConfig, start};
use shardcast::transport::srtp::Profile;

use crate::load::{Answer, Scenario, Target, Write};
use crate::rig::{
    Receipt, Reporter, Stream, add_consumer, add_producer, add_transport, sink_ssrc, source_ssrc,
};

/// Longest wait for the shard's end.
const PATIENCE: Duration = Duration::from_secs(5);
const PROFILE: Profile = Profile::AeadAes128Gcm;

/// A running shard.
pub struct Shard {
    shards: Shards,
    pub target: Target,
    pub tid: i32,
}

impl Shard {
    pub fn start(scenario: Scenario, backend: Backend, twcc: bool, peers: &[SocketAddr]) -> Self {
        let bind = Ipv4Addr::LOCALHOST.into();
        let (ports, limits) = (20_000..=30_000, Limits::default());
        let config = ShardsConfig { workers: 1, ports, bind, backend, limits };
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let mut shards = start(&config, identity).expect("a shard");
        let mailbox = &shards.mailboxes[0];
        for (peer, address) in peers.iter().enumerate() {
            mailbox.send(add_transport(peer, *address, PROFILE));
        }
        for sender in scenario.senders() {
            let room = (sender / scenario.peers) as u64;
            mailbox.send(add_producer(sender, room, kind(scenario)));
            for receiver in scenario.receivers(sender) {
                mailbox.send(add_consumer(sender, receiver, kind(scenario), twcc));
            }
        }
        // Behind its answer all of them are there: nobody's first packets come out of a history.
        mailbox.send(Command::Snapshot { token: 0 });
        while !matches!(shards.events.blocking_recv(), Some(ShardEvent::Snapshot { .. }) | None) {}
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, mailbox.port));
        let target = Target { media: address, feedback: address };
        Self { tid: tid_of("shard-0"), target, shards }
    }

    pub fn end(self) {
        self.shards.threads.shutdown(PATIENCE).expect("the shard ended well");
    }
}

/// The newest thread of this name.
fn tid_of(name: &str) -> i32 {
    let threads = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let tids = threads.filter_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    tids.max().expect("a shard's thread")
}

fn kind(scenario: Scenario) -> MediaKind {
    if scenario.video { MediaKind::Video } else { MediaKind::Audio }
}

/// Writes the senders' packets as their browsers would.
pub fn writer(scenario: Scenario) -> Write {
    let stream = |peer| Stream::new(peer, PROFILE, kind(scenario), scenario.interval);
    let mut streams: Vec<_> = (0..scenario.total()).map(stream).collect();
    Box::new(move |sender, index, room| {
        let (first, last) = (index == 0, index + 1 == scenario.burst);
        streams[sender].write(first, last, scenario.len_of(index), room)
    })
}

/// Receivers who say what arrived, ten times a second.
struct Receivers {
    kind: MediaKind,
    peers: Vec<(Receipt, Reporter)>,
}

/// Transport-wide feedback of all peers.
pub fn answers(scenario: Scenario) -> Box<dyn Answer> {
    let kind = kind(scenario);
    let peer = |peer| {
        let watched = sink_ssrc(peer / scenario.peers * scenario.peers, kind);
        (Receipt::new(watched), Reporter::new(peer, PROFILE))
    };
    Box::new(Receivers { kind, peers: (0..scenario.total()).map(peer).collect() })
}

impl Answer for Receivers {
    fn packet(&mut self, peer: usize, packet: &[u8], ticks: i64) {
        self.peers[peer].0.packet(packet, ticks);
    }

    fn report(&mut self, peer: usize, room: &mut [u8]) -> Option<usize> {
        let (receipt, reporter) = &mut self.peers[peer];
        let own = source_ssrc(peer, self.kind);
        receipt.has_news().then(|| reporter.write(|compound| receipt.report(own, compound), room))
    }
}
