//! DTLS 1.2 (RFC 6347) with `dimpl`, and the SRTP keys that it exports (RFC 5764).
//!
//! 1.2 and not 1.3: there a lost final ACK leaves Chromium waiting until it gives up.

mod endpoint;
mod framing;
mod session;
mod suites;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use dimpl::DtlsCertificate;

pub(super) use endpoint::{EarlyHellos, Endpoint, Progress};
pub use framing::MAX_MESSAGE_LEN;
pub(super) use framing::{is_client_hello, is_well_formed};
pub(super) use session::Session;

/// Time from the first hello to finished; mediasoup's and the Jitsi bridge's value too.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest datagram that we send, in bytes: passes tunnels, as browsers' own DTLS does.
pub const MTU: usize = 1200;

/// Wait before a flight is sent again; doubled each time. RFC 6347 §4.2.4.1 advises 1 s for unknown
/// networks and allows less for real-time media; mediasoup begins at 100 ms, browsers at 50.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(100);
/// Doublings of that wait which reach beyond [`HANDSHAKE_TIMEOUT`], so that the latter decides.
const RETRANSMISSIONS: usize = 10;
/// Datagrams with handshake messages that came too early or in parts. A client's largest flight
/// (certificate to finished, a message or less per datagram) takes about 8, three copies of it 24.
const MAX_WAITING: usize = 30;
/// Datagrams with a ClientHello that a transport may be sent. A client repeats one in two parts, 50 ms apart
/// and then ever more seldom, some 10 times before [`HANDSHAKE_TIMEOUT`]; and a renegotiation, which nobody
/// needs, begins with one too.
pub const MAX_HELLOS: u32 = 40;
/// Datagrams of ours that wait to be sent: our largest flight takes 2 or 3, copies of it included.
const MAX_OUTGOING: usize = 10;

/// Our certificate and DTLS settings, shared by all transports of the process.
pub struct Identity {
    certificate: DtlsCertificate,
    config: Arc<dimpl::Config>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A new self-signed ECDSA P-256 certificate.
    pub fn generate() -> Result<Self, GenerateError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| GenerateError(error.to_string()))?;
        let config = dimpl::Config::builder()
            .with_crypto_provider(suites::provider())
            .mtu(MTU)
            .max_queue_rx(MAX_WAITING)
            .max_queue_tx(MAX_OUTGOING)
            .require_client_certificate(true)
            // The cookie proves that a client's address is its own (RFC 6347 §4.2.1). The STUN check
            // before it has proven more; so the round trip is saved.
            .use_server_cookie(false)
            .flight_start_rto(FIRST_RETRANSMISSION)
            .flight_retries(RETRANSMISSIONS)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(|error| GenerateError(error.to_string()))?;
        let fingerprint = Fingerprint::of(Algorithm::Sha256, &certificate.certificate);
        Ok(Self { certificate, config: Arc::new(config), fingerprint })
    }

    /// The certificate's fingerprint (SHA-256), for signaling.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct GenerateError(String);

/// A certificate's hash (RFC 8122 §5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    algorithm: Algorithm,
    /// The hash, filled up with zeros.
    bytes: [u8; MAX_HASH_LEN],
}

/// Bytes of the longest hash.
const MAX_HASH_LEN: usize = 64;

/// The hashes that are still safe, of those in RFC 8122 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl Fingerprint {
    /// Parses ORTC's `{algorithm, value}`: `sha-256`, `sha-384` or `sha-512` and colon-separated hex.
    pub fn parse(algorithm: &str, value: &str) -> Option<Self> {
        let algorithm =
            Algorithm::ALL.into_iter().find(|own| own.name().eq_ignore_ascii_case(algorithm))?;
        if value.len() != 3 * algorithm.len() - 1 {
            return None;
        }
        let mut bytes = [0; MAX_HASH_LEN];
        for (byte, pair) in bytes.iter_mut().zip(value.split(':')) {
            let is_pair = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = is_pair.then(|| u8::from_str_radix(pair, 16).ok())??;
        }
        Some(Self { algorithm, bytes })
    }

    /// ORTC's name of the algorithm, e.g. `sha-256`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Colon-separated upper-case hex.
    pub fn value(&self) -> String {
        let pairs: Vec<String> =
            self.bytes[..self.algorithm.len()].iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    fn of(algorithm: Algorithm, certificate: &[u8]) -> Self {
        let function = match algorithm {
            Algorithm::Sha256 => &digest::SHA256,
            Algorithm::Sha384 => &digest::SHA384,
            Algorithm::Sha512 => &digest::SHA512,
        };
        let mut bytes = [0; MAX_HASH_LEN];
        bytes[..algorithm.len()].copy_from_slice(digest::digest(function, certificate).as_ref());
        Self { algorithm, bytes }
    }

    /// Whether this is the hash of `certificate` (DER).
    fn matches(&self, certificate: &[u8]) -> bool {
        *self == Self::of(self.algorithm, certificate)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.value())
    }
}

/// Which side we take in the handshake (RFC 5763 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We send the ClientHello.
    Active,
    /// We wait for it.
    Passive,
}

/// What signaling said about the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The side that *we* take.
    pub role: Role,
    /// At least one of these must be the hash of the peer's certificate.
    pub fingerprints: Vec<Fingerprint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_fingerprint_is_our_certificates() {
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint();
        assert_eq!(fingerprint.algorithm(), "sha-256");
        assert_eq!(fingerprint.value(), identity.certificate.fingerprint_str());
        assert!(fingerprint.matches(&identity.certificate.certificate));
        assert!(!fingerprint.matches(b"another certificate"));
    }

    #[test]
    fn every_algorithm_survives_signaling() {
        for algorithm in Algorithm::ALL {
            let fingerprint = Fingerprint::of(algorithm, b"certificate");
            let value = fingerprint.value();
            assert_eq!(Fingerprint::parse(fingerprint.algorithm(), &value), Some(fingerprint));
            let lower = value.to_lowercase();
            assert_eq!(Fingerprint::parse(fingerprint.algorithm(), &lower), Some(fingerprint));
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let value = Fingerprint::of(Algorithm::Sha256, b"certificate").value();
        assert_eq!(Fingerprint::parse("sha-1", &value), None);
        assert_eq!(Fingerprint::parse("sha-512", &value), None);
        assert_eq!(Fingerprint::parse("sha-256", ""), None);
        assert_eq!(Fingerprint::parse("sha-256", &value.replace(':', " ")), None);
        assert_eq!(Fingerprint::parse("sha-256", &value[1..]), None);
        assert_eq!(Fingerprint::parse("sha-256", &format!("+1{}", &value[2..])), None);
        assert_eq!(Fingerprint::parse("sha-256", &format!("é{}", &value[2..])), None);
        assert_eq!(Fingerprint::parse("sha-256", &":".repeat(95)), None);
    }
}
