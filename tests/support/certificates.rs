//! An authority of a test's own, and a certificate for one address that it has signed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::process::Directory;

/// What a TLS server of a test needs, and what its clients have to believe in.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    directory: Arc<Directory>,
}

impl Identity {
    pub fn of(address: IpAddr) -> Identity {
        let mut authority = CertificateParams::new(Vec::<String>::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("a signature of our own");
        let own = key();
        let params = CertificateParams::new([address.to_string()]).expect("an address");
        let certificate = params.signed_by(&own, &authority).expect("a signature of our own");
        let own = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that ring knows")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], own)
            .expect("a certificate with its key");
        let directory = Directory::new();
        directory.write("ca.pem", &authority.pem());
        Identity { config: Arc::new(config), directory }
    }

    /// The authority's certificate, for `tls` in a Corefile.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
