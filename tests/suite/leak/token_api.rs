//! What callers of the token API show, well or badly, what they are given, and the key that it is given under; with tokens that
//! are in memory only, after one was taken out of its Secret.

use serde_json::json;
use testbed::world::{Operator, PATIENCE};
use testbed::{World, eventually, plain_http};

use super::search::Needles;
use super::{objects, said};
use crate::OPERATOR;
use crate::token_api::client::{self, Answered, TokenApi};

/// What a caller shows who has no ServiceAccount token.
const OPAQUE: &str = "canary-opaque-bearer";

#[tokio::test]
async fn no_callers_token_and_none_that_is_given_shows_in_text_logs_at_trace() {
    no_token_of_the_api_shows("--log-format=text").await;
}

#[tokio::test]
async fn no_callers_token_and_none_that_is_given_shows_in_json_logs_at_trace() {
    no_token_of_the_api_shows("--log-format=json").await;
}

async fn no_token_of_the_api_shows(format: &str) {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &["--log-filter=trace"]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(operator.terminate().await, Some(0));

    let (operator, api) = TokenApi::start(&world, &["--log-filter=trace", format, "--disable-token-persistence"]).await;
    let reader = client::caller(&world, "reader", "flight").await;
    let finder = client::caller(&world, "finder", "*").await;
    let elsewhere = client::token_of(&world, "reader", "https://elsewhere.example").await;
    let forged = format!("{}canary", &reader[..reader.len() - 6]);
    let mut needles = Needles::default();
    for bearer in [&reader, &finder, &elsewhere, &forged] {
        needles.add(bearer);
        // Its claims tell whose it is, and may be named; its signature makes it worth something.
        needles.add(bearer.rsplit('.').next().unwrap());
    }
    add_key(&mut needles, &std::fs::read_to_string(&api.key).unwrap());

    let given = eventually("the token", PATIENCE, async || {
        let answer = api.get(&world.namespace, "flight", &reader).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    world.create_token("hotel", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("hotel", "Ready", "False", "CredentialsMissing").await;
    let bearers = Bearers { reader: &reader, finder: &finder, elsewhere: &elsewhere, forged: &forged };
    let tag = given.header("etag");
    let told = call_in_every_way(&world, &api, &bearers, &tag).await;
    change_the_certificate(&operator, &api, &mut needles).await;
    // Another token, while somebody waits for it.
    let next = api.clone().spawn(&world, "flight", &reader, "?wait=60s", &[("if-none-match", &tag)]);
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    assert_eq!(next.await.unwrap().status, 200);
    let url = format!("http://{}/api/debug/token-persistence", operator.debug());
    assert_eq!(plain_http::exchange("PUT", &url, &[], OPAQUE).await.unwrap().status, 400);
    assert_eq!(plain_http::exchange("PUT", &url, &[], "enabled").await.unwrap().status, 200);
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    for issued in world.issuer.issued() {
        needles.add(&issued.token);
    }

    // What is given is found, and so the search finds it.
    assert!(needles.found_in(&given.body).is_some());
    for answer in told {
        assert_eq!(needles.found_in(&format!("{answer:?}")), None, "in an answer of {}", answer.status);
    }
    for (place, text) in said(&world, &operator).await {
        assert_eq!(needles.found_in(&text), None, "in {place}");
    }
    assert!(operator.log().contains("TRACE"));
    let log = operator.process().log_file().to_owned();
    assert_eq!(operator.terminate().await, Some(0));
    assert_eq!(needles.found_in(&std::fs::read_to_string(log).unwrap()), None, "in the log");
    for (place, text) in objects(&world).await {
        assert_eq!(needles.found_in(&text), None, "in {place}");
    }
}

struct Bearers<'a> {
    reader: &'a str,
    finder: &'a str,
    elsewhere: &'a str,
    forged: &'a str,
}

/// Every answer that is no token.
async fn call_in_every_way(world: &World, api: &TokenApi, bearers: &Bearers<'_>, tag: &str) -> Vec<Answered> {
    let namespace = world.namespace.as_str();
    let get = async |name: &str, bearer: &str| api.get(namespace, name, bearer).await;
    let with = async |name: &str, bearer: &str, query: &str, header: (&str, &str)| {
        api.call("GET", namespace, name, bearer, query, &[header]).await
    };
    let plain = ("accept", "*/*");
    let in_url = format!("?access_token={}", bearers.reader);
    let calls = [
        (304, with("flight", bearers.reader, "", ("if-none-match", tag)).await),
        (401, get("flight", "").await),
        (401, get("flight", OPAQUE).await),
        (401, get("flight", bearers.forged).await),
        (401, get("flight", bearers.elsewhere).await),
        (401, with("flight", "", "", ("authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")).await),
        (401, with("flight", "", &in_url, plain).await),
        (403, get("hotel", bearers.reader).await),
        (403, get("nobody", bearers.reader).await),
        (404, get("nobody", bearers.finder).await),
        (404, api.path("/", bearers.reader).await),
        (400, with("flight", bearers.reader, &in_url, plain).await),
        (400, with("flight", bearers.reader, "?wait=x", plain).await),
        (405, api.call("POST", namespace, "flight", bearers.reader, "", &[]).await),
        (503, get("hotel", bearers.finder).await),
    ];
    for (number, (status, answer)) in calls.iter().enumerate() {
        assert_eq!(answer.status, *status, "call {number}: {answer:?}");
    }
    // Without TLS, where it speaks it.
    let header = format!("Authorization: Bearer {}", bearers.reader);
    let url = format!("http://127.0.0.1:{}/api/token/{namespace}/flight", api.port());
    drop(plain_http::exchange("GET", &url, &[&header], "").await);
    calls.into_iter().map(|(_, answer)| answer).collect()
}

/// First to one whose key is none, then to another one.
async fn change_the_certificate(operator: &Operator, api: &TokenApi, needles: &mut Needles) {
    let key = std::fs::read_to_string(&api.key).unwrap();
    std::fs::write(&api.key, key.replacen("\nMI", "\ncanary-key", 1)).unwrap();
    let said = |words: &'static str| {
        eventually(
            words,
            PATIENCE,
            async move || {
                if operator.log().contains(words) { Ok(()) } else { Err("not yet".into()) }
            },
        )
    };
    said("goes on with the certificate that it has").await;
    let next = api.authority.server(&["127.0.0.1", "localhost"]);
    add_key(needles, next.key_pem());
    api.show(&next);
    said("the token API shows a new certificate").await;
}

/// Each line of a key in PEM.
fn add_key(needles: &mut Needles, pem: &str) {
    for line in pem.lines().filter(|line| !line.starts_with("-----")) {
        needles.add(line);
    }
}
