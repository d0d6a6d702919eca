//! The certificate of HTTPS and WSS: read at the start and again on SIGHUP.
//!
//! A connection keeps what it began with; the next one gets what is there then.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// A file that cannot be used; one line for the operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} cannot be used: {reason}")]
pub struct Unusable {
    variable: &'static str,
    value: String,
    reason: String,
}

/// The files and what they held when they were last good.
pub struct Certificates {
    files: TlsFiles,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, Unusable> {
        let current = watch::Sender::new(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again; if they cannot be used, all stays as it was.
    pub fn reload(&self) -> Result<(), Unusable> {
        self.current.send_replace(read(&self.files)?);
        Ok(())
    }

    /// What the next connection is accepted with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.borrow().clone())
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, Unusable> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_certificate(files, said(&error)))?;
    if chain.is_empty() {
        return Err(bad_certificate(files, "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound => "there is no private key in it".to_owned(),
            error => said(&error),
        };
        unusable("TLS_KEY_FILE", &files.key, reason)
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_certificate(files, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| bad_certificate(files, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn bad_certificate(files: &TlsFiles, reason: String) -> Unusable {
    unusable("TLS_CERT_FILE", &files.certificate, reason)
}

fn unusable(variable: &'static str, value: &Path, reason: String) -> Unusable {
    Unusable { variable, value: value.display().to_string(), reason }
}

/// Without the type's name for it.
fn said(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
