//! TLS: who is believed, who is not, and that nothing is ever asked in clear text.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::upstream::spec::{ClientIdentity, PoolSpec, TlsSpec};
use crate::upstream::testing::*;
use crate::upstream::{Failure, Pool, Upstreams};

/// A test authority, its certificate in a file of its own directory.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: std::path::PathBuf,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = std::env::temp_dir().join(format!("dnslet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, directory }
    }

    pub(super) fn spec(&self) -> TlsSpec {
        TlsSpec { ca: Some(self.directory.join("ca.pem")), ..TlsSpec::default() }
    }

    /// A certificate for a client, in files.
    fn identity(&self) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["client.test".to_owned()]).unwrap().signed_by(&key, &self.issuer);
        let paths = ["client.pem", "client.key"].map(|name| self.directory.join(name));
        std::fs::write(&paths[0], certificate.unwrap().pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        let [certificate, key] = paths;
        ClientIdentity { certificate, key }
    }

    pub(super) fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        self.acceptor_with(names, |builder, _| builder.with_no_client_auth())
    }

    fn acceptor_with(
        &self,
        names: &[&str],
        clients: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
            Arc<RootCertStore>,
        ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = clients(builder, Arc::new(roots)).with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_those_who_want_one() {
    let authority = Authority::new("client");
    let acceptor = authority.acceptor_with(&["127.0.0.1"], |builder, roots| {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(ring::default_provider()));
        builder.with_client_cert_verifier(verifier.build().unwrap())
    });
    let responder = Responder::bind(Some(acceptor), false, answering).await;
    let addresses = || vec![tls_address(responder.socket, None)];
    let with = pool_of(addresses(), &Upstreams::new(), |spec| {
        spec.tls = TlsSpec { identity: Some(authority.identity()), ..authority.spec() };
    });
    ask(&with).await.unwrap();
    let without = pool_of(addresses(), &Upstreams::new(), |spec| spec.tls = authority.spec());
    let failure = ask(&without).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls(..)), "{failure}");
    assert_eq!(responder.seen().stream_queries.len(), 1);
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let authority = Authority::new("unusable");
    let empty = authority.directory.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let missing = authority.directory.join("missing.pem");
    let identity = |certificate: &std::path::Path, key: &std::path::Path| {
        let identity = ClientIdentity { certificate: certificate.to_owned(), key: key.to_owned() };
        TlsSpec { identity: Some(identity), ..TlsSpec::default() }
    };
    let good = authority.identity();
    for (tls, expected) in [
        (TlsSpec { ca: Some(missing.clone()), ..TlsSpec::default() }, format!("cannot read {}: ", missing.display())),
        (
            TlsSpec { ca: Some(empty.clone()), ..TlsSpec::default() },
            format!("no PEM certificate in {}", empty.display()),
        ),
        (identity(&good.certificate, &empty), format!("no PEM private key in {}", empty.display())),
        (identity(&empty, &good.key), format!("no PEM certificate in {}", empty.display())),
    ] {
        let spec = PoolSpec { tls, ..PoolSpec::default() };
        let address = tls_address("127.0.0.1:853".parse().unwrap(), None);
        let error = Pool::new(&spec, &[address], &Upstreams::new()).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn tls_names_are_checked() {
    let authority = Authority::new("names");
    let responder = Responder::bind(Some(authority.acceptor(&["dns.test"])), false, answering).await;
    let ask_with = async |in_address, in_spec: Option<&str>| {
        let addresses = vec![tls_address(responder.socket, in_address)];
        let pool = pool_of(addresses, &Upstreams::new(), |spec| {
            spec.tls = authority.spec();
            spec.tls.server_name = in_spec.map(str::to_owned);
        });
        ask(&pool).await
    };
    ask_with(Some("dns.test"), None).await.unwrap();
    ask_with(None, Some("dns.test")).await.unwrap();
    ask_with(Some("dns.test"), Some("other.test")).await.unwrap();
    let asked = responder.seen().stream_queries.len();
    for (address, spec) in [(Some("other.test"), None), (None, Some("other.test")), (None, None)] {
        let failure = ask_with(address, spec).await.unwrap_err();
        assert!(matches!(failure, Failure::Tls(..)), "{address:?} {spec:?}: {failure}");
        assert!(failure.to_string().contains("tls: "), "{failure}");
    }
    assert_eq!(responder.seen().stream_queries.len(), asked, "nothing was asked");
    assert_eq!(responder.seen().datagrams.len(), 0, "not in clear text either");
}

#[tokio::test]
async fn an_unknown_authority_is_not_believed() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let responder = Responder::bind(Some(unknown.acceptor(&["127.0.0.1"])), false, answering).await;
    for spec in [known.spec(), TlsSpec::default()] {
        let pool = pool_of(vec![tls_address(responder.socket, None)], &Upstreams::new(), |pool| pool.tls = spec);
        let failure = ask(&pool).await.unwrap_err();
        assert!(matches!(failure, Failure::Tls(..)), "{failure}");
    }
    let seen = responder.seen();
    assert_eq!((seen.datagrams.len(), seen.stream_queries.len()), (0, 0));
}

#[tokio::test]
async fn a_port_without_tls_is_never_asked_in_clear_text() {
    let authority = Authority::new("clear");
    let responder = Responder::start(answering).await;
    let addresses = vec![tls_address(responder.socket, None)];
    let pool = pool_of(addresses, &Upstreams::new(), |spec| spec.tls = authority.spec());
    ask_for(&pool, "secret.example.org.", Duration::from_millis(500)).await.unwrap_err();
    assert_eq!(responder.seen().datagrams.len(), 0);
}
