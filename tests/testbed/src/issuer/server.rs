//! The issuer's thread: connections, and the way of a request through it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::pending;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Ending, Pace, Payload};
use super::{Recorded, Shared, lock, recorded};

/// A token request is some hundred bytes; what is longer is a mistake of the test.
const LONGEST_REQUEST: usize = 1 << 20;
/// Between the last bytes of a truncated body and the end of the connection, so that they are sent.
const FLUSH: Duration = Duration::from_millis(20);
/// One piece of an endless body.
const PIECE: u64 = 8192;

/// Where the outcome of a command goes.
pub(super) type Done = mpsc::Sender<io::Result<()>>;

pub(super) enum Command {
    Down(Done),
    Up(Done),
}

/// An error of a body or of a service is how hyper is told to break a connection.
type Broken = io::Error;

/// Serves until the commands end.
pub(super) fn run(address: SocketAddr, shared: &Arc<Shared>, commands: UnboundedReceiver<Command>, started: &Done) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(started, Err(error)),
    };
    runtime.block_on(serve(address, shared, commands, started));
}

async fn serve(address: SocketAddr, shared: &Arc<Shared>, mut commands: UnboundedReceiver<Command>, started: &Done) {
    let mut listener = None;
    let mut connections = JoinSet::new();
    report(started, listen(address, &mut listener).await);
    loop {
        tokio::select! {
            stream = accept(listener.as_ref()) => {
                connections.spawn(serve_connection(stream, shared.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            command = commands.recv() => match command {
                None => return,
                Some(Command::Down(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    report(&done, Ok(()));
                }
                Some(Command::Up(done)) => report(&done, listen(address, &mut listener).await),
            },
        }
    }
}

async fn listen(address: SocketAddr, listener: &mut Option<TcpListener>) -> io::Result<()> {
    if listener.is_none() {
        *listener = Some(TcpListener::bind(address).await?);
    }
    Ok(())
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return pending().await;
    };
    loop {
        // An error is about one connection that is gone already.
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
    }
}

/// Nobody listens if the test has ended meanwhile.
fn report(done: &Done, outcome: io::Result<()>) {
    done.send(outcome).ok();
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).ok();
    lock(&shared.traffic).connections += 1;
    let tls = lock(&shared.tls).clone();
    match tls {
        None => serve_requests(stream, shared).await,
        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => serve_requests(stream, shared).await,
            Err(_) => lock(&shared.traffic).failed_handshakes += 1,
        },
    }
}

async fn serve_requests(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { shared.serve_request(request).await }
    });
    // It ends with an error whenever the script breaks it, or the client.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

// === impl Shared ===

impl Shared {
    async fn serve_request(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Broken>>, Broken> {
        let (head, body) = request.into_parts();
        if lock(&self.script).takes_close_unread(recorded::tag(head.uri.path())) {
            self.record(head, &[]);
            return Err(broken("closed without reading, as scripted"));
        }
        let body = Limited::new(body, LONGEST_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
        let _in_flight = InFlight::new(&self);
        let request = self.record(head, &body);
        let (answer, latency) = lock(&self.script).choose(&request);
        self.pass_gate().await;
        tokio::time::sleep(latency + answer.delay).await;
        match answer.ending {
            Ending::Reply => response(answer),
            Ending::Hang => pending().await,
            Ending::Close | Ending::CloseUnread => Err(broken("closed, as scripted")),
        }
    }

    fn record(&self, head: http::request::Parts, body: &[u8]) -> Recorded {
        let mut requests = lock(&self.requests);
        let request = Recorded::new(requests.len() + 1, head, body);
        requests.push(request.clone());
        request
    }

    async fn pass_gate(&self) {
        let mut gate = self.gate.subscribe();
        if *gate.borrow() {
            let _held = Held::new(self);
            // The sender lives as long as `self`.
            gate.wait_for(|shut| !shut).await.ok();
        }
    }
}

fn broken(why: &str) -> Broken {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

fn response(answer: Answer) -> Result<Response<BoxBody<Bytes, Broken>>, Broken> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let is_json = matches!(answer.payload, Payload::Json(_));
    let whole = match answer.payload {
        Payload::Json(value) => Bytes::from(value.to_string()),
        Payload::Bytes(bytes) => Bytes::from(bytes),
        Payload::Endless(bytes) => {
            return response.body(endless(bytes)).map_err(io::Error::other);
        }
    };
    let length = whole.len();
    let body = match answer.pace {
        Pace::AtOnce => Full::new(whole).map_err(|never: Infallible| match never {}).boxed(),
        Pace::Drip { bytes, every } => drip(whole, bytes, every),
        Pace::Chunked => drip(whole, 16, Duration::ZERO),
        Pace::Truncated { after } => truncated(whole.slice(..after.min(length))),
    };
    let mut response = response.body(body).map_err(io::Error::other)?;
    let headers = response.headers_mut();
    if is_json {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json;charset=UTF-8"));
    }
    if !matches!(answer.pace, Pace::Chunked) {
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Ok(response)
}

fn drip(whole: Bytes, bytes: usize, every: Duration) -> BoxBody<Bytes, Broken> {
    let pieces = stream::unfold(whole, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(every).await;
        let piece = rest.split_to(bytes.min(rest.len()));
        Some((Ok(Frame::data(piece)), rest))
    });
    BoxBody::new(StreamBody::new(pieces))
}

fn truncated(part: Bytes) -> BoxBody<Bytes, Broken> {
    let first = stream::iter([Ok(Frame::data(part))]);
    let end = stream::once(async {
        tokio::time::sleep(FLUSH).await;
        Err(broken("truncated, as scripted"))
    });
    BoxBody::new(StreamBody::new(first.chain(Box::pin(end))))
}

fn endless(bytes: u64) -> BoxBody<Bytes, Broken> {
    let start = stream::iter([Ok(Frame::data(Bytes::from_static(br#"{"access_token":""#)))]);
    let rest = stream::unfold(bytes, |left| async move {
        let piece = vec![b'x'; usize::try_from(left.min(PIECE)).ok()?];
        (left > 0).then(|| (Ok(Frame::data(Bytes::from(piece))), left.saturating_sub(PIECE)))
    });
    BoxBody::new(StreamBody::new(start.chain(Box::pin(rest))))
}

/// Counts a request from its arrival until its answer begins or its client goes away.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut traffic = lock(&shared.traffic);
        traffic.in_flight += 1;
        traffic.max_in_flight = traffic.max_in_flight.max(traffic.in_flight);
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.0.traffic).in_flight -= 1;
    }
}

/// Counts a request that stands at the gate.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        lock(&shared.traffic).held += 1;
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(&self.0.traffic).held -= 1;
    }
}
