//! The canonical record: what one token is and how long it holds, as the key `verteil_token.json` of the Secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AccessToken, Validity};

/// Key of the Secret that holds the record as JSON.
const RECORD_KEY: &str = "verteil_token.json";

/// One issued token with its times, in whole unix seconds.
///
/// The JSON form is that of the file-based original:
/// `{"access_token", "token_data": {"access_token", "token_type", "expires_in"}, "token_expiry", "saved_at"}`.
#[derive(Clone)]
pub struct Record {
    access_token: AccessToken,
    token_type: String,
    expires_in: i64,
    token_expiry: i64,
    saved_at: i64,
    validity: Validity,
}

/// Why bytes are not a record. It names the field, never its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is not in the Secret.
    #[error("the key verteil_token.json is missing")]
    Missing,
    /// Not a JSON object with the record's fields.
    #[error("verteil_token.json is not JSON of the expected form: {0}")]
    Malformed(&'static str),
    /// The two copies of the token differ.
    #[error("access_token and token_data.access_token differ")]
    TokensDiffer,
    /// A time that no calendar has.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The record is well-formed, but not what was sealed.
    #[error("the record does not match its seal: it was altered")]
    Altered,
}

#[derive(Serialize)]
struct Written<'a> {
    access_token: &'a str,
    token_data: WrittenData<'a>,
    token_expiry: i64,
    saved_at: i64,
}

#[derive(Serialize)]
struct WrittenData<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: i64,
}

#[derive(Deserialize)]
struct Read {
    access_token: serde_json::Value,
    token_data: serde_json::Map<String, serde_json::Value>,
    token_expiry: serde_json::Value,
    saved_at: serde_json::Value,
}

// === impl Record ===

impl Record {
    /// The record of a token of `lifetime` seconds that was asked for at `requested_at` and received at `saved_at`.
    ///
    /// Expiry counts from before the request, so that it errs early.
    pub fn new(
        access_token: AccessToken,
        token_type: String,
        lifetime: i64,
        requested_at: Timestamp,
        saved_at: Timestamp,
    ) -> Result<Self, RecordError> {
        let token_expiry =
            requested_at.as_second().checked_add(lifetime).ok_or(RecordError::OutOfRange("token_expiry"))?;
        Self::assemble(access_token, token_type, lifetime, token_expiry, saved_at.as_second())
    }

    fn assemble(
        access_token: AccessToken,
        token_type: String,
        expires_in: i64,
        token_expiry: i64,
        saved_at: i64,
    ) -> Result<Self, RecordError> {
        let at = |seconds, field| Timestamp::from_second(seconds).map_err(|_| RecordError::OutOfRange(field));
        let expires_at = at(token_expiry, "token_expiry")?;
        at(saved_at, "saved_at")?;
        let issued_at = token_expiry
            .checked_sub(expires_in)
            .and_then(|s| Timestamp::from_second(s).ok())
            .ok_or(RecordError::OutOfRange("expires_in"))?;
        let validity = Validity { issued_at, expires_at };
        Ok(Self { access_token, token_type, expires_in, token_expiry, saved_at, validity })
    }

    /// Reads the JSON form. Unknown fields are ignored; a time may have a fraction, which is dropped.
    pub fn parse(json: &[u8]) -> Result<Self, RecordError> {
        Read::of(json)?.record()
    }

    /// Reads the JSON form as the file-based original wrote it, which kept the issuer's answer as it came: `token_type` may be
    /// missing, `expires_in` may be missing or text. What is missing follows from the rest.
    pub fn import(json: &[u8]) -> Result<Self, RecordError> {
        let mut read = Read::of(json)?;
        let (end, start) = (whole(&read.token_expiry), whole(&read.saved_at));
        let lasts = end.zip(start).and_then(|(end, start)| end.checked_sub(start));
        read.token_data.entry("token_type").or_insert_with(|| "Bearer".into());
        let told = read.token_data.get("expires_in");
        let told = told.and_then(|value| whole(value).or_else(|| value.as_str()?.trim().parse().ok()));
        let lifetime = told.filter(|seconds| *seconds > 0).or(lasts).ok_or(RecordError::Malformed("saved_at"))?;
        read.token_data.insert("expires_in".into(), lifetime.into());
        read.record()
    }

    /// The JSON form. Whoever holds it holds the token.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let access_token = self.access_token.expose();
        let written = Written {
            access_token,
            token_data: WrittenData { access_token, token_type: &self.token_type, expires_in: self.expires_in },
            token_expiry: self.token_expiry,
            saved_at: self.saved_at,
        };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// The Secret's keys and their values: the record and one flat key for each of its fields.
    #[must_use]
    pub fn keys(&self) -> [(&'static str, Vec<u8>); 6] {
        [
            ("access_token", self.access_token.expose().as_bytes().to_vec()),
            ("token_type", self.token_type.clone().into_bytes()),
            ("expires_in", self.expires_in.to_string().into_bytes()),
            ("token_expiry", self.token_expiry.to_string().into_bytes()),
            ("saved_at", self.saved_at.to_string().into_bytes()),
            (RECORD_KEY, self.to_json()),
        ]
    }

    /// The same token with an expiry that is at least `expires_at`, as an issuer that repeats its token may report it.
    #[must_use]
    pub fn extended_to(&self, expires_at: Timestamp) -> Self {
        let longer = expires_at.as_second().saturating_sub(self.token_expiry).max(0);
        Self::assemble(
            self.access_token.clone(),
            self.token_type.clone(),
            self.expires_in.saturating_add(longer),
            self.token_expiry.saturating_add(longer),
            self.saved_at,
        )
        .unwrap_or_else(|_| self.clone())
    }

    /// Whether `name` is one of the [keys](Self::keys).
    #[must_use]
    pub fn is_key(name: &str) -> bool {
        ["access_token", "token_type", "expires_in", "token_expiry", "saved_at", RECORD_KEY].contains(&name)
    }

    /// Name of the key that holds the JSON form.
    #[must_use]
    pub const fn json_key() -> &'static str {
        RECORD_KEY
    }

    /// The token.
    #[must_use]
    pub const fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// `token_type` of the answer (RFC 6749 section 7.1), as the issuer wrote it.
    #[must_use]
    pub fn token_type(&self) -> &str {
        &self.token_type
    }

    /// Lifetime in seconds, counted from before the request.
    #[must_use]
    pub const fn expires_in(&self) -> i64 {
        self.expires_in
    }

    /// Expiry in unix seconds.
    #[must_use]
    pub const fn token_expiry(&self) -> i64 {
        self.token_expiry
    }

    /// When the token was received, in unix seconds.
    #[must_use]
    pub const fn saved_at(&self) -> i64 {
        self.saved_at
    }

    /// When it was asked for and when it expires.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }
}

// === impl Read ===

impl Read {
    fn of(json: &[u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(json)
            .map_err(|_| RecordError::Malformed("an object with access_token, token_data, token_expiry and saved_at"))
    }

    fn record(&self) -> Result<Record, RecordError> {
        use RecordError::Malformed;
        let text = |value: Option<&serde_json::Value>, field| match value.and_then(serde_json::Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            Some(_) | None => Err(Malformed(field)),
        };
        let data = &self.token_data;
        let access_token: AccessToken = text(Some(&self.access_token), "access_token")?.into();
        let copy: AccessToken = text(data.get("access_token"), "token_data.access_token")?.into();
        if !access_token.is_same(&copy) {
            return Err(RecordError::TokensDiffer);
        }
        let token_type = text(data.get("token_type"), "token_data.token_type")?;
        let expires_in = data.get("expires_in").and_then(whole).ok_or(Malformed("token_data.expires_in"))?;
        let token_expiry = whole(&self.token_expiry).ok_or(Malformed("token_expiry"))?;
        let saved_at = whole(&self.saved_at).ok_or(Malformed("saved_at"))?;
        Record::assemble(access_token, token_type, expires_in, token_expiry, saved_at)
    }
}

/// A JSON number as whole seconds; the original's clock wrote fractions.
fn whole(value: &serde_json::Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let seconds = value.as_f64()?.floor();
        #[expect(clippy::cast_possible_truncation, reason = "held within the range in which an f64 is exact")]
        (seconds.abs() < 9e15).then_some(seconds as i64)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record() -> Record {
        Record::new("fake-token".to_owned().into(), "Bearer".into(), 43199, at(1_800_000_000), at(1_800_000_001))
            .unwrap()
    }

    #[test]
    fn writes_the_json_of_the_original() {
        let json: serde_json::Value = serde_json::from_slice(&record().to_json()).unwrap();
        assert_eq!(
            json,
            json!({
                "access_token": "fake-token",
                "token_data": {"access_token": "fake-token", "token_type": "Bearer", "expires_in": 43199},
                "token_expiry": 1_800_043_199,
                "saved_at": 1_800_000_001,
            })
        );
    }

    #[test]
    fn reads_what_it_wrote() {
        let read = Record::parse(&record().to_json()).unwrap();
        assert!(read.to_json() == record().to_json());
        assert_eq!(read.validity().issued_at, at(1_800_000_000));
    }

    #[test]
    fn reads_the_originals_fractions_and_extra_fields() {
        let json = json!({
            "access_token": "t", "extra": 1,
            "token_data": {"access_token": "t", "token_type": "bearer", "expires_in": 60, "scope": "api"},
            "token_expiry": 1_800_000_060.75, "saved_at": 1_800_000_000.75,
        });
        let record = Record::parse(&serde_json::to_vec(&json).unwrap()).unwrap();
        assert_eq!((record.token_expiry(), record.saved_at()), (1_800_000_060, 1_800_000_000));
    }

    #[test]
    fn imports_what_the_original_kept_of_an_answer() {
        let import = |data: serde_json::Value| {
            let json = json!({
                "access_token": "t", "token_data": data, "token_expiry": 1_800_003_600.5, "saved_at": 1_800_000_000.25,
            });
            Record::import(&serde_json::to_vec(&json).unwrap()).map(|r| (r.token_type().to_owned(), r.expires_in()))
        };
        let bearer = |seconds| Ok(("Bearer".to_owned(), seconds));
        assert_eq!(import(json!({"access_token": "t"})), bearer(3600));
        assert_eq!(import(json!({"access_token": "t", "expires_in": "3599"})), bearer(3599));
        assert_eq!(import(json!({"access_token": "t", "expires_in": 43_199, "scope": "api"})), bearer(43_199));
        assert_eq!(import(json!({"access_token": "t", "expires_in": null, "token_type": "Bearer"})), bearer(3600));
        assert_eq!(import(json!({"access_token": "other"})).err(), Some(RecordError::TokensDiffer));
        assert!(import(json!(null)).is_err() && import(json!({})).is_err());
        assert!(Record::import(b"{}").is_err() && Record::import(b"no JSON").is_err());
    }

    #[test]
    fn imports_whatever_is_beside_the_fields_of_a_good_record() {
        let json = String::from_utf8(record().to_json()).unwrap();
        // Both are JSON, and neither is a number or a text in Rust.
        for extra in ["1e999", r#""\ud800""#] {
            let json = json.replacen('{', &format!("{{\"extra\":{extra},"), 1);
            for read in [Record::parse(json.as_bytes()), Record::import(json.as_bytes())] {
                assert!(read.unwrap().to_json() == record().to_json(), "{extra}");
            }
        }
    }

    #[test]
    fn every_key_is_known_as_one() {
        assert!(record().keys().iter().all(|(name, _)| Record::is_key(name)) && !Record::is_key("other"));
    }

    #[test]
    fn refuses_each_field_missing_or_of_a_wrong_type() {
        let good: serde_json::Value = serde_json::from_slice(&record().to_json()).unwrap();
        for pointer in [
            "/access_token",
            "/token_data",
            "/token_data/access_token",
            "/token_data/token_type",
            "/token_data/expires_in",
            "/token_expiry",
            "/saved_at",
        ] {
            for wrong in [json!(null), json!([]), json!(true), json!("")] {
                let mut bad = good.clone();
                *bad.pointer_mut(pointer).unwrap() = wrong.clone();
                assert!(Record::parse(&serde_json::to_vec(&bad).unwrap()).is_err(), "{pointer} = {wrong}");
            }
            let mut bad = good.clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            bad.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
            assert!(Record::parse(&serde_json::to_vec(&bad).unwrap()).is_err(), "without {pointer}");
        }
    }

    #[test]
    fn refuses_two_different_tokens_and_truncation() {
        let json = String::from_utf8(record().to_json()).unwrap();
        let other = json.replacen("fake-token", "other-token", 1);
        assert_eq!(Record::parse(other.as_bytes()).err(), Some(RecordError::TokensDiffer));
        for end in 0..json.len() {
            assert!(Record::parse(&json.as_bytes()[..end]).is_err(), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Record::parse(&bytes).map_or(true, |r| !r.access_token().expose().is_empty()));
            prop_assert!(Record::import(&bytes).map_or(true, |r| Record::parse(&r.to_json()).is_ok()));
        }

        #[test]
        fn any_numbers_are_read_or_refused(expires_in in any::<i64>(), expiry in any::<i64>(), saved in any::<f64>()) {
            let json = json!({
                "access_token": "t", "token_data": {"access_token": "t", "token_type": "Bearer", "expires_in": expires_in},
                "token_expiry": expiry, "saved_at": saved,
            });
            if let Ok(record) = Record::parse(&serde_json::to_vec(&json).unwrap()) {
                prop_assert_eq!(record.validity().expires_at.as_second(), expiry);
                prop_assert!(Record::parse(&record.to_json()).is_ok());
            }
        }
    }
}
