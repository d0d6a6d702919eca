//! HTTPS and WSS, and the certificate's renewal.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use pem_rfc7468::{LineEnding, encode_string};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::process::{PATIENCE, Server, run};

/// A folder with a certificate for `localhost` in it, gone at the end.
pub struct Files {
    folder: PathBuf,
    trusted: CertificateDer<'static>,
}

impl Files {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut files = Self { folder, trusted: CertificateDer::from_slice(&[]).into_owned() };
        files.renew();
        files
    }

    fn renew(&mut self) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = made;
        self.write("cert.pem", "CERTIFICATE", cert.der());
        self.write("key.pem", "PRIVATE KEY", &signing_key.serialize_der());
        self.trusted = cert.der().clone();
    }

    fn write(&self, name: &str, label: &str, der: &[u8]) {
        fs::write(self.folder.join(name), encode_string(label, LineEnding::LF, der).unwrap())
            .unwrap();
    }

    pub fn settings(&self) -> [(&'static str, String); 2] {
        let path = |name| self.folder.join(name).display().to_string();
        [("TLS_CERT_FILE", path("cert.pem")), ("TLS_KEY_FILE", path("key.pem"))]
    }

    fn start(&self) -> Server {
        let settings = self.settings();
        Server::start(&settings.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    /// A connection that trusts the newest certificate and no other.
    pub async fn connect(&self, server: &Server) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(server.http).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn health(stream: TlsStream<TcpStream>) -> String {
    get(stream, "/api/health").await
}

async fn get(mut stream: TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The peer may end without TLS' own goodbye.
    let _ = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer");
    answer
}

#[tokio::test]
async fn https_and_wss_are_served_and_the_certificate_is_renewed_without_a_break() {
    let mut files = Files::new("renewed");
    let server = files.start();
    assert!(health(files.connect(&server).await.unwrap()).await.starts_with("HTTP/1.1 200"));

    let mut request = "ws://localhost/ws?roomId=r&peerId=p".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "protoo".parse().unwrap());
    request.headers_mut().insert("origin", "https://localhost".parse().unwrap());
    let (mut old, _) = client_async(request, files.connect(&server).await.unwrap()).await.unwrap();

    files.renew();
    assert!(files.connect(&server).await.is_err(), "the old certificate is still shown");
    server.signal("HUP");
    server.log_line("Certificate reloaded");
    assert!(health(files.connect(&server).await.unwrap()).await.starts_with("HTTP/1.1 200"));

    let ask = json!({ "request": true, "id": 1, "method": "joinRoom", "data": {} });
    old.send(Message::text(ask.to_string())).await.unwrap();
    let answer = timeout(PATIENCE, old.next()).await.unwrap().unwrap().unwrap();
    let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");

    // What cannot be used changes nothing.
    fs::write(files.folder.join("key.pem"), "rubbish").unwrap();
    server.signal("HUP");
    let said = server.log_line("The old certificate stays");
    assert!(said["reason"].as_str().unwrap().starts_with("TLS_KEY_FILE="), "{said}");
    assert!(health(files.connect(&server).await.unwrap()).await.starts_with("HTTP/1.1 200"));
}

/// A client that stops in the middle of the handshake.
#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let files = Files::new("deadline");
    let mut settings = files.settings().to_vec();
    settings.push(("HTTP_TIMEOUT", "1".to_owned()));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start(&settings);
    let mut silent = TcpStream::connect(server.http).await.unwrap();
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("an end").ok();
    // Because of the deadline, and for nothing else.
    let metrics = get(files.connect(&server).await.unwrap(), "/metrics").await;
    let counted = "shardcast_limits_met_total{limit=\"http_timeout\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

fn complaint(certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let settings = [("TLS_CERT_FILE", &*certificate), ("TLS_KEY_FILE", &*key)];
    let ended =
        run(&[], &[&settings[..], &[("HTTP_PORT", "0"), ("HTTP_IP", "127.0.0.1")]].concat());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.lines().count() == 1, "{said}");
    said
}

#[test]
fn files_that_cannot_be_used_stop_the_start_in_one_line() {
    let (one, other) = (Files::new("one"), Files::new("other"));
    let (cert, key) = (one.folder.join("cert.pem"), one.folder.join("key.pem"));
    let missing = one.folder.join("missing.pem");
    let empty = one.folder.join("empty.pem");
    fs::write(&empty, "").unwrap();
    for (certificate, private, variable, reason) in [
        (&missing, &key, "TLS_CERT_FILE", "No such file"),
        (&cert, &missing, "TLS_KEY_FILE", "No such file"),
        (&empty, &key, "TLS_CERT_FILE", "no certificate"),
        (&key, &key, "TLS_CERT_FILE", "no certificate"),
        (&cert, &cert, "TLS_KEY_FILE", "no private key"),
        (&cert, &other.folder.join("key.pem"), "TLS_CERT_FILE", "cannot be used"),
    ] {
        let said = complaint(certificate, private);
        assert!(said.contains(&format!("{variable}=\"")) && said.contains(reason), "{said}");
    }
}
