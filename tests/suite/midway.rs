//! What becomes of a token when the world changes while it is being issued?

mod made_again;

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use testbed::world::{PATIENCE, USERNAME};
use testbed::{ControlPlane, Options, World, eventually};
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;
use crate::events::event;

/// A world whose operator has sent a first request that the issuer holds back.
async fn in_mid_issuance() -> (World, testbed::world::Operator) {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.hold();
    world.create_token("flight", json!({})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    (world, operator)
}

async fn wipe_status(world: &World) {
    let wipe =
        ["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
}

async fn unsaved(operator: &testbed::world::Operator, count: f64) {
    eventually(&format!("{count} unsaved tokens"), PATIENCE, async || {
        match operator.metric("verteil_token_unsaved").await {
            Some(now) if (now - count).abs() < 0.5 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_resource_made_again_in_mid_issuance_takes_the_token() {
    let (world, _operator) = in_mid_issuance().await;
    world.tokens().delete("flight", &DeleteParams::default()).await.unwrap();
    world.create_token("flight", json!({})).await;
    world.issuer.release();
    world.ready("flight").await;
    world.stays_at(1).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    let secret = world.secrets().get("flight").await.unwrap();
    let owner = world.tokens().get("flight").await.unwrap().metadata.uid;
    assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, owner.unwrap());
}

#[tokio::test]
async fn a_status_wiped_in_mid_issuance_costs_nothing_when_one_operator_runs() {
    let (world, _operator) = in_mid_issuance().await;
    wipe_status(&world).await;
    world.issuer.release();
    world.ready("flight").await;
    world.stays_at(1).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
}

#[tokio::test]
async fn a_status_wiped_in_mid_issuance_of_one_of_two_operators_costs_a_token_that_is_counted() {
    let (world, one) = in_mid_issuance().await;
    let two = world.operator(OPERATOR, &[]).await;
    wipe_status(&world).await;
    world.issuer.wait_until_held(2, PATIENCE).await;
    world.issuer.release();
    world.ready("flight").await;
    let mut counted = 0.0;
    eventually("the token too many to be counted", PATIENCE, async || {
        let name = "verteil_token_ambiguous_generations_total";
        counted = one.metric(name).await.unwrap_or_default() + two.metric(name).await.unwrap_or_default();
        if counted > 0.5 { Ok(()) } else { Err(format!("{counted}")) }
    })
    .await;
    unsaved(&one, 0.0).await;
    unsaved(&two, 0.0).await;
    world.stays_at(2).await;
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
    event(&world, "flight", "AmbiguousGeneration").await;
}

#[tokio::test]
async fn a_password_changed_in_mid_issuance_brings_one_more_token_for_it() {
    let (world, _operator) = in_mid_issuance().await;
    world.set_credentials("credentials", USERNAME, "another").await;
    world.issuer.release();
    let status = world.status("flight", "a token for the new password", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::InputsChanged));
    let requests = world.issuer.requests();
    assert_eq!(requests[1].credentials().unwrap().1, "another");
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_secret_deleted_in_mid_renewal_is_written_with_the_new_token() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(15));
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.issuer.set_lifetime(Duration::from_secs(43199));
    world.issuer.hold();
    world.issuer.wait_until_held(1, PATIENCE).await;
    world.delete_secret("flight").await;
    world.issuer.release();
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_namespace_deleted_in_mid_issuance_ends_without_a_storm() {
    let (world, operator) = in_mid_issuance().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    world.issuer.release();
    eventually("the namespace to end", 2 * PATIENCE, async || {
        match namespaces.get_opt(&world.namespace).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(_) => Err("it is still there".to_owned()),
        }
    })
    .await;
    world.stays_at(1).await;
    let errors = operator.log().lines().filter(|line| line.contains(" ERROR ")).count();
    assert_eq!(errors, 0, "{}", operator.log());
}

#[tokio::test]
async fn a_quota_used_up_between_dry_run_and_write_costs_time_and_no_token() {
    let (world, operator) = in_mid_issuance().await;
    let used = world.secrets().list(&ListParams::default()).await.unwrap().items.len();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"count/secrets": used.to_string()}},
    });
    world.kubectl_apply(&quota.to_string()).await;
    eventually("the quota to be in force", PATIENCE, async || {
        let quota = world.kubectl(&["get", "resourcequota", "full", "-o", "json"], None).await.succeeded();
        let quota: Value = serde_json::from_str(&quota).unwrap();
        if quota["status"]["used"]["count/secrets"].is_string() { Ok(()) } else { Err(quota["status"].to_string()) }
    })
    .await;
    world.issuer.release();
    world.condition("flight", "Ready", "False", "WriteRefused").await;
    unsaved(&operator, 1.0).await;
    world.stays_at(1).await;
    // A second operator sees the claim that is kept alive, and waits.
    let _second = world.operator(OPERATOR, &[]).await;
    world.stays_at(1).await;
    world.kubectl(&["delete", "resourcequota", "full"], None).await.succeeded();
    world.ready("flight").await;
    unsaved(&operator, 0.0).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_write_that_will_be_refused_is_noticed_before_a_token_is_spent() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"count/secrets": "1"}},
    });
    world.kubectl_apply(&quota.to_string()).await;
    eventually("the quota to be in force", PATIENCE, async || {
        let quota = world.kubectl(&["get", "resourcequota", "full", "-o", "json"], None).await.succeeded();
        if quota.contains("\"used\"") { Ok(()) } else { Err(quota) }
    })
    .await;
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Ready", "False", "WriteRefused").await;
    world.stays_at(0).await;
    world.kubectl(&["delete", "resourcequota", "full"], None).await.succeeded();
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn an_older_definition_that_prunes_the_claim_is_noticed_before_a_token_is_spent() {
    let cluster: &ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let claim = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/claim";
    let older = json!([{"op": "remove", "path": claim}]).to_string();
    cluster
        .kubectl(&["patch", "crd", "verteiltokens.verteil.dev", "--type=json", "-p", &older], None)
        .await
        .unwrap()
        .succeeded();
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Stalled", "True", "CRDOutdated").await;
    world.stays_at(0).await;
    cluster.stop_apiserver();
}

#[tokio::test]
async fn an_apiserver_that_restarts_and_loses_its_history_in_mid_issuance_costs_nothing() {
    let cluster: &ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.hold();
    world.create_token("flight", json!({})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    cluster.stop_apiserver();
    world.issuer.release();
    unsaved(&operator, 1.0).await;
    cluster.start_apiserver().await.unwrap();
    cluster.forget_history().await.unwrap();
    world.ready("flight").await;
    unsaved(&operator, 0.0).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(1).await;
    cluster.stop_apiserver();
}

#[tokio::test]
async fn an_annotation_that_the_secret_cannot_take_is_noticed_before_a_token_is_spent() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    // Together with the operator's own annotations it is more than an object may have.
    let mut token = world.token("flight", json!({}));
    token["metadata"]["annotations"] = json!({"verteil.dev/renew": "x".repeat(262_000)});
    world.create(&token).await;
    world.condition("flight", "Ready", "False", "WriteRefused").await;
    world.stays_at(0).await;
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}
