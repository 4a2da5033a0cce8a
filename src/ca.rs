//! The certificate authorities of `spec.caBundleRef`. Pure.

use std::fmt;

use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::api::CaBundleRef;
use crate::decide::{Reason, Trouble};

/// The bundles of whole distributions are half of it.
const LARGEST_BUNDLE: usize = 512 * 1024;

/// Certificates to trust, one at least.
#[derive(Clone)]
pub struct CaBundle {
    certificates: Vec<CertificateDer<'static>>,
    /// Certificates beside them that the TLS library does not take.
    unusable: usize,
    digest: CaDigest,
    source: String,
}

/// The certificates' content: whatever else stands around them, or is changed at the object, makes no other bundle.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaDigest([u8; 32]);

/// What a live read has found.
pub enum Found<'a> {
    /// No such object.
    Nothing,
    /// The object, without the key.
    Object,
    /// What stands under the key.
    Content(&'a [u8]),
}

/// The bundle that `source` names.
///
/// # Errors
/// `CANotFound` if something may still arrive, `CAInvalid` if what is there cannot be used.
pub fn read_ca(source: &CaBundleRef, found: &Found<'_>) -> Result<CaBundle, Trouble> {
    let (kind, name, key) = (source.kind.as_str(), &source.name, &source.key);
    let missing = |what: String| Err(Trouble::new(Reason::CANotFound, what));
    let content = match found {
        Found::Nothing => {
            return missing(format!(
                "{kind} {name} does not exist: create it, with the CA of the token endpoint in PEM under key {key}, or name another one in spec.caBundleRef"
            ));
        }
        Found::Object => {
            return missing(format!("{kind} {name} has no key {key}: add it, or name another key in spec.caBundleRef"));
        }
        Found::Content(content) => content,
    };
    let place = format!("key {key} of {kind} {name}");
    let invalid = |what: &str| {
        Trouble::new(
            Reason::CAInvalid,
            format!(
                "{place} {what}: write the CA of the token endpoint there in PEM, -----BEGIN CERTIFICATE----- and what follows"
            ),
        )
    };
    if content.len() > LARGEST_BUNDLE {
        return Err(invalid("is larger than 512 KiB"));
    }
    let read: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(content)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("holds a certificate that is damaged"))?;
    let all = read.len();
    // As other programs do: a bundle of many is not refused for one that is odd.
    let usable = |certificate: &CertificateDer<'_>| RootCertStore::empty().add(certificate.clone()).is_ok();
    let certificates: Vec<_> = read.into_iter().filter(usable).collect();
    if certificates.is_empty() {
        return Err(invalid(if all == 0 { "holds no certificate" } else { "holds no certificate that can be read" }));
    }
    let (unusable, digest) = (all - certificates.len(), CaDigest::of(&certificates));
    Ok(CaBundle { certificates, unusable, digest, source: place })
}

// === impl CaBundle ===

impl CaBundle {
    /// The certificates, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }

    /// What tells it from another.
    #[must_use]
    pub const fn digest(&self) -> CaDigest {
        self.digest
    }
}

/// Where it stands, for a person.
impl fmt::Display for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        match self.unusable {
            0 => Ok(()),
            n => write!(f, " ({n} of {} certificates there cannot be used)", n + self.certificates.len()),
        }
    }
}

// === impl CaDigest ===

impl CaDigest {
    fn of(certificates: &[CertificateDer<'_>]) -> Self {
        let mut context = Context::new(&SHA256);
        for certificate in certificates {
            context.update(&certificate.len().to_be_bytes());
            context.update(certificate);
        }
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// In hexadecimal.
impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test")]

    use testbed::Authority;

    use super::*;
    use crate::api::CaBundleKind;

    fn read(content: &str) -> Result<CaBundle, Trouble> {
        let source = CaBundleRef { kind: CaBundleKind::ConfigMap, name: "corp-ca".into(), key: "ca.crt".into() };
        read_ca(&source, &Found::Content(content.as_bytes()))
    }

    fn refused(content: &str) -> String {
        let Err(trouble) = read(content) else { panic!("taken: {content}") };
        assert_eq!(trouble.reason, Reason::CAInvalid);
        trouble.message
    }

    #[test]
    fn what_stands_around_the_certificates_makes_no_other_bundle() {
        let (one, two) = (Authority::new("one").pem(), Authority::new("two").pem());
        let digest = |content: &str| read(content).unwrap().digest();
        let bundle = digest(&format!("{one}{two}"));
        assert!(bundle == digest(&format!("# one\r\n{}\n\n# two\n{two}\n", one.replace('\n', "\r\n"))));
        assert!(bundle != digest(&one));
        assert!(bundle != digest(&format!("{two}{one}")));
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_a_word_of_what_to_write() {
        let good = Authority::new("good").pem();
        for (content, why) in [
            ("", "ca.crt of ConfigMap corp-ca holds no certificate: write"),
            ("hello", "holds no certificate: write"),
            (&good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "holds no certificate: write"),
            (&good.replace("CERTIFICATE", "PRIVATE KEY"), "holds no certificate: write"),
            (&good.replace("END CERT", "END OF CERT"), "damaged"),
            (&format!("{good}-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), "damaged"),
            ("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", "can be read: write"),
            (&good.repeat(LARGEST_BUNDLE / good.len() + 1), "larger than 512 KiB"),
        ] {
            let message = refused(content);
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn one_odd_certificate_among_many_is_left_out_and_told() {
        let odd = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let bundle = read(&format!("{odd}{}", Authority::new("good").pem())).unwrap();
        assert_eq!(bundle.certificates().count(), 1);
        assert_eq!(bundle.to_string(), "key ca.crt of ConfigMap corp-ca (1 of 2 certificates there cannot be used)");
    }
}
