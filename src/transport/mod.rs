//! One peer's secured path, sans-IO: ICE-lite, DTLS, SRTP.
//!
//! A [`Transport`] is fed datagrams and the time, and asked for datagrams to send, events and its next
//! deadline. It never sees a socket, never reads a clock, and never looks into media.
//!
//! ICE comes first: DTLS is listened to only from an address that passed an authenticated check. The
//! handshake yields the keys once; they are never replaced in the life of a transport.

pub mod dtls;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod ice;
pub mod srtp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::id::named;
use crate::wire::seq::SeqNo;

/// What a [`Transport`] has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// DTLS is done, the fingerprint matched, keys are installed: media may flow.
    Connected,
    /// The path is dead; the transport answers nothing any more.
    Closed(CloseReason),
}

named!(
    /// Why a transport died.
    CloseReason {
        /// No authenticated STUN check for [`ice::CONSENT_TIMEOUT`] (RFC 7675 §5.1).
        ConsentExpired = "consentExpired",
        /// The peer closed DTLS.
        DtlsClosed = "dtlsClosed",
        /// The handshake failed or timed out.
        DtlsFailed = "dtlsFailed",
        /// The peer's certificate is not the one that signaling announced.
        FingerprintMismatch = "fingerprintMismatch",
        /// Handling what the peer sent, or writing to it, failed in a way that was not foreseen.
        Fault = "internalError",
    }
);

/// Why a datagram was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// STUN that is malformed, not a binding request, or fails its integrity check.
    BadStun,
    /// DTLS from an address that passed no authenticated STUN check, or before `connect` and not
    /// worth keeping.
    EarlyDtls,
    /// A ClientHello beyond [`Limits::hellos`].
    TooManyHellos,
    /// DTLS that is malformed, or that ended the handshake.
    BadDtls,
    /// SRTP or SRTCP before keys are there.
    NoKeys,
    /// SRTP or SRTCP refused: forged, replayed, malformed.
    Srtp(srtp::Error),
    /// Anything for a transport that is closed.
    Closed,
}

/// How much a peer may make its transport do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses that are remembered; at least 2.
    pub addresses: usize,
    /// Datagrams that begin with a ClientHello.
    pub hellos: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { addresses: ice::MAX_REMOTES, hellos: dtls::MAX_HELLOS }
    }
}

/// One peer's secured path.
pub struct Transport {
    /// ClientHellos that it may still be sent.
    hellos_left: u32,
    ice: ice::Agent,
    identity: Arc<dtls::Identity>,
    dtls: Dtls,
    media: Option<Box<Media>>,
    state: State,
    /// [`Event::Connected`] is not told yet.
    owes_connected: bool,
}

/// How far DTLS is.
enum Dtls {
    /// Nothing is known of the peer yet.
    Waiting(dtls::EarlyHellos),
    /// The handshake.
    Running(Box<dtls::Endpoint>),
    /// What stays after it, to send its last flight again and to notice the peer's goodbye.
    Done(Box<dtls::Session>),
    /// The handshake has happened elsewhere, or everything is over.
    Absent,
}

/// Both directions of SRTP, boxed: most of a transport's life has them, the table of transports is
/// small without them.
struct Media {
    receiver: srtp::Receiver,
    sender: srtp::Sender,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reason is still to be told.
    Closing(CloseReason),
    Closed,
}

impl Transport {
    /// A path that awaits STUN checks for `local` and does DTLS with `identity`.
    pub fn new(local: ice::Credentials, identity: Arc<dtls::Identity>) -> Self {
        Self {
            hellos_left: dtls::MAX_HELLOS,
            ice: ice::Agent::new(local),
            identity,
            dtls: Dtls::Waiting(dtls::EarlyHellos::default()),
            media: None,
            state: State::Open,
            owes_connected: false,
        }
    }

    /// The same path with other limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.hellos_left = limits.hellos;
        self.ice.set_max_remotes(limits.addresses);
        self
    }

    /// A path whose handshake has happened elsewhere: for the simulator and benchmarks. Behaves as
    /// if ICE had selected `remote` and DTLS had exported `keys` (and tells [`Event::Connected`]);
    /// consent still expires.
    pub fn preset(
        now: Instant,
        local: ice::Credentials,
        identity: Arc<dtls::Identity>,
        remote: SocketAddr,
        keys: &srtp::Keys,
    ) -> Self {
        let mut transport = Self::new(local.clone(), identity);
        transport.ice = ice::Agent::preset(now, local, remote);
        transport.dtls = Dtls::Absent;
        transport.install(keys);
        transport
    }

    /// Signaling told the peer's DTLS role and fingerprints: DTLS may begin. A second call is ignored.
    pub fn connect(&mut self, now: Instant, peer: dtls::Peer) {
        let Dtls::Waiting(early) = &mut self.dtls else {
            return;
        };
        let early = std::mem::take(early);
        let is_passive = peer.role == dtls::Role::Passive;
        let endpoint = dtls::Endpoint::new(now, &self.identity, peer);
        self.dtls = Dtls::Running(Box::new(endpoint));
        self.start_dtls(now);
        for datagram in early.into_datagrams().filter(|_| is_passive) {
            // A hello that ends the handshake has closed the transport, which says why.
            let _ = self.advance_dtls(|endpoint| endpoint.receive(now, &datagram));
        }
    }

    /// New local credentials (RFC 8445 §9); the selected address stays until a check moves it. The old
    /// ones serve until a check comes with the new.
    pub fn restart_ice(&mut self, local: ice::Credentials) {
        self.ice.restart(local);
    }

    /// Closes the path from our side: leaves the DTLS goodbye for [`Self::poll_transmit`], and tells
    /// no event.
    pub fn close(&mut self) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Closed;
        self.media = None;
        match &mut self.dtls {
            Dtls::Done(session) => session.close(),
            // Before there are keys there is nothing to say goodbye to.
            Dtls::Waiting(_) | Dtls::Running(_) | Dtls::Absent => self.dtls = Dtls::Absent,
        }
    }

    /// Drops the keys and the handshake at once and tells nobody: for a transport whose state cannot be trusted
    /// any more.
    pub fn abandon(&mut self) {
        self.state = State::Closed;
        self.dtls = Dtls::Absent;
        self.media = None;
        self.owes_connected = false;
    }

    /// Takes one STUN datagram; writes the answer for `from` into `answer`, returning its length.
    ///
    /// The caller found this transport by the user name (see [`ice::local_ufrag`]). `Ok(0)` means
    /// there is nothing to answer (an indication). `answer` must hold [`crate::wire::MAX_DATAGRAM`] bytes.
    pub fn receive_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        answer: &mut [u8],
    ) -> Result<usize, Rejected> {
        self.check_open()?;
        let len = self.ice.receive(now, from, datagram, answer).ok_or(Rejected::BadStun)?;
        self.start_dtls(now);
        Ok(len)
    }

    /// Takes one DTLS datagram from an address that passed a STUN check.
    ///
    /// A ClientHello that comes before [`Self::connect`] is kept for it, within bounds.
    pub fn receive_dtls(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Rejected> {
        self.check_open()?;
        if !self.ice.is_validated(from) {
            return Err(Rejected::EarlyDtls);
        }
        if !dtls::is_well_formed(datagram) {
            return Err(Rejected::BadDtls);
        }
        if dtls::is_client_hello(datagram) {
            self.hellos_left = self.hellos_left.checked_sub(1).ok_or(Rejected::TooManyHellos)?;
        }
        match &mut self.dtls {
            Dtls::Waiting(early) => {
                if early.keep(datagram) {
                    Ok(())
                } else {
                    Err(Rejected::EarlyDtls)
                }
            }
            Dtls::Running(_) => self.advance_dtls(|endpoint| endpoint.receive(now, datagram)),
            Dtls::Done(session) => {
                if session.receive(now, datagram) {
                    self.fail(CloseReason::DtlsClosed);
                }
                Ok(())
            }
            Dtls::Absent => Err(Rejected::BadDtls),
        }
    }

    /// Opens one SRTP packet in place.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<srtp::Opened, Rejected> {
        self.media()?.receiver.open_rtp(packet).map_err(Rejected::Srtp)
    }

    /// Opens one SRTCP compound in place; returns the plaintext's length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Rejected> {
        self.media()?.receiver.open_rtcp(packet).map_err(Rejected::Srtp)
    }

    /// Seals the RTP packet `buffer[..len]`, whose extended sequence number is `seq`, in place;
    /// returns the sealed length. `None` before keys are there or if `buffer` is too small.
    pub fn seal_rtp(&self, seq: SeqNo, buffer: &mut [u8], len: usize) -> Option<usize> {
        self.media.as_ref()?.sender.seal_rtp(seq, buffer, len)
    }

    /// Seals the RTCP compound `buffer[..len]` in place; returns the sealed length.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        self.media.as_mut()?.sender.seal_rtcp(buffer, len)
    }

    /// Where to send, once a STUN check has selected an address.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.ice.selected()
    }

    /// Addresses that passed an authenticated check and are still remembered, at most
    /// [`ice::MAX_REMOTES`]. The room's address table follows this list.
    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ice.remotes()
    }

    /// How many addresses had to make room for others since the last call: see [`Limits::addresses`].
    pub fn take_displaced(&mut self) -> u32 {
        self.ice.take_displaced()
    }

    /// Our user names that checks may come with: one, or two between an ICE restart and the first
    /// check that knows of it. The room's table of user names follows this list.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.ice.ufrags()
    }

    /// A number that changes whenever [`Self::remotes`] or [`Self::ufrags`] do, so that most checks
    /// need no comparison of lists.
    pub fn routes_generation(&self) -> u32 {
        self.ice.generation()
    }

    /// Whether media may flow.
    pub fn is_connected(&self) -> bool {
        self.media.is_some()
    }

    /// The next DTLS datagram to send to [`Self::remote`], written into `buffer`; `None` when there is none.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.remote()?;
        match &mut self.dtls {
            Dtls::Running(endpoint) => endpoint.poll_transmit(buffer),
            Dtls::Done(session) => session.poll_transmit(buffer),
            Dtls::Waiting(_) | Dtls::Absent => None,
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.owes_connected) {
            return Some(Event::Connected);
        }
        let State::Closing(reason) = self.state else {
            return None;
        };
        self.state = State::Closed;
        Some(Event::Closed(reason))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.state != State::Open {
            return None;
        }
        let handshake = match &self.dtls {
            Dtls::Running(endpoint) => endpoint.next_timeout(),
            Dtls::Waiting(_) | Dtls::Done(_) | Dtls::Absent => None,
        };
        self.ice.next_timeout().into_iter().chain(handshake).min()
    }

    /// Retransmissions, handshake deadline, consent.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state != State::Open {
            return;
        }
        if self.ice.expire(now) {
            self.fail(CloseReason::ConsentExpired);
            return;
        }
        // A handshake that timed out has closed the transport, which says why.
        let _ = self.advance_dtls(|endpoint| endpoint.handle_timeout(now));
    }

    /// The active side says hello as soon as there is somebody to say it to.
    fn start_dtls(&mut self, now: Instant) {
        if self.remote().is_some() {
            // Nothing has come from the peer, so nothing can be refused.
            let _ = self.advance_dtls(|endpoint| endpoint.start(now));
        }
    }

    /// Lets the endpoint do something and draws the consequences.
    fn advance_dtls(
        &mut self,
        step: impl FnOnce(&mut dtls::Endpoint) -> dtls::Progress,
    ) -> Result<(), Rejected> {
        let Dtls::Running(endpoint) = &mut self.dtls else {
            return Ok(());
        };
        match step(endpoint) {
            dtls::Progress::None => Ok(()),
            dtls::Progress::Connected(keys, session) => {
                self.dtls = Dtls::Done(session);
                self.install(&keys);
                Ok(())
            }
            dtls::Progress::Closed(reason) => {
                self.fail(reason);
                if reason == CloseReason::DtlsClosed { Ok(()) } else { Err(Rejected::BadDtls) }
            }
        }
    }

    fn install(&mut self, keys: &srtp::Keys) {
        let media = Media { receiver: srtp::Receiver::new(keys), sender: srtp::Sender::new(keys) };
        self.media = Some(Box::new(media));
        self.owes_connected = true;
    }

    /// The path is dead: its keys and its handshake are dropped at once.
    fn fail(&mut self, reason: CloseReason) {
        self.state = State::Closing(reason);
        self.dtls = Dtls::Absent;
        self.media = None;
    }

    fn check_open(&self) -> Result<(), Rejected> {
        if self.state == State::Open { Ok(()) } else { Err(Rejected::Closed) }
    }

    fn media(&mut self) -> Result<&mut Media, Rejected> {
        self.check_open()?;
        self.media.as_deref_mut().ok_or(Rejected::NoKeys)
    }
}

#[cfg(test)]
mod tests;
