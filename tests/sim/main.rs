//! The simulator: engines, peers and a seeded network under a virtual clock, without sockets.
//!
//! A run follows from its seed, which a failure prints. Keys are preset; the handshake, whose randomness
//! has no seed, is tested with the transports.

mod bandwidth;
mod decoders;
mod descriptors;
mod faults;
mod forwarding;
mod histories;
mod hostile;
mod hostile_rtcp;
mod known_failures;
mod layers;
mod limits;
mod loudest;
mod media;
mod network;
mod newcomer;
mod peer;
mod random;
mod replays;
mod snapshots;
mod streams;
mod time;
mod view;
mod wants;
mod world;

use shardcast::wire;
