//! What may leave for whom: kept beside the engines, by simpler means.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::id::{Codec, Ssrc};
use crate::transport::srtp::{self, Keys, Receiver};
use crate::wire::demux::{Kind, classify};
use crate::wire::rtcp::{Compound, Packet};
use crate::wire::rtp::Header;
use crate::wire::seq::SeqNo;

/// Bytes behind every payload that say which producer it is of.
pub const LABEL_LEN: usize = 4;

/// The label of a producer's payloads.
pub fn label(producer: usize) -> [u8; LABEL_LEN] {
    let index = producer as u8;
    [index, b'S', !index, b'R']
}

/// A peer, as it sees the server.
#[derive(Default)]
struct Peer {
    is_alive: bool,
    /// It can open what the server seals for it; without keys it must be sent no media at all.
    receiver: Option<Receiver>,
    /// Addresses that it has proven to be its own.
    addresses: HashSet<SocketAddr>,
    /// The SSRCs that it sends with, retransmissions included.
    own: HashSet<Ssrc>,
    /// What it was sent under each SSRC: the newest number, and the bytes of each.
    sent: HashMap<Ssrc, (SeqNo, HashMap<SeqNo, Vec<u8>>)>,
}

struct Producer {
    codec: Codec,
    is_alive: bool,
    is_paused: bool,
}

struct Consumer {
    peer: usize,
    producer: usize,
    ssrc: Ssrc,
    rtx: Option<Ssrc>,
    is_alive: bool,
    is_paused: bool,
}

/// All that is to be known for judging what the engines send.
#[derive(Default)]
pub struct Watch {
    peers: Vec<Peer>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

impl Watch {
    /// A peer has come; `keys` as the server holds them, or none yet.
    pub fn add_peer(&mut self, keys: Option<&Keys>) {
        let receiver = keys.map(|keys| Receiver::new(&keys.swapped()));
        self.peers.push(Peer { is_alive: true, receiver, ..Peer::default() });
    }

    /// A peer's check from `address` was authentic.
    pub fn checked(&mut self, peer: usize, address: SocketAddr) {
        self.peers[peer].addresses.insert(address);
    }

    pub fn add_producer(&mut self, peer: usize, codec: Codec, ssrcs: impl Iterator<Item = Ssrc>) {
        self.peers[peer].own.extend(ssrcs);
        let is_alive = self.peers[peer].is_alive;
        self.producers.push(Producer { codec, is_alive, is_paused: false });
    }

    pub fn add_consumer(&mut self, peer: usize, producer: usize, ssrc: Ssrc, rtx: Option<Ssrc>) {
        let is_alive = self.peers[peer].is_alive && self.producers[producer].is_alive;
        self.consumers.push(Consumer { peer, producer, ssrc, rtx, is_alive, is_paused: false });
    }

    pub fn pause_producer(&mut self, producer: usize, is_paused: bool) {
        self.producers[producer].is_paused = is_paused;
    }

    pub fn pause_consumer(&mut self, consumer: usize, is_paused: bool) {
        self.consumers[consumer].is_paused = is_paused;
    }

    pub fn remove_consumer(&mut self, consumer: usize) {
        self.consumers[consumer].is_alive = false;
    }

    pub fn remove_producer(&mut self, producer: usize) {
        self.producers[producer].is_alive = false;
        let own = self.consumers.iter_mut().filter(|consumer| consumer.producer == producer);
        own.for_each(|consumer| consumer.is_alive = false);
    }

    /// A peer's transport is gone. What other shards keep of its producers goes when control says so.
    pub fn remove_peer(&mut self, peer: usize) {
        self.peers[peer].is_alive = false;
        let own = self.consumers.iter_mut().filter(|consumer| consumer.peer == peer);
        own.for_each(|consumer| consumer.is_alive = false);
    }

    pub fn is_alive(&self, peer: usize) -> bool {
        self.peers[peer].is_alive
    }

    /// Judges one datagram that leaves an engine.
    ///
    /// # Panics
    /// When it must not leave.
    pub fn check(&mut self, to: SocketAddr, datagram: &[u8]) {
        let is_known = self.peers.iter().any(|peer| peer.addresses.contains(&to));
        assert!(is_known, "a stranger was sent something");
        match classify(datagram) {
            Kind::Rtp => self.check_rtp(to, datagram),
            Kind::Rtcp => self.check_rtcp(to, datagram),
            Kind::Stun | Kind::Dtls => {}
            Kind::Unknown => panic!("a datagram of no known kind"),
        }
    }

    fn check_rtp(&mut self, to: SocketAddr, datagram: &[u8]) {
        let header = Header::parse(datagram).expect("a header of our own");
        let ssrc = header.ssrc;
        let owner = |c: &&Consumer| {
            self.peers[c.peer].addresses.contains(&to) && (c.ssrc == ssrc || c.rtx == Some(ssrc))
        };
        let consumer = self.consumers.iter().find(owner).expect("whoever gets it has consumed it");
        let producer = &self.producers[consumer.producer];
        assert!(consumer.is_alive, "{ssrc:?} goes on after its end");
        let is_paused = consumer.is_paused || producer.is_paused;
        assert!(!is_paused || consumer.rtx == Some(ssrc), "{ssrc:?} goes on in a pause");
        let peer = &mut self.peers[consumer.peer];
        let first = SeqNo(header.sequence.into());
        let (newest, numbers) = peer.sent.entry(ssrc).or_insert_with(|| (first, HashMap::new()));
        let seq = newest.nearest(header.sequence);
        *newest = (*newest).max(seq);
        if let Some(before) = numbers.insert(seq, datagram.to_vec()) {
            // RFC 3711 §9.1: two packets under one number break the cipher.
            assert!(
                producer.codec == Codec::Opus && before == datagram,
                "{seq:?} of {ssrc:?} again"
            );
            return;
        }
        let mut packet = datagram.to_vec();
        let receiver = peer.receiver.as_mut().expect("no media without keys");
        let opened = match receiver.open_rtp(&mut packet) {
            Ok(opened) => opened,
            Err(srtp::Error::Replayed) => return,
            Err(error) => panic!("sealed for somebody else: {error:?}"),
        };
        let payload = opened.header.payload(&packet[..opened.len]).expect("honest padding");
        if let Some(&[index, b'S', mirrored, b'R']) = payload.last_chunk()
            && index == !mirrored
        {
            assert_eq!(usize::from(index), consumer.producer, "another producer's payload");
        }
    }

    fn check_rtcp(&mut self, to: SocketAddr, datagram: &[u8]) {
        let is_for = |peer: &&mut Peer| peer.addresses.contains(&to) && peer.receiver.is_some();
        let mut packet = datagram.to_vec();
        // An address may have been another peer's before.
        let opened = self.peers.iter_mut().filter(is_for).find_map(|peer| {
            packet.copy_from_slice(datagram);
            let len = peer.receiver.as_mut()?.open_rtcp(&mut packet).ok()?;
            Some((&*peer, len))
        });
        let Some((peer, len)) = opened else { panic!("sealed for nobody there") };
        for packet in Compound::parse(&packet[..len]).expect("a compound of our own") {
            let wish = match packet.expect("a packet of our own") {
                Packet::Nack(nack) => nack.media,
                Packet::PictureLoss(loss) => loss.media,
                _ => continue,
            };
            assert!(peer.own.contains(&wish), "asked of a peer that does not send it");
        }
    }
}
