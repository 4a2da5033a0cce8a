//! Answers that are no token: problem details (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What is wrong, for a program and for a person. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// The word of the resource's condition.
    pub(super) reason: Option<&'static str>,
    /// In how many seconds to ask again.
    pub(super) retry_after: Option<u64>,
    /// Of a 401: the token that was shown is no good, rather than none was.
    invalid_token: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    /// No other meaning than that of the status code.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), reason: None, retry_after: None, invalid_token: false }
    }

    /// The caller shows a token that is not accepted.
    pub(super) fn invalid_token(detail: impl Into<String>) -> Self {
        Self { invalid_token: true, ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// It may work in `seconds`.
    pub(super) fn later(status: StatusCode, seconds: u64, detail: impl Into<String>) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::new(status, detail) }
    }

    pub(super) fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let (status, reason) = (self.status.as_u16(), self.reason);
        let body = Body { r#type: "about:blank", title, status, detail: &self.detail, reason };
        let text = serde_json::to_string(&body).unwrap_or_default() + "\n";
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 section 3.
            let challenge = if self.invalid_token {
                r#"Bearer realm="verteil-token-operator", error="invalid_token""#
            } else {
                r#"Bearer realm="verteil-token-operator""#
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
