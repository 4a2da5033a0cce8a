//! A request as the issuer saw it.

use std::fmt;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::MAIN;

/// One request, all of it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its place among all requests, from 1.
    pub number: usize,
    /// What is between `/t/` and `/oauth2/token` in the path; [`MAIN`] without that.
    pub tag: String,
    /// When it had arrived, by the wall clock.
    pub at: Timestamp,
    /// The same by the monotonic clock.
    pub instant: Instant,
    /// `POST`, if all is well.
    pub method: Method,
    /// The path.
    pub path: String,
    /// What follows `?`, encoded.
    pub query: Option<String>,
    /// The headers, `Authorization` included.
    pub headers: HeaderMap,
    /// The body; empty if the connection was closed without reading it.
    pub body: String,
    /// The user of `Authorization: Basic`, decoded from base64 only: what RFC 6749 percent-encodes is still so.
    pub user: Option<String>,
    /// The password beside it.
    pub password: Option<String>,
}

// === impl Recorded ===

impl Recorded {
    pub(super) fn new(number: usize, head: Parts, body: &[u8]) -> Self {
        let path = head.uri.path().to_owned();
        let (user, password) = basic(&head.headers).unzip();
        Self {
            number,
            tag: tag(&path).to_owned(),
            at: Timestamp::now(),
            instant: Instant::now(),
            method: head.method,
            path,
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body: String::from_utf8_lossy(body).into_owned(),
            user,
            password,
        }
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The parameters in the query, decoded.
    #[must_use]
    pub fn query_parameters(&self) -> Vec<(String, String)> {
        parameters(self.query.as_deref().unwrap_or_default())
    }

    /// The parameters in the form body, decoded.
    #[must_use]
    pub fn body_parameters(&self) -> Vec<(String, String)> {
        parameters(&self.body)
    }

    /// A parameter, wherever it stands.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let all = self.query_parameters().into_iter().chain(self.body_parameters());
        all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// User and password, from the header or, where that has none, `client_id` and `client_secret` from the body.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, String)> {
        let header = self.user.clone().zip(self.password.clone());
        header.or_else(|| {
            let body = self.body_parameters();
            let value = |name| body.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            value("client_id").zip(value("client_secret"))
        })
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials().map_or_else(|| "nobody".to_owned(), |(user, _)| user);
        write!(f, "#{} {} {} {} by {user}", self.number, self.at, self.method, self.path)
    }
}

/// The tag in a path, also for a request that is not recorded yet.
pub(super) fn tag(path: &str) -> &str {
    path.strip_prefix("/t/").and_then(|rest| rest.split('/').next()).unwrap_or(MAIN)
}

fn parameters(encoded: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded.as_bytes()).into_owned().collect()
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| (user.to_owned(), password.to_owned()))
}
