//! Does the token API give tokens to who may have them, in all states of the Secret, and to nobody else?

mod abuse;
mod callers;
mod certificate;
pub mod client;
mod waiting;

use std::time::Duration;

use serde_json::{Value, json};
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{Answer, World, eventually};

use client::{Answered, TokenApi};

/// Much shorter than any wait that is asked for here.
const AT_ONCE: Duration = Duration::from_secs(8);

/// The issued token, once the answer is one.
async fn eventually_gets(api: &TokenApi, world: &World, bearer: &str, name: &str) -> Answered {
    eventually(&format!("a token of {name} from the API"), PATIENCE, async || {
        let answer = api.get(&world.namespace, name, bearer).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await
}

#[tokio::test]
async fn the_stored_token_is_given_with_what_is_left_of_its_life() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.issuer.set_lifetime(Duration::from_secs(3600));
    world.create_token("flight", json!({})).await;
    let expiry = world.ready("flight").await.expires_at.unwrap().0.as_second();
    let answer = eventually_gets(&api, &world, &bearer, "flight").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["access_token"], json!(world.issuer.last_token("flight")));
    assert_eq!((&body["token_type"], &body["token_expiry"]), (&json!("Bearer"), &json!(expiry)));
    assert_eq!(body.as_object().unwrap().len(), 4, "{body:?}");
    let left = body["expires_in"].as_i64().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    // Some seconds later it is so many seconds less.
    let later = eventually("a second to pass", PATIENCE, async || {
        let now = api.get(&world.namespace, "flight", &bearer).await.json();
        if now["expires_in"].as_i64().unwrap() < left { Ok(now) } else { Err("not yet".into()) }
    })
    .await;
    assert_eq!(later["token_expiry"], body["token_expiry"]);

    let tag = answer.header("etag");
    assert!(tag.starts_with("W/\"") && !tag.contains(body["access_token"].as_str().unwrap()), "{tag}");
    let same = api.call("GET", &world.namespace, "flight", &bearer, "", &[("if-none-match", &tag)]).await;
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    assert_eq!(same.header("etag"), tag);
    world.stays_at(1).await;
}

#[tokio::test]
async fn what_is_no_token_is_told_as_a_problem() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let problem = |answer: &Answered, status: u16| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("cache-control"), "no-store");
        let body = answer.json();
        assert_eq!((&body["type"], &body["status"]), (&json!("about:blank"), &json!(status)));
        assert!(!body["detail"].as_str().unwrap().is_empty() && body["title"].is_string());
        body
    };
    problem(&api.get(&world.namespace, "nobody", &bearer).await, 404);
    problem(&api.call("POST", &world.namespace, "nobody", &bearer, "", &[]).await, 405);
    problem(&api.call("GET", &world.namespace, "nobody", &bearer, "?wait=61s", &[]).await, 400);
    problem(&api.call("GET", &world.namespace, "nobody", &bearer, "?format=x", &[]).await, 400);
    problem(&api.path("/", &bearer).await, 404);
    // A path that is no text, and names nothing that anybody could have a right to.
    let undecodable = format!("/api/token/{}/%ff", world.namespace);
    problem(&api.path(&undecodable, &bearer).await, 400);
    problem(&api.path("/api/token/%ff/x", &bearer).await, 403);
    problem(&api.path(&undecodable, "opaque").await, 401);
    let head = api.call("HEAD", &world.namespace, "nobody", &bearer, "", &[]).await;
    assert_eq!((head.status, head.header("allow").as_str(), head.body.as_str()), (405, "GET", ""));

    world.create_token("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("waiting", "Ready", "False", "CredentialsMissing").await;
    let answer = eventually("the reason", PATIENCE, async || {
        let answer = api.get(&world.namespace, "waiting", &bearer).await;
        if answer.json()["reason"] == "CredentialsMissing" { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    problem(&answer, 503);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);

    world.issuer.set_lifetime(Duration::from_secs(6));
    world.create_token("short", json!({"renewBefore": "0s"})).await;
    world.ready("short").await;
    world.issuer.rule(|_| Some(Answer::status(503)));
    let answer = eventually("its end", PATIENCE, async || {
        let answer = api.get(&world.namespace, "short", &bearer).await;
        if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let body = problem(&answer, 503);
    assert!(body["detail"].as_str().unwrap().contains("expired"), "{body}");
    assert!(!answer.body.contains(&world.issuer.last_token("short").unwrap()));
}

#[tokio::test]
async fn a_call_waits_for_the_first_token_and_for_the_next() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    let first = api.clone().spawn(&world, "flight", &bearer, "?wait=60s", &[]);
    assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 503, "who does not wait is told at once");
    world.issuer.release();
    let first = tokio::time::timeout(AT_ONCE, first).await.expect("woken").unwrap();
    assert_eq!(first.json()["access_token"], json!(world.issuer.last_token("flight")));

    world.ready("flight").await;
    let tag = first.header("etag");
    let next = api.clone().spawn(&world, "flight", &bearer, "?wait=60s", &[("if-none-match", &tag)]);
    // There is a token already: who has none gets it at once.
    let other = api.call("GET", &world.namespace, "flight", &bearer, "?wait=60s", &[]);
    assert_eq!(tokio::time::timeout(AT_ONCE, other).await.expect("at once").status, 200);
    let nothing = api.call("GET", &world.namespace, "flight", &bearer, "?wait=1s", &[("if-none-match", &tag)]).await;
    assert_eq!(nothing.status, 304);
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    let next = tokio::time::timeout(AT_ONCE, next).await.expect("woken").unwrap();
    assert_eq!(next.json()["access_token"], json!(world.issuer.last_token("flight")));
    assert_ne!(next.header("etag"), tag);
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_token_that_cannot_be_written_is_given_from_memory() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (operator, api) = TokenApi::start_behind(&world, &proxy, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let writes = |call: &Call| call.kind == Kind::WriteSecret && call.name == "flight";
    proxy.fault(writes, std::iter::repeat_n(Fault::Status(500, None), 1000));
    world.create_token("flight", json!({})).await;
    let answer = eventually_gets(&api, &world, &bearer, "flight").await;
    assert_eq!(answer.json()["access_token"], json!(world.issuer.last_token("flight")));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    // Nor can it be read: the memory is enough.
    let reads = |call: &Call| call.kind == Kind::GetSecret && call.name == "flight";
    proxy.fault(reads, std::iter::repeat_n(Fault::Status(500, None), 1000));
    assert_eq!(api.get(&world.namespace, "flight", &bearer).await.status, 200);
    proxy.clear();
    world.ready("flight").await;
    let stored = api.get(&world.namespace, "flight", &bearer).await.json();
    assert_eq!(stored["access_token"], answer.json()["access_token"]);
    world.stays_at(1).await;
    assert!(!operator.log().contains(answer.json()["access_token"].as_str().unwrap()));
}

#[tokio::test]
async fn only_the_resources_own_secret_counts_and_it_is_read_live() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    // Somebody else's, which looks just like one.
    world.create_token("real", json!({})).await;
    world.ready("real").await;
    let real = world.secrets().get("real").await.unwrap();
    let copy = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}, "data": real.data,
    });
    world.kubectl_apply(&copy.to_string()).await;
    world.create_token("theirs", json!({"secret": {"name": "taken"}})).await;
    world.condition("theirs", "Ready", "False", "SecretNotOurs").await;
    let answer = eventually("the reason", PATIENCE, async || {
        let answer = api.get(&world.namespace, "theirs", &bearer).await;
        if answer.json()["reason"] == "SecretNotOurs" { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(answer.status, 503);
    assert!(!answer.body.contains(&world.issuer.last_token("real").unwrap()));
    world.stays_at(1).await;
}

#[tokio::test]
async fn who_stands_by_answers_too() {
    let world = World::new().await;
    let lease = format!("--lease-namespace={}", world.namespace);
    let flags = ["--leader-election", &lease];
    let (_leader, _) = TokenApi::start(&world, &flags).await;
    let bearer = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let (standby, api) = TokenApi::start(&world, &flags).await;
    assert_eq!(standby.metric("verteil_token_leader").await, Some(0.0));
    let answer = eventually_gets(&api, &world, &bearer, "flight").await;
    assert_eq!(answer.json()["access_token"], json!(world.issuer.last_token("flight")));
    // Nor does it miss the next one.
    let tag = answer.header("etag");
    let next = api.clone().spawn(&world, "flight", &bearer, "?wait=60s", &[("if-none-match", &tag)]);
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    // Long before the wait ends by itself.
    let next: Value = tokio::time::timeout(AT_ONCE, next).await.expect("woken").unwrap().json();
    assert_eq!(next["access_token"], json!(world.issuer.last_token("flight")));
    world.stays_at(2).await;
}

#[tokio::test]
async fn it_is_off_unless_asked_for_and_its_end_is_in_good_order() {
    let world = World::new().await;
    let operator = world.operator(crate::OPERATOR, &[]).await;
    assert!(!operator.log().contains("the token API listens"));
    let (operator, api) = TokenApi::start(&world, &[]).await;
    assert!(operator.log().contains("the token API listens"));
    let bearer = client::caller(&world, "reader", "*").await;
    world.create_token("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("waiting", "Ready", "False", "CredentialsMissing").await;
    let waiting = api.clone().spawn(&world, "waiting", &bearer, "?wait=60s", &[]);
    eventually("a call that waits", PATIENCE, async || match operator.metric("verteil_token_api_waiting").await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(operator.terminate().await, Some(0));
    assert_eq!(waiting.await.unwrap().status, 503, "answered, not cut off");
}
