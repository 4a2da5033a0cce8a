//! An issuer's answer: what it is taken for, and what is said of it.

use serde_json::Value;
use verteil_token_operator::decide::{FailureClass, clock_offset, jittered};
use verteil_token_operator::issuer::{Answer, Failure, RawAnswer, date_of, interpret};
use verteil_token_operator::token::{Inputs, Record};

use super::record::reads_back;
use super::{FAKE, is_fit_to_be_shown, lower, now};

/// User names and passwords. That of the second has a letter whose lower case depends on its place.
const ACCOUNTS: [(&str, &str); 2] = [("canary-user", "canary-pass\n"), ("ΧΡΗΣΤΗΣ", "ΚΩΔΙΚΟΣ")];
/// Longest message in a condition that is of use; the definition allows 32768.
const LONGEST_MESSAGE: usize = 600;
/// Ten years of 365 days.
const LONGEST_LIFETIME: i64 = 10 * 365 * 24 * 3600;

/// An answer as it came: a line with the status, lines of headers, an empty line, the body. Without the empty line the body was
/// too large to be read.
pub fn answer(data: &[u8]) {
    let raw = raw(data);
    if let Some(date) = date_of(&raw) {
        // A clock is as far ahead as the other one is behind, to the second that a date leaves out.
        let (ahead, behind) = (clock_offset(date, now(), now()), clock_offset(now(), date, date));
        assert!((ahead.as_secs() + behind.as_secs()).abs() <= 1, "{ahead} and {behind}");
    }
    for (username, password) in ACCOUNTS {
        let inputs = Inputs::new(
            "https://issuer.example/token".into(),
            username.to_owned().into(),
            password.to_owned().into(),
            Vec::new(),
            [].into(),
        );
        match interpret(&raw, &inputs, now()) {
            Ok(answer) => holds_for_a_token(&raw, answer),
            Err(failure) => holds_for_a_failure(&raw, &inputs, &failure),
        }
    }
}

fn raw(data: &[u8]) -> RawAnswer {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, None), |end| (&data[..end], Some(data[end + 2..].to_vec())));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.parse().ok()).unwrap_or(200);
    let mut raw = RawAnswer { status, body, ..RawAnswer::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let value = Some(value.to_owned());
        match name {
            "Retry-After" => raw.retry_after = value,
            "Location" => raw.location = value,
            "Date" => raw.date = value,
            "Content-Encoding" => raw.encoded = true,
            _ => {}
        }
    }
    raw
}

fn holds_for_a_token(raw: &RawAnswer, answer: Answer) {
    assert_eq!(raw.status / 100, 2);
    let token = answer.access_token.expose();
    assert!(!token.is_empty() && token.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "cannot be sent in a header");
    let kind = &answer.token_type;
    assert!((1..=64).contains(&kind.len()), "a token_type of {} bytes", kind.len());
    assert!(kind.bytes().all(|byte| byte.is_ascii_graphic()), "token_type cannot be sent in a header: {kind:?}");
    let seconds = answer.lifetime.seconds;
    assert!(seconds.abs() <= LONGEST_LIFETIME, "{seconds} s");
    let record = Record::new(answer.access_token, answer.token_type, seconds, now(), now()).expect("a record");
    reads_back(&record);
}

fn holds_for_a_failure(raw: &RawAnswer, inputs: &Inputs, failure: &Failure) {
    let message = &failure.message;
    assert!(!message.is_empty() && message.chars().count() <= LONGEST_MESSAGE, "{message}");
    assert!(is_fit_to_be_shown(message), "{message:?}");
    for secret in [inputs.username(), inputs.password()] {
        let secret = secret.trim();
        let shown = lower(message).contains(&lower(secret)) || message.to_uppercase().contains(&secret.to_uppercase());
        assert!(!shown, "shows credentials: {message}");
    }
    quotes_only_what_it_may(raw, message);
    classifies(raw, failure);
    waits_within_bounds(raw, failure);
}

/// The error, its description, and where a redirect leads without its query.
fn quotes_only_what_it_may(raw: &RawAnswer, message: &str) {
    let body: Option<Value> = raw.body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
    let field = |name| body.as_ref().and_then(|body| body.get(name)).and_then(Value::as_str).unwrap_or_default();
    let token = field("access_token");
    assert!(!token.starts_with(FAKE) || !message.contains(token), "shows the token: {message}");
    let location = raw.location.as_deref().unwrap_or_default();
    // With a user before the host, nothing of it: any word may be that user.
    let target = location.split(['?', '#']).next().filter(|target| !target.contains('@')).unwrap_or_default();
    // What is left out of a target may have stood in the middle of a word.
    let target: String = target.chars().filter(char::is_ascii_graphic).collect();
    let told = [field("error"), field("error_description"), &target].iter().any(|text| text.contains(FAKE));
    assert!(told || !message.contains(FAKE), "quotes what it may not: {message}");
}

fn classifies(raw: &RawAnswer, failure: &Failure) {
    let status = raw.status;
    let expected = match status {
        401 => Some(FailureClass::Refused),
        429 => Some(FailureClass::RateLimited),
        500..=599 => Some(FailureClass::Unavailable),
        400 | 403 => None,
        // Of what is not there servers of every kind speak.
        400..=499 if !names_an_oauth_error(raw) => Some(FailureClass::Answer),
        400..=499 => Some(FailureClass::Refused),
        _ => Some(FailureClass::Answer),
    };
    assert!(expected.is_none_or(|class| class == failure.class), "{status}: {failure:?}");
    assert!(matches!(failure.class, FailureClass::Refused | FailureClass::Answer) || expected.is_some(), "{failure:?}");
    assert!(status != 200 || failure.ambiguous, "a token may have been in it: {failure:?}");
    assert!(status / 100 == 2 || !failure.ambiguous, "no token was in it: {failure:?}");
}

fn names_an_oauth_error(raw: &RawAnswer) -> bool {
    let body: Option<Value> = raw.body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
    let error = body.as_ref().filter(|body| body.is_object()).and_then(|body| body.get("error")?.as_str());
    let (invalid, unsupported) = (["request", "client", "grant", "scope"], "unsupported_grant_type");
    error.is_some_and(|error| {
        let what = error.strip_prefix("invalid_").unwrap_or_default();
        invalid.contains(&what) || [unsupported, "unauthorized_client", "access_denied"].contains(&error)
    })
}

fn waits_within_bounds(raw: &RawAnswer, failure: &Failure) {
    assert!(raw.retry_after.is_some() || failure.retry_after.is_none());
    for failures in [0, 1, 2, 1000, u32::MAX] {
        let wait = failure.class.wait(failures, failure.retry_after);
        let longest = failure.class.longest_wait();
        assert!(wait.as_secs() >= 1 && wait <= longest, "{wait} after {failure:?}");
        let later = jittered(wait, u32::MAX);
        assert!(later >= wait && later.as_secs() <= longest.as_secs() * 6 / 5, "{later} after {failure:?}");
    }
}
