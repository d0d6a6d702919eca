//! ICE-lite (RFC 8445 §2.5): we answer checks and never send any.
//!
//! The peer is always controlling. Media goes to the address that it nominated last, so that a call
//! follows the peer from one network to another; before any nomination, to the first that passed a
//! check. Nothing that a stranger sends changes anything: only an authenticated check does.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::wire::stun::{self, Class, Message, Method, write};

/// Remembered addresses per transport, unless an operator says otherwise; the least recently confirmed one
/// makes room.
pub const MAX_REMOTES: usize = 8;
/// Silence after which the peer's consent has expired (RFC 7675 §5.1).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Characters of a random ufrag: 96 bits, so that no two transports of a process share one. RFC 8445
/// §5.3 asks for 24 bits.
const UFRAG_LEN: usize = 16;
/// Characters of a random password: 144 bits; RFC 8445 §5.3 asks for 128.
const PASSWORD_LEN: usize = 24;

/// Our half of the short-term credentials (RFC 8445 §5.3), made by control.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment, 4 to 256 characters: how a check finds its transport.
    pub ufrag: String,
    /// Password, 22 to 256 characters: the key of the integrity check.
    pub password: String,
}

impl Credentials {
    /// New credentials from the operating system's randomness.
    pub fn random() -> Self {
        Self { ufrag: random_text::<UFRAG_LEN>(), password: random_text::<PASSWORD_LEN>() }
    }
}

/// The password stays out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Our ufrag out of a binding request's USERNAME (`local:remote`, RFC 8445 §7.2.2), unauthenticated.
pub fn local_ufrag(datagram: &[u8]) -> Option<&[u8]> {
    let message = Message::new_checked(datagram).ok()?;
    let is_check = message.class() == Class::Request && message.method() == Method::BINDING;
    local_half(message.username().filter(|_| is_check)?)
}

/// One transport's side of ICE.
pub(super) struct Agent {
    local: Credentials,
    /// What a restart replaced; valid until a check with the new ones arrives, so that consent goes on
    /// while signaling carries them to the peer.
    previous: Option<Credentials>,
    max_remotes: usize,
    /// Addresses that had to make room, since this was last asked.
    displaced: u32,
    /// In no order; at most `max_remotes`.
    remotes: Vec<Remote>,
    selected: Option<SocketAddr>,
    generation: u32,
}

/// An address that passed an authenticated check.
struct Remote {
    addr: SocketAddr,
    confirmed: Instant,
}

impl Agent {
    /// An agent that nobody has reached yet.
    pub fn new(local: Credentials) -> Self {
        Self {
            local,
            previous: None,
            max_remotes: MAX_REMOTES,
            displaced: 0,
            remotes: Vec::new(),
            selected: None,
            generation: 0,
        }
    }

    /// So many addresses are remembered from now on; at least 2, since the selected one stays.
    pub fn set_max_remotes(&mut self, max_remotes: usize) {
        self.max_remotes = max_remotes.max(2);
    }

    /// How many addresses had to make room for others since the last call.
    pub fn take_displaced(&mut self) -> u32 {
        std::mem::take(&mut self.displaced)
    }

    /// As if the peer at `remote` had nominated it.
    pub fn preset(now: Instant, local: Credentials, remote: SocketAddr) -> Self {
        let mut agent = Self::new(local);
        agent.confirm(now, remote);
        agent.selected = Some(remote);
        agent
    }

    /// New credentials (RFC 8445 §9); addresses and consent stay.
    pub fn restart(&mut self, local: Credentials) {
        self.generation = self.generation.wrapping_add(1);
        let replaced = std::mem::replace(&mut self.local, local);
        // Of two restarts in a row, the peer still uses the credentials before the first.
        self.previous.get_or_insert(replaced);
    }

    /// Takes a STUN datagram and writes the answer; `None` if it counts for nothing.
    ///
    /// A request that is not authentic is not answered: whoever sent it cannot be told from someone
    /// who forges the address of a victim.
    pub fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        answer: &mut [u8],
    ) -> Option<usize> {
        let message = Message::new_checked(datagram).ok()?;
        if message.method() != Method::BINDING || message.fingerprint() == stun::Fingerprint::Wrong
        {
            return None;
        }
        match message.class() {
            // Never more bytes than came: whoever forges addresses gains nothing by it.
            Class::Request => self
                .check(now, from, &message, answer)
                .map(|len| if len <= datagram.len() { len } else { 0 }),
            // RFC 8445 §11: a keep-alive; it says nothing about consent.
            Class::Indication => Some(0),
            Class::Success | Class::Error => None,
        }
    }

    /// Where to send.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Addresses that passed a check and are remembered.
    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.remotes.iter().map(|remote| remote.addr)
    }

    /// The user names that checks may come with: ours, and before it the one that a restart replaced.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.previous.iter().chain([&self.local]).map(|own| own.ufrag.as_str())
    }

    /// Grows (and wraps) whenever [`Self::remotes`] or [`Self::ufrags`] change.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether `addr` passed a check.
    pub fn is_validated(&self, addr: SocketAddr) -> bool {
        self.remotes.iter().any(|remote| remote.addr == addr)
    }

    /// When [`Self::expire`] has something to do. Never before the first check: clients make
    /// transports in advance.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.remotes.iter().map(|remote| remote.confirmed + CONSENT_TIMEOUT).min()
    }

    /// Forgets addresses that were not confirmed for [`CONSENT_TIMEOUT`]; `true` if none is left.
    ///
    /// Consent is given per address (RFC 7675 §5.1): if the selected one lost it, the one confirmed
    /// last takes its place.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = self.remotes.len();
        self.remotes.retain(|remote| remote.confirmed + CONSENT_TIMEOUT > now);
        if self.remotes.len() == before {
            return false;
        }
        self.generation = self.generation.wrapping_add(1);
        if self.selected.is_some_and(|addr| !self.is_validated(addr)) {
            let last = self.remotes.iter().max_by_key(|remote| remote.confirmed);
            self.selected = last.map(|remote| remote.addr);
        }
        self.remotes.is_empty()
    }

    fn check(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &Message<'_>,
        answer: &mut [u8],
    ) -> Option<usize> {
        let ufrag = local_half(message.username()?)?;
        let is_current = ufrag == self.local.ufrag.as_bytes();
        let credentials = match &self.previous {
            _ if is_current => &self.local,
            Some(previous) if ufrag == previous.ufrag.as_bytes() => previous,
            _ => return None,
        };
        let key = credentials.password.as_bytes();
        if !message.verify_integrity(key) {
            return None;
        }
        let id = message.transaction_id();
        if let Some(code) = refusal(message) {
            return write::error(answer, id, code, message.unknown_required(), key);
        }
        let len = write::success(answer, id, from, key)?;
        if is_current && self.previous.take().is_some() {
            self.generation = self.generation.wrapping_add(1);
        }
        self.confirm(now, from);
        if message.use_candidate() || self.selected.is_none() {
            self.selected = Some(from);
        }
        Some(len)
    }

    /// Notes that `addr` passed a check just now.
    fn confirm(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.addr == addr) {
            remote.confirmed = now;
            return;
        }
        if self.remotes.len() >= self.max_remotes {
            self.displaced += 1;
            let selected = self.selected;
            let oldest = (self.remotes.iter().enumerate())
                .filter(|(_, remote)| Some(remote.addr) != selected)
                .min_by_key(|(_, remote)| remote.confirmed);
            if let Some((index, _)) = oldest {
                self.remotes.swap_remove(index);
            }
        }
        self.remotes.push(Remote { addr, confirmed: now });
        self.generation = self.generation.wrapping_add(1);
    }
}

/// Why an authentic check is refused, if it is.
fn refusal(message: &Message<'_>) -> Option<write::ErrorCode> {
    if message.unknown_required().next().is_some() {
        // RFC 8489 §6.3.1.
        return Some(write::ErrorCode::UnknownAttribute);
    }
    if message.ice_controlled().is_some() {
        // RFC 8445 §7.3.1.1: a lite agent cannot take the controlling role, so the peer must.
        return Some(write::ErrorCode::RoleConflict);
    }
    // RFC 8445 §7.1.1: every check has one.
    message.priority().is_none().then_some(write::ErrorCode::BadRequest)
}

fn local_half(username: &[u8]) -> Option<&[u8]> {
    let colon = username.iter().position(|&byte| byte == b':')?;
    Some(&username[..colon])
}

/// `N` random ice-chars (RFC 8445 §5.3); there are 64 of them, so six bits make one.
fn random_text<const N: usize>() -> String {
    const ICE_CHARS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("AWS-LC aborts where there is no randomness");
    bytes.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)])).collect()
}

#[cfg(test)]
mod tests;
