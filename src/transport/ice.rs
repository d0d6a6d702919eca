//! ICE-lite (RFC 8445 §2.5): we answer checks and never send any.

use std::time::Duration;

/// Remembered addresses per transport; the least recently confirmed one makes room.
pub const MAX_REMOTES: usize = 8;
/// Silence after which the peer's consent has expired (RFC 7675 §5.1).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Our half of the short-term credentials (RFC 8445 §5.3), made by control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment, 4 to 256 characters: how a check finds its transport.
    pub ufrag: String,
    /// Password, 22 to 256 characters: the key of the integrity check.
    pub password: String,
}

/// Our ufrag out of a binding request's USERNAME (`local:remote`, RFC 8445 §7.2.2), unauthenticated.
pub fn local_ufrag(datagram: &[u8]) -> Option<&[u8]> {
    let _ = datagram;
    None
}
