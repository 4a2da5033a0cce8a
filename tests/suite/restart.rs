//! Does a token survive everything that happens to the operator and the cluster?

use std::time::Duration;

use serde_json::json;
use testbed::{ControlPlane, Options, World};

use crate::OPERATOR;

const RESOURCES: usize = 20;

fn names() -> impl Iterator<Item = String> {
    (0..RESOURCES).map(|n| format!("token-{n}"))
}

async fn create_all(world: &World) {
    for name in names() {
        world.create_token(&name, json!({})).await;
    }
}

async fn all_ready(world: &World) {
    for name in names() {
        world.ready(&name).await;
    }
}

#[tokio::test]
async fn a_restart_leaves_what_is_settled_alone_until_its_renewal_which_comes_in_time() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(30));
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.issuer.set_lifetime(Duration::from_secs(43_199));
    operator.kill();
    let operator = world.operator(OPERATOR, &[]).await;
    let log = operator.log();
    assert!(log.contains("resources=1 valid_tokens=1"), "{log}");
    // The look at all resources was enough: there was no pass, and nothing else would ring for one but the end of the rest.
    assert_eq!(operator.metric("verteil_token_reconcile_duration_seconds_count").await, Some(0.0));
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    world.stays_at(2).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
}

#[tokio::test]
async fn twenty_tokens_survive_crashes_at_random_moments() {
    let world = World::new().await;
    let mut operator = world.operator(OPERATOR, &[]).await;
    create_all(&world).await;
    all_ready(&world).await;
    let mut expiries = Vec::new();
    for name in names() {
        expiries.push(world.ready(&name).await.expires_at);
    }
    for crash in 0..5_u64 {
        operator.kill();
        operator = world.start_operator(OPERATOR, &[]);
        // Somewhere between the start of the process and the end of its first look.
        tokio::time::sleep(Duration::from_millis(crash * 137 % 600)).await;
    }
    operator.wait_until_ready().await;
    world.stays_at(RESOURCES).await;
    assert_eq!(operator.metric("verteil_token_reused_total").await, Some(20.0));
    for (name, expiry) in names().zip(expiries) {
        assert_eq!(world.ready(&name).await.expires_at, expiry, "{name}");
    }
    assert_eq!(operator.terminate().await, Some(0));
}

#[tokio::test]
async fn touching_labels_and_annotations_costs_nothing() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"secret": {"labels": {"team": "booking"}}})).await;
    world.ready("flight").await;
    let touched = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}});
    world.change("flight", touched.clone()).await;
    world.change_secret("flight", touched.clone()).await;
    world.change_secret("credentials", touched).await;
    let status = world.change("flight", json!({"spec": {"secret": {"labels": {"team": "search"}}}})).await;
    assert_eq!(status.metadata.generation, Some(2));
    world.ready("flight").await;
    testbed::eventually("the changed label", testbed::world::PATIENCE, async || {
        let labels =
            world.secrets().get("flight").await.map_err(|e| e.to_string())?.metadata.labels.unwrap_or_default();
        if labels.get("team").is_some_and(|v| v == "search") && labels.get("a").is_some_and(|v| v == "b") {
            Ok(())
        } else {
            Err(format!("{labels:?}"))
        }
    })
    .await;
    // A pod that mounts the Secret comes and goes.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "consumer"},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "none.invalid/c", "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
            "volumes": [{"name": "t", "secret": {"secretName": "flight"}}],
        },
    });
    world.kubectl_apply(&pod.to_string()).await;
    world.kubectl(&["delete", "pod", "consumer", "--grace-period=0", "--force"], None).await.succeeded();
    // The resource is written to by nobody once all is as it should be.
    let settled = world.tokens().get("flight").await.unwrap().metadata.resource_version;
    world.stays_at(1).await;
    assert_eq!(world.tokens().get("flight").await.unwrap().metadata.resource_version, settled);
    assert_eq!(operator.metric("verteil_token_generations_total{reason=\"Initial\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_restart_of_the_apiserver_and_a_lost_history_cost_nothing() {
    let cluster: &ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let operator = world.operator(OPERATOR, &[]).await;
    create_all(&world).await;
    all_ready(&world).await;
    cluster.restart_apiserver().await.unwrap();
    // Compacted away: the watches get 410 and list anew.
    cluster.forget_history().await.unwrap();
    world.create_token("after", json!({})).await;
    world.ready("after").await;
    world.stays_at(RESOURCES + 1).await;
    assert!(operator.process().is_running());
    cluster.stop_apiserver();
}

#[tokio::test]
async fn a_wiped_status_costs_nothing() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let before = world.ready("flight").await;
    let wipe =
        ["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
    let after = world.ready("flight").await;
    assert_eq!(after.expires_at, before.expires_at);
    operator.kill();
    world.kubectl(&wipe, None).await.succeeded();
    let _operator = world.operator(OPERATOR, &[]).await;
    assert_eq!(world.ready("flight").await.expires_at, before.expires_at);
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_resource_made_again_takes_up_the_secret_that_it_left_behind() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let retain = json!({"secret": {"deletionPolicy": "Retain"}});
    world.create_token("kept", retain.clone()).await;
    world.create_token("dropped", json!({})).await;
    let before = world.ready("kept").await;
    world.ready("dropped").await;
    world.kubectl(&["delete", "vt", "kept", "dropped"], None).await.succeeded();
    testbed::eventually("the Secret of the dropped one to go", testbed::world::PATIENCE, async || {
        match world.secrets().get_opt("dropped").await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(secret) => Err(format!("{:?}", secret.metadata.deletion_timestamp)),
        }
    })
    .await;
    world.create_token("kept", retain).await;
    assert_eq!(world.ready("kept").await.expires_at, before.expires_at);
    world.stays_at(2).await;
}
