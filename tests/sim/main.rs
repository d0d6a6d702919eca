//! The simulator: engines, peers and a seeded network under a virtual clock, without sockets.
//!
//! A run follows from its seed, which a failure prints. Keys are preset; the handshake, whose randomness
//! has no seed, is tested with the transports.

mod bandwidth;
mod descriptors;
mod forwarding;
mod histories;
mod hostile;
mod loudest;
mod media;
mod network;
mod peer;
mod random;
mod replays;
mod wants;
mod world;
