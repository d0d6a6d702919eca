//! HTTP and WebSocket: REST, signaling, rooms, placement. Never sees a media packet.

pub mod specs;
