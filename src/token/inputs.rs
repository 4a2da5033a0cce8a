//! The inputs that matter: those whose change means another token.

use std::collections::BTreeMap;

use ring::hmac;
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretString};

use super::seal::Message;

/// Token URL, user name, password, scopes and parameters. No `Debug`: it holds a password.
#[derive(Clone)]
pub struct Inputs {
    token_url: String,
    username: SecretString,
    password: SecretString,
    scopes: Vec<String>,
    parameters: BTreeMap<String, String>,
}

/// A key of this process, with which inputs are remembered in memory without being kept.
pub struct ProcessKey(hmac::Key);

/// Inputs and the way they are sent, as remembered by one process: equal only to itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InputsFingerprint([u8; 32]);

/// An account at an issuer, as remembered by one process: a host and a user name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountFingerprint([u8; 32]);

// === impl Inputs ===

impl Inputs {
    /// Inputs as they are sent. The order and repetition of scopes do not matter (RFC 6749 section 3.3).
    #[must_use]
    pub fn new(
        token_url: String,
        username: SecretString,
        password: SecretString,
        mut scopes: Vec<String>,
        parameters: BTreeMap<String, String>,
    ) -> Self {
        scopes.sort();
        scopes.dedup();
        Self { token_url, username, password, scopes, parameters }
    }

    /// The token endpoint.
    #[must_use]
    pub fn token_url(&self) -> &str {
        &self.token_url
    }

    /// client_id.
    #[must_use]
    pub fn username(&self) -> &str {
        self.username.expose_secret()
    }

    /// client_secret.
    #[must_use]
    pub fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// The value of the parameter `scope`, if there is one.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        (!self.scopes.is_empty()).then(|| self.scopes.join(" "))
    }

    /// Extra parameters.
    #[must_use]
    pub const fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    pub(super) fn message(&self) -> Message {
        let message = Message::new("verteil.dev/input-seal")
            .text(&self.token_url)
            .text(self.username.expose_secret())
            .text(self.password.expose_secret())
            .number(i64::try_from(self.scopes.len()).unwrap_or(i64::MAX));
        let message = self.scopes.iter().fold(message, |m, scope| m.text(scope));
        self.parameters.iter().fold(message, |m, (name, value)| m.text(name).text(value))
    }
}

// === impl ProcessKey ===

impl ProcessKey {
    /// A new random key.
    pub fn generate() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Remembers `inputs` and `transport`: what else could make a refused request succeed.
    #[must_use]
    pub fn fingerprint(&self, inputs: &Inputs, transport: &str) -> InputsFingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(inputs.message().as_bytes());
        context.update(transport.as_bytes());
        InputsFingerprint(bytes(&context.sign()))
    }

    /// Remembers `texts` for `purpose`, without keeping them.
    #[must_use]
    pub fn digest(&self, purpose: &str, texts: &[&str]) -> [u8; 32] {
        let message = texts.iter().fold(Message::new(purpose), |message, text| message.text(text));
        bytes(&hmac::sign(&self.0, message.as_bytes()))
    }

    /// Remembers the account `username` at `host`.
    #[must_use]
    pub fn account(&self, host: &str, username: &str) -> AccountFingerprint {
        let message = Message::new("verteil.dev/account").text(host).text(username);
        AccountFingerprint(bytes(&hmac::sign(&self.0, message.as_bytes())))
    }
}

fn bytes(tag: &hmac::Tag) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Random characters for a name: 10 of them, in base32.
pub fn random_suffix() -> anyhow::Result<String> {
    let mut bytes = [0; 10];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    Ok(bytes.iter().filter_map(|b| alphabet.get(usize::from(b % 32))).map(|c| char::from(*c)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;
    use crate::token::{AccessToken, InputSeal, Verdict};

    fn inputs(url: &str, user: &str, password: &str, scopes: &[&str], parameters: &[(&str, &str)]) -> Inputs {
        Inputs::new(
            url.into(),
            user.to_owned().into(),
            password.to_owned().into(),
            scopes.iter().map(ToString::to_string).collect(),
            parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        )
    }

    #[test]
    fn every_input_matters_and_the_order_of_scopes_does_not() {
        let token: AccessToken = "t".to_owned().into();
        let seal = InputSeal::of(&inputs("u", "a", "b", &["x", "y"], &[("k", "v")]), &token);
        let verdict = |inputs: &Inputs| InputSeal::check(seal.as_str(), inputs, &token);
        assert_eq!(verdict(&inputs("u", "a", "b", &["y", "x", "x"], &[("k", "v")])), Verdict::Holds);
        for other in [
            inputs("U", "a", "b", &["x", "y"], &[("k", "v")]),
            inputs("u", "ab", "", &["x", "y"], &[("k", "v")]),
            inputs("u", "a", "c", &["x", "y"], &[("k", "v")]),
            inputs("u", "a", "b", &["x"], &[("k", "v")]),
            inputs("u", "a", "b", &["x", "y", "k", "v"], &[]),
            inputs("u", "a", "b", &["x", "y"], &[("kv", "")]),
        ] {
            assert_eq!(verdict(&other), Verdict::Broken);
        }
    }

    #[test]
    fn a_process_remembers_only_by_its_own_key() {
        let (one, two) = (ProcessKey::generate().unwrap(), ProcessKey::generate().unwrap());
        let inputs = inputs("u", "a", "b", &[], &[]);
        assert!(one.fingerprint(&inputs, "") == one.fingerprint(&inputs, ""));
        assert!(one.fingerprint(&inputs, "") != two.fingerprint(&inputs, ""));
        assert!(one.fingerprint(&inputs, "") != one.fingerprint(&inputs, "Body"));
    }
}
