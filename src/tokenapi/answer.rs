//! One call: what is asked for, whether it may be answered, and the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::TokenApi;
use super::problem::Problem;
use super::waiting::Call;
use crate::api;
use crate::memory::Key;
use crate::token::{Record, RecordSeal};

/// The longest that a call may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The token as a client of RFC 6749 section 5.1 knows it, with the time that does not depend on when it was read.
#[derive(Serialize)]
struct Body<'a> {
    access_token: &'a str,
    token_type: &'a str,
    /// Seconds from now.
    expires_in: i64,
    /// Unix seconds.
    token_expiry: i64,
}

/// What the caller has already, and how long it would wait for something else.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    known: Vec<String>,
    pub(super) wait: Duration,
}

pub(super) async fn token(
    State(api): State<Arc<TokenApi>>,
    method: Method,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
        return ([(header::ALLOW, "GET")], problem).into_response();
    }
    let readable = path.is_ok();
    let key = path.map_or_else(|_| as_written(uri.path()), |Path((namespace, name))| Key::new(namespace, name));
    // Who may not have the token learns nothing, not even that it asked wrongly.
    let caller = match api.callers.admit(&api.context, &headers, &key).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let wish = Wish::parse(uri.query().unwrap_or_default(), &headers);
    match wish {
        Ok(wish) if readable => {
            let call = Call { key, headers: &headers, caller, wish };
            let found = api.fulfil(&call).await;
            respond(found, &call.wish, api.context.clock.now())
        }
        Ok(_) => Problem::new(StatusCode::BAD_REQUEST, "the path is no text").into_response(),
        Err(detail) => Problem::new(StatusCode::BAD_REQUEST, detail).into_response(),
    }
}

/// What a path names that cannot be decoded: no resource has such a name.
fn as_written(path: &str) -> Key {
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default();
    Key::new(parts.next().unwrap_or_default(), name)
}

fn respond(found: Result<Record, Problem>, wish: &Wish, now: Timestamp) -> Response {
    let record = match found {
        Ok(record) => record,
        Err(problem) => return problem.into_response(),
    };
    let mut response = if wish.knows(&record) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = Body {
            access_token: record.access_token().expose(),
            token_type: record.token_type(),
            expires_in: record.token_expiry().saturating_sub(now.as_second()).max(0),
            token_expiry: record.token_expiry(),
        };
        match serde_json::to_string(&body) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(tag) = HeaderValue::from_str(&format!("W/{}", tag(&record))) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// The record's seal: the same from every replica, and after a restart; it is keyed with the token, so that it tells nothing to
/// who does not have that. Weak, since `expires_in` differs with each answer.
fn tag(record: &Record) -> String {
    format!("\"{}\"", RecordSeal::of(record).as_str())
}

// === impl Wish ===

impl Wish {
    fn parse(query: &str, headers: &HeaderMap) -> Result<Self, String> {
        let mut wait = Duration::ZERO;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if key != "wait" {
                return Err("the only parameter is wait".into());
            }
            let asked: api::Duration = value.parse().map_err(|error| format!("wait: {error}"))?;
            wait = Duration::try_from(asked.signed()).unwrap_or_default();
            if wait > LONGEST_WAIT {
                return Err(format!("wait: at most {}s", LONGEST_WAIT.as_secs()));
            }
        }
        let told = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let tags = told.flat_map(|list| list.split(',')).map(|tag| tag.trim().trim_start_matches("W/").to_owned());
        Ok(Self { known: tags.collect(), wait })
    }

    /// Whether the caller has `record` already (RFC 9110 section 13.1.2, weak comparison).
    pub(super) fn knows(&self, record: &Record) -> bool {
        let own = tag(record);
        self.known.iter().any(|tag| *tag == own || tag == "*")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn record(token: &str) -> Record {
        Record::new(token.to_owned().into(), "Bearer".into(), 3600, at(0), at(0)).unwrap()
    }

    fn wish(query: &str, tags: &[&str]) -> Result<Wish, String> {
        Wish::parse(query, &tags.iter().map(|tag| (header::IF_NONE_MATCH, tag.parse().unwrap())).collect())
    }

    #[test]
    fn a_wait_is_a_duration_of_a_minute_at_most() {
        assert_eq!(wish("", &[]).unwrap().wait, Duration::ZERO);
        assert_eq!(wish("wait=30s", &[]).unwrap().wait, Duration::from_secs(30));
        assert_eq!(wish("wait=1m", &[]).unwrap().wait, LONGEST_WAIT);
        for wrong in ["wait=61s", "wait=30", "wait=-1s", "wait=", "waits=1s", "token=x"] {
            assert!(wish(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_has_the_token_is_told_so_and_no_more() {
        let (one, two) = (record("fake-one"), record("fake-two"));
        let weak = format!("W/{}", tag(&one));
        for tags in [vec![weak.as_str()], vec!["\"x\"", &weak], vec!["\"x\", \"y\"", "*"]] {
            assert!(wish("", &tags).unwrap().knows(&one), "{tags:?}");
        }
        assert!(!wish("", &[&weak]).unwrap().knows(&two) && !wish("", &[]).unwrap().knows(&one));
        let response = respond(Ok(one), &wish("", &[&weak]).unwrap(), at(0));
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::ETAG], weak);
        assert!(!weak.contains("fake-one"));
    }
}
