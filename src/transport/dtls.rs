//! DTLS 1.2 (RFC 6347) with `dimpl`, and the SRTP keys that it exports (RFC 5764).

/// Our certificate and DTLS settings, shared by all transports of the process.
pub struct Identity {
    _todo: (),
}

impl Identity {
    /// A new self-signed ECDSA P-256 certificate.
    pub fn generate() -> Result<Self, GenerateError> {
        todo!()
    }

    /// The certificate's fingerprint (SHA-256), for signaling.
    pub fn fingerprint(&self) -> Fingerprint {
        todo!()
    }
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct GenerateError(String);

/// A certificate's hash (RFC 8122 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    // algorithm and bytes
    _todo: (),
}

impl Fingerprint {
    /// Parses ORTC's `{algorithm, value}`: `sha-256`, `sha-384` or `sha-512` and colon-separated hex.
    pub fn parse(algorithm: &str, value: &str) -> Option<Self> {
        let _ = (algorithm, value);
        None
    }

    /// ORTC's name of the algorithm, e.g. `sha-256`.
    pub fn algorithm(&self) -> &'static str {
        todo!()
    }

    /// Colon-separated upper-case hex.
    pub fn value(&self) -> String {
        todo!()
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
