//! Clients that are slow, loud or many: others are served meanwhile, and nothing grows without bound.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use serde_json::json;
use testbed::proxy::Kind;
use testbed::world::{Operator, PATIENCE};
use testbed::{World, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{self, AUDIENCE, Answered, TokenApi};
use super::{AT_ONCE, eventually_gets};

const CALLERS: usize = 1000;
/// So many come together.
const WAVE: usize = 100;
/// So many wait at least: somewhat fewer than may, as on a slow machine the wait of the first ones may end.
const MOST: usize = 700;
/// So many that none of them waits in more calls than may.
const ACCOUNTS: usize = 32;

/// A connection from one of this machine's addresses, without a handshake.
async fn connect(api: &TokenApi, last: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 1, last], 0).into())?;
    socket.connect(([127, 0, 0, 1], api.port()).into()).await
}

async fn greet(api: &TokenApi, stream: TcpStream) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(api.authority.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// Peak of the resident memory, in KiB.
fn peak(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn slow_silent_and_endless_clients_harm_only_themselves() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    // Without a handshake, as many as are let in of one address, and some more.
    let silent = join_all((0..300).map(|_| connect(&api, 7))).await;
    // Half a head each.
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut stream = greet(&api, connect(&api, 8).await.unwrap()).await;
        stream.write_all(b"GET /api/token/a/b HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        slow.push(stream);
    }
    // Everybody else is served as ever.
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 200);
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // They are cut off, though they go on dripping.
    let dripped = join_all(slow.into_iter().map(async |mut stream| {
        let begun = Instant::now();
        while stream.write_all(b"x").await.is_ok() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        begun.elapsed()
    }))
    .await;
    assert!(dripped.iter().all(|time| *time < PATIENCE), "{dripped:?}");
    for stream in silent.into_iter().flatten() {
        let mut stream = stream;
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("closed");
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 200);
    assert!(operator.process().is_running());
}

#[tokio::test]
async fn oversized_requests_do_no_harm() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let before = peak(&operator);
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000)),
    ] {
        let mut stream = greet(&api, connect(&api, 9).await.unwrap()).await;
        // It may be closed before all is written.
        drop(stream.write_all(head.as_bytes()).await);
        let mut answer = Vec::new();
        drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let refused = ["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"].iter().any(|code| answer.starts_with(code));
        assert!(refused || answer.is_empty(), "{answer}");
    }
    // A body of any length is not read.
    let mut stream = greet(&api, connect(&api, 9).await.unwrap()).await;
    let head = format!(
        "GET /api/token/{}/flight HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Length: 99999999999\r\n\r\n",
        world.namespace
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..1000 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    drop(stream);
    assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 200);
    let grown = peak(&operator) - before;
    assert!(grown < 16 * 1024, "by {grown} KiB");
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let (greedy, other) =
        (client::caller(&world, "greedy", "flight").await, client::caller(&world, "other", "flight").await);
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    eventually_gets(&api, &world, &greedy, "flight").await;
    let from = api.called_from([127, 0, 2, 1]);
    let limited = async |bearer: &str, word: &str| {
        eventually("a limit", PATIENCE, async || {
            let calls = (0..50).map(|_| from.get(&world.namespace, "flight", bearer));
            let answers = join_all(calls).await;
            match answers.into_iter().find(|answer| answer.status == 429) {
                Some(answer) if answer.body.contains(word) => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    let answer = limited(&greedy, "ServiceAccount").await;
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    // Another one is not.
    assert_eq!(api.get(&world.namespace, "flight", &other).await.status, 200);
    // Nor does anybody have to be known.
    limited("opaque", "address").await;
    assert_eq!(api.get(&world.namespace, "flight", &other).await.status, 200);
}

#[tokio::test]
async fn who_connects_too_often_is_not_greeted_and_others_are() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    eventually("a limit", PATIENCE, async || {
        // Each is gone at once, so that few of them are open at a time.
        for _ in 0..600 {
            drop(connect(&api, 10).await);
        }
        if operator.log().contains("too many handshakes with one address") { Ok(()) } else { Err("none".into()) }
    })
    .await;
    assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 200);
    // It is not for ever.
    let same = api.called_from([127, 0, 1, 10]);
    eventually("a greeting", PATIENCE, async || {
        let answer = same.try_call("GET", &world.namespace, "flight", &bearer, "", &[]).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// The tokens of many ServiceAccounts, which may all get the token `flight`.
async fn readers(world: &World) -> Vec<String> {
    let accounts = (0..ACCOUNTS).map(|number| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": format!("reader-{number}")}})
            .to_string()
    });
    world.kubectl_apply(&accounts.collect::<Vec<_>>().join("\n---\n")).await;
    let role = ["--verb=get", "--resource=verteiltokens.verteil.dev/token", "--resource-name=flight"];
    world.kubectl(&[["create", "role", "readers"].as_slice(), &role].concat(), None).await.succeeded();
    let group = format!("--group=system:serviceaccounts:{}", world.namespace);
    world.kubectl(&["create", "rolebinding", "readers", "--role=readers", &group], None).await.succeeded();
    let tokens = (0..ACCOUNTS).map(async |number| client::token_of(world, &format!("reader-{number}"), AUDIENCE).await);
    stream::iter(tokens).buffered(4).collect().await
}

/// Waits for the token; again if the connection breaks, as one does whose handshake takes too long.
async fn waits(client: TokenApi, namespace: String, bearer: String) -> Answered {
    let mut last = None;
    for _ in 0..5 {
        match client.try_call("GET", &namespace, "flight", &bearer, "?wait=60s", &[]).await {
            Ok(answer) => return answer,
            Err(error) => last = Some(error),
        }
    }
    panic!("no answer: {last:?}");
}

#[tokio::test]
async fn a_thousand_callers_at_once_cost_one_token_few_calls_and_bounded_memory() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (operator, api) = TokenApi::start_behind(&world, &proxy, &[]).await;
    let bearers = readers(&world).await;
    // It waits for its credentials: a request that is held back would be given up before all have come.
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    let before = peak(&operator);
    // As pods do: from addresses of their own. Some wait for the first token, some ask again.
    let clients: Vec<_> = (0..ACCOUNTS).map(|n| api.called_from([127, 0, 3, u8::try_from(n).unwrap() + 1])).collect();
    let mut calls = Vec::new();
    while calls.len() < CALLERS {
        for number in calls.len()..calls.len() + WAVE {
            let (client, bearer) = (clients[number % ACCOUNTS].clone(), bearers[number % ACCOUNTS].clone());
            calls.push(tokio::spawn(waits(client, world.namespace.clone(), bearer)));
        }
        // More at once would have to shake hands in a few seconds, which is too much for a busy machine.
        let wanted = f64::from(u32::try_from(calls.len().min(MOST)).unwrap());
        eventually("callers that wait", PATIENCE, async || match operator.metric("verteil_token_api_waiting").await {
            Some(waiting) if waiting >= wanted => Ok(()),
            other => Err(format!("{other:?} of {wanted}")),
        })
        .await;
    }
    world.set_credentials("nowhere", "user", "password").await;
    let answers = join_all(calls).await;
    let token = json!(world.issuer.last_token("flight"));
    let mut given = 0;
    for answer in answers {
        let answer = answer.unwrap();
        match answer.status {
            200 => {
                assert_eq!(answer.json()["access_token"], token);
                given += 1;
            }
            // More wait already than may: told to come back.
            status => assert_eq!((status, answer.header("retry-after").is_empty()), (503, false), "{answer:?}"),
        }
    }
    assert!(given >= MOST, "{given}");
    let calls = proxy.calls();
    let count = |kind: Kind| calls.iter().filter(|call| call.kind == kind).count();
    // Two before the wait, and two after it; again where the answers were too old by then.
    assert!(count(Kind::Other) <= 6 * ACCOUNTS, "{} reviews", count(Kind::Other));
    assert!(count(Kind::GetSecret) < 100, "{} reads", count(Kind::GetSecret));
    let grown = peak(&operator) - before;
    println!("{given} given, {} reviews, {} reads, {grown} KiB", count(Kind::Other), count(Kind::GetSecret));
    // 46 MiB, most of it for TLS; the chart's limit leaves room for it.
    assert!(grown < 64 * 1024, "by {grown} KiB");
    world.stays_at(1).await;
}
