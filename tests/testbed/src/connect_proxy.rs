//! A proxy as companies have them: it speaks CONNECT (RFC 9110 section 9.3.6) and sees nothing of what goes through.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request to a proxy is shorter.
const LONGEST_HEAD: usize = 8192;

/// A running proxy; it ends when dropped. It needs the test's runtime.
#[derive(Debug)]
pub struct ConnectProxy {
    port: u16,
    targets: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

/// What it asks for and says.
#[derive(Clone, Debug, Default)]
struct Rules {
    /// The value of `Proxy-Authorization`, if one is asked for.
    authorization: Option<String>,
    /// No tunnel is made.
    refuses: bool,
}

// === impl ConnectProxy ===

impl ConnectProxy {
    /// A proxy for everybody.
    pub async fn start() -> Self {
        Self::serve(Rules::default()).await
    }

    /// A proxy that answers 407 to everybody but this user.
    pub async fn for_user(user: &str, password: &str) -> Self {
        let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Self::serve(Rules { authorization: Some(format!("Basic {basic}")), refuses: false }).await
    }

    /// A proxy that answers 403 to everybody.
    pub async fn that_refuses() -> Self {
        Self::serve(Rules { authorization: None, refuses: true }).await
    }

    async fn serve(rules: Rules) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let targets = Arc::<Mutex<Vec<String>>>::default();
        let asked = Arc::clone(&targets);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends with an error when a side goes away.
                tokio::spawn(tunnel(stream, rules.clone(), Arc::clone(&asked)));
            }
        });
        Self { port, targets, serving }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// What it was asked to connect to, in order.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn tunnel(mut client: TcpStream, rules: Rules, targets: Arc<Mutex<Vec<String>>>) -> anyhow::Result<()> {
    let head = head(&mut client).await?;
    let mut words = head.split(' ');
    let (method, target) = (words.next().context("no method")?, words.next().context("no target")?.to_owned());
    targets.lock().unwrap_or_else(PoisonError::into_inner).push(target.clone());
    let shown = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let refusal = if method != "CONNECT" {
        Some("405 Method Not Allowed")
    } else if rules.authorization.is_some() && shown != rules.authorization {
        Some("407 Proxy Authentication Required")
    } else if rules.refuses {
        Some("403 Forbidden")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        client.write_all(format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
        return Ok(());
    }
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn head(client: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}
