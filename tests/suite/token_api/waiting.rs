//! Calls that wait: who loses the right meanwhile gets nothing, who finds no place is told so, and nobody is kept for ever.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{Operator, PATIENCE};
use testbed::{World, eventually};
use tokio::time::Instant;

use super::client::{self, TokenApi};

/// Callers of one ServiceAccount that may wait at the same time.
const SHARE: usize = 32;

async fn waits(operator: &Operator, count: usize) {
    eventually(&format!("{count} calls that wait"), PATIENCE, async || {
        match operator.metric("verteil_token_api_waiting").await {
            Some(now) if now.to_string() == count.to_string() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// What a call gets that waits while `withdraw` takes its right away, once a call that does not wait gets `status`.
async fn is_told_after(withdraw: &[&str], status: u16) {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    let waiting = api.clone().spawn(&world, "flight", &bearer, "?wait=60s", &[]);
    waits(&operator, 1).await;
    world.kubectl(withdraw, None).await.succeeded();
    eventually("the withdrawal to be noticed", PATIENCE, async || {
        match api.get(&world.namespace, "flight", &bearer).await.status {
            now if now == status => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    world.set_credentials("nowhere", "user", "password").await;
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    world.ready("flight").await;
    assert!(!answer.body.contains(&world.issuer.last_token("flight").unwrap()));
}

#[tokio::test]
async fn a_role_withdrawn_during_the_wait_gives_no_token() {
    is_told_after(&["delete", "rolebinding", "reader"], 403).await;
}

#[tokio::test]
async fn a_service_account_deleted_during_the_wait_gives_no_token() {
    is_told_after(&["delete", "serviceaccount", "reader"], 401).await;
}

#[tokio::test]
async fn a_withdrawn_role_is_noticed_in_time_by_who_asks_all_the_while() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let status = async || api.get(&world.namespace, "flight", &bearer).await.status;
    assert_eq!(status().await, 200);
    world.kubectl(&["delete", "rolebinding", "reader"], None).await.succeeded();
    let withdrawn = Instant::now();
    eventually("the withdrawal to be noticed", PATIENCE, async || match status().await {
        403 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    // 10 s, on a busy machine.
    assert!(withdrawn.elapsed() < Duration::from_secs(25), "{:?}", withdrawn.elapsed());
}

#[tokio::test]
async fn one_caller_waits_in_so_many_calls_only_and_others_have_their_places() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let (greedy, other) = (client::caller(&world, "greedy", "*").await, client::caller(&world, "other", "*").await);
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    let waiting: Vec<_> = (0..SHARE).map(|_| api.clone().spawn(&world, "flight", &greedy, "?wait=60s", &[])).collect();
    waits(&operator, SHARE).await;
    // At once, and not with 304 or the reason why there is none, which would be asked for again at once.
    let full = api.call("GET", &world.namespace, "flight", &greedy, "?wait=60s", &[]).await;
    assert_eq!((full.status, full.header("content-type").as_str()), (503, "application/problem+json"));
    assert!(full.body.contains("waits for tokens") && !full.header("retry-after").is_empty(), "{full:?}");
    // Who does not wait needs no place, and another one has his own.
    assert!(api.get(&world.namespace, "flight", &greedy).await.body.contains("CredentialsMissing"));
    let one_more = api.clone().spawn(&world, "flight", &other, "?wait=60s", &[]);
    waits(&operator, SHARE + 1).await;
    world.set_credentials("nowhere", "user", "password").await;
    for answer in waiting.into_iter().chain([one_more]) {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    waits(&operator, 0).await;
}

#[tokio::test]
async fn at_the_end_who_has_the_token_already_is_told_to_come_back_and_not_that_it_is_the_same() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let tag = api.get(&world.namespace, "flight", &bearer).await.header("etag");
    let waiting = api.clone().spawn(&world, "flight", &bearer, "?wait=60s", &[("if-none-match", &tag)]);
    waits(&operator, 1).await;
    assert_eq!(operator.terminate().await, Some(0));
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty() && answer.header("etag").is_empty(), "{answer:?}");
}

#[tokio::test]
async fn reads_that_hang_keep_nobody_for_long() {
    // Three times as many as are read at a time, each of another Secret.
    const NAMES: usize = 48;
    let world = World::new().await;
    let proxy = world.proxy();
    let (_operator, api) = TokenApi::start_behind(&world, &proxy, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let name = |number: usize| format!("flight-{number}");
    for number in 0..NAMES {
        world.create_token(&name(number), json!({"suspend": true})).await;
        world.condition(&name(number), "Ready", "False", "Suspended").await;
    }
    assert_eq!(api.get(&world.namespace, &name(0), &bearer).await.status, 503);
    let reads = |call: &Call| call.kind == Kind::GetSecret;
    proxy.fault(reads, std::iter::repeat_n(Fault::Hang, 1000));
    let answers = (0..NAMES).map(async |number| {
        let begun = Instant::now();
        let answer = api.get(&world.namespace, &name(number), &bearer).await;
        (answer, begun.elapsed())
    });
    for (answer, took) in join_all(answers).await {
        assert_eq!(answer.status, 503, "{answer:?}");
        // In line behind two others it would be 30 s.
        assert!(took < Duration::from_secs(22), "{took:?}: {answer:?}");
    }
}
