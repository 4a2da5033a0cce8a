//! Tokens that Secrets hold when memory becomes their only place.

use serde_json::{Value, json};
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{World, eventually};

use verteil_token_operator::api::{IssueReason, VerteilTokenStatus};

use super::{FLAG, given, start};
use crate::OPERATOR;
use crate::readme::block_under;
use crate::token_api::client::{self, TokenApi};

/// Waits until a Secret holds no key of ours.
pub async fn is_emptied(world: &World, name: &str) -> Value {
    eventually(&format!("Secret {name} without a token"), PATIENCE, async || {
        let secret = world.secrets().get(name).await.map_err(|e| e.to_string())?;
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
        if keys.iter().all(|key| key == "theirs") {
            Ok(serde_json::to_value(secret).unwrap())
        } else {
            Err(format!("{keys:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_stored_token_is_used_to_its_end_and_its_secret_emptied() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let template = json!({"secret": {"template": {"HEADER": "Bearer {{ access_token }}"}}});
    world.create_token("flight", template).await;
    world.create_token("kept", json!({"secret": {"deletionPolicy": "Retain", "name": "elsewhere"}})).await;
    let before = world.ready("flight").await;
    world.ready("kept").await;
    world.change_secret("flight", json!({"data": {"theirs": "eA=="}, "metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(operator.terminate().await, Some(0));

    let (operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    for (name, secret) in [("flight", "flight"), ("kept", "elsewhere")] {
        assert_eq!(given(&world, &api, &bearer, name).await, world.issuer.last_token(name).unwrap());
        let emptied = is_emptied(&world, secret).await;
        assert_eq!(emptied["metadata"]["labels"]["verteil.dev/token"], name);
        let annotations = emptied["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["verteil.dev/in-memory"]);
    }
    let emptied = world.secrets().get("flight").await.unwrap();
    assert_eq!(emptied.data.unwrap().into_keys().collect::<Vec<_>>(), ["theirs"]);
    assert_eq!(emptied.metadata.labels.unwrap()["a"], "b");
    let after = world.status("flight", "its new place", |status| status.in_memory == Some(true)).await;
    assert_eq!((after.expires_at, after.secret_name), (before.expires_at, None));
    world.ready("flight").await;
    assert_eq!(operator.metric("verteil_token_reused_total").await, Some(2.0));
    assert_eq!(operator.metric("verteil_token_secret_writes_total{kind=\"repair\"}").await, Some(0.0));
    assert!(operator.log().contains("Loaded valid token. Expires in "), "{}", operator.log());
    world.stays_at(2).await;
    operator.kill();

    // Lost with the process; the Secrets are the operator's still, and are filled again.
    let _operator = world.operator(OPERATOR, &[]).await;
    for (name, secret) in [("flight", "flight"), ("kept", "elsewhere")] {
        let there =
            |status: &VerteilTokenStatus| status.secret_name.as_deref() == Some(secret) && status.in_memory.is_none();
        let status = world.status(name, "a Secret", there).await;
        assert_eq!(status.last_issue_reason, Some(IssueReason::MemoryLost));
        world.stores(secret, &world.issuer.last_token(name).unwrap()).await;
    }
    world.stays_at(4).await;
}

#[tokio::test]
async fn what_the_readme_lists_are_the_secrets_that_nobody_empties() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("renamed", json!({"secret": {"name": "before"}})).await;
    world.create_token("gone", json!({"secret": {"deletionPolicy": "Retain"}})).await;
    for name in ["renamed", "gone"] {
        world.ready(name).await;
    }
    world.change("renamed", json!({"spec": {"secret": {"name": "after"}}})).await;
    world.stores("after", &world.issuer.last_token("renamed").unwrap()).await;
    let settled = |status: &VerteilTokenStatus| status.former_secret_name.is_none() && status.secret_name.is_some();
    world.status("renamed", "nothing left to do", settled).await;
    world.kubectl(&["delete", "vt", "gone"], None).await.succeeded();
    assert_eq!(operator.terminate().await, Some(0));

    let (_operator, _api) = start(&world, &[]).await;
    is_emptied(&world, "after").await;
    let command = block_under("## Tokens in memory only", "sh").replace("\\\n", "");
    let (words, path) = command.split_once('\'').unwrap();
    let words: Vec<&str> = words.split_whitespace().skip(1).collect();
    assert_eq!(words, ["get", "secrets", "--all-namespaces", "-o", "jsonpath="]);
    let path = format!("jsonpath={}", path.trim_end().trim_end_matches('\''));
    let args = [&words[..4], &[&*path]].concat();
    let listed = world.cluster.kubectl(&args, None).await.unwrap().succeeded();
    let mut names: Vec<&str> =
        listed.lines().filter_map(|line| line.strip_prefix(&format!("{}/", world.namespace))).collect();
    names.sort_unstable();
    assert_eq!(names, ["before", "gone"]);
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_token_that_its_user_hands_over_is_imported() {
    let world = World::new().await;
    let (_operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let expiry = 4_000_000_000_i64;
    let record = json!({
        "access_token": "fake-imported-8317", "token_data": {"access_token": "fake-imported-8317", "expires_in": 43199},
        "token_expiry": expiry, "saved_at": expiry - 43199,
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"verteil_token.json": record.to_string(), "theirs": "x"},
        "metadata": {"name": "flight", "annotations": {"verteil.dev/adopt": "flight"}},
    });
    // With apply, kubectl keeps all of it in an annotation.
    world.kubectl_apply(&secret.to_string()).await;
    world.create_token("flight", json!({})).await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, "fake-imported-8317");
    is_emptied(&world, "flight").await;
    let text = serde_json::to_string(&world.secrets().get("flight").await.unwrap()).unwrap();
    assert!(!text.contains("fake-imported"), "{text}");
    world.stays_at(0).await;
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() {
    let world = World::new().await;
    let (_operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "flight"}, "stringData": {"access_token": "theirs"},
    });
    world.kubectl_apply(&secret.to_string()).await;
    let before = world.secrets().get("flight").await.unwrap();
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, world.issuer.last_token("flight").unwrap());
    assert_eq!(world.secrets().get("flight").await.unwrap(), before);
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_emptied_is_told_and_tried_again() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(operator.terminate().await, Some(0));
    let proxy = world.proxy();
    let writes = |call: &Call| call.kind == Kind::WriteSecret;
    proxy.fault(writes, std::iter::repeat_n(Fault::Status(422, None), 1000));
    let (_operator, api) = TokenApi::start_behind(&world, &proxy, &[FLAG]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, world.issuer.last_token("flight").unwrap());
    let status = world.condition("flight", "RenewalFailing", "True", "WriteRefused").await;
    let failing = status.conditions.iter().find(|c| c.type_ == "RenewalFailing").unwrap();
    assert!(failing.message.contains("Secret flight could not be emptied"), "{failing:?}");
    world.ready("flight").await;
    proxy.clear();
    is_emptied(&world, "flight").await;
    world.condition("flight", "RenewalFailing", "False", "").await;
    world.stays_at(1).await;
}
