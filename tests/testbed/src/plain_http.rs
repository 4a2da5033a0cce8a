//! One HTTP exchange without TLS, pooling or redirects: what a test sends is what stands here, byte by byte.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For the whole exchange, where the caller sets no shorter limit around it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, read to the end of the connection.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// The header lines as sent.
    pub headers: Vec<(String, String)>,
    /// All bytes after the head.
    pub body: String,
}

// === impl Answered ===

impl Answered {
    /// The value of a header, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// `POST`s `body` to an `http://host:port/path` URL, with `headers` such as `Authorization: Basic …`.
pub async fn post(url: &str, headers: &[&str], body: &str) -> anyhow::Result<Answered> {
    exchange("POST", url, headers, body).await
}

/// `GET`s an `http://host:port/path` URL.
pub async fn get(url: &str) -> anyhow::Result<Answered> {
    exchange("GET", url, &[], "").await
}

/// Any method, with headers such as `Accept: text/plain`; a `Host` among them stands for the URL's.
///
/// HTTP 1.0, so that the answer ends with the connection and never comes in chunks.
pub async fn exchange(method: &str, url: &str, headers: &[&str], body: &str) -> anyhow::Result<Answered> {
    let rest = url.strip_prefix("http://").context("only http:// URLs")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.extend(["Host: ", authority, "\r\n"]);
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);

    let raw = tokio::time::timeout(TIMEOUT, async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await?;
        std::io::Result::Ok(raw)
    })
    .await
    .with_context(|| format!("no answer from {authority} in {TIMEOUT:?}"))??;
    parse(&raw).with_context(|| format!("no HTTP answer from {authority}: {:?}", String::from_utf8_lossy(&raw)))
}

fn parse(raw: &[u8]) -> Option<Answered> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&raw[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Answered { status, headers, body: String::from_utf8_lossy(&raw[end + 4..]).into_owned() })
}
