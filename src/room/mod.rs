//! Who hears whom, sans-IO: transports, producers, consumers, and the forwarding loop.
//!
//! One [`Engine`] per shard. It is fed drains of datagrams, parcels from other shards, commands and
//! the time; it writes sealed datagrams into an [`Outbox`]. It never reads a clock, never blocks,
//! never logs per packet, and shares nothing with another engine.
//!
//! A datagram enters in `inbound` ([`Engine::receive`]), finds its transport in `paths` and its
//! producer in `producer`, and leaves in `forward`, with the numbers that `consumer` gives it. RTCP
//! is read in `feedback` and written in `reports`; `commands` carries out what control asks. `faults` keeps
//! a panic from costing more than those whom it was about.

mod commands;
mod consumer;
mod counters;
mod equalise;
mod faults;
mod feedback;
mod figures;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod handshakes;
mod inbound;
mod journal;
mod limits;
mod line;
mod loudest;
mod pacer;
pub mod parcel;
mod paths;
mod payloads;
mod producer;
mod repair;
mod replay;
mod reports;
mod sent;
pub mod snapshot;
mod speakers;
pub mod spec;
mod timers;
mod wants;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::id::{ConsumerId, ProducerId, RoomKey, ShardId, Ssrc, TransportId};
use crate::media::allocation::Workspace;
use crate::transport::{self, dtls};
use crate::wire::MAX_DATAGRAM;
use crate::wire::seq::SeqNo;
use consumer::Consumer;
pub use counters::{Asked, Counters, Drop};
pub use faults::Spot;
use faults::Work;
use forward::Opened;
use handshakes::Handshakes;
pub use limits::Limits;
use limits::Strangers;
use parcel::Parcel;
use paths::{Directory, Path};
use producer::Producer;
use snapshot::{Flows, HANDSHAKE_BOUNDS};
use speakers::Voices;
use spec::Event;
use timers::{Timer, Timers};

/// One received datagram, lent by the shard for the length of a drain.
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// When it reached the machine: the kernel's timestamp where the backend has one.
    pub received_at: Instant,
    /// Its bytes, opened in place.
    pub bytes: &'a mut [u8],
}

/// Where an engine puts what leaves the shard. Implemented by the shard's backends and the simulator.
pub trait Outbox {
    /// [`DATAGRAM_ROOM`] bytes for one datagram; `None` when nothing
    /// more can be taken, a drop that the caller counts. Calling it again without [`Self::send`]
    /// offers the same room.
    fn datagram(&mut self) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of the room that [`Self::datagram`] gave last.
    fn send(&mut self, len: usize, to: SocketAddr);

    /// Lets `fill` write a parcel for another shard in place; `false` when its queue is full, a drop
    /// that the caller counts.
    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool;
}

/// Room that an [`Outbox`] offers for one datagram, in bytes: the longest one received, and what sealing it
/// anew may add (tag, nonce, trailer, header extensions of our own).
pub const DATAGRAM_ROOM: usize = MAX_DATAGRAM + 64;

/// One shard's rooms.
pub struct Engine {
    shard: ShardId,
    identity: Arc<dtls::Identity>,
    /// Rooms whose home this shard is, and in which somebody can be heard.
    voices: FxHashMap<RoomKey, Voices>,
    paths: Slab<Path>,
    producers: Slab<Producer>,
    consumers: Slab<Consumer>,
    directory: Directory,
    path_keys: FxHashMap<TransportId, usize>,
    producer_keys: FxHashMap<ProducerId, usize>,
    consumer_keys: FxHashMap<ConsumerId, usize>,
    timers: Timers,
    handshakes: Handshakes,
    events: VecDeque<Event>,
    counters: Counters,
    /// What transports carried that are gone.
    departed: Flows,
    work: Work,
    limits: Limits,
    strangers: Strangers,
    /// The opened packets of the current drain; kept for its capacity.
    opened: Vec<Opened>,
    /// The numbers of one request for lost packets; kept for its capacity.
    lost: Vec<SeqNo>,
    /// Scratch space of [`Self::allot`].
    sharing: Workspace<Ssrc>,
}

impl Engine {
    /// An engine without transports.
    pub fn new(shard: ShardId, identity: Arc<dtls::Identity>) -> Self {
        Self {
            shard,
            identity,
            voices: FxHashMap::default(),
            paths: Slab::new(),
            producers: Slab::new(),
            consumers: Slab::new(),
            directory: Directory::default(),
            path_keys: FxHashMap::default(),
            producer_keys: FxHashMap::default(),
            consumer_keys: FxHashMap::default(),
            timers: Timers::default(),
            handshakes: Handshakes::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            departed: Flows::default(),
            work: Work::default(),
            limits: Limits::default(),
            strangers: Strangers::new(Limits::default().stranger_checks),
            opened: Vec::new(),
            lost: Vec::new(),
            sharing: Workspace::default(),
        }
    }

    /// These hold for transports and producers that are made from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.strangers = Strangers::new(limits.stranger_checks);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.handshakes.next().into_iter().chain(self.timers.next()).min()
    }

    /// Does what has come due, and one step of the handshakes that wait.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Outbox) {
        self.guarded(now, out, |engine, out| engine.advance_handshakes(now, out));
        let mut is_done = false;
        // Behind a deadline that led to a panic, work goes on with the next.
        while !is_done {
            self.guarded(now, out, |engine, out| {
                while let Some(timer) = engine.timers.pop(now) {
                    engine.work.about = engine.about_timer(timer);
                    engine.work.pass(Spot::Timer);
                    engine.meet(now, timer, out);
                }
                is_done = true;
            });
        }
    }

    fn meet(&mut self, now: Instant, timer: Timer, out: &mut impl Outbox) {
        match timer {
            Timer::Path(key) => {
                if let Some(path) = self.paths.get_mut(key) {
                    path.transport.handle_timeout(now);
                    self.settle(now, key, out);
                }
            }
            Timer::Feedback(key) => self.send_transport_feedback(now, key, out),
            Timer::Reports(key) => self.send_reports(now, key, out),
            Timer::Loudness(key) => self.send_loudness(now, key, out),
            Timer::Speaker(room) => self.judge(now, room),
            Timer::Levels(room) => self.tell_levels(now, room),
            Timer::Repair(key) => self.ask_for_lost(now, key, out),
            Timer::KeyFrame(key) => self.repeat_key_frame_requests(now, key, out),
            Timer::Replay(key) => self.replay(now, key, out),
            Timer::HandOver(key) => self.hand_over_histories(now, key, out),
            Timer::History(key) => self.expire_histories(now, key),
            Timer::Allot(key) => self.allot_and_ask(now, key, out),
            Timer::Line(key) => self.mind_line(now, key, out),
            Timer::Pace(key) => self.pace(now, key, out),
            Timer::Wants(key) => self.weigh_wants(now, key, out),
        }
    }

    /// The next thing to tell control.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was done and refused so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Behind every call into a transport: sends what it wants sent, hears what it has to tell, and notes
    /// when it wants to be woken.
    fn settle(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        self.transmit(key, out);
        while let Some(event) = self.paths[key].transport.poll_event() {
            match event {
                transport::Event::Connected => {
                    self.events.push_back(Event::TransportConnected(self.paths[key].id));
                    self.note_handshake(now, key);
                    self.begin_media(now, key, out);
                }
                transport::Event::Closed(reason) => {
                    let id = self.paths[key].id;
                    self.events.push_back(Event::TransportClosed { id, reason });
                    self.counters.close(reason);
                    self.remove_path(now, key, out);
                    return;
                }
            }
        }
        // Addresses lose consent, and old user names end with an ICE restart.
        self.directory.follow(key, &mut self.paths[key]);
        if let Some(at) = self.paths[key].transport.next_timeout() {
            self.timers.schedule(Timer::Path(key), at);
        }
    }

    /// Counts the handshake that has ended well; one that has happened elsewhere had no begin.
    fn note_handshake(&mut self, now: Instant, key: usize) {
        let Some(began) = self.paths[key].handshake_began else { return };
        let took = now.saturating_duration_since(began).as_millis() as u64;
        self.counters.handshake_times.observe(&HANDSHAKE_BOUNDS, took);
    }

    /// Sends what a transport wants sent.
    fn transmit(&mut self, key: usize, out: &mut impl Outbox) {
        let transport = &mut self.paths[key].transport;
        while let Some(buffer) = out.datagram() {
            let Some(len) = transport.poll_transmit(buffer) else { break };
            let Some(to) = transport.remote() else { break };
            out.send(len, to);
        }
    }
}
