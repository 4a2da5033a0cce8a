//! The certificate: what is shown, what happens when it changes, and when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use testbed::world::PATIENCE;
use testbed::{Authority, World, eventually};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{self, TokenApi};
use crate::OPERATOR;

/// The certificate that a new connection is shown.
async fn shown(api: &TokenApi) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(api.authority.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", api.port())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn first_of(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

async fn is_shown(api: &TokenApi, pem: &str) {
    let wanted = first_of(pem);
    eventually("the new certificate", PATIENCE, async || {
        if shown(api).await == wanted { Ok(()) } else { Err("another one is shown".into()) }
    })
    .await;
}

#[tokio::test]
async fn it_is_rotated_under_load_without_a_failed_call() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (2..6_u8)
        .map(|number| {
            let (api, bearer, namespace) = (api.clone(), bearer.clone(), world.namespace.clone());
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    // A new client each time: each call has a handshake of its own.
                    let fresh = api.called_from([127, 0, 0, number]);
                    let answer = fresh.try_call("GET", &namespace, "flight", &bearer, "", &[]).await;
                    let status = answer.map(|answer| answer.status).map_err(|error| format!("{error:?}"));
                    assert_eq!(status, Ok(200));
                    calls.fetch_add(1, Ordering::SeqCst);
                    // The ServiceAccount has its limit.
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let next = api.authority.server(&["127.0.0.1", "localhost"]);
        let before = calls.load(Ordering::SeqCst);
        api.show(&next);
        is_shown(&api, next.chain_pem()).await;
        eventually("calls after it", PATIENCE, async || {
            if calls.load(Ordering::SeqCst) > before + 8 { Ok(()) } else { Err("too few".into()) }
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no call failed");
    }
}

#[tokio::test]
async fn a_pair_that_is_half_written_leaves_the_old_one() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let (old, next) = (shown(&api).await, api.authority.server(&["127.0.0.1", "localhost"]));
    std::fs::write(&api.certificate, next.chain_pem()).unwrap();
    let warned = |count: usize| {
        let operator = &operator;
        eventually("a warning", PATIENCE, async move || {
            let seen = operator.log().matches("goes on with the certificate that it has").count();
            if seen == count { Ok(()) } else { Err(format!("{seen}")) }
        })
    };
    warned(1).await;
    assert_eq!(shown(&api).await, old);
    std::fs::write(&api.key, next.key_pem()).unwrap();
    is_shown(&api, next.chain_pem()).await;
    // Rubbish, a key of none, and nothing at all: said once each.
    std::fs::write(&api.certificate, "rubbish").unwrap();
    warned(2).await;
    std::fs::remove_file(&api.key).unwrap();
    std::fs::write(&api.certificate, next.chain_pem()).unwrap();
    warned(3).await;
    assert_eq!(shown(&api).await, first_of(next.chain_pem()));
    let log = operator.log();
    assert!(log.contains("--token-api-key") && !log.contains("PRIVATE KEY"), "{log}");
}

#[tokio::test]
async fn without_a_usable_certificate_the_operator_does_not_start() {
    let world = World::new().await;
    let (api, flags) = TokenApi::prepare(&world);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let refused = async |words: &[&str]| {
        let operator = world.start_operator(OPERATOR, &flags);
        let status = operator.process().wait(PATIENCE).await.expect("it ends");
        assert_eq!(status.code(), Some(1));
        for word in words {
            assert!(operator.log().contains(word), "{word} is not in {}", operator.log());
        }
    };
    let other = Authority::new("other").server(&["localhost"]);
    std::fs::write(&api.key, other.key_pem()).unwrap();
    let (certificate, key) = (api.certificate.display().to_string(), api.key.display().to_string());
    refused(&["--token-api-cert", "--token-api-key", "no usable pair", &certificate, &key]).await;
    std::fs::write(&api.key, "").unwrap();
    refused(&["--token-api-key", "no private key in PEM", &key]).await;
    std::fs::write(&api.certificate, other.key_pem()).unwrap();
    refused(&["--token-api-cert", "no certificate in PEM", &certificate]).await;
    std::fs::remove_file(&api.certificate).unwrap();
    refused(&["cannot read", "--token-api-cert", &certificate]).await;
}
