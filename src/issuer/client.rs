//! Sends the request. No retries, no redirects, no more of the answer than is needed.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use secrecy::ExposeSecret;

use super::{Exchange, Failure, RawAnswer};
use crate::decide::FailureClass;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A token answer is a few KiB; whatever is larger is something else.
const LARGEST_BODY: usize = 64 * 1024;

/// The HTTP client for token endpoints. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured.
#[derive(Clone)]
pub struct Issuer {
    http: reqwest::Client,
}

// === impl Issuer ===

impl Issuer {
    /// A client that trusts the system's certificate authorities.
    pub fn new() -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // A retry in here would be a second request that nobody decided on.
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            // A kept connection that the server has closed meanwhile would make a request look unanswered.
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(2)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .build()?;
        Ok(Self { http })
    }

    /// Sends `exchange` and reads the answer.
    ///
    /// # Errors
    /// `Unreached` if the request was certainly not sent, `Unanswered` if it may have been and no whole answer came.
    pub async fn send(&self, exchange: &Exchange) -> Result<RawAnswer, Failure> {
        match tokio::time::timeout(exchange.timeout, self.exchange(exchange)).await {
            Ok(result) => result.map_err(|error| failure(&error)),
            Err(_) => Err(Failure::new(
                FailureClass::Unanswered,
                format!(
                    "the issuer did not answer within {} s; the request may have cost a token: raise spec.timeout",
                    exchange.timeout.as_secs()
                ),
            )),
        }
    }

    async fn exchange(&self, exchange: &Exchange) -> reqwest::Result<RawAnswer> {
        let mut request = self
            .http
            .post(exchange.url.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(exchange.body.expose_secret().to_owned());
        if exchange.body.expose_secret().is_empty() {
            // Left out by the client otherwise, for which some servers answer 411 (RFC 9110 section 8.6).
            request = request.header(CONTENT_LENGTH, 0);
        }
        if let Some((username, password)) = &exchange.basic {
            request = request.basic_auth(username.expose_secret(), Some(password.expose_secret()));
        }
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let (retry_after, location) = (header(response.headers(), &RETRY_AFTER), header(response.headers(), &LOCATION));
        let mut body = Some(Vec::with_capacity(4096));
        while let Some(chunk) = response.chunk().await? {
            match &mut body {
                Some(read) if read.len() + chunk.len() <= LARGEST_BODY => read.extend_from_slice(&chunk),
                _ => {
                    body = None;
                    break;
                }
            }
        }
        Ok(RawAnswer { status, retry_after, location, body })
    }
}

fn header(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What kept the answer away. The URL is left out: its query may carry parameters.
fn failure(error: &reqwest::Error) -> Failure {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(source) = cause {
        causes.push(source.to_string());
        cause = source.source();
    }
    causes.dedup();
    let why = causes.join(": ");
    if error.is_connect() || error.is_builder() {
        Failure::new(FailureClass::Unreached, format!("the issuer cannot be reached: {why}"))
    } else {
        Failure::new(
            FailureClass::Unanswered,
            format!("the connection broke after the request was sent, which may have cost a token: {why}"),
        )
    }
}
