//! The certificate: read from two files, and read again while the operator runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. The kubelet takes a minute to bring a new certificate.
const LOOK: Duration = Duration::from_secs(2);
/// No certificate or key is larger.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The files' names.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `--token-api-cert`
    pub certificate: PathBuf,
    /// `--token-api-key`
    pub key: PathBuf,
}

/// What is shown to those who connect: the last pair that fitted together.
pub struct Certificate {
    files: CertificateFiles,
    shown: Arc<Shown>,
    /// What the files held when they were looked at last, and could not be used: said once.
    refused: Mutex<Option<CertificateError>>,
}

/// The certificate in use.
struct Shown(RwLock<Pair>);

/// A certificate with its key, and the text that both came from. No `Debug`: it holds the key.
#[derive(Clone)]
struct Pair {
    text: (Vec<u8>, Vec<u8>),
    certified: Arc<CertifiedKey>,
}

/// Why the files cannot be used. It names flag and file, never their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file that is not there, or not readable.
    #[error("cannot read {} ({flag}): {why}", path.display())]
    Unreadable {
        /// Which flag names it.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A file without what it is for.
    #[error("{} ({flag}) holds no {what} in PEM", path.display())]
    Empty {
        /// Which flag names it.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
        /// A certificate or a private key.
        what: &'static str,
    },
    /// The two do not belong to each other, or cannot be used at all.
    #[error("{} (--token-api-cert) and {} (--token-api-key) are no usable pair: {why}", certificate.display(), key.display())]
    NoPair {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// What is wrong.
        why: String,
    },
}

// === impl Certificate ===

impl Certificate {
    /// Reads the files. Without a usable pair there is no API.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let pair = files.read()?;
        Ok(Self { files, shown: Arc::new(Shown(RwLock::new(pair))), refused: Mutex::new(None) })
    }

    /// How a server speaks TLS with it: 1.2 or newer.
    pub fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Follows the files until `stop`. A pair that is half written is left for the next look.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
            let this = Arc::clone(&self);
            // Files may be slow. A panic in there leaves the certificate that is shown.
            drop(tokio::task::spawn_blocking(move || this.look()).await);
        }
    }

    /// Takes over what the files hold now, if that is new and fits together.
    fn look(&self) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match self.files.read() {
            Ok(pair) => {
                *refused = None;
                if self.shown.replace(pair) {
                    tracing::info!("the token API shows a new certificate");
                }
            }
            Err(error) => {
                if refused.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the token API goes on with the certificate that it has");
                }
                *refused = Some(error);
            }
        }
    }
}

// === impl Shown ===

impl Shown {
    /// True if `pair` is another one.
    fn replace(&self, pair: Pair) -> bool {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = shown.text != pair.text;
        if other {
            *shown = pair;
        }
        other
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).certified))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

// === impl CertificateFiles ===

impl CertificateFiles {
    fn read(&self) -> Result<Pair, CertificateError> {
        let text = (read("--token-api-cert", &self.certificate)?, read("--token-api-key", &self.key)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text.0).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| CertificateError::Empty {
            flag: "--token-api-cert",
            path: self.certificate.clone(),
            what: "certificate",
        })?;
        let key = PrivateKeyDer::from_pem_slice(&text.1).map_err(|_| CertificateError::Empty {
            flag: "--token-api-key",
            path: self.key.clone(),
            what: "private key",
        })?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified = certified.map_err(|error| CertificateError::NoPair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            why: error.to_string(),
        })?;
        Ok(Pair { text, certified: Arc::new(certified) })
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(CertificateError::Unreadable { flag, path: path.to_owned(), why: error.to_string() }),
    }
}
