//! What an answer is taken for.

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
        answer(200, &format!(r#"{{"access_token":"t"{expires_in}}}"#)).map(|a| (a.lifetime.seconds, a.lifetime.source))
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
        (400, spring, FailureClass::Refused, "400, Unauthorized"),
        (403, r#"{"status":403,"error":"Forbidden"}"#, FailureClass::Refused, "403, Forbidden"),
        (422, r#"{"error":"invalid_grant"}"#, FailureClass::Refused, "422, invalid_grant"),
        (404, r#"{"error":"Invalid_Client"}"#, FailureClass::Answer, "404, Invalid_Client, which is no OAuth error"),
        (404, r#"{"status":404,"error":"Not Found"}"#, FailureClass::Answer, "404, Not Found, which is no OAuth error"),
        (405, r#"{"status":405,"error":"Method Not Allowed"}"#, FailureClass::Answer, "405, Method Not Allowed, which"),
        (407, r#"{"error":"proxy"}"#, FailureClass::Answer, "407, proxy, which is no OAuth error"),
        (415, r#"{"error":"Unsupported Media Type"}"#, FailureClass::Answer, "415, Unsupported Media Type, which"),
        (400, r#"{"error":""}"#, FailureClass::Answer, "400 without an OAuth error"),
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
        (200, r#"{"error":""}"#, FailureClass::Answer, "no access_token"),
    ] {
        let failure = answer(status, body).err().unwrap();
        assert_eq!(failure.class, class, "{status} {body}");
        assert!(failure.message.contains(shown), "{status} {body}: {}", failure.message);
        assert_eq!(failure.ambiguous, status / 100 == 2, "{status} {body}");
    }
}

#[test]
fn an_empty_error_beside_a_token_is_none() {
    let body = r#"{"access_token":"t","expires_in":43199,"error":"","error_description":""}"#;
    assert_eq!(answer(200, body).ok().unwrap().lifetime.seconds, 43_199);
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

#[test]
fn a_date_in_retry_after_counts_from_the_answers_own_date() {
    let wait = |after: &str, date: Option<&str>| {
        let (retry_after, date) = (Some(after.to_owned()), date.map(str::to_owned));
        let raw = RawAnswer { status: 503, retry_after, date, body: Some(Vec::new()), ..RawAnswer::default() };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        interpret(&raw, &inputs(), now).err().unwrap().retry_after.map(|d| d.as_secs())
    };
    // By our clock it is 08:00.
    for (hour, date) in [("09", "Fri, 15 Jan 2027 09:00:00 GMT"), ("07", "Fri, 15 Jan 2027 07:00:00 GMT")] {
        assert_eq!(wait(&format!("Fri, 15 Jan 2027 {hour}:10:00 GMT"), Some(date)), Some(600), "{date}");
    }
    assert_eq!(wait("Fri, 15 Jan 2027 08:10:00 GMT", Some("soon")), Some(600));
    assert_eq!(wait("Fri, 15 Jan 2027 08:10:00 GMT", None), Some(600));
    assert_eq!(wait("60", Some("Fri, 15 Jan 2027 09:00:00 GMT")), Some(60));
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
