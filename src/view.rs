//! One token as the debug endpoint shows it: from the status of its resource and the memory of this process.

use jiff::Timestamp;
use serde::Serialize;

use crate::api::VerteilToken;
use crate::cluster::Tokens;
use crate::decide::Reason;
use crate::memory::{Entry, Key, Memory};
use crate::resources::{is_true, reason};
use crate::token::{RecordSeal, Validity, renewal_point};

/// What can be said of a token without showing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// There is one, and it is valid.
    pub token_available: bool,
    /// Its times.
    pub token_info: TokenInfo,
    /// When its successor is requested, in unix seconds.
    pub renewal: Option<i64>,
    /// What is in the way, or the reason of the condition Ready.
    pub reason: &'static str,
    /// Where it is, and from whom.
    pub source: Option<Source>,
}

/// The times of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// There is one, valid or not.
    pub has_token: bool,
    /// It has not expired, and was issued for what the resource now wants.
    pub is_valid: bool,
    /// Seconds left; 0 when it has expired.
    pub expires_in: Option<i64>,
    /// Its expiry in unix seconds.
    pub expiry_time: Option<i64>,
}

/// Where a token is, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the Secret, where this process found it.
    Secret,
    /// In the memory of this process, which is yet to write it to the Secret.
    Memory,
    /// In the Secret, where this process put it.
    Issued,
}

/// What is known of the token itself.
struct Known {
    validity: Validity,
    current: bool,
    renewal: Option<Timestamp>,
    source: Source,
}

// === impl TokenView ===

impl TokenView {
    /// What is known at `now`.
    #[must_use]
    pub fn of(object: &Tokens, memory: &Memory, now: Timestamp) -> Self {
        let key = Key::of(object);
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        let Ok(token) = object.get() else {
            let (token_info, reason) = (TokenInfo::default(), "Undecodable");
            return Self { namespace, name, token_available: false, token_info, renewal: None, reason, source: None };
        };
        let known = memory.peek(&key, |entry| in_memory(token, entry).or_else(|| stored(token, Some(entry))));
        let known = known.unwrap_or_else(|| stored(token, None));
        let token_info = known.as_ref().map_or_else(TokenInfo::default, |known| known.info(now));
        Self {
            namespace,
            name,
            token_available: token_info.is_valid,
            token_info,
            renewal: known.as_ref().and_then(|known| known.renewal).map(Timestamp::as_second),
            reason: token.status.as_ref().and_then(reason).map_or("Unknown", Reason::as_str),
            source: known.map(|known| known.source),
        }
    }
}

// === impl Known ===

impl Known {
    fn info(&self, now: Timestamp) -> TokenInfo {
        let expiry = self.validity.expires_at;
        TokenInfo {
            has_token: true,
            is_valid: self.current && now < expiry,
            expires_in: Some(expiry.as_second().saturating_sub(now.as_second()).max(0)),
            expiry_time: Some(expiry.as_second()),
        }
    }
}

/// A token whose Secret or status is yet to be written: the status does not tell of it.
fn in_memory(token: &VerteilToken, entry: &Entry) -> Option<Known> {
    let issued = entry.issued.as_deref()?;
    let validity = issued.content.record.validity();
    let repeats = issued.repeated;
    let seal = RecordSeal::of(&issued.content.record);
    let source = match (entry.saved, entry.given.as_ref() == Some(&seal)) {
        (false, _) => Source::Memory,
        (true, true) => Source::Issued,
        (true, false) => Source::Secret,
    };
    let renewal = renewal_point(validity, token.spec.renew_before.signed(), &seal, repeats);
    Some(Known { validity, current: true, renewal: Some(renewal), source })
}

/// The token in the Secret, as the status tells.
fn stored(token: &VerteilToken, entry: Option<&Entry>) -> Option<Known> {
    let status = token.status.as_ref()?;
    let expires_at = status.expires_at.as_ref()?.0;
    let validity = Validity { issued_at: status.issued_at.as_ref().map_or(expires_at, |time| time.0), expires_at };
    let given = entry.and_then(|entry| entry.given.as_ref()).map(RecordSeal::as_str);
    let source = if status.in_memory == Some(true) {
        Source::Memory
    } else if given.is_some() && given == status.record_seal.as_deref() {
        Source::Issued
    } else {
        Source::Secret
    };
    let renewal = status.renewal_time.as_ref().map(|time| time.0);
    Some(Known { validity, current: is_true(status, "Ready"), renewal, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::api::IssueReason;
    use crate::memory::Issued;
    use crate::secret::Content;
    use crate::token::Record;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn record(token: &str) -> Record {
        Record::new(token.to_owned().into(), "Bearer".into(), 3600, at(0), at(0)).unwrap()
    }

    fn object(ready: &str, reason: &str, stored: Option<&Record>) -> Tokens {
        let condition = json!({
            "type": "Ready", "status": ready, "reason": reason, "message": "", "lastTransitionTime": "2027-01-15T08:00:00Z",
        });
        let token = json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken", "metadata": {"name": "flight", "namespace": "a"},
            "spec": {"tokenURL": "https://issuer.example/", "credentialsSecretRef": {"name": "c"}},
            "status": {
                "conditions": [condition],
                "issuedAt": stored.map(|record| record.validity().issued_at.to_string()),
                "expiresAt": stored.map(|record| record.validity().expires_at.to_string()),
                "renewalTime": stored.map(|_| at(3000).to_string()),
                "recordSeal": stored.map(|record| RecordSeal::of(record).as_str().to_owned()),
            },
        });
        serde_json::from_str(&token.to_string()).unwrap()
    }

    fn issued(record: Record) -> Arc<Issued> {
        let content = Content {
            record_seal: RecordSeal::of(&record).as_str().to_owned(),
            input_seal: None,
            renewed: None,
            record,
        };
        let (reason, requested_at) = (IssueReason::Expired, at(0));
        Arc::new(Issued {
            owner: None,
            content,
            reason,
            repeated: false,
            trouble: None,
            requested_at,
            replaces: None,
            counted: false,
            claim: None,
        })
    }

    fn key() -> Key {
        Key::new("a", "flight")
    }

    #[test]
    fn a_stored_token_has_its_times_and_one_that_was_issued_here_says_so() {
        let stored = record("fake-one");
        let memory = Memory::default();
        let object = object("True", "TokenValid", Some(&stored));
        let view = TokenView::of(&object, &memory, at(600));
        let info = TokenInfo {
            has_token: true,
            is_valid: true,
            expires_in: Some(3000),
            expiry_time: Some(at(3600).as_second()),
        };
        assert_eq!((view.token_info, view.token_available, view.reason), (info, true, "TokenValid"));
        assert_eq!((view.renewal, view.source), (Some(at(3000).as_second()), Some(Source::Secret)));
        memory.with(&key(), |entry| entry.given = Some(RecordSeal::of(&stored)));
        assert_eq!(TokenView::of(&object, &memory, at(0)).source, Some(Source::Issued));
        memory.with(&key(), |entry| entry.given = Some(RecordSeal::of(&record("fake-other"))));
        assert_eq!(TokenView::of(&object, &memory, at(0)).source, Some(Source::Secret));
    }

    #[test]
    fn one_that_expired_or_was_issued_for_other_inputs_is_not_valid() {
        let (stored, memory) = (record("fake-one"), Memory::default());
        let expired = TokenView::of(&object("True", "TokenValid", Some(&stored)), &memory, at(3600));
        assert_eq!((expired.token_info.is_valid, expired.token_info.expires_in), (false, Some(0)));
        let other = TokenView::of(&object("False", "IssuerUnreachable", Some(&stored)), &memory, at(0));
        assert_eq!((other.token_available, other.token_info.has_token), (false, true));
        assert_eq!(other.reason, "IssuerUnreachable");
        let none = TokenView::of(&object("False", "CredentialsMissing", None), &memory, at(0));
        assert_eq!((none.token_info, none.source, none.renewal), (TokenInfo::default(), None, None));
    }

    #[test]
    fn a_token_that_no_secret_holds_yet_is_shown_from_memory() {
        let memory = Memory::default();
        memory.with(&key(), |entry| {
            entry.issued = Some(issued(record("fake-new")));
            entry.given = Some(RecordSeal::of(&record("fake-new")));
        });
        let object = object("False", "WriteRefused", None);
        let view = TokenView::of(&object, &memory, at(10));
        assert_eq!((view.token_available, view.source, view.reason), (true, Some(Source::Memory), "WriteRefused"));
        assert_eq!(view.token_info.expires_in, Some(3590));
        assert!(view.renewal.unwrap() < at(3600).as_second());
        memory.with(&key(), |entry| entry.saved = true);
        assert_eq!(TokenView::of(&object, &memory, at(10)).source, Some(Source::Issued));
    }
}
