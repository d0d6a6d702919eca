//! A UDP relay that makes a good network bad, by a seeded profile, each direction by itself: limited rate
//! with a queue, delay, jitter, loss, bursts of loss, copies, reordering. It prints what it did.
//!
//! `line.rs` decides what becomes of each packet and when; it knows no socket and no clock. `relay.rs` is the
//! shell around it. The README beside this tells how browsers are put behind it.
//!
//! The lines are a library too: the load generator puts them between its peers and their sockets.
#![deny(missing_docs)]

pub mod bottleneck;
pub mod counters;
pub mod delays;
pub mod dice;
pub mod flows;
pub mod line;
pub mod lines;
pub mod profile;
pub mod relay;
pub mod report;
pub mod script;
