//! The whole server from outside: the real binary over loopback, its REST calls, its signaling, its start
//! and its end. Where time matters, the control thread runs in the test with a shorter ping.

mod checks;
mod client;
mod exhaustion;
mod exposition;
mod faults;
mod footprint;
mod identity;
mod leaving;
mod limits;
mod metrics;
mod pings;
mod process;
mod rest;
mod sandbox;
mod seccomp;
mod signaling;
mod socketio;
mod start;
mod tls;
