//! The control thread with fake shards: what clients are told, and what shards are asked.

mod admin;
mod authorization;
mod failures;
mod http;
pub(super) mod lab;
mod limits;
mod quality;
mod rooms;
mod streams;
