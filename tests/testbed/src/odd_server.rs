//! TCP servers that are not what a client expects.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Long enough for a connection on one machine.
const A_MOMENT: Duration = Duration::from_millis(500);
/// More than any backlog of 1 holds.
const MANY: usize = 8;

/// A server on a loopback port; it ends when dropped. It needs the test's runtime.
#[derive(Debug)]
pub struct OddServer {
    port: u16,
    connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    /// What fills the line before it.
    _waiting: Vec<TcpStream>,
}

// === impl OddServer ===

impl OddServer {
    /// Answers the first bytes of each connection with these, and closes it.
    pub async fn says(bytes: &'static [u8]) -> Self {
        Self::serve(Some(bytes)).await
    }

    /// Takes connections and never says anything.
    pub async fn silent() -> Self {
        Self::serve(None).await
    }

    async fn serve(says: Option<&'static [u8]>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serving = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                match says {
                    Some(bytes) => {
                        // The client may be gone already.
                        stream.readable().await.ok();
                        stream.try_read(&mut [0; 1024]).ok();
                        stream.write_all(bytes).await.ok();
                        stream.shutdown().await.ok();
                    }
                    None => kept.push(stream),
                }
            }
        });
        Self { port, connections, serving, _waiting: Vec::new() }
    }

    /// A port to which no connection comes about and none is refused, as behind a firewall: its line is full.
    pub async fn unreachable() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(1).expect("listening");
        let address = listener.local_addr().expect("bound");
        let mut waiting = Vec::new();
        let full = loop {
            match tokio::time::timeout(A_MOMENT, TcpStream::connect(address)).await {
                Ok(connected) => waiting.push(connected.expect("a place in the line")),
                Err(_) => break true,
            }
            if waiting.len() > MANY {
                break false;
            }
        };
        assert!(full, "this kernel takes more connections than were asked for");
        let serving = tokio::spawn(async move {
            let _listener = listener;
            std::future::pending::<()>().await;
        });
        Self { port: address.port(), connections: Arc::default(), serving, _waiting: waiting }
    }

    /// A port at which nobody listens, and which nobody else can take meanwhile: connections are refused.
    #[must_use]
    pub fn absent() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let serving = tokio::spawn(async move {
            let _socket = socket;
            std::future::pending::<()>().await;
        });
        Self { port, connections: Arc::default(), serving, _waiting: Vec::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for OddServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
