//! A renamed Secret: does the token move without a request, whatever comes in between, and what becomes of the former one?

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{World, eventually};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

async fn rename(world: &World, name: &str) {
    world.change("flight", json!({"spec": {"secret": {"name": name}}})).await;
}

async fn left_behind(world: &World, name: &str, successor: &str) -> Secret {
    eventually(&format!("Secret {name} to be marked"), PATIENCE, async || {
        let secret = world.secrets().get(name).await.map_err(|e| e.to_string())?;
        match secret.annotations().get("verteil.dev/superseded-by") {
            Some(found) if found == successor => Ok(secret),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn the_former_secret_keeps_its_keys_loses_our_labels_and_goes_with_the_resource() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"secret": {"labels": {"team": "x"}, "deletionPolicy": "Retain"}})).await;
    world.ready("flight").await;
    let token = world.secret_key("flight", "access_token").await;
    rename(&world, "renamed").await;
    world.stores("renamed", &token).await;
    let former = left_behind(&world, "flight", "renamed").await;
    assert_eq!(former.labels().keys().collect::<Vec<_>>(), ["team"]);
    assert_eq!(former.owner_references()[0].name, "flight");
    assert_eq!(world.secret_key("flight", "access_token").await, token);
    let moved = |s: &VerteilTokenStatus| s.former_secret_name.is_none() && s.secret_name.as_deref() == Some("renamed");
    world.status("flight", "the new name and nothing to remember", moved).await;
    // And back again.
    rename(&world, "flight").await;
    left_behind(&world, "renamed", "flight").await;
    world.ready("flight").await;
    let back = world.secrets().get("flight").await.unwrap();
    assert_eq!(back.labels()["verteil.dev/token"], "flight");
    assert!(!back.annotations().contains_key("verteil.dev/superseded-by") && back.owner_references().is_empty());
    world.stays_at(1).await;
    world.kubectl(&["delete", "vt", "flight"], None).await.succeeded();
    eventually("the Secret left behind to go", PATIENCE, async || {
        match world.secrets().get_opt("renamed").await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(_) => Err("it is still there".to_owned()),
        }
    })
    .await;
    assert!(world.secrets().get_opt("flight").await.unwrap().is_some(), "Retain");
}

#[tokio::test]
async fn a_later_token_is_not_lost_when_the_name_turns_back() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    rename(&world, "renamed").await;
    left_behind(&world, "flight", "renamed").await;
    world.kubectl(&["annotate", "vt", "flight", "verteil.dev/renew=1"], None).await.succeeded();
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    let second = world.issuer.last_token("flight").unwrap();
    rename(&world, "flight").await;
    world.stores("flight", &second).await;
    world.ready("flight").await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_new_name_that_cannot_be_written_yet_loses_nothing() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let token = world.secret_key("flight", "access_token").await;
    // Taken by somebody, then deleted; the operator dies in between.
    world.set_credentials("taken", "a", "b").await;
    rename(&world, "taken").await;
    let status = world.condition("flight", "Ready", "False", "SecretNotOurs").await;
    assert!(condition(&status, "Stalled").is_some_and(|c| c.status == "True"));
    operator.kill();
    let _operator = world.operator(OPERATOR, &[]).await;
    world.delete_secret("taken").await;
    world.stores("taken", &token).await;
    world.ready("flight").await;
    left_behind(&world, "flight", "taken").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_crash_between_the_new_secret_and_the_mark_on_the_former_loses_neither() {
    for after in [false, true] {
        for nth in [0, 1] {
            let fault = if after { Fault::HangAfter } else { Fault::Hang };
            let world = World::new().await;
            let proxy = world.proxy();
            let operator = world.operator_behind(&proxy, OPERATOR, &[]);
            operator.wait_until_ready().await;
            world.create_token("flight", json!({})).await;
            world.ready("flight").await;
            let token = world.secret_key("flight", "access_token").await;
            // The first write is that of the new Secret, the second the mark.
            let skipped = std::sync::atomic::AtomicUsize::new(0);
            let nth_write = move |call: &Call| {
                call.kind == Kind::WriteSecret && skipped.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == nth
            };
            let met = proxy.fault(nth_write, [fault]);
            rename(&world, "renamed").await;
            if after {
                met.wait_until_carried_out("the write", PATIENCE).await;
            } else {
                met.wait("the write", PATIENCE).await;
            }
            operator.kill();
            let _second = world.operator(OPERATOR, &[]).await;
            world.stores("renamed", &token).await;
            left_behind(&world, "flight", "renamed").await;
            world.status("flight", "nothing to remember", |s| s.former_secret_name.is_none()).await;
            world.ready("flight").await;
            world.stays_at(1).await;
        }
    }
}

#[tokio::test]
async fn while_a_quota_refuses_the_new_name_the_resource_is_not_ready_and_asks_for_nothing() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let used = world.secrets().list(&ListParams::default()).await.unwrap().items.len();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"count/secrets": used.to_string()}},
    });
    world.kubectl_apply(&quota.to_string()).await;
    eventually("the quota to be in force", PATIENCE, async || {
        let used = ["get", "resourcequota", "full", "-o", "jsonpath={.status.used}"];
        let used = world.kubectl(&used, None).await.succeeded();
        if used.is_empty() { Err(used) } else { Ok(()) }
    })
    .await;
    rename(&world, "renamed").await;
    world.condition("flight", "Ready", "False", "WriteRefused").await;
    world.kubectl(&["delete", "resourcequota", "full"], None).await.succeeded();
    world.ready("flight").await;
    left_behind(&world, "flight", "renamed").await;
    world.stays_at(1).await;
}
