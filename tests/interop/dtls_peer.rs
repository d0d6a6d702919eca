//! Handshakes with `webrtc-dtls` over loopback UDP, as client and as server; then the keys that both
//! sides exported must fit each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use shardcast::transport::srtp::{Keys, Profile, Receiver, Sender};
use shardcast::transport::{CloseReason, Event, Transport, dtls, ice};
use shardcast::wire::MAX_DATAGRAM;
use shardcast::wire::seq::SeqNo;
use shardcast::wire::stun::{TransactionId, write};
use tokio::net::UdpSocket;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::Certificate;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util_dtls::KeyingMaterialExporter;

/// Nothing here takes more than a few milliseconds; a deadline for a test that would hang.
const DEADLINE: Duration = Duration::from_secs(20);

const PROFILES: [(SrtpProtectionProfile, Profile); 3] = [
    (SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm, Profile::AeadAes256Gcm),
    (SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, Profile::AeadAes128Gcm),
    (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, Profile::Aes128CmHmacSha1_80),
];

/// Our transport behind a socket, with the one loop that a shard would run for it.
struct Server {
    socket: UdpSocket,
    transport: Transport,
    peer: SocketAddr,
}

impl Server {
    /// A transport that was reached by a check from `peer` and told about it.
    fn new(identity: &Arc<dtls::Identity>, socket: UdpSocket, peer: SocketAddr) -> Self {
        let now = Instant::now();
        let credentials = ice::Credentials::random();
        let mut transport = Transport::new(credentials.clone(), identity.clone());
        let (mut check, mut answer) = ([0; 256], [0; MAX_DATAGRAM]);
        let username = format!("{}:peer", credentials.ufrag);
        let request = write::BindingRequest {
            transaction_id: TransactionId([1; 12]),
            username: username.as_bytes(),
            priority: 1,
            role: write::Role::Controlling(1),
            use_candidate: true,
        };
        let len = write::request(&mut check, &request, credentials.password.as_bytes()).unwrap();
        transport.receive_stun(now, peer, &check[..len], &mut answer).unwrap();
        Self { socket, transport, peer }
    }

    /// Serves until the transport has an event to tell.
    async fn run(&mut self) -> Event {
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            while let Some(len) = self.transport.poll_transmit(&mut buffer) {
                self.socket.send_to(&buffer[..len], self.peer).await.unwrap();
            }
            if let Some(event) = self.transport.poll_event() {
                return event;
            }
            let wake = self.transport.next_timeout().expect("consent has a deadline");
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (len, from) = received.unwrap();
                    // What is refused shows in the event.
                    let _ = self.transport.receive_dtls(Instant::now(), from, &buffer[..len]);
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    self.transport.handle_timeout(Instant::now());
                }
            }
        }
    }
}

fn their_config(certificate: Certificate, profiles: &[SrtpProtectionProfile]) -> Config {
    // Two are compiled in, theirs and ours, and they take the process's own. One that another test chose will do.
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    Config {
        certificates: vec![certificate],
        srtp_protection_profiles: profiles.to_vec(),
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        // The certificate is bound by its fingerprint, which the test compares itself.
        insecure_skip_verify: true,
        ..Config::default()
    }
}

fn fingerprint(certificate: &[u8]) -> dtls::Fingerprint {
    let hash = digest::digest(&digest::SHA256, certificate);
    let pairs: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    dtls::Fingerprint::parse("sha-256", &pairs.join(":")).unwrap()
}

/// What takes part in a handshake in which we take `role`.
struct Parties {
    server: Server,
    identity: Arc<dtls::Identity>,
    their_socket: Arc<UdpSocket>,
    their_certificate: Certificate,
}

async fn parties(role: dtls::Role) -> Parties {
    let identity = Arc::new(dtls::Identity::generate().unwrap());
    let ours = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let theirs = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    theirs.connect(ours.local_addr().unwrap()).await.unwrap();
    let their_certificate = Certificate::generate_self_signed(["peer".to_owned()]).unwrap();
    let fingerprints = vec![fingerprint(&their_certificate.certificate[0])];
    let mut server = Server::new(&identity, ours, theirs.local_addr().unwrap());
    server.transport.connect(Instant::now(), dtls::Peer { role, fingerprints });
    Parties { server, identity, their_socket: Arc::new(theirs), their_certificate }
}

/// A handshake in which we take `role` and they offer `profiles`; both ends of it when connected.
async fn handshake(
    role: dtls::Role,
    profiles: &[SrtpProtectionProfile],
) -> (Server, DTLSConn, Arc<dtls::Identity>) {
    let Parties { mut server, identity, their_socket, their_certificate } = parties(role).await;
    let config = their_config(their_certificate, profiles);
    let they_are_client = role == dtls::Role::Passive;
    let peer = DTLSConn::new(their_socket, config, they_are_client, None);
    let (event, peer) = tokio::time::timeout(DEADLINE, async { tokio::join!(server.run(), peer) })
        .await
        .expect("the handshake ends");
    assert_eq!(event, Event::Connected);
    (server, peer.expect("they are connected"), identity)
}

/// A packet sealed on one side opens on the other, both ways.
fn assert_keys_agree(server: &mut Transport, keys: &Keys) {
    let plain = [&[0x80, 96, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1][..], b"a payload of theirs"].concat();
    let mut packet = [&plain[..], &[0; 32]].concat();
    let len = Sender::new(keys).seal_rtp(SeqNo(5), &mut packet, plain.len()).unwrap();
    let opened = server.open_rtp(&mut packet[..len]).expect("we open what they seal");
    assert_eq!(packet[..opened.len], plain);

    let len = server.seal_rtp(SeqNo(5), &mut packet, plain.len()).unwrap();
    let opened = Receiver::new(keys).open_rtp(&mut packet[..len]).expect("they open what we seal");
    assert_eq!(packet[..opened.len], plain);
}

#[tokio::test]
async fn keys_agree_for_every_profile_and_role() {
    for role in [dtls::Role::Passive, dtls::Role::Active] {
        for (their_profile, profile) in PROFILES {
            let (mut server, peer, identity) = handshake(role, &[their_profile]).await;
            assert_eq!(peer.selected_srtpprotection_profile(), their_profile);
            let state = peer.connection_state().await;
            assert_eq!(fingerprint(&state.peer_certificates[0]), identity.fingerprint());
            // RFC 5764 §4.2.
            let material = state
                .export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.material_len())
                .await
                .unwrap();
            let they_are_client = role == dtls::Role::Passive;
            let keys = Keys::from_dtls(profile, &material, they_are_client).unwrap();
            assert_keys_agree(&mut server.transport, &keys);
        }
    }
}

#[tokio::test]
async fn their_goodbye_closes_the_transport() {
    let (mut server, peer, _) =
        handshake(dtls::Role::Passive, &[SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm]).await;
    peer.close().await.unwrap();
    let event = tokio::time::timeout(DEADLINE, server.run()).await.expect("it is noticed");
    assert_eq!(event, Event::Closed(CloseReason::DtlsClosed));
}

/// Without a profile in common there is nothing to protect media with (RFC 5764 §4.1.2).
#[tokio::test]
async fn a_peer_without_srtp_is_refused() {
    let Parties { mut server, their_socket, their_certificate, .. } =
        parties(dtls::Role::Passive).await;
    let peer = DTLSConn::new(their_socket, their_config(their_certificate, &[]), true, None);
    let event = tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            event = server.run() => event,
            // They wait for our last flight, which must not come.
            peer = peer => panic!("their handshake ended, connected: {}", peer.is_ok()),
        }
    });
    assert_eq!(event.await.expect("it ends"), Event::Closed(CloseReason::DtlsFailed));
}
