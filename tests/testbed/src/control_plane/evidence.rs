//! What only the owner of a control plane can do: look into its storage, and sign tokens in its name.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use memchr::memmem;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::ControlPlane;

// === impl ControlPlane ===

impl ControlPlane {
    /// The files of etcd that hold `text`: what is stored, what was stored until the last compaction, and the log of all
    /// writes. Secrets lie there as they are, without encryption or base64.
    pub fn etcd_files_with(&self, text: &str) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![self.setup.dir.path().join("etcd")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // Rotated away meanwhile.
                let Ok(bytes) = std::fs::read(&path) else { continue };
                if memmem::find(&bytes, text.as_bytes()).is_some() {
                    found.push(path.display().to_string());
                }
            }
        }
        Ok(found)
    }

    /// A ServiceAccount token as the apiserver would make it, with these claims.
    pub fn sign_token(&self, claims: &Value) -> anyhow::Result<String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.setup.pki.service_account_key.as_bytes())?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &random)
            .ok()
            .context("a key")?;
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(claims));
        let signature = key.sign(&random, message.as_bytes()).ok().context("a signature")?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}
