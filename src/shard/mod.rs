//! The only threads, sockets, clock and `unsafe` of the media path.

pub mod mailbox;
