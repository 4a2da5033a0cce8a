//! The server: TLS, and nobody who takes more than a share of it. A client that is slow, silent or loud harms only itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
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

use super::buckets::peer;

/// Open connections; who comes then waits in the line of the system.
const MOST_CONNECTIONS: usize = 1024;
/// Of one machine: what is above is closed at once.
const MOST_OF_ONE_PEER: usize = 128;
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

/// Connections by who has opened them.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One of a peer's connections.
struct Counted {
    peers: Arc<Peers>,
    peer: IpAddr,
}

/// Serves `router` until `stop`, and then what has been asked already.
pub(super) async fn serve(listener: TcpListener, tls: ServerConfig, router: Router, stop: CancellationToken) {
    let (acceptor, peers, tasks) = (TlsAcceptor::from(Arc::new(tls)), Arc::new(Peers::default()), TaskTracker::new());
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
            let Some(counted) = peers.enter(peer(address.ip())) else {
                tracing::debug!(peer = %address.ip(), "too many connections from one address");
                continue;
            };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            tasks.spawn(async move {
                converse(stream, address, acceptor, router, stop).await;
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
async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    // An answer is one small write.
    drop(stream.set_nodelay(true));
    let greeted = stop.run_until_cancelled(tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))).await;
    let Some(Ok(Ok(stream))) = greeted else { return };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer(address.ip())));
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

// === impl Peers ===

impl Peers {
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_default();
        if *count >= MOST_OF_ONE_PEER {
            return None;
        }
        *count += 1;
        Some(Counted { peers: Arc::clone(self), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut peers = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_machine_takes_no_more_than_its_share_and_gives_it_back() {
        let peers = Arc::new(Peers::default());
        let (greedy, other) = (IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)));
        let taken: Vec<_> = (0..MOST_OF_ONE_PEER + 10).filter_map(|_| peers.enter(greedy)).collect();
        assert_eq!(taken.len(), MOST_OF_ONE_PEER);
        assert!(peers.enter(other).is_some());
        drop(taken);
        assert!(peers.enter(greedy).is_some());
        assert!(peers.0.lock().is_ok_and(|peers| peers.is_empty()), "nobody is remembered");
    }
}
