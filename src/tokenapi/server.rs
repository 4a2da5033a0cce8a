//! The server: TLS, and nobody who takes more than a share of it. A client that is slow, silent or loud harms only itself.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::buckets::{Buckets, peer};
use super::shares::Shares;

/// Open connections; who comes then waits in the line of the system.
const MOST_CONNECTIONS: usize = 1024;
/// Of one address: what is above is closed at once.
const MOST_OF_ONE_PEER: usize = 128;
/// New connections of one address, on average in a second and at once: a handshake costs more than any answer. Twice as many as
/// the requests that are answered, so that only who asks nothing meets it.
const HANDSHAKES_A_SECOND: u32 = 2 * super::A_SECOND;
const HANDSHAKES_AT_ONCE: u32 = 2 * super::BURST;
/// The TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From the end of one request to the end of the next one's head.
const HEAD: Duration = Duration::from_secs(10);
/// Request line and headers, with a bearer token of 8 KiB.
const LARGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// A connection is closed after this long, once its request is answered: clients come back with a new one, to any replica.
const LONGEST_LIFE: Duration = Duration::from_secs(5 * 60);
/// For the last answer.
const LAST_ANSWER: Duration = Duration::from_secs(75);
/// After an error of `accept`, which is often a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves `router` until `stop`, and then what has been asked already.
pub(super) async fn serve(listener: TcpListener, tls: ServerConfig, router: Router, stop: CancellationToken) {
    let (acceptor, tasks) = (TlsAcceptor::from(Arc::new(tls)), TaskTracker::new());
    let (open, handshakes) = (Shares::new(MOST_OF_ONE_PEER), Buckets::new(HANDSHAKES_A_SECOND, HANDSHAKES_AT_ONCE));
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let accept = async {
        loop {
            // Before the connection is taken: the system's line is the place to wait in. The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let peer = peer(address.ip());
            if handshakes.take(&peer).is_err() {
                tracing::debug!(%peer, "too many handshakes with one address");
                continue;
            }
            let Some(counted) = open.take(&peer) else {
                tracing::debug!(%peer, "too many connections from one address");
                continue;
            };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            tasks.spawn(async move {
                converse(stream, Peer(peer), acceptor, router, stop).await;
                drop((counted, place));
            });
        }
    };
    stop.run_until_cancelled(accept).await;
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// One connection, from its handshake to its end.
async fn converse(stream: TcpStream, peer: Peer, acceptor: TlsAcceptor, router: Router, stop: CancellationToken) {
    // An answer is one small write.
    drop(stream.set_nodelay(true));
    let greeted = stop.run_until_cancelled(tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))).await;
    let Some(Ok(Ok(stream))) = greeted else { return };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(LARGEST_HEAD).max_headers(MOST_HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error is the client's: it has gone, or was cut off.
        _ = &mut connection => return,
        () = tokio::time::sleep(LONGEST_LIFE) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(LAST_ANSWER, connection).await);
}
