//! What becomes of a token when the world changes while it is being issued?

mod made_again;

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{PATIENCE, USERNAME};
use testbed::{ControlPlane, Options, World, eventually};
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;
use crate::events::event;

/// A world whose operator has sent a first request that the issuer holds back.
async fn in_mid_issuance() -> (World, testbed::world::Operator) {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    hold_a_request(&world).await;
    (world, operator)
}

/// Waits for a first request of a resource `flight`. It is held for as long as a request may take.
async fn hold_a_request(world: &World) {
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
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
    let world = World::new().await;
    let (one, two) = (world.operator(OPERATOR, &[]).await, world.operator(OPERATOR, &[]).await);
    hold_a_request(&world).await;
    wipe_status(&world).await;
    world.issuer.wait_until_held(2, PATIENCE).await;
    world.issuer.release();
    world.ready("flight").await;
    let counted = async || {
        let name = "verteil_token_ambiguous_generations_total";
        one.metric(name).await.unwrap_or_default() + two.metric(name).await.unwrap_or_default()
    };
    eventually("the token too many to be counted", PATIENCE, async || match counted().await {
        0.0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    unsaved(&one, 0.0).await;
    unsaved(&two, 0.0).await;
    world.stays_at(2).await;
    let counted = counted().await;
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
    world.issuer.set_lifetime(Duration::from_secs(30));
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"timeout": "15s"})).await;
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
    // Its token is missed by nobody.
    unsaved(&operator, 0.0).await;
    assert_eq!(operator.metric("verteil_token_generations_total{reason=\"Initial\"}").await, Some(1.0));
    let errors = operator.log().lines().filter(|line| line.contains(" ERROR ")).count();
    assert_eq!(errors, 0, "{}", operator.log());
}

#[tokio::test]
async fn a_token_that_could_not_be_saved_is_missed_only_while_its_resource_is_there() {
    let world = World::new().await;
    let proxy = world.proxy();
    let writes = |call: &Call| call.kind == Kind::WriteSecret && call.name == "flight";
    proxy.fault(writes, vec![Fault::Status(403, None); 1000]);
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Ready", "False", "WriteRefused").await;
    unsaved(&operator, 1.0).await;
    world.tokens().delete("flight", &DeleteParams::default()).await.unwrap();
    unsaved(&operator, 0.0).await;
    world.create_token("flight", json!({})).await;
    unsaved(&operator, 1.0).await;
    proxy.clear();
    world.ready("flight").await;
    unsaved(&operator, 0.0).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(1).await;
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
    // Before the definition changes: for a moment after it the apiserver may refuse what it takes otherwise.
    world.create_token("flight", json!({})).await;
    let claim = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/claim";
    let older = json!([{"op": "remove", "path": claim}]).to_string();
    cluster
        .kubectl(&["patch", "crd", "verteiltokens.verteil.dev", "--type=json", "-p", &older], None)
        .await
        .unwrap()
        .succeeded();
    // It goes on with the newer one for a moment, too.
    let claimed =
        json!({"status": {"claim": {"id": "x", "holder": "x", "startedAt": "2026-01-01T00:00:00Z", "seconds": 1}}});
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    eventually("the older definition to be in force", PATIENCE, async || {
        let answer = world.tokens().patch_status("flight", &dry, &Patch::Merge(&claimed)).await;
        match answer.map_err(|e| e.to_string())?.status.and_then(|status| status.claim) {
            None => Ok(()),
            Some(claim) => Err(format!("{claim:?}")),
        }
    })
    .await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.condition("flight", "Stalled", "True", "CRDOutdated").await;
    world.stays_at(0).await;
    cluster.stop_apiserver();
}

#[tokio::test]
async fn an_apiserver_that_restarts_and_loses_its_history_in_mid_issuance_costs_nothing() {
    let cluster: &ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let operator = world.operator(OPERATOR, &[]).await;
    hold_a_request(&world).await;
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
