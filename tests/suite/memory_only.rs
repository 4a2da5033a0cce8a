//! With tokens in memory only: is nothing of them ever stored, does a restart cost what is said, and nothing else anything?

mod failing;
mod switched_off;
mod taken_over;

use std::time::Duration;

use serde_json::json;
use testbed::proxy::{Kind, Proxy};
use testbed::world::{Operator, OperatorFlags, PASSWORD, PATIENCE};
use testbed::{World, eventually};
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;
use crate::token_api::client::{self, TokenApi};

const FLAG: &str = "--disable-token-persistence";

/// An operator that keeps tokens in memory only, and a caller of its API.
async fn start(world: &World, flags: OperatorFlags<'_>) -> (Operator, TokenApi) {
    let flags: Vec<&str> = [FLAG].into_iter().chain(flags.iter().copied()).collect();
    TokenApi::start(world, &flags).await
}

/// The token that the API gives.
async fn given(world: &World, api: &TokenApi, bearer: &str, name: &str) -> String {
    let answer = eventually(&format!("a token of {name}"), PATIENCE, async || {
        let answer = api.get(&world.namespace, name, bearer).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn calls(proxy: &Proxy, kinds: &[Kind]) -> usize {
    proxy.calls().iter().filter(|call| kinds.contains(&call.kind)).count()
}

#[tokio::test]
async fn nothing_of_a_token_is_ever_stored() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (operator, api) = TokenApi::start_behind(&world, &proxy, &[FLAG]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    assert!(operator.log().contains("Token persistence disabled"), "{}", operator.log());
    world.create_token("flight", json!({"secret": {"template": {"HEADER": "Bearer {{ access_token }}"}}})).await;
    // Two that name one Secret do not meet in memory.
    world.create_token("hotel", json!({"secret": {"name": "flight"}})).await;
    let status = world.ready("flight").await;
    world.ready("hotel").await;
    assert_eq!((status.secret_name.as_deref(), status.in_memory), (None, Some(true)));
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert!(ready.message.contains("in the operator's memory") && !ready.message.contains("Secret"), "{ready:?}");
    for name in ["flight", "hotel"] {
        assert_eq!(given(&world, &api, &bearer, name).await, world.issuer.last_token(name).unwrap());
        assert_eq!(world.issuer.count_for(name), 1);
    }
    let first = world.issuer.last_token("flight").unwrap();
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.status("flight", "the renewal", |status| status.tokens_issued == Some(2)).await;
    let second = given(&world, &api, &bearer, "flight").await;
    assert_ne!(first, second);

    // No write of any Secret, not even one that tries; and etcd knows none of the tokens, though it knows the password.
    assert_eq!(calls(&proxy, &[Kind::WriteSecret, Kind::DryRun]), 0, "{:?}", proxy.calls());
    assert_eq!(world.secrets().get_opt("flight").await.unwrap().map(|secret| secret.data), None);
    assert!(!world.cluster.etcd_files_with(PASSWORD).unwrap().is_empty(), "the search finds what is there");
    for token in [&first, &second, &world.issuer.last_token("hotel").unwrap()] {
        assert_eq!(world.cluster.etcd_files_with(token).unwrap(), Vec::<String>::new());
        assert!(!operator.log().contains(token.as_str()));
    }
    world.stays_at(3).await;
}

#[tokio::test]
async fn a_settled_resource_makes_no_call() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (_operator, _api) = TokenApi::start_behind(&world, &proxy, &[FLAG]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.stays_at(1).await;
    let kinds = [Kind::GetSecret, Kind::GetToken, Kind::Status, Kind::Claim, Kind::WriteSecret, Kind::DryRun];
    let before = calls(&proxy, &kinds);
    world.change("flight", json!({"metadata": {"labels": {"a": "b"}}})).await;
    world.stays_at(1).await;
    assert_eq!(calls(&proxy, &kinds), before, "{:?}", proxy.calls());
}

#[tokio::test]
async fn a_restart_costs_one_token_for_each_resource_and_says_so() {
    let world = World::new().await;
    let (operator, _) = start(&world, &[]).await;
    for name in ["flight", "hotel"] {
        world.create_token(name, json!({})).await;
        world.ready(name).await;
    }
    operator.kill();
    let (operator, api) = start(&world, &["--log-format=json"]).await;
    for name in ["flight", "hotel"] {
        let status = world.status(name, "the second token", |status| status.tokens_issued == Some(2)).await;
        assert_eq!(status.last_issue_reason, Some(IssueReason::MemoryLost));
        world.ready(name).await;
    }
    world.stays_at(4).await;
    assert_eq!(operator.metric("verteil_token_generations_total{reason=\"MemoryLost\"}").await, Some(2.0));
    assert_eq!(operator.metric("verteil_token_ambiguous_generations_total").await, Some(0.0));
    assert!(operator.log().contains("\"reason\":\"MemoryLost\""), "{}", operator.log());
    eventually("the event", PATIENCE, async || {
        let args = ["get", "events.events.k8s.io", "-o=jsonpath={.items[*].note}"];
        let notes = world.kubectl(&args, None).await.succeeded();
        if notes.contains("MemoryLost: new token in memory") { Ok(()) } else { Err(notes) }
    })
    .await;
    let bearer = client::caller(&world, "reader", "*").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, world.issuer.last_token("flight").unwrap());
}

#[tokio::test]
async fn a_crash_loop_does_not_drain_the_account() {
    let world = World::new().await;
    let (mut operator, _) = start(&world, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    for _ in 0..3 {
        operator.kill();
        (operator, _) = start(&world, &[]).await;
        eventually("a look", PATIENCE, async || {
            let status = world.tokens().get("flight").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            let throttled = status.conditions.iter().any(|c| c.reason == "GenerationThrottled");
            if throttled || status.tokens_issued == Some(2) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }
    let status = world.condition("flight", "Ready", "False", "GenerationThrottled").await;
    let message = &status.conditions.iter().find(|c| c.type_ == "Ready").unwrap().message;
    assert!(message.contains("lost what was in its memory"), "{message}");
    world.stays_at(2).await;
}

#[tokio::test]
async fn renewal_and_failure_are_as_ever() {
    let world = World::new().await;
    let (_operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.issuer.set_lifetime(Duration::from_secs(30));
    world.create_token("flight", json!({})).await;
    let first = given(&world, &api, &bearer, "flight").await;
    world.issuer.set_lifetime(Duration::from_secs(43_199));
    let status = world.status("flight", "the renewal", |status| status.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::Expired));
    assert_ne!(given(&world, &api, &bearer, "flight").await, first);
    world.set_credentials("credentials", "canary-username-4711", "another").await;
    let status = world.status("flight", "the changed inputs", |status| status.tokens_issued == Some(3)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::InputsChanged));
    world.stays_at(3).await;
    // With the resource its token goes.
    world.ready("flight").await;
    world.kubectl(&["delete", "vt", "flight"], None).await.succeeded();
    eventually("its end", PATIENCE, async || match api.get(&world.namespace, "flight", &bearer).await.status {
        404 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    world.create_token("flight", json!({})).await;
    assert_eq!(world.ready("flight").await.last_issue_reason, Some(IssueReason::Initial));
    world.stays_at(4).await;
}

#[tokio::test]
async fn without_the_token_api_or_with_an_unclear_word_it_does_not_start() {
    let world = World::new().await;
    let kubeconfig = world.operator_kubeconfig();
    let refused = async |env: &str, code: i32, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let env = [("KUBECONFIG", kubeconfig.to_str().unwrap()), ("DISABLE_TOKEN_PERSISTENCE", env)];
        let none: [&str; 0] = [];
        let child = testbed::Child::spawn("the operator", OPERATOR, none, &env, &dir.path().join("log")).unwrap();
        let status = child.wait(PATIENCE).await.expect("it ends");
        assert_eq!(status.code(), Some(code), "{}", child.log());
        for word in words {
            assert!(child.log().contains(word), "{word} is not in {}", child.log());
        }
    };
    refused("true", 1, &["DISABLE_TOKEN_PERSISTENCE", "--token-api-listen"]).await;
    refused("treu", 2, &["--disable-token-persistence", "true or false"]).await;
    refused("", 2, &["--disable-token-persistence", "true or false"]).await;
}
