//! Are listed workloads restarted when the token's value has changed, once for each change, and never otherwise?

mod faults;

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use serde_json::{Value, json};
use testbed::proxy::{Call, Kind};
use testbed::world::{PATIENCE, QUIET};
use testbed::{World, eventually, never};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::{event, events};

const FLAG: &[&str] = &["--rollout-restart"];
const ANNOTATION: &str = "restarted-for.verteil.dev/flight";
const CONDITION: &str = "WorkloadsRestarted";

/// A world in which the operator may patch workloads.
async fn world() -> World {
    let world = World::new().await;
    world.allow_rollout_restarts().await;
    world
}

fn deployment(name: &str) -> Value {
    json!({"kind": "Deployment", "name": name})
}

async fn create_workload(world: &World, kind: &str, name: &str) {
    let labels = json!({"app": name});
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"team": "booking"}},
                "spec": {"containers": [{"name": "c", "image": "none.invalid/c"}]},
            },
        },
    });
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
    }
    world.kubectl_apply(&workload.to_string()).await;
}

/// Generation of a workload, and what its pod template says of its restart. Each change of the template is a generation.
async fn rolled_out(world: &World, kind: &str, name: &str) -> (i64, Option<String>) {
    let (client, namespace) = (world.client.clone(), &world.namespace);
    let (meta, template): (ObjectMeta, Option<ObjectMeta>) = match kind {
        "Deployment" => {
            let found = Api::<Deployment>::namespaced(client, namespace).get(name).await.unwrap();
            (found.metadata, found.spec.and_then(|spec| spec.template.metadata))
        }
        "StatefulSet" => {
            let found = Api::<StatefulSet>::namespaced(client, namespace).get(name).await.unwrap();
            (found.metadata, found.spec.and_then(|spec| spec.template.metadata))
        }
        _ => {
            let found = Api::<DaemonSet>::namespaced(client, namespace).get(name).await.unwrap();
            (found.metadata, found.spec.and_then(|spec| spec.template.metadata))
        }
    };
    let annotations = template.and_then(|template| template.annotations).unwrap_or_default();
    assert_eq!(annotations.get("team").map(String::as_str), Some("booking"), "others' annotations stay");
    (meta.generation.unwrap(), annotations.get(ANNOTATION).cloned())
}

async fn generation(world: &World, name: &str) -> i64 {
    rolled_out(world, "Deployment", name).await.0
}

/// Asserts that a Deployment is not rolled out (any more).
async fn stays_at_generation(world: &World, name: &str, expected: i64) {
    never("another rollout", QUIET, async || match generation(world, name).await {
        now if now == expected => Ok(()),
        now => Err(format!("generation {now} instead of {expected}")),
    })
    .await;
}

/// Asks for another token and waits until it is stored.
async fn renew(world: &World, value: &str) {
    let before = world.secret_key("flight", "access_token").await;
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": value}}})).await;
    eventually("another token", PATIENCE, async || {
        let now = world.secret_key("flight", "access_token").await;
        if now == before { Err("the same".to_owned()) } else { Ok(()) }
    })
    .await;
}

/// Waits for the condition's reason.
async fn told(world: &World, reason: &str) -> VerteilTokenStatus {
    let status = if matches!(reason, "Restarted" | "TokenUnchanged") { "True" } else { "False" };
    world.condition("flight", CONDITION, status, reason).await
}

fn message(status: &VerteilTokenStatus) -> String {
    condition(status, CONDITION).unwrap().message.clone()
}

async fn count_events(world: &World, reason: &str) -> usize {
    events(world).await.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
}

#[tokio::test]
async fn each_kind_is_restarted_once_for_another_token_and_by_nothing_else() {
    const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];
    let world = world().await;
    for kind in KINDS {
        create_workload(&world, kind, "api").await;
    }
    let list: Vec<Value> = KINDS.iter().map(|kind| json!({"kind": kind, "name": "api"})).collect();
    let operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": list})).await;
    let first = told(&world, "TokenUnchanged").await;
    assert!(message(&first).contains("Deployment/api, StatefulSet/api, DaemonSet/api"), "{first:?}");
    // What changes everything but the token's value.
    let touched = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}});
    world.change("flight", touched.clone()).await;
    world.change_secret("flight", touched).await;
    world.change_secret("flight", json!({"stringData": {"access_token": "edited by hand"}})).await;
    world.change("flight", json!({"spec": {"renewBefore": "1h", "secret": {"labels": {"team": "search"}}}})).await;
    world.ready("flight").await;
    operator.kill();
    let operator = world.operator(OPERATOR, FLAG).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(1).await;
    for kind in KINDS {
        assert_eq!(rolled_out(&world, kind, "api").await, (1, None), "{kind}");
    }
    renew(&world, "one").await;
    let status = told(&world, "Restarted").await;
    assert!(message(&status).contains("Deployment/api, StatefulSet/api, DaemonSet/api"), "{status:?}");
    let fingerprint = status.rollout_restart.unwrap().token_fingerprint;
    let token = world.secret_key("flight", "access_token").await;
    assert!(!fingerprint.contains(&token));
    for kind in KINDS {
        assert_eq!(rolled_out(&world, kind, "api").await, (2, Some(fingerprint.clone())), "{kind}");
    }
    world.ready("flight").await;
    event(&world, "flight", CONDITION).await;
    assert_eq!(operator.metric("verteil_token_rollout_restarts_total{outcome=\"Restarted\"}").await, Some(3.0));
    eventually("a second ReplicaSet", PATIENCE, async || {
        let sets = Api::<ReplicaSet>::namespaced(world.client.clone(), &world.namespace);
        match sets.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len() {
            2 => Ok(()),
            other => Err(format!("{other}")),
        }
    })
    .await;
    // Done is done, for whoever comes next.
    operator.kill();
    let proxy = world.proxy();
    let third = world.operator_behind(&proxy, OPERATOR, FLAG);
    third.wait_until_ready().await;
    world.stays_at(2).await;
    let made: Vec<Call> = proxy.calls().into_iter().filter(|call| call.kind != Kind::Watch).collect();
    assert!(made.is_empty(), "{made:?}");
    for kind in KINDS {
        assert_eq!(rolled_out(&world, kind, "api").await.0, 2, "{kind}");
    }
    assert_eq!(count_events(&world, CONDITION).await, 1);
}

#[tokio::test]
async fn a_deleted_secret_means_a_restart_and_a_wiped_status_or_a_resource_made_again_does_not() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let _operator = world.operator(OPERATOR, FLAG).await;
    let spec = json!({"rolloutRestart": [deployment("api")], "secret": {"deletionPolicy": "Retain"}});
    world.create_token("flight", spec.clone()).await;
    told(&world, "TokenUnchanged").await;
    world.delete_secret("flight").await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    told(&world, "Restarted").await;
    assert_eq!(generation(&world, "api").await, 2);
    let wipe =
        ["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
    told(&world, "TokenUnchanged").await;
    world.kubectl(&["delete", "vt", "flight"], None).await.succeeded();
    world.create_token("flight", spec).await;
    told(&world, "TokenUnchanged").await;
    // Nor does a list that is emptied and given again; without one nothing is said of it.
    world.change("flight", json!({"spec": {"rolloutRestart": null}})).await;
    let status = world.status("flight", "no condition", |s| condition(s, CONDITION).is_none()).await;
    assert_eq!(status.rollout_restart, None);
    world.change("flight", json!({"spec": {"rolloutRestart": [deployment("api")]}})).await;
    told(&world, "TokenUnchanged").await;
    // A workload that is added is not restarted by that, and nobody else is.
    create_workload(&world, "Deployment", "late").await;
    world.change("flight", json!({"spec": {"rolloutRestart": [deployment("api"), deployment("late")]}})).await;
    told(&world, "TokenUnchanged").await;
    stays_at_generation(&world, "api", 2).await;
    assert_eq!(generation(&world, "late").await, 1);
    assert_eq!(world.issuer.count(), 2);
}

#[tokio::test]
async fn a_repeated_token_restarts_nothing() {
    let world = world().await;
    world.issuer.repeats_tokens(Duration::from_secs(3600));
    create_workload(&world, "Deployment", "api").await;
    let operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    world.change("flight", json!({"spec": {"parameters": {"audience": "x"}}})).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    world.status("flight", "that the issuer repeats", |s| s.issuer_repeats.is_some()).await;
    told(&world, "TokenUnchanged").await;
    stays_at_generation(&world, "api", 1).await;
    assert_eq!(operator.metric("verteil_token_unchanged_total").await, Some(1.0));
}

#[tokio::test]
async fn a_missing_workload_is_reported_and_holds_up_nothing() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let operator = world.operator(OPERATOR, FLAG).await;
    let list = json!([deployment("apo"), deployment("api"), {"kind": "DaemonSet", "name": "api"}]);
    world.create_token("flight", json!({"rolloutRestart": list})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    let status = told(&world, "WorkloadMissing").await;
    assert!(message(&status).contains("not found: Deployment/apo, DaemonSet/api"), "{status:?}");
    assert_eq!(generation(&world, "api").await, 2);
    world.ready("flight").await;
    let (type_, note) = event(&world, "flight", "WorkloadMissing").await;
    assert_eq!(type_, "Warning");
    assert!(note.contains("Deployment/apo"), "{note}");
    event(&world, "flight", CONDITION).await;
    assert_eq!(operator.metric("verteil_token_rollout_restarts_total{outcome=\"WorkloadMissing\"}").await, Some(2.0));
    // The typing mistake is mended: one is still missing, then none.
    world.change("flight", json!({"spec": {"rolloutRestart": [deployment("api"), list[2]]}})).await;
    let status = world.status("flight", "one missing", |s| !message(s).contains("apo")).await;
    assert!(message(&status).contains("DaemonSet/api"), "{status:?}");
    told(&world, "WorkloadMissing").await;
    world.change("flight", json!({"spec": {"rolloutRestart": [deployment("api")]}})).await;
    told(&world, "TokenUnchanged").await;
    stays_at_generation(&world, "api", 2).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn without_the_flag_the_condition_says_so_and_nothing_is_made_up_for_later() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    let status = told(&world, "RolloutRestartDisabled").await;
    assert!(message(&status).contains("--rollout-restart"), "{status:?}");
    world.ready("flight").await;
    renew(&world, "one").await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    told(&world, "RolloutRestartDisabled").await;
    stays_at_generation(&world, "api", 1).await;
    operator.kill();
    let _operator = world.operator(OPERATOR, FLAG).await;
    told(&world, "TokenUnchanged").await;
    stays_at_generation(&world, "api", 1).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn two_operators_at_once_restart_once() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let one = world.operator(OPERATOR, FLAG).await;
    let two = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    told(&world, "Restarted").await;
    stays_at_generation(&world, "api", 2).await;
    assert_eq!(count_events(&world, CONDITION).await, 1);
    world.stays_at(2).await;
    drop((one, two));
}

#[tokio::test]
async fn two_resources_may_restart_the_same_workload() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let _operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    world.create_token("hotel", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    world.condition("hotel", CONDITION, "True", "TokenUnchanged").await;
    renew(&world, "one").await;
    let known = told(&world, "Restarted").await.rollout_restart.unwrap().token_fingerprint;
    world.change("hotel", json!({"metadata": {"annotations": {"verteil.dev/renew": "one"}}})).await;
    world.condition("hotel", CONDITION, "True", "Restarted").await;
    assert_eq!(rolled_out(&world, "Deployment", "api").await, (3, Some(known)));
    stays_at_generation(&world, "api", 3).await;
}

#[tokio::test]
async fn a_paused_deployment_and_an_update_on_delete_are_pointed_out() {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    create_workload(&world, "DaemonSet", "agent").await;
    world.kubectl(&["rollout", "pause", "deployment/api"], None).await.succeeded();
    let on_delete = r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#;
    world.kubectl(&["patch", "daemonset", "agent", "--type=merge", "-p", on_delete], None).await.succeeded();
    let _operator = world.operator(OPERATOR, FLAG).await;
    let list = json!([deployment("api"), {"kind": "DaemonSet", "name": "agent"}]);
    world.create_token("flight", json!({"rolloutRestart": list})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    let message = message(&told(&world, "Restarted").await);
    assert!(message.contains("Deployment/api (paused: "), "{message}");
    assert!(message.contains("DaemonSet/agent (OnDelete: "), "{message}");
}
