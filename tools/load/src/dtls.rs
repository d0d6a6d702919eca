//! The handshake as a client, with one of two libraries, and the keys that it leads to (RFC 5764 §4.2).
//!
//! `webrtc-dtls` is the independent one, and offers the profile that is wanted; it makes a few hundred
//! handshakes a second. `dimpl` makes thousands, but offers all profiles that it knows.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::digest;
use dimpl::{Dtls, DtlsCertificate, Output};
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout};
use webrtc_dtls::config::{Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::Certificate;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use webrtc_util_dtls::{Conn, KeyingMaterialExporter};

/// Longest handshake.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a flight is sent again first; browsers begin at 50 ms.
const FLIGHT: Duration = Duration::from_millis(100);
/// The largest datagram that a handshake brings.
const DATAGRAM: usize = 2048;

/// Protection profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
pub enum Profile {
    /// AEAD_AES_128_GCM
    #[value(name = "gcm128")]
    #[serde(rename = "gcm128")]
    Gcm128,
    /// AEAD_AES_256_GCM: what browsers get
    #[value(name = "gcm256")]
    #[serde(rename = "gcm256")]
    Gcm256,
    /// AES128_CM_HMAC_SHA1_80
    #[value(name = "sha1")]
    #[serde(rename = "sha1")]
    Sha1,
}

impl Profile {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcm128 => "AEAD_AES_128_GCM",
            Self::Gcm256 => "AEAD_AES_256_GCM",
            Self::Sha1 => "AES128_CM_HMAC_SHA1_80",
        }
    }

    fn srtp(self) -> ProtectionProfile {
        match self {
            Self::Gcm128 => ProtectionProfile::AeadAes128Gcm,
            Self::Gcm256 => ProtectionProfile::AeadAes256Gcm,
            Self::Sha1 => ProtectionProfile::Aes128CmHmacSha1_80,
        }
    }

    fn offered(self) -> SrtpProtectionProfile {
        match self {
            Self::Gcm128 => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Self::Gcm256 => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            Self::Sha1 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        }
    }
}

/// Which library shakes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// Independent of the server, slow; offers one profile
    Webrtc,
    /// Fast, for storms of joins; the server chooses the profile
    Dimpl,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `webrtc-dtls`
    #[error("DTLS: {0}")]
    Webrtc(#[from] webrtc_dtls::Error),
    /// `dimpl`
    #[error("DTLS: {0}")]
    Dimpl(String),
    /// The socket
    #[error("DTLS: {0}")]
    Io(#[from] std::io::Error),
    /// The server's certificate is not the one that signaling announced
    #[error("DTLS: the server's certificate has another fingerprint")]
    Fingerprint,
    /// No keys for SRTP
    #[error("DTLS: no SRTP profile in common, or unusable keys")]
    Profile,
    /// Too long
    #[error("DTLS: not done within {PATIENCE:?}")]
    Late,
}

/// The certificate that all simulated peers share.
pub struct Identity {
    webrtc: Certificate,
    dimpl: DtlsCertificate,
    config: Arc<dimpl::Config>,
}

impl Identity {
    /// New certificates, one for each library.
    pub fn generate() -> Result<Self, Error> {
        // `webrtc-dtls` takes the process's own, which is not clear where other programs of the workspace want
        // another. If there is one already, that will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::fmt::Display| Error::Dimpl(error.to_string());
        let dimpl = dimpl::certificate::generate_self_signed_certificate();
        let config = dimpl::Config::builder().flight_start_rto(FLIGHT).flight_retries(9).build();
        Ok(Self {
            webrtc: Certificate::generate_self_signed(["load".to_owned()])?,
            dimpl: dimpl.map_err(|error| failed(&error))?,
            config: Arc::new(config.map_err(|error| failed(&error))?),
        })
    }

    /// The fingerprint (SHA-256) to announce for `library`.
    pub fn fingerprint(&self, library: Library) -> String {
        match library {
            Library::Webrtc => fingerprint(&self.webrtc.certificate[0]),
            Library::Dimpl => fingerprint(&self.dimpl.certificate),
        }
    }
}

/// What a handshake led to.
pub struct Secured {
    /// Seals what the client sends.
    pub seal: Context,
    /// Opens what the server sends.
    pub open: Context,
    /// What both agreed on.
    pub profile: Profile,
}

/// Shakes hands over a connected socket with a server whose certificate has one of `fingerprints`
/// (algorithm and value).
pub async fn handshake(
    socket: UdpSocket,
    identity: &Identity,
    (library, profile): (Library, Profile),
    fingerprints: &[(String, String)],
) -> Result<Secured, Error> {
    let (material, profile) = timeout(PATIENCE, async {
        match library {
            Library::Webrtc => webrtc(socket, identity, profile, fingerprints).await,
            Library::Dimpl => dimpl(socket, identity, fingerprints).await,
        }
    })
    .await
    .map_err(|_| Error::Late)??;
    secured(&material, profile).ok_or(Error::Profile)
}

/// Client key, server key, client salt, server salt (RFC 5764 §4.2).
fn secured(material: &[u8], profile: Profile) -> Option<Secured> {
    let srtp = profile.srtp();
    let (key, salt) = (srtp.key_len(), srtp.salt_len());
    if material.len() < 2 * (key + salt) {
        return None;
    }
    let context = |side: usize| {
        let key_bytes = &material[side * key..][..key];
        let salt_bytes = &material[2 * key + side * salt..][..salt];
        Context::new(key_bytes, salt_bytes, srtp, None, None).ok()
    };
    Some(Secured { seal: context(0)?, open: context(1)?, profile })
}

async fn webrtc(
    socket: UdpSocket,
    identity: &Identity,
    profile: Profile,
    fingerprints: &[(String, String)],
) -> Result<(Vec<u8>, Profile), Error> {
    let config = Config {
        certificates: vec![identity.webrtc.clone()],
        srtp_protection_profiles: vec![profile.offered()],
        extended_master_secret: ExtendedMasterSecretType::Require,
        flight_interval: FLIGHT,
        // The certificate is bound by its fingerprint, compared below.
        insecure_skip_verify: true,
        ..Config::default()
    };
    let valve = Arc::new(Valve { socket, closed: AtomicBool::new(false) });
    let connection = DTLSConn::new(valve.clone(), config, true, None).await?;
    let state = connection.connection_state().await;
    // From here on the socket belongs to media: no goodbye, and nobody else reads it.
    valve.closed.store(true, Ordering::Release);
    let certificate = state.peer_certificates.first().ok_or(Error::Fingerprint)?;
    if !matches(certificate, fingerprints) {
        return Err(Error::Fingerprint);
    }
    if connection.selected_srtpprotection_profile() != profile.offered() {
        return Err(Error::Profile);
    }
    let len = 2 * (profile.srtp().key_len() + profile.srtp().salt_len());
    let exported = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], len).await;
    let material = exported.map_err(|_| Error::Profile)?;
    // Ends its tasks; what it sends goes nowhere.
    let _ = connection.close().await;
    Ok((material, profile))
}

/// Lets DTLS through until it is closed, then nothing.
struct Valve {
    socket: UdpSocket,
    closed: AtomicBool,
}

#[async_trait]
impl Conn for Valve {
    async fn connect(&self, _: SocketAddr) -> webrtc_util_dtls::Result<()> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> webrtc_util_dtls::Result<usize> {
        loop {
            // Looks before it reads: what is there when the valve closes stays for the worker.
            self.socket.readable().await?;
            if self.closed.load(Ordering::Acquire) {
                // For ever: the library would ask again and again after an error.
                return std::future::pending().await;
            }
            match self.socket.try_recv(buffer) {
                Ok(len) if is_dtls(&buffer[..len]) => return Ok(len),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> webrtc_util_dtls::Result<(usize, SocketAddr)> {
        Ok((self.recv(buffer).await?, self.socket.peer_addr()?))
    }

    async fn send(&self, datagram: &[u8]) -> webrtc_util_dtls::Result<usize> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(datagram.len());
        }
        Ok(self.socket.send(datagram).await?)
    }

    async fn send_to(&self, datagram: &[u8], _: SocketAddr) -> webrtc_util_dtls::Result<usize> {
        self.send(datagram).await
    }

    fn local_addr(&self) -> webrtc_util_dtls::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    async fn close(&self) -> webrtc_util_dtls::Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

async fn dimpl(
    socket: UdpSocket,
    identity: &Identity,
    fingerprints: &[(String, String)],
) -> Result<(Vec<u8>, Profile), Error> {
    let failed = |error: dimpl::Error| Error::Dimpl(error.to_string());
    let mut dtls = Dtls::new_12(identity.config.clone(), identity.dimpl.clone(), Instant::now());
    dtls.set_active(true);
    dtls.handle_timeout(Instant::now()).map_err(failed)?;
    let (mut buffer, mut keys, mut verified) = (vec![0; DATAGRAM], None, None);
    loop {
        let mut connected = false;
        let due = loop {
            match dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => drop(socket.send(datagram).await?),
                Output::PeerCert(certificate) => {
                    verified = Some(matches(certificate, fingerprints));
                }
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::Gcm128,
                        dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::Gcm256,
                        _ => Profile::Sha1,
                    };
                    keys = Some((material.to_vec(), profile));
                }
                Output::Connected => connected = true,
                Output::Timeout(due) => break due,
                _ => {}
            }
        };
        if verified == Some(false) {
            return Err(Error::Fingerprint);
        }
        if connected {
            return keys.filter(|_| verified.is_some()).ok_or(Error::Profile);
        }
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let len = received?;
                dtls.handle_timeout(Instant::now()).map_err(failed)?;
                if is_dtls(&buffer[..len]) {
                    dtls.handle_packet(&buffer[..len]).map_err(failed)?;
                }
            }
            () = sleep_until(due.into()) => dtls.handle_timeout(Instant::now()).map_err(failed)?,
        }
    }
}

/// Whether a datagram is DTLS (RFC 7983 §7).
fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..64).contains(first))
}

/// Colon-separated upper-case hex of a certificate's SHA-256 (RFC 8122 §5).
fn fingerprint(certificate: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn matches(certificate: &[u8], fingerprints: &[(String, String)]) -> bool {
    fingerprints.iter().any(|(algorithm, value)| {
        let algorithm = match &algorithm.to_ascii_lowercase()[..] {
            "sha-256" => &digest::SHA256,
            "sha-384" => &digest::SHA384,
            "sha-512" => &digest::SHA512,
            _ => return false,
        };
        hex(digest::digest(algorithm, certificate).as_ref()).eq_ignore_ascii_case(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_compared_by_their_algorithm() {
        let value = hex(digest::digest(&digest::SHA384, b"certificate").as_ref());
        let named = |name: &str| vec![(name.to_owned(), value.to_lowercase())];
        assert!(matches(b"certificate", &named("SHA-384")));
        assert!(!matches(b"certificate", &named("sha-256")));
        assert!(!matches(b"another", &named("sha-384")));
        assert!(!matches(b"certificate", &named("md5")));
        assert!(!matches(b"certificate", &[]));
    }

    /// Both libraries get the same keys out of a handshake with `dimpl` as the server, each for its side.
    #[tokio::test]
    async fn both_libraries_agree_with_a_server() {
        let identity = Identity::generate().expect("certificates");
        for (library, wanted) in [
            (Library::Webrtc, Profile::Gcm128),
            (Library::Webrtc, Profile::Sha1),
            (Library::Dimpl, Profile::Gcm256),
        ] {
            let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let client = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            server.connect(client.local_addr().expect("its own")).await.expect("connected");
            client.connect(server.local_addr().expect("its own")).await.expect("connected");
            let announced = [("sha-256".to_owned(), identity.fingerprint(Library::Dimpl))];
            let serve = serve(server, &identity);
            let join = handshake(client, &identity, (library, wanted), &announced);
            let (theirs, ours) = tokio::join!(serve, join);
            let mut ours = ours.unwrap_or_else(|error| panic!("{library:?} {wanted:?}: {error}"));
            assert_eq!(ours.profile, wanted);
            let mut theirs = secured(&theirs, wanted).expect("keys");
            let plain = [&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1][..], b"payload"].concat();
            // Their "seal" is the client's, as ours is.
            let sealed = ours.seal.encrypt_rtp(&plain).expect("sealed");
            let client_side = theirs.seal.encrypt_rtp(&plain).expect("sealed");
            assert_eq!(sealed, client_side);
            let sealed = theirs.open.encrypt_rtp(&plain).expect("sealed");
            assert_eq!(ours.open.decrypt_rtp(&sealed).expect("opened")[..], plain);
        }
    }

    /// Answers one handshake, and gives the keys. Goes on until the client, too, must be done.
    async fn serve(socket: UdpSocket, identity: &Identity) -> Vec<u8> {
        let config = identity.config.clone();
        let mut dtls = Dtls::new_12(config, identity.dimpl.clone(), Instant::now());
        dtls.set_active(false);
        let (mut buffer, mut keys, mut connected) = (vec![0; DATAGRAM], None, false);
        dtls.handle_timeout(Instant::now()).expect("a start");
        loop {
            loop {
                match dtls.poll_output(&mut buffer) {
                    Output::Packet(datagram) => drop(socket.send(datagram).await.expect("sent")),
                    Output::KeyingMaterial(material, _) => keys = Some(material.to_vec()),
                    Output::Connected => connected = true,
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
            if connected {
                return keys.expect("keys come first");
            }
            let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time");
            let len = len.expect("a datagram");
            dtls.handle_timeout(Instant::now()).expect("time goes on");
            dtls.handle_packet(&buffer[..len]).expect("sound DTLS");
        }
    }
}
