//! DNS over TLS (RFC 7858) in the strict profile (RFC 8310): the upstream proves its name, or nothing is asked. There
//! is no way from here to clear text.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::upstream::spec::TlsSpec;

/// A connection to an upstream that has proved its name.
pub(crate) type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// The certificates of a pool, loaded.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    config: Arc<ClientConfig>,
    /// Tells one set of certificates from another, by content.
    pub(crate) digest: [u8; 32],
}

/// What one upstream is asked with.
#[derive(Clone)]
pub(crate) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Why certificates cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// The file holds no certificate in PEM form.
    NoCertificate(PathBuf),
    /// The file holds no private key in PEM form.
    NoKey(PathBuf),
    /// Certificate and key do not fit, or the certificate makes no sense.
    Unusable(PathBuf, rustls::Error),
    /// `tls_servername` is not a host name or IP address.
    ServerName(String),
    /// A TLS upstream came to a pool that was built without any.
    NotLoaded,
}

impl Certificates {
    /// Reads the files of `spec`; without any, the public authorities vouch for upstreams.
    pub(crate) fn load(spec: &TlsSpec) -> Result<Certificates, CertificateError> {
        let mut digest = Sha256::new();
        let mut roots = RootCertStore::empty();
        match &spec.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in read_certificates(path, &mut digest)? {
                    roots.add(certificate).map_err(|error| CertificateError::Unusable(path.clone(), error))?;
                }
            }
        }
        // The default versions are TLS 1.2 and 1.3.
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the ring provider has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = match &spec.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = read_certificates(&identity.certificate, &mut digest)?;
                let pem = read(&identity.key, &mut digest)?;
                let key =
                    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateError::NoKey(identity.key.clone()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| CertificateError::Unusable(identity.certificate.clone(), error))?
            }
        };
        Ok(Certificates { config: Arc::new(config), digest: digest.finalize().into() })
    }

    /// For an upstream that must prove `name`, or its IP address where none is given.
    pub(crate) fn client(&self, name: Option<&str>, ip: IpAddr) -> Result<Client, CertificateError> {
        let name = match name {
            None => ServerName::IpAddress(ip.into()),
            Some(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| CertificateError::ServerName(name.to_owned()))?
            }
        };
        Ok(Client { connector: TlsConnector::from(self.config.clone()), name })
    }
}

impl Client {
    /// Performs the handshake; sessions are resumed where the upstream offers that.
    pub(crate) async fn handshake(&self, stream: TcpStream) -> io::Result<Stream> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Read(path, error) => write!(out, "cannot read {}: {error}", path.display()),
            CertificateError::NoCertificate(path) => write!(out, "no PEM certificate in {}", path.display()),
            CertificateError::NoKey(path) => write!(out, "no PEM private key in {}", path.display()),
            CertificateError::Unusable(path, error) => write!(out, "cannot use {}: {error}", path.display()),
            CertificateError::NotLoaded => out.write_str("no certificates were loaded for a TLS upstream"),
            CertificateError::ServerName(name) => write!(out, "not a name a certificate can carry: {name:?}"),
        }
    }
}

impl std::error::Error for CertificateError {}

fn read(path: &Path, digest: &mut Sha256) -> Result<Vec<u8>, CertificateError> {
    let octets = std::fs::read(path).map_err(|error| CertificateError::Read(path.to_owned(), error))?;
    digest.update((octets.len() as u64).to_be_bytes());
    digest.update(&octets);
    Ok(octets)
}

fn read_certificates(path: &Path, digest: &mut Sha256) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path, digest)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| CertificateError::NoCertificate(path.to_owned()))
}
