//! The bundle of certificate authorities.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use verteil_token_operator::api::{CaBundleKind, CaBundleRef};
use verteil_token_operator::ca::{CaBundle, Found, read_ca};
use verteil_token_operator::decide::{Reason, Trouble};

use super::is_fit_to_be_shown;

/// What stands under the bundle's key.
pub fn ca(data: &[u8]) {
    match read(data) {
        Ok(bundle) => {
            let certificates: Vec<&[u8]> = bundle.certificates().collect();
            assert!(!certificates.is_empty());
            let mut roots = RootCertStore::empty();
            for certificate in &certificates {
                roots.add(CertificateDer::from_slice(certificate)).expect("the TLS library takes what was taken");
            }
            assert!(is_fit_to_be_shown(&bundle.to_string()));
            let clean: String = certificates.into_iter().map(pem).collect();
            // Larger than it was, it may be too large now.
            let again = read(clean.as_bytes()).map(|again| again.digest() == bundle.digest());
            assert!(again.unwrap_or(clean.len() > data.len()), "the same certificates are another bundle");
        }
        Err(trouble) => {
            assert!(trouble.reason == Reason::CAInvalid);
            let why = trouble.message.strip_prefix("key ca.crt of ConfigMap corp-ca ").expect("the place");
            let why = why.split_once(": write").expect("what to write").0;
            let reasons = [
                "is larger than 512 KiB",
                "holds a certificate that is damaged",
                "holds no certificate",
                "holds no certificate that can be read",
            ];
            assert!(reasons.contains(&why), "{why}");
        }
    }
}

fn read(content: &[u8]) -> Result<CaBundle, Trouble> {
    let source = CaBundleRef { kind: CaBundleKind::ConfigMap, name: "corp-ca".into(), key: "ca.crt".into() };
    read_ca(&source, &Found::Content(content))
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}
