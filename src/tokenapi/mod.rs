//! The token API: `GET /api/token/{namespace}/{name}` over TLS, for pods that mount no Secret.
//!
//! ```text
//! rate     of the caller's address                         -> 429
//! who      TokenReview with the operator's own audience    -> 401
//! rate     of the ServiceAccount                           -> 429
//! may      SubjectAccessReview, whether it exists or not   -> 403
//! look     the Secret, live; or memory                     -> 404, 503
//! wait     for another one, if asked to; then who and may  -> 503
//! answer   the token and its life                          -> 200, 304
//! ```

mod answer;
mod bearer;
mod buckets;
mod callers;
mod problem;
mod server;
mod shares;
mod source;
mod tls;
mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use tls::{Certificate, CertificateError, CertificateFiles};

use crate::args::RunArgs;
use crate::cluster::Reads;
use crate::reconcile::Context;
use crate::resources::Resources;
use buckets::Buckets;
use callers::Callers;
use problem::Problem;
use server::Peer;
use source::Stored;
use waiting::Places;

/// Calls from one address, before it is known who calls: on average in a second, and at once.
const A_SECOND: u32 = 50;
const BURST: u32 = 200;
/// Reads of Secrets in flight.
const MOST_READS: usize = 16;

/// Where the API is listened to, and what is shown there.
pub struct TokenListener {
    listener: TcpListener,
    certificate: Arc<Certificate>,
    server: rustls::ServerConfig,
}

/// What the API answers from.
pub(crate) struct TokenApi {
    context: Arc<Context>,
    resources: Arc<Resources>,
    callers: Callers,
    peers: Buckets<IpAddr>,
    reads: Reads<Stored>,
    places: Places,
    /// Nobody waits any longer.
    stop: CancellationToken,
}

// === impl TokenListener ===

impl TokenListener {
    /// Reads the certificate and binds the address; none if the API is off.
    ///
    /// # Errors
    /// Say which flag is to be changed, or which file.
    pub async fn of(args: &RunArgs) -> anyhow::Result<Option<Self>> {
        let Some(address) = args.token_api_listen else { return Ok(None) };
        let files = CertificateFiles { certificate: args.token_api_cert.clone(), key: args.token_api_key.clone() };
        Self::bind(address, files).await.map(Some)
    }

    /// The same at `address`.
    pub async fn bind(address: SocketAddr, files: CertificateFiles) -> anyhow::Result<Self> {
        let certificate = Certificate::load(files)?;
        let server = certificate.server()?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {address} (--token-api-listen): {error}"))?;
        Ok(Self { listener, certificate: Arc::new(certificate), server })
    }
}

// === impl TokenApi ===

impl TokenApi {
    pub(crate) fn new(context: Arc<Context>, resources: Arc<Resources>, audience: String) -> Self {
        Self {
            stop: context.stop.clone(),
            context,
            resources,
            callers: Callers::new(audience),
            peers: Buckets::new(A_SECOND, BURST),
            reads: Reads::new(MOST_READS),
            places: Places::new(),
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, at: TokenListener, stop: CancellationToken) {
        let TokenListener { listener, certificate, server } = at;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "the token API listens");
        }
        let following = certificate.follow(stop.clone());
        futures::future::join(following, server::serve(listener, server, self.router(), stop)).await;
    }

    fn router(self) -> Router {
        let api = Arc::new(self);
        Router::new()
            // Any method: with get, HEAD would be served as well, and cost all that a GET does.
            .route("/api/token/{namespace}/{name}", any(answer::token))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "only /api/token/{namespace}/{name} is served here"))
            .layer(middleware::from_fn_with_state(Arc::clone(&api), observe))
            .with_state(api)
    }
}

/// Around every request: the limit of its address, the count, and a line without any secret.
async fn observe(State(api): State<Arc<TokenApi>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(peer)| *peer);
    let path = request.uri().path().to_owned();
    let limited = peer.and_then(|peer| api.peers.take(&peer).err());
    let response = match limited {
        Some(seconds) => {
            let detail = "too many calls from this address";
            Problem::later(StatusCode::TOO_MANY_REQUESTS, seconds, detail).into_response()
        }
        None => next.run(request).await,
    };
    api.context.metrics.token_api_answered(response.status().as_u16());
    tracing::debug!(path, peer = ?peer, code = response.status().as_u16(), "answered a call of the token API");
    response
}
