//! What an answer means: a token, or one of the classes of failure. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::RawAnswer;
use super::quotable::{OauthError, oauth_error, quotable_location};
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
    let retry_after = raw.retry_after.as_deref().and_then(|text| {
        // A date is one of the issuer's clock.
        retry_after(text, date_of(raw).unwrap_or(requested_at))
    });
    let failure = |class, message: String| Failure { retry_after, ..Failure::new(class, message) };
    let status = raw.status;
    let error = raw.body.as_deref().and_then(|body| oauth_error(body, inputs));
    match status {
        // RFC 6749 says 200. A token in a 201 is one all the same, and spent: asking again would cost another.
        200..=299 => issued(raw, error, requested_at)
            .map_err(|message| Failure { ambiguous: true, ..Failure::new(FailureClass::Answer, message) }),
        300..=399 => {
            let to = raw.location.as_deref().and_then(|l| quotable_location(l, raw.body.as_deref(), inputs));
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
            "the issuer answered 429: too many requests for this account; it is asked again by itself".into(),
        )),
        401 => {
            let error = error.map(|error| format!(", {}", error.quote)).unwrap_or_default();
            Err(failure(FailureClass::Refused, format!("the issuer refused the credentials: 401{error}")))
        }
        400..=499 => Err(match error {
            // Whatever answers with these two, it is about the request. Of a page that is not there, or a method that is not
            // allowed, servers of many kinds speak in an `error` as well.
            Some(OauthError { quote, registered }) if registered || matches!(status, 400 | 403) => {
                failure(FailureClass::Refused, format!("the issuer refused the request: {status}, {quote}"))
            }
            Some(OauthError { quote, .. }) => failure(
                FailureClass::Answer,
                format!("the issuer answered {status}, {quote}, which is no OAuth error: check spec.tokenURL"),
            ),
            None => failure(
                FailureClass::Answer,
                format!("the issuer answered {status} without an OAuth error: check spec.tokenURL"),
            ),
        }),
        500..=599 => Err(failure(
            FailureClass::Unavailable,
            format!("the issuer answered {status}, a failure on its side: it is asked again by itself"),
        )),
        _ => Err(failure(
            FailureClass::Answer,
            format!("the issuer answered {status}, which is not an answer to a token request"),
        )),
    }
}

fn issued(raw: &RawAnswer, error: Option<OauthError>, requested_at: Timestamp) -> Result<Answer, String> {
    let unusable = |why: &str| Err(format!("the issuer answered {}, but {why}", raw.status));
    let Some(body) = &raw.body else { return unusable("its body is larger than 64 KiB") };
    if let Some(error) = error {
        return unusable(&format!("with an error: {}", error.quote));
    }
    let Ok(issued) = serde_json::from_slice::<Issued>(body) else {
        return unusable(match body.as_slice() {
            [] => "its body is empty: is spec.tokenURL the token endpoint?",
            _ if raw.encoded || body.starts_with(&GZIP) => {
                "its body is compressed (Content-Encoding), which was not asked for"
            }
            _ => "its body is not a JSON object: is spec.tokenURL the token endpoint?",
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

/// `Retry-After` (RFC 9110 section 10.2.3), in seconds or as a date, which is `now` for who wrote it.
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
mod tests;
