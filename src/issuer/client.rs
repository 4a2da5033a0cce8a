//! Sends the request. No retries, no redirects, no more of the answer than is needed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client};
use secrecy::ExposeSecret;

use super::cause::{cause, is_malformed};
use super::{Exchange, Failure, RawAnswer, host_of};
use crate::ca::{CaBundle, CaDigest};
use crate::decide::FailureClass;

/// From the look-up of the name to the end of the TLS handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A token answer is a few KiB; whatever is larger is something else.
const LARGEST_BODY: usize = 64 * 1024;
/// Clients that are kept for CA bundles, each with its connections. With more bundles than this in use, the one that has not
/// been used for longest is made again.
const MOST_CLIENTS: usize = 16;
/// How long a connection is kept that nobody uses: less than most servers wait before they close one. To send on one that is
/// being closed would make the request look unanswered.
const IDLE: Duration = Duration::from_secs(4);

/// The HTTP client for token endpoints. `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured.
#[derive(Clone)]
pub struct Issuer {
    /// Trusts the system's certificate authorities.
    system: Client,
    /// By the bundle that is trusted, the one used last at the end: resources with the same one share connections.
    by_ca: Arc<Mutex<Vec<(CaDigest, Client)>>>,
    in_flight: usize,
}

/// The body of a request, which tells whether a connection has taken it: before that, nothing of the request was sent.
struct Told {
    bytes: Bytes,
    taken: Arc<AtomicBool>,
}

// === impl Issuer ===

impl Issuer {
    /// A client that trusts the system's certificate authorities where an exchange names no others. `in_flight`: how many
    /// requests may be on their way to one host; with as many connections kept, those that follow need no new ones.
    pub fn new(in_flight: usize) -> anyhow::Result<Self> {
        Ok(Self { system: client(None, in_flight)?, by_ca: Arc::default(), in_flight })
    }

    /// Sends `exchange` and reads the answer.
    ///
    /// # Errors
    /// `Unreached` if the request was certainly not sent, `Unanswered` if it may have been and no whole answer came.
    pub async fn send(&self, exchange: &Exchange) -> Result<RawAnswer, Failure> {
        let (host, ca) = (host_of(&exchange.url), exchange.ca.as_ref());
        let unreached = |why: String| {
            Failure::new(FailureClass::Unreached, format!("the issuer cannot be reached: {why}; no request was sent"))
        };
        let client = self.client_for(ca).map_err(|error| unreached(cause(&error, &host, ca)))?;
        let taken = Arc::new(AtomicBool::new(false));
        let sent = tokio::time::timeout(exchange.timeout, send(&client, exchange, &taken)).await;
        let not_sent = !taken.load(Ordering::Acquire);
        match sent {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if not_sent => Err(unreached(cause(&error, &host, ca))),
            Ok(Err(error)) if is_malformed(&error) => Err(Failure {
                ambiguous: true,
                ..Failure::new(
                    FailureClass::Answer,
                    format!("the issuer's answer cannot be read as HTTP: {}", cause(&error, &host, ca)),
                )
            }),
            Ok(Err(error)) => Err(Failure::new(
                FailureClass::Unanswered,
                format!(
                    "the connection broke after the request was sent, which may have cost a token: {}",
                    cause(&error, &host, ca)
                ),
            )),
            Err(_) if not_sent => {
                Err(unreached(format!("no connection to {host} within {} s", exchange.timeout.as_secs())))
            }
            Err(_) => Err(Failure::new(
                FailureClass::Unanswered,
                format!(
                    "the issuer did not answer within {} s; the request may have cost a token: raise spec.timeout",
                    exchange.timeout.as_secs()
                ),
            )),
        }
    }

    fn client_for(&self, ca: Option<&CaBundle>) -> reqwest::Result<Client> {
        let Some(ca) = ca else { return Ok(self.system.clone()) };
        let mut clients = self.by_ca.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|(digest, _)| *digest == ca.digest());
        let client = match known {
            Some(place) => clients.remove(place).1,
            None => client(Some(ca), self.in_flight)?,
        };
        if clients.len() >= MOST_CLIENTS {
            clients.remove(0);
        }
        clients.push((ca.digest(), client.clone()));
        Ok(client)
    }
}

/// A client that trusts `ca` alone, or the system's authorities.
fn client(ca: Option<&CaBundle>, in_flight: usize) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // A retry in here would be a second request that nobody decided on.
        .retry(reqwest::retry::never())
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(in_flight)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    let Some(ca) = ca else { return builder.build() };
    let certificates: Vec<_> = ca.certificates().map(Certificate::from_der).collect::<Result<_, _>>()?;
    builder.tls_certs_only(certificates).build()
}

async fn send(client: &Client, exchange: &Exchange, taken: &Arc<AtomicBool>) -> reqwest::Result<RawAnswer> {
    let bytes = Bytes::from(exchange.body.expose_secret().to_owned());
    let empty = bytes.is_empty();
    let mut request = client
        .post(exchange.url.clone())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(reqwest::Body::wrap(Told { bytes, taken: Arc::clone(taken) }));
    if empty {
        // Left out by the client otherwise, for which some servers answer 411 (RFC 9110 section 8.6).
        request = request.header(CONTENT_LENGTH, 0);
    }
    if let Some((username, password)) = &exchange.basic {
        request = request.basic_auth(username.expose_secret(), Some(password.expose_secret()));
    }
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let (retry_after, location) = (header(response.headers(), &RETRY_AFTER), header(response.headers(), &LOCATION));
    let (date, encoded) = (header(response.headers(), &DATE), response.headers().contains_key(CONTENT_ENCODING));
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
    Ok(RawAnswer { status, retry_after, location, date, encoded, body })
}

fn header(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

// === impl Told ===

/// A connection asks whether there is a body just before it writes the head, and then for the body: nobody else asks for either.
impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::Release);
        let bytes = std::mem::take(&mut self.get_mut().bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.taken.store(true, Ordering::Release);
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len().try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test")]

    use testbed::Authority;

    use super::*;
    use crate::api::{CaBundleKind, CaBundleRef};
    use crate::ca::{Found, read_ca};

    fn bundle(name: &str) -> CaBundle {
        let source = CaBundleRef { kind: CaBundleKind::Secret, name: name.into(), key: "ca.crt".into() };
        let pem = Authority::new(name).pem();
        read_ca(&source, &Found::Content(pem.as_bytes())).ok().unwrap()
    }

    #[tokio::test]
    async fn requests_that_follow_others_use_their_connections() {
        crate::start::init_crypto();
        let (server, client) = (testbed::Issuer::start().unwrap(), Issuer::new(8).unwrap());
        let exchange = || Exchange {
            url: server.url_for("flight").parse().unwrap(),
            basic: None,
            body: String::new().into(),
            timeout: Duration::from_secs(60),
            ca: None,
        };
        for round in 1..=4 {
            // All eight are in flight before the first one is answered.
            server.hold();
            let sent = (0..8).map(|_| async { client.send(&exchange()).await.ok().unwrap().status });
            let released = async {
                server.wait_until_held(8, Duration::from_secs(60)).await;
                server.release();
            };
            futures::join!(futures::future::join_all(sent), released);
            assert_eq!(server.count(), 8 * round);
        }
        // One that was not back yet when the next round began may have been replaced.
        assert!(server.connections() <= 12, "{}", server.connections());
    }

    #[test]
    fn one_client_is_kept_for_each_of_the_bundles_used_last() {
        crate::start::init_crypto();
        let issuer = Issuer::new(1).unwrap();
        let bundles: Vec<CaBundle> = (0..=MOST_CLIENTS).map(|number| bundle(&number.to_string())).collect();
        let kept = || issuer.by_ca.lock().unwrap().iter().map(|(digest, _)| *digest).collect::<Vec<_>>();
        for bundle in &bundles[..MOST_CLIENTS] {
            issuer.client_for(Some(bundle)).unwrap();
            issuer.client_for(Some(bundle)).unwrap();
        }
        assert_eq!(kept().len(), MOST_CLIENTS);
        // The first is used once more, so that the second is the one that goes.
        issuer.client_for(Some(&bundles[0])).unwrap();
        issuer.client_for(Some(&bundles[MOST_CLIENTS])).unwrap();
        issuer.client_for(None).unwrap();
        let expected: Vec<_> = bundles[2..MOST_CLIENTS].iter().chain([&bundles[0], &bundles[MOST_CLIENTS]]).collect();
        assert!(kept() == expected.iter().map(|bundle| bundle.digest()).collect::<Vec<_>>());
    }
}
