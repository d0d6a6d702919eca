//! One peer's secured path, sans-IO: ICE-lite, DTLS, SRTP.
//!
//! A [`Transport`] is fed datagrams and the time, and asked for datagrams to send, events and its next
//! deadline. It never sees a socket, never reads a clock, and never looks into media.

pub mod dtls;
pub mod ice;
pub mod srtp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::wire::seq::SeqNo;

/// What a [`Transport`] has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// DTLS is done, the fingerprint matched, keys are installed: media may flow.
    Connected,
    /// The path is dead; the transport answers nothing any more.
    Closed(CloseReason),
}

/// Why a transport died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No authenticated STUN check for [`ice::CONSENT_TIMEOUT`] (RFC 7675 §5.1).
    ConsentExpired,
    /// The peer closed DTLS.
    DtlsClosed,
    /// The handshake failed or timed out.
    DtlsFailed,
    /// The peer's certificate is not the one that signaling announced.
    FingerprintMismatch,
}

/// Why a datagram was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// STUN that is malformed, not a binding request, or fails its integrity check.
    BadStun,
    /// DTLS from an address that passed no authenticated STUN check, or before `connect`.
    EarlyDtls,
    /// DTLS that the handshake refused.
    BadDtls,
    /// SRTP or SRTCP before keys are there.
    NoKeys,
    /// SRTP or SRTCP refused: forged, replayed, malformed.
    Srtp(srtp::Error),
}

/// One peer's secured path.
pub struct Transport {
    _todo: (),
}

impl Transport {
    /// A path that awaits STUN checks for `local` and does DTLS with `identity`.
    pub fn new(now: Instant, local: ice::Credentials, identity: Arc<dtls::Identity>) -> Self {
        let _ = (now, local, identity);
        todo!()
    }

    /// A path whose handshake has happened elsewhere: for the simulator and benchmarks. Behaves as
    /// if ICE had selected `remote` and DTLS had exported `keys`; consent still expires.
    pub fn preset(
        now: Instant,
        local: ice::Credentials,
        identity: Arc<dtls::Identity>,
        remote: SocketAddr,
        keys: &srtp::Keys,
    ) -> Self {
        let _ = (now, local, identity, remote, keys);
        todo!()
    }

    /// Signaling told the peer's DTLS role and fingerprints: DTLS may begin. A second call is ignored.
    pub fn connect(&mut self, now: Instant, peer: dtls::Peer) {
        let _ = (now, peer);
        todo!()
    }

    /// New local credentials (RFC 8445 §9); the selected address stays until a check moves it.
    pub fn restart_ice(&mut self, now: Instant, local: ice::Credentials) {
        let _ = (now, local);
        todo!()
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
        let _ = (now, from, datagram, answer);
        todo!()
    }

    /// Takes one DTLS datagram from an address that passed a STUN check.
    pub fn receive_dtls(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Rejected> {
        let _ = (now, from, datagram);
        todo!()
    }

    /// Opens one SRTP packet in place.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<srtp::Opened, Rejected> {
        let _ = packet;
        todo!()
    }

    /// Opens one SRTCP compound in place; returns the plaintext's length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Rejected> {
        let _ = packet;
        todo!()
    }

    /// Seals the RTP packet `buffer[..len]`, whose extended sequence number is `seq`, in place;
    /// returns the sealed length. `None` before keys are there or if `buffer` is too small.
    pub fn seal_rtp(&self, seq: SeqNo, buffer: &mut [u8], len: usize) -> Option<usize> {
        let _ = (seq, buffer, len);
        todo!()
    }

    /// Seals the RTCP compound `buffer[..len]` in place; returns the sealed length.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let _ = (buffer, len);
        todo!()
    }

    /// Where to send, once a STUN check has selected an address.
    pub fn remote(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// Addresses that passed an authenticated check and are still remembered, at most
    /// [`ice::MAX_REMOTES`]. The room's address table follows this list.
    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        std::iter::empty()
    }

    /// Whether media may flow.
    pub fn is_connected(&self) -> bool {
        todo!()
    }

    /// The next DTLS datagram to send to [`Self::remote`], written into `buffer`; `None` when there is none.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let _ = buffer;
        todo!()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Retransmissions, handshake deadline, consent.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
}
