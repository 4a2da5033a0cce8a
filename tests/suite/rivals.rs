//! Two resources that name one Secret: who keeps it, who waits, and does it ever cost a token?

use kube::ResourceExt;
use serde_json::json;
use testbed::world::PATIENCE;
use testbed::{ControlPlane, Options, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::event;

fn message(status: &VerteilTokenStatus, type_: &str) -> String {
    condition(status, type_).map(|c| c.message.clone()).unwrap_or_default()
}

async fn label(world: &World) -> String {
    world.secrets().get("shared").await.unwrap().labels()["verteil.dev/token"].clone()
}

fn shared(policy: &str) -> serde_json::Value {
    json!({"secret": {"name": "shared", "deletionPolicy": policy}})
}

#[tokio::test]
async fn the_one_that_has_the_secret_keeps_it_and_both_are_told() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("old", json!({})).await;
    world.ready("old").await;
    world.create_token("holder", shared("Delete")).await;
    world.ready("holder").await;
    // An older resource that comes later to this Secret waits, and its own token stays where it is.
    world.change("old", json!({"spec": {"secret": {"name": "shared"}}})).await;
    let waits = world.condition("old", "Stalled", "True", "SecretNotOurs").await;
    assert!(message(&waits, "Stalled").contains("VerteilToken holder"), "{waits:?}");
    let holds = world.condition("holder", "SecretContested", "True", "NamedTwice").await;
    assert!(message(&holds, "SecretContested").contains("old"), "{holds:?}");
    assert_eq!(event(&world, "holder", "SecretContested").await.0, "Warning");
    assert!(condition(&holds, "Ready").is_some_and(|c| c.status == "True"));
    world.stays_at(2).await;
    assert_eq!(label(&world).await, "holder");
    // Turned back, it finds its token, and nobody is told of anything any more.
    world.change("old", json!({"spec": {"secret": {"name": "old"}}})).await;
    world.ready("old").await;
    world.status("holder", "no contest", |status| condition(status, "SecretContested").is_none()).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn of_twenty_new_ones_at_once_the_oldest_gets_the_secret_for_one_request() {
    let world = World::new().await;
    for n in 0..20 {
        world.create_token(&format!("token-{n:02}"), shared("Delete")).await;
    }
    let operator = world.operator(OPERATOR, &[]).await;
    world.ready("token-00").await;
    for n in 1..20 {
        world.condition(&format!("token-{n:02}"), "Stalled", "True", "SecretNotOurs").await;
    }
    world.stays_at(1).await;
    assert_eq!(operator.metric("verteil_token_unsaved").await, Some(0.0));
    // Also while the operator runs.
    let created = (20..40).map(|n| world.token(&format!("token-{n:02}"), json!({"secret": {"name": "other"}})));
    let created: Vec<_> = created.collect();
    futures::future::join_all(created.iter().map(|token| world.create(token))).await;
    testbed::eventually("a token in the other Secret", PATIENCE, async || {
        if world.secret_key("other", "access_token").await.is_empty() { Err(String::new()) } else { Ok(()) }
    })
    .await;
    world.stays_at(2).await;
    assert_eq!(operator.metric("verteil_token_unsaved").await, Some(0.0));
    assert_eq!(operator.metric("verteil_token_ambiguous_generations_total").await, Some(0.0));
}

#[tokio::test]
async fn an_older_one_that_comes_in_mid_issuance_lets_the_younger_finish() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("old", json!({})).await;
    world.ready("old").await;
    world.issuer.hold();
    let mut young = shared("Delete");
    young["timeout"] = json!("15s");
    world.create_token("young", young).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    world.change("old", json!({"spec": {"secret": {"name": "shared"}}})).await;
    let waits = world.condition("old", "Stalled", "True", "SecretNotOurs").await;
    assert!(message(&waits, "Stalled").contains("the VerteilToken young names it as well"), "{waits:?}");
    world.issuer.release();
    world.ready("young").await;
    assert_eq!(label(&world).await, "young");
    world.stays_at(2).await;
}

#[tokio::test]
async fn what_the_deleted_one_left_behind_is_taken_up_by_the_one_that_waited() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let retained =
        json!({"tokenURL": world.issuer.url_for("one"), "secret": {"name": "shared", "deletionPolicy": "Retain"}});
    world.create_token("first", retained.clone()).await;
    let before = world.ready("first").await;
    world.create_token("second", retained).await;
    world.condition("second", "Stalled", "True", "SecretNotOurs").await;
    world.kubectl(&["delete", "vt", "first"], None).await.succeeded();
    assert_eq!(world.ready("second").await.expires_at, before.expires_at);
    assert_eq!(label(&world).await, "second");
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_deletion_that_no_watch_has_told_of_is_noticed_all_the_same() {
    let cluster = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let retained =
        json!({"tokenURL": world.issuer.url_for("one"), "secret": {"name": "shared", "deletionPolicy": "Retain"}});
    world.create_token("first", retained.clone()).await;
    world.ready("first").await;
    world.create_token("second", retained).await;
    world.condition("second", "Stalled", "True", "SecretNotOurs").await;
    proxy.cut();
    world.kubectl(&["delete", "vt", "first"], None).await.succeeded();
    cluster.forget_history().await.unwrap();
    proxy.mend();
    world.ready("second").await;
    assert_eq!(label(&world).await, "second");
    world.stays_at(1).await;
}

#[tokio::test]
async fn where_the_secret_goes_with_the_deleted_one_the_other_gets_a_token_of_its_own() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("first", shared("Delete")).await;
    world.ready("first").await;
    world.create_token("second", shared("Delete")).await;
    world.condition("second", "Stalled", "True", "SecretNotOurs").await;
    world.kubectl(&["delete", "vt", "first"], None).await.succeeded();
    world.ready("second").await;
    world.stores("shared", &world.issuer.last_token("second").unwrap()).await;
    world.stays_at(2).await;
}
