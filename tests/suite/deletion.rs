//! What does the operator do with what is being deleted, suspended or made immutable? Nothing that costs.

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use testbed::world::{PATIENCE, QUIET};
use testbed::{World, eventually, never};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

async fn ready_one(world: &World, spec: serde_json::Value) -> String {
    world.create_token("flight", spec).await;
    world.ready("flight").await;
    world.secret_key("flight", "access_token").await
}

#[tokio::test]
async fn a_resource_being_deleted_is_left_alone() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    ready_one(&world, json!({})).await;
    assert!(world.tokens().get("flight").await.unwrap().finalizers().is_empty());
    // Somebody else's finalizer keeps it in its deletion.
    world.change("flight", json!({"metadata": {"finalizers": ["example.com/slow"]}})).await;
    world.tokens().delete("flight", &DeleteParams::default()).await.unwrap();
    world.change_secret("flight", json!({"metadata": {"ownerReferences": null}, "data": {"saved_at": null}})).await;
    let before = world.secrets().get("flight").await.unwrap();
    world.set_credentials("credentials", testbed::world::USERNAME, "another").await;
    never("a repair", QUIET, async || {
        let now = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
        if now == before { Ok(()) } else { Err(format!("{:?}", now.metadata)) }
    })
    .await;
    world.delete_secret("flight").await;
    world.stays_at(1).await;
    world.change("flight", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn a_flipped_deletion_policy_sets_and_takes_the_owner_and_nothing_else() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let token = ready_one(&world, json!({})).await;
    for (policy, owners) in [("Retain", 0), ("Delete", 1), ("Retain", 0)] {
        world.change("flight", json!({"spec": {"secret": {"deletionPolicy": policy}}})).await;
        eventually(&format!("{owners} owners"), PATIENCE, async || {
            let secret = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
            if secret.owner_references().len() == owners {
                Ok(())
            } else {
                Err(format!("{:?}", secret.owner_references()))
            }
        })
        .await;
    }
    world.stores("flight", &token).await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn what_the_spec_drops_is_taken_away_and_what_others_added_stays() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let extra = json!({"secret": {
        "labels": {"team": "x", "kept": "y"}, "annotations": {"note": "z"}, "template": {"HEADER": "Bearer {{ access_token }}"},
    }});
    ready_one(&world, extra).await;
    let theirs =
        json!({"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "2"}}, "stringData": {"theirs": "3"}});
    world.kubectl(&["patch", "secret", "flight", "-p", &theirs.to_string()], None).await.succeeded();
    let dropped = json!({"labels": {"team": null}, "annotations": null, "template": null});
    world.change("flight", json!({"spec": {"secret": dropped}})).await;
    eventually("what was dropped to go", PATIENCE, async || {
        let secret = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
        let keys = secret.data.clone().unwrap_or_default();
        let gone = !secret.labels().contains_key("team")
            && !secret.annotations().contains_key("note")
            && !keys.contains_key("HEADER");
        if gone { Ok(()) } else { Err(format!("{:?} {:?}", secret.metadata, keys.keys())) }
    })
    .await;
    let secret = world.secrets().get("flight").await.unwrap();
    assert_eq!(secret.labels()["kept"], "y");
    assert!(secret.labels()["theirs"] == "1" && secret.annotations()["theirs"] == "2");
    assert_eq!(world.secret_key("flight", "theirs").await, "3");
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_suspended_resource_writes_nothing_and_resumes_without_a_request() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let token = ready_one(&world, json!({})).await;
    world.change("flight", json!({"spec": {"suspend": true}})).await;
    world.status("flight", "its generation", |s| s.observed_generation == Some(2)).await;
    world.change_secret("flight", json!({"data": {"access_token": null}, "metadata": {"labels": null}})).await;
    let before = world.secrets().get("flight").await.unwrap();
    never("a write", QUIET, async || {
        let now = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
        if now == before { Ok(()) } else { Err(format!("{:?}", now.metadata)) }
    })
    .await;
    world.change("flight", json!({"spec": {"suspend": false}})).await;
    world.stores("flight", &token).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn an_immutable_secret_is_told_of_and_costs_nothing() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let token = ready_one(&world, json!({})).await;
    world.change_secret("flight", json!({"immutable": true})).await;
    let status = world.condition("flight", "RenewalFailing", "True", "SecretImmutable").await;
    assert!(condition(&status, "Ready").is_some_and(|c| c.status == "True"), "the token in it is valid");
    world.set_credentials("credentials", testbed::world::USERNAME, "another").await;
    let status = world.condition("flight", "Stalled", "True", "SecretImmutable").await;
    let told = condition(&status, "Stalled").unwrap();
    assert!(told.message.contains("delete it, or name another one in spec.secret.name"), "{}", told.message);
    world.stays_at(1).await;
    world.stores("flight", &token).await;
    world.delete_secret("flight").await;
    world.ready("flight").await;
    world.stays_at(2).await;
}
