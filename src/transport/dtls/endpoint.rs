//! The handshake of one transport.

use std::collections::VecDeque;
use std::time::Instant;

use dimpl::{Dtls, Output, SrtpProfile};

use super::session::Session;
use super::suites::{self, Opener};
use super::{Fingerprint, Identity, MAX_OUTGOING, MTU, Peer, Role, framing};
use crate::transport::CloseReason;
use crate::transport::srtp::{Keys, Profile};
use crate::wire::MAX_DATAGRAM;

/// Datagrams with a ClientHello that are kept until signaling has told who the peer is: one hello in
/// two parts, and a second copy of both.
const MAX_EARLY_HELLOS: usize = 4;

/// Largest record that the handshake can hand us, in bytes: a certificate comes in a message.
const OUTPUT_LEN: usize = super::MAX_MESSAGE_LEN;

/// What came before `connect`: a fast client's hello, so that it need not wait for its own
/// retransmission. Bounded, and only from addresses that passed a check.
#[derive(Default)]
pub struct EarlyHellos {
    datagrams: Vec<Box<[u8]>>,
}

impl EarlyHellos {
    /// Keeps a well-formed `datagram`; `false` if it is no hello or there is no room.
    pub fn keep(&mut self, datagram: &[u8]) -> bool {
        let fits = self.datagrams.len() < MAX_EARLY_HELLOS && datagram.len() <= MAX_DATAGRAM;
        if !fits || !framing::is_client_hello(datagram) {
            return false;
        }
        self.datagrams.push(datagram.into());
        true
    }

    /// What was kept, in order of arrival.
    pub fn into_datagrams(self) -> impl Iterator<Item = Box<[u8]>> {
        self.datagrams.into_iter()
    }
}

/// What a call into the handshake has led to.
pub enum Progress {
    /// Nothing to tell.
    None,
    /// The peer is who signaling said it is; these are the keys, and what takes the endpoint's place.
    Connected(Box<Keys>, Box<Session>),
    /// It is over. The endpoint is not to be used any more.
    Closed(CloseReason),
}

/// One side of a DTLS association until the handshake is done.
pub struct Endpoint {
    dtls: Dtls,
    role: Role,
    fingerprints: Vec<Fingerprint>,
    /// Records on their way out, each a datagram of up to [`MTU`] bytes.
    outgoing: VecDeque<Box<[u8]>>,
    timeout: Option<Instant>,
    has_started: bool,
    is_verified: bool,
}

impl Endpoint {
    /// An endpoint that waits for [`Self::start`].
    pub fn new(now: Instant, identity: &Identity, peer: Peer) -> Self {
        let config = identity.config.clone();
        let mut dtls = Dtls::new_12(config, identity.certificate.clone(), now);
        dtls.set_active(peer.role == Role::Active);
        Self {
            dtls,
            role: peer.role,
            fingerprints: peer.fingerprints,
            outgoing: VecDeque::new(),
            timeout: None,
            has_started: false,
            is_verified: false,
        }
    }

    /// There is an address to send to: the active side says hello. Later calls do nothing.
    pub fn start(&mut self, now: Instant) -> Progress {
        if self.has_started {
            return Progress::None;
        }
        self.has_started = true;
        self.advance(now)
    }

    /// Takes a well-formed datagram.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Progress {
        self.has_started = true;
        // `dimpl` takes the time with this call only, and needs it before its first packet.
        let taken = self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(datagram));
        let opener = suites::take_opener();
        if taken.is_err() {
            return Progress::Closed(CloseReason::DtlsFailed);
        }
        self.collect(now, opener)
    }

    /// Sends again what was lost, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) -> Progress {
        match self.timeout {
            Some(due) if due <= now => self.advance(now),
            _ => Progress::None,
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// The next datagram to send, written into `buffer`.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let datagram = self.outgoing.pop_front()?;
        buffer.get_mut(..datagram.len())?.copy_from_slice(&datagram);
        Some(datagram.len())
    }

    fn advance(&mut self, now: Instant) -> Progress {
        if self.dtls.handle_timeout(now).is_err() {
            return Progress::Closed(CloseReason::DtlsFailed);
        }
        self.collect(now, None)
    }

    /// Takes all that the handshake has to say. Its order: the certificate before the keys, and both
    /// before the records of our last flight; so nothing leaves towards a peer that is not verified.
    fn collect(&mut self, now: Instant, opener: Option<Opener>) -> Progress {
        let (mut keys, mut is_connected, mut flight) = (None, false, Vec::new());
        let mut buffer = [0; OUTPUT_LEN];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) if is_connected => flight.extend_from_slice(datagram),
                Output::Packet(datagram) => {
                    // What finds no room is sent again by the retransmission timer.
                    if self.outgoing.len() < MAX_OUTGOING && datagram.len() <= MTU {
                        self.outgoing.push_back(datagram.into());
                    }
                }
                Output::PeerCert(certificate) => {
                    if !self.fingerprints.iter().any(|own| own.matches(certificate)) {
                        return Progress::Closed(CloseReason::FingerprintMismatch);
                    }
                    self.is_verified = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    keys = srtp_profile(profile)
                        .and_then(|p| Keys::from_dtls(p, &material, self.role == Role::Active));
                }
                Output::Connected => is_connected = true,
                Output::CloseNotify => return Progress::Closed(CloseReason::DtlsClosed),
                // SCTP, which we do not speak, or a record that we could not have asked for.
                Output::ApplicationData(_) => {}
                Output::Timeout(due) => {
                    self.timeout = Some(due);
                    break;
                }
                _ => return Progress::Closed(CloseReason::DtlsFailed),
            }
        }
        match (keys, opener) {
            (None, _) if !is_connected => Progress::None,
            (Some(keys), Some(opener)) if is_connected && self.is_verified => {
                let goodbye = self.goodbye();
                let session = Session::new(now, opener, &flight, &goodbye);
                Progress::Connected(Box::new(keys), Box::new(session))
            }
            // No certificate, or no profile in common: neither is a call.
            _ => Progress::Closed(CloseReason::DtlsFailed),
        }
    }

    /// The record that tells the peer that we go (RFC 5246 §7.2.1), sealed ahead of time. Nothing can be sealed
    /// after it.
    fn goodbye(&mut self) -> Vec<u8> {
        let mut buffer = [0; OUTPUT_LEN];
        let closed = self.dtls.close().is_ok();
        match self.dtls.poll_output(&mut buffer) {
            Output::Packet(datagram) if closed => datagram.to_vec(),
            _ => Vec::new(),
        }
    }
}

fn srtp_profile(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmHmacSha1_80),
        _ => None,
    }
}
