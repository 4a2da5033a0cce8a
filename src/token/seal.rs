//! Seals: how a record and the inputs it was issued for are recognised without keeping either.
//!
//! Both are keyed with the access token itself. Who cannot read the token learns nothing from them, not even whether two
//! resources share a password; who can read it needs no seal. They carry a version: a seal of a version that this program
//! does not know was made by a newer one and is trusted, so that neither an upgrade nor a rollback costs a token.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::hmac;

use super::{AccessToken, Inputs, Record};

const RECORD_VERSION: &str = "r1";
const INPUT_VERSION: &str = "i1";

/// What a seal says about what it is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was sealed.
    Holds,
    /// Made by a newer version: trusted.
    Unknown,
    /// It is not what was sealed.
    Broken,
}

/// Seal over a [`Record`]: `r1.` and a base64url HMAC-SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSeal(String);

/// Seal over the [`Inputs`] that a token was issued for: `i1.` and a base64url HMAC-SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSeal(String);

/// Bytes to authenticate: fields of known length, so that no two lists of fields read the same.
pub(super) struct Message(Vec<u8>);

// === impl RecordSeal ===

impl RecordSeal {
    /// The seal of `record`.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self(seal(RECORD_VERSION, record.access_token(), &Self::message(record)))
    }

    /// What the written seal `text` says about `record`.
    #[must_use]
    pub fn check(text: &str, record: &Record) -> Verdict {
        check(RECORD_VERSION, text, record.access_token(), &Self::message(record))
    }

    /// Whether the written seal `text` is of a later version than this program's.
    #[must_use]
    pub fn is_newer(text: &str) -> bool {
        text.split_once('.').is_some_and(|(version, _)| is_newer(version, RECORD_VERSION))
    }

    /// A seal as it was written down before, unchecked.
    #[must_use]
    pub const fn written(text: String) -> Self {
        Self(text)
    }

    /// A number from the seal, evenly spread over records.
    #[must_use]
    pub fn spread(&self) -> u32 {
        self.0.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn message(record: &Record) -> Message {
        Message::new("verteil.dev/record-seal")
            .text(record.token_type())
            .number(record.expires_in())
            .number(record.token_expiry())
            .number(record.saved_at())
    }
}

// === impl InputSeal ===

impl InputSeal {
    /// The seal of `inputs` under the token that was issued for them.
    #[must_use]
    pub fn of(inputs: &Inputs, token: &AccessToken) -> Self {
        Self(seal(INPUT_VERSION, token, &inputs.message()))
    }

    /// What the written seal `text` says about `inputs`.
    #[must_use]
    pub fn check(text: &str, inputs: &Inputs, token: &AccessToken) -> Verdict {
        check(INPUT_VERSION, text, token, &inputs.message())
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Message ===

impl Message {
    pub(super) fn new(purpose: &str) -> Self {
        Self(Vec::with_capacity(256)).text(purpose)
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn number(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // It may hold the password.
        secrecy::zeroize::Zeroize::zeroize(&mut self.0);
    }
}

fn key(token: &AccessToken) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes())
}

pub(super) fn seal(version: &str, token: &AccessToken, message: &Message) -> String {
    let tag = hmac::sign(&key(token), message.as_bytes());
    format!("{version}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

pub(super) fn check(version: &str, text: &str, token: &AccessToken, message: &Message) -> Verdict {
    let Some((written_version, tag)) = text.split_once('.') else { return Verdict::Broken };
    if written_version != version {
        return if is_newer(written_version, version) { Verdict::Unknown } else { Verdict::Broken };
    }
    let Ok(tag) = BASE64_URL_SAFE_NO_PAD.decode(tag) else { return Verdict::Broken };
    match hmac::verify(&key(token), message.as_bytes(), &tag) {
        Ok(()) => Verdict::Holds,
        Err(_) => Verdict::Broken,
    }
}

/// Whether `written` is a later version of the same kind of seal: its letter and a larger number.
fn is_newer(written: &str, known: &str) -> bool {
    let parse = |text: &str| Some((text.chars().next()?, text.get(1..)?.parse::<u32>().ok()?));
    match (parse(written), parse(known)) {
        (Some((kind, number)), Some((known_kind, known_number))) => kind == known_kind && number > known_number,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use jiff::Timestamp;

    use super::*;

    fn record(token: &str, lifetime: i64) -> Record {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Record::new(token.to_owned().into(), "Bearer".into(), lifetime, now, now).unwrap()
    }

    #[test]
    fn holds_for_what_was_sealed_and_nothing_else() {
        let sealed = record("a", 60);
        let seal = RecordSeal::of(&sealed);
        assert_eq!(RecordSeal::check(seal.as_str(), &sealed), Verdict::Holds);
        assert_eq!(RecordSeal::check(seal.as_str(), &record("b", 60)), Verdict::Broken);
        assert_eq!(RecordSeal::check(seal.as_str(), &record("a", 61)), Verdict::Broken);
    }

    #[test]
    fn a_newer_version_is_trusted_and_rubbish_is_not() {
        let record = record("a", 60);
        assert_eq!(RecordSeal::check("r2.whatever-comes", &record), Verdict::Unknown);
        for rubbish in ["", "r1", "r1.", "r1.!!", "r0.abc", "i2.abc", "r.abc", "x", "r1.AAAA"] {
            assert_eq!(RecordSeal::check(rubbish, &record), Verdict::Broken, "{rubbish}");
        }
    }

    /// Computed by another implementation of HMAC-SHA-256 over the documented bytes. A change of these values is a change of format: it would cost every user a token. Make a new version instead.
    #[test]
    fn version_one_stays_what_it_is() {
        let inputs = Inputs::new(
            "https://issuer.example/token".into(),
            "user".to_owned().into(),
            "pass".to_owned().into(),
            vec!["b".into(), "a".into()],
            [("k".to_owned(), "v".to_owned())].into(),
        );
        let token = AccessToken::from("fake-token".to_owned());
        assert_eq!(InputSeal::of(&inputs, &token).as_str(), "i1.uM_MC0wdkZ1b6YsPPpXeUc0E8xVlrqU-X1VXkRINo6c");
        assert_eq!(
            RecordSeal::of(&record("fake-token", 43199)).as_str(),
            "r1.NKdcg8SZhdk7d-S8Cq1IbgTnCZiq45PbmJoHJx_fMGc"
        );
    }
}
