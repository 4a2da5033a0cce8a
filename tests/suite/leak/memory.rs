//! What stays of a secret in the operator's memory when it is done with it?

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use memchr::memmem;
use serde_json::json;
use testbed::proxy::{Fault, Kind};
use testbed::world::{Operator, PASSWORD, PATIENCE, USERNAME};
use testbed::{Answer, Authority, Issuer, World, eventually};

use crate::OPERATOR;
use crate::trust::put;

/// All that the process can write to: heap, stacks, data.
fn writable_memory(operator: &Operator) -> Vec<Vec<u8>> {
    let folder = format!("/proc/{}", operator.process().pid());
    let maps = std::fs::read_to_string(format!("{folder}/maps")).unwrap();
    let mut memory = File::open(format!("{folder}/mem")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What was unmapped meanwhile cannot be read.
        if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            regions.push(bytes);
        }
    }
    regions
}

/// How often a text is there: as it is, or in base64 by itself.
fn count(memory: &[Vec<u8>], secret: &str) -> usize {
    let encoded = BASE64_STANDARD_NO_PAD.encode(secret);
    // Its last character may depend on what follows.
    let encoded = &encoded[..encoded.len() - 1];
    let found = |bytes: &[u8]| memmem::find_iter(bytes, secret).count() + memmem::find_iter(bytes, encoded).count();
    memory.iter().map(|bytes| found(bytes)).sum()
}

async fn none_stays(operator: &Operator, secrets: &[String]) {
    eventually("no secret in the operator's memory", PATIENCE, async || {
        let memory = writable_memory(operator);
        let counts: Vec<usize> = secrets.iter().map(|secret| count(&memory, secret)).collect();
        if counts.iter().all(|count| *count == 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

#[tokio::test]
async fn neither_password_nor_token_stays_in_memory() {
    let world = World::new().await;
    // Through the proxy there is no TLS to the apiserver, in whose buffers the last answer would stay for minutes.
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &["--log-filter=trace"]);
    operator.wait_until_ready().await;
    let ca = Authority::new("corp");
    let tls = Issuer::start_tls(Ipv4Addr::LOCALHOST, &ca.server(&["localhost"])).expect("an issuer");
    put(&world, "Secret", "corp-ca", &ca.pem()).await;
    world.issuer.enqueue_for("refused", Answer::status(401).json(json!({"error": "invalid_client"})));
    let bundle = json!({"kind": "Secret", "name": "corp-ca"});
    for (name, spec) in [
        ("basic", json!({"secret": {"template": {"AUTHORIZATION": "Bearer {{ access_token }}"}}})),
        ("body", json!({"clientAuthentication": "Body"})),
        ("tls", json!({"tokenURL": tls.url_at("localhost", "tls"), "caBundleRef": bundle})),
    ] {
        world.create_token(name, spec).await;
        world.ready(name).await;
    }
    world.create_token("refused", json!({})).await;
    world.condition("refused", "Ready", "False", "RequestRefused").await;

    let issued = world.issuer.issued().into_iter().chain(tls.issued()).map(|issued| issued.token);
    let header = BASE64_STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
    let secrets: Vec<String> = issued.chain([PASSWORD.to_owned(), header]).collect();
    assert_eq!(secrets.len(), 5);
    none_stays(&operator, &secrets).await;
    // The search does find what is there.
    assert!(count(&writable_memory(&operator), &world.namespace) > 0);

    // As little of a Secret that is only read and repaired.
    world
        .change_secret(
            "basic",
            json!({"metadata": {"labels": {"verteil.dev/token": null}}, "data": {"expires_in": null}}),
        )
        .await;
    eventually("the repair", PATIENCE, async || {
        if world.secret_key("basic", "expires_in").await.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    none_stays(&operator, &secrets).await;
}

#[tokio::test]
async fn a_token_is_kept_in_memory_only_until_it_is_saved() {
    let world = World::new().await;
    let proxy = world.proxy();
    let refused = proxy.fault(|call| call.kind == Kind::WriteSecret, vec![Fault::Status(500, None); 1000]);
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    world.create_token("flight", json!({})).await;
    refused.wait("a write of the Secret", PATIENCE).await;
    let token = world.issuer.last_token("flight").unwrap();
    none_stays(&operator, &[PASSWORD.to_owned()]).await;
    assert!(count(&writable_memory(&operator), &token) > 0);
    proxy.clear();
    world.ready("flight").await;
    none_stays(&operator, &[PASSWORD.to_owned(), token]).await;
    world.stays_at(1).await;
}
