//! What an answer means: a token, or one of the classes of failure. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::RawAnswer;
use super::quote::{oauth_error, quotable_location};
use crate::decide::FailureClass;
use crate::token::{AccessToken, Inputs, JwtTimes, Lifetime};

/// How gzip begins (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A token, as issued. No `Debug`.
pub struct Answer {
    /// `access_token`
    pub access_token: AccessToken,
    /// `token_type`, as written; `Bearer` if absent.
    pub token_type: String,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who must act next.
    pub class: FailureClass,
    /// A sentence for a person. Never a secret.
    pub message: String,
    /// `Retry-After`, as a span from now.
    pub retry_after: Option<SignedDuration>,
    /// The exchange may have cost a token that nobody holds.
    pub ambiguous: bool,
}

#[derive(Deserialize)]
struct Issued {
    access_token: Option<Value>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
}

// === impl Failure ===

impl Failure {
    /// A failure without `Retry-After`.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after: None, ambiguous: class.is_ambiguous() }
    }

    /// Whether it tells the whole account to wait, and not only the resource that asked.
    #[must_use]
    pub fn holds_account(&self) -> bool {
        match self.class {
            FailureClass::RateLimited => true,
            FailureClass::Unavailable => self.retry_after.is_some(),
            FailureClass::Unreached | FailureClass::Unanswered | FailureClass::Answer | FailureClass::Refused => false,
        }
    }
}

/// What `raw` means for a request with `inputs` that was sent at `requested_at`.
pub fn interpret(raw: &RawAnswer, inputs: &Inputs, requested_at: Timestamp) -> Result<Answer, Failure> {
    let retry_after = raw.retry_after.as_deref().and_then(|text| retry_after(text, requested_at));
    let failure = |class, message: String| Failure { retry_after, ..Failure::new(class, message) };
    let status = raw.status;
    let error = raw.body.as_deref().and_then(|body| oauth_error(body, inputs));
    match status {
        // RFC 6749 says 200. A token in a 201 is one all the same, and spent: asking again would cost another.
        200..=299 => issued(raw, error, requested_at)
            .map_err(|message| Failure { ambiguous: true, ..Failure::new(FailureClass::Answer, message) }),
        300..=399 => {
            let to = raw.location.as_deref().and_then(|l| quotable_location(l, inputs));
            let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
            Err(failure(
                FailureClass::Answer,
                format!(
                    "the issuer answered {status}, a redirect{to}: redirects are not followed, write the final address in spec.tokenURL"
                ),
            ))
        }
        429 => Err(failure(
            FailureClass::RateLimited,
            "the issuer answered 429: too many requests for this account".into(),
        )),
        401 => Err(failure(
            FailureClass::Refused,
            format!("the issuer refused the credentials: 401{}", error.map(|e| format!(", {e}")).unwrap_or_default()),
        )),
        400..=499 => Err(match error {
            Some(error) => failure(FailureClass::Refused, format!("the issuer refused the request: {status}, {error}")),
            None => failure(
                FailureClass::Answer,
                format!("the issuer answered {status} without an OAuth error: check spec.tokenURL"),
            ),
        }),
        500..=599 => Err(failure(FailureClass::Unavailable, format!("the issuer answered {status}"))),
        _ => Err(failure(
            FailureClass::Answer,
            format!("the issuer answered {status}, which is not an answer to a token request"),
        )),
    }
}

fn issued(raw: &RawAnswer, error: Option<String>, requested_at: Timestamp) -> Result<Answer, String> {
    let unusable = |why: &str| Err(format!("the issuer answered {}, but {why}", raw.status));
    let Some(body) = &raw.body else { return unusable("its body is larger than 64 KiB") };
    if let Some(error) = error {
        return unusable(&format!("with an error: {error}"));
    }
    let Ok(issued) = serde_json::from_slice::<Issued>(body) else {
        return unusable(match body.as_slice() {
            [] => "its body is empty",
            _ if raw.encoded || body.starts_with(&GZIP) => {
                "its body is compressed (Content-Encoding), which was not asked for"
            }
            _ => "its body is not a JSON object",
        });
    };
    let Some(Value::String(token)) = issued.access_token else { return unusable("it holds no access_token") };
    // RFC 6749 appendix A.12; anything else could not be sent in a header.
    if token.is_empty() || !token.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return unusable("its access_token is empty or not printable ASCII");
    }
    let expires_in = match issued.expires_in {
        None | Some(Value::Null) => None,
        Some(value) => match whole_seconds(&value) {
            Some(seconds) => Some(seconds),
            None => return unusable("its expires_in is not a number of seconds"),
        },
    };
    let token_type = match issued.token_type {
        // Templates put it into headers and files: a line break in it would be one there.
        Some(Value::String(kind)) if (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_graphic()) => {
            kind
        }
        Some(_) | None => "Bearer".into(),
    };
    let lifetime = Lifetime::of(expires_in, JwtTimes::of(&token), requested_at);
    Ok(Answer { access_token: token.into(), token_type, lifetime })
}

/// `expires_in` as a number or a numeric string; a fraction is dropped.
fn whole_seconds(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_i64().map(Ok).or_else(|| number.as_f64().map(Err))?,
        Value::String(text) => match text.trim().parse::<i64>() {
            Ok(seconds) => Ok(seconds),
            Err(_) => Err(text.trim().parse::<f64>().ok().filter(|n| n.is_finite())?),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    Some(number.unwrap_or_else(|float| float.floor() as i64))
}

/// `Retry-After` (RFC 9110 section 10.2.3), in seconds or as a date.
fn retry_after(text: &str, now: Timestamp) -> Option<SignedDuration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(SignedDuration::from_secs(text.parse().unwrap_or(i64::MAX)));
    }
    Some(http_date(text)?.duration_since(now))
}

/// The time of `raw` by the issuer's clock.
#[must_use]
pub fn date_of(raw: &RawAnswer) -> Option<Timestamp> {
    http_date(raw.date.as_deref()?)
}

/// A date in a header (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a failed test")]

    use proptest::prelude::*;

    use super::*;
    use crate::token::LifetimeSource::{Assumed, ExpiresIn};

    fn inputs() -> Inputs {
        Inputs::new("u".into(), "canary-user".to_owned().into(), "canary-pass\n".to_owned().into(), vec![], [].into())
    }

    fn answer(status: u16, body: &str) -> Result<Answer, Failure> {
        answer_with(status, body, None)
    }

    fn answer_with(status: u16, body: &str, retry_after: Option<&str>) -> Result<Answer, Failure> {
        let raw = RawAnswer {
            status,
            retry_after: retry_after.map(str::to_owned),
            location: None,
            date: None,
            encoded: false,
            body: Some(body.as_bytes().to_vec()),
        };
        interpret(&raw, &inputs(), Timestamp::from_second(1_800_000_000).unwrap())
    }

    #[test]
    fn reads_a_lifetime_as_number_or_string_or_not_at_all() {
        let seconds = |expires_in: &str| {
            answer(200, &format!(r#"{{"access_token":"t"{expires_in}}}"#))
                .map(|a| (a.lifetime.seconds, a.lifetime.source))
        };
        for (text, expected) in [
            (r#","expires_in":43199"#, (43199, ExpiresIn)),
            (r#","expires_in":"43199""#, (43199, ExpiresIn)),
            (r#","expires_in":43199.9"#, (43199, ExpiresIn)),
            (r#","expires_in":0"#, (0, ExpiresIn)),
            (r#","expires_in":-5"#, (-5, ExpiresIn)),
            (r#","expires_in":1e300"#, (315_360_000, ExpiresIn)),
            (r#","expires_in":null"#, (3600, Assumed)),
            ("", (3600, Assumed)),
        ] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for text in [r#","expires_in":"soon""#, r#","expires_in":[]"#, r#","expires_in":"NaN""#] {
            assert_eq!(seconds(text).unwrap_err().class, FailureClass::Answer, "{text}");
        }
    }

    #[test]
    fn keeps_the_token_type_as_written() {
        for (body, kind) in [
            (r#"{"access_token":"t","token_type":"bearer"}"#, "bearer"),
            (r#"{"access_token":"t"}"#, "Bearer"),
            (r#"{"access_token":"t","token_type":"mac\r\nX-Fake: 1"}"#, "Bearer"),
        ] {
            assert_eq!(answer(200, body).ok().unwrap().token_type, kind);
        }
    }

    #[test]
    fn classifies_by_who_must_act() {
        let spring = r#"{"timestamp":"2026-01-01","status":401,"error":"Unauthorized","path":"/oauth2/token"}"#;
        for (status, body, class, shown) in [
            (401, spring, FailureClass::Refused, "401, Unauthorized"),
            (401, "", FailureClass::Refused, "401"),
            (
                400,
                r#"{"error":"invalid_scope","error_description":"no such scope"}"#,
                FailureClass::Refused,
                "400, invalid_scope (no such scope)",
            ),
            (403, r#"{"error":"unauthorized_client"}"#, FailureClass::Refused, "403, unauthorized_client"),
            (404, "<html>", FailureClass::Answer, "404 without an OAuth error"),
            (407, "", FailureClass::Answer, "407"),
            (302, "", FailureClass::Answer, "302, a redirect"),
            (429, "", FailureClass::RateLimited, "429"),
            (503, "", FailureClass::Unavailable, "503"),
            (204, "", FailureClass::Answer, "204, but its body is empty"),
            (200, "", FailureClass::Answer, "empty"),
            (200, "<html></html>", FailureClass::Answer, "not a JSON object"),
            (200, "[1]", FailureClass::Answer, "not a JSON object"),
            (200, r#"{"expires_in":1}"#, FailureClass::Answer, "no access_token"),
            (200, r#"{"access_token":""}"#, FailureClass::Answer, "empty"),
            (200, r#"{"access_token":"a\nb"}"#, FailureClass::Answer, "printable"),
            (200, r#"{"error":"invalid_client"}"#, FailureClass::Answer, "invalid_client"),
        ] {
            let failure = answer(status, body).err().unwrap();
            assert_eq!(failure.class, class, "{status} {body}");
            assert!(failure.message.contains(shown), "{status} {body}: {}", failure.message);
            assert_eq!(failure.ambiguous, status / 100 == 2, "{status} {body}");
        }
    }

    #[test]
    fn a_compressed_body_is_named_by_its_header_or_its_first_bytes() {
        let said = |encoded, body: &[u8]| {
            let raw = RawAnswer { status: 200, encoded, body: Some(body.to_vec()), ..RawAnswer::default() };
            interpret(&raw, &inputs(), Timestamp::UNIX_EPOCH).err().unwrap().message
        };
        for (encoded, body) in [(true, b"\x78\x9c\x03".as_slice()), (false, b"\x1f\x8b\x08")] {
            assert!(said(encoded, body).contains("its body is compressed (Content-Encoding)"), "{body:x?}");
        }
        assert!(said(false, b"\x1f").contains("not a JSON object") && said(true, b"").contains("empty"));
    }

    #[test]
    fn reads_retry_after_in_seconds_and_as_a_date() {
        let wait = |text| answer_with(429, "", Some(text)).err().unwrap().retry_after.map(|d| d.as_secs());
        assert_eq!(wait("60"), Some(60));
        assert_eq!(wait("Fri, 15 Jan 2027 08:01:00 GMT"), Some(60));
        assert_eq!(wait("99999999999999999999"), Some(i64::MAX));
        assert_eq!([wait("soon"), wait("-1"), wait("")], [None, None, None]);
    }

    proptest! {
        #[test]
        fn any_answer_is_understood_or_refused(
            status in 0u16..1000,
            body in proptest::collection::vec(any::<u8>(), 0..200),
            header in proptest::option::of("\\PC{0,40}"),
        ) {
            let raw = RawAnswer {
                status,
                retry_after: header.clone(),
                location: header.clone(),
                date: header,
                encoded: status % 2 == 0,
                body: Some(body),
            };
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            prop_assert!(interpret(&raw, &inputs(), now).map_or_else(|f| !f.message.is_empty(), |a| !a.access_token.expose().is_empty()));
        }

        #[test]
        fn any_expires_in_is_read_or_refused(value in "[0-9eE+.\"-]{0,24}") {
            let answer = answer(200, &format!(r#"{{"access_token":"t","expires_in":{value}}}"#));
            prop_assert!(answer.map_or_else(|f| !f.message.is_empty(), |a| a.lifetime.seconds.abs() <= 315_360_000));
        }
    }
}
