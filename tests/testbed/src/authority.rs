//! Certificate authorities and the certificates of servers, made anew for each test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a server shows, and its key.
pub struct ServerCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: (String, String),
}

// === impl Authority ===

impl Authority {
    /// An authority of this name. Two of one name have different keys.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(of_authority(name), KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// One that this one has signed. Servers show its certificate beside their own.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::signed_by(of_authority(name), key, &self.0).expect("signed"))
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server that is reached by these host names and addresses.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> ServerCertificate {
        self.sign(&of_server(names))
    }

    /// One whose time was over long ago.
    #[must_use]
    pub fn expired(&self, names: &[&str]) -> ServerCertificate {
        let mut params = of_server(names);
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        self.sign(&params)
    }

    /// One whose time has not come.
    #[must_use]
    pub fn future(&self, names: &[&str]) -> ServerCertificate {
        let mut params = of_server(names);
        (params.not_before, params.not_after) = (date_time_ymd(3019, 1, 1), date_time_ymd(3020, 1, 1));
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> ServerCertificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        ServerCertificate {
            chain: vec![certificate.der().clone(), self.0.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            pem: (certificate.pem() + &self.0.pem(), key.serialize_pem()),
        }
    }
}

// === impl ServerCertificate ===

impl ServerCertificate {
    /// The same, of a server that leaves out all certificates but its own.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    /// The chain in PEM, as in the key tls.crt of a Secret.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.pem.0
    }

    /// The key in PEM, as in tls.key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.pem.1
    }

    /// A server that shows it, in TLS 1.2 and 1.3.
    pub(crate) fn config(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&version::TLS12, &version::TLS13])
            .expect("versions of this provider")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a certificate with its key")
    }
}

fn of_authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn of_server(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "issuer");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
