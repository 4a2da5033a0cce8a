//! A token endpoint on loopback: each request is told to the list of steps whose tag its path begins with, which answers it,
//! or lets the connection break.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::operator::Arrival;

/// Status, further headers, body.
pub type Reply = (u16, &'static str, String);

type Tags = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Arrival>>>>;

pub struct Endpoint {
    port: u16,
    tags: Tags,
}

impl Endpoint {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tags = Tags::default();
        let shared = Arc::clone(&tags);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, tags }
    }

    /// The token URL for `tag`, whose requests go to `arrivals`.
    pub fn url(&self, tag: &str, arrivals: mpsc::UnboundedSender<Arrival>) -> String {
        self.tags.lock().unwrap().insert(tag.to_owned(), arrivals);
        format!("http://127.0.0.1:{}/{tag}/token", self.port)
    }

    pub fn forget(&self, tag: &str) {
        self.tags.lock().unwrap().remove(tag);
    }
}

/// One connection, until it breaks.
async fn serve(mut stream: TcpStream, tags: Tags) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let (head, body_at) = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break (String::from_utf8_lossy(&read[..end]).into_owned(), end + 4);
            }
            (stream.read_buf(&mut read).await.ok()? > 0).then_some(())?;
        };
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.clone().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length: usize = header("content-length").and_then(|n| n.parse().ok()).unwrap_or_default();
        while read.len() < body_at + length {
            (stream.read_buf(&mut read).await.ok()? > 0).then_some(())?;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        let body = String::from_utf8_lossy(&read[body_at..body_at + length]).into_owned();
        read.drain(..body_at + length);
        let inputs = format!("{path} {} {body}", header("authorization").unwrap_or_default());
        let arrivals = tags.lock().unwrap().get(path.split('/').nth(1)?)?.clone();
        let (reply, answer) = oneshot::channel();
        arrivals.send(Arrival::Post { inputs, reply }).ok()?;
        let (status, headers, body) = answer.await.ok()?;
        let answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}
