//! Shardcast: an SFU (selective forwarding unit) for Linux.
//!
//! Each participant's audio and video comes in once and goes out to everyone in the room who wants
//! it. The modules are laid out in the order of a datagram's journey:
//!
//! 1. [`shard`] owns the only threads, sockets, clock and `unsafe` code of the media path. A pinned
//!    thread receives a *drain* of datagrams and hands them to its room engine.
//! 2. [`wire`] turns bytes into checked views: which protocol is it (RFC 7983), and what does it say?
//! 3. [`transport`] is one peer's secured path: ICE-lite, DTLS, SRTP. RTP is opened in place, once.
//! 4. [`media`] knows one stream at a time: sequence rewriting, key frames, reception statistics.
//! 5. [`room`] knows who hears whom: it finds the producer by SSRC, its consumers, rewrites the
//!    header for each and seals the packet straight into the send arena.
//! 6. [`shard`] submits the arena.
//!
//! Beside that path, [`control`] serves REST and WebSocket signaling and never sees a media packet;
//! [`ortc`] negotiates RTP parameters as mediasoup-client speaks them; [`id`] holds the names that
//! all of them share; [`config`] the settings.
//!
//! Who may import whom is written in `ARCHITECTURE.md` and checked by `tests/rules`.
#![deny(unsafe_code, missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod config;
pub mod control;
pub mod id;
pub mod media;
pub mod ortc;
pub mod room;
pub mod shard;
pub mod transport;
pub mod wire;
