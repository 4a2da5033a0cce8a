//! Does what the README says in its first pages work: install, create, mount?

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use testbed::eventually;
use testbed::node::OPERATOR;

use crate::consumer::By;
use crate::stage::{PATIENCE, Stage};

#[tokio::test]
async fn pods_that_wait_for_their_token_start_with_it_and_all_read_the_same() {
    let Some(stage) = Stage::beside_others("install").await else { return };
    stage.deploy("flight", 3).await;
    // They wait for a Secret that is not there, each in its way.
    for (by, words) in [
        (By::Volume, "secret \"flight\" not found"),
        (By::Projected, "secret \"flight\" not found"),
        (By::Variable, "secret \"flight\" not found"),
    ] {
        let events = ["get", "events", "-o=jsonpath={range .items[*]}{.involvedObject.name} {.message}{\"\\n\"}{end}"];
        eventually(&format!("word that {} waits", by.app()), PATIENCE, async || {
            let events = stage.kubectl(&events).await;
            let told = events.lines().any(|line| line.starts_with(by.app()) && line.contains(words));
            told.then_some(()).ok_or(events)
        })
        .await;
        assert!(stage.pods(by.app()).await.iter().all(|pod| !is_ready(pod)), "{}", by.app());
    }
    assert_eq!(stage.issuer.count(), 0);
    stage.create(&stage.token("flight", json!({}))).await;
    stage.ready("flight").await;
    let token = stage.issuer.last_token("flight").unwrap();
    stage.all_use(&token, 3).await;
    assert_eq!(stage.stored("flight").await, token);
    stage.stays_at(1).await;
    stage.close().await;
}

#[tokio::test]
async fn the_operators_pods_are_what_the_image_and_the_chart_say() {
    let Some(stage) = Stage::beside_others("operator").await else { return };
    let release = stage.cluster.release();
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), release);
    let pods = eventually("two Ready pods of the operator", PATIENCE, async || {
        let pods = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let ready: Vec<Pod> = pods.into_iter().filter(is_ready).collect();
        if ready.len() == 2 { Ok(ready) } else { Err(format!("{}", ready.len())) }
    })
    .await;
    for pod in &pods {
        // There is no shell to be had, nor anything else to run.
        let name = pod.metadata.name.as_deref().unwrap();
        let shell = ["exec", "-n", release, name, "--", "sh", "-c", "true"];
        let shell = stage.cluster.kubectl(&shell, None).await.unwrap();
        assert!(
            !shell.status.success() && shell.stderr.contains("\"sh\": executable file not found"),
            "{}",
            shell.stderr
        );
        let version = ["exec", "-n", release, name, "--", "/verteil-token-operator", "--version"];
        let version = stage.cluster.kubectl(&version, None).await.unwrap().succeeded();
        assert_eq!(version.trim(), format!("verteil-token-operator {}", env!("CARGO_PKG_VERSION")));
    }
    // The chart's own test is a pod with the operator's image.
    let tested = stage.cluster.helm(&["test", release, "--namespace", release]).await.unwrap().succeeded();
    assert!(tested.contains("Succeeded"), "{tested}");
    stage.close().await;
}

#[tokio::test]
async fn the_image_is_small() {
    let Some(stage) = Stage::beside_others("image").await else { return };
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let size = eventually("the size of the operator's image", PATIENCE, async || {
        let nodes = nodes.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let images =
            nodes.items.iter().flat_map(|node| node.status.iter().flat_map(|status| status.images.iter().flatten()));
        let ours = images.into_iter().find(|image| image.names.iter().flatten().any(|name| name == OPERATOR));
        ours.and_then(|image| image.size_bytes).ok_or("no node has it".to_owned())
    })
    .await;
    assert!(size < 15_000_000, "{size} bytes");
    stage.close().await;
}

/// Ready, and not about to go: an upgrade leaves the former pods for some seconds.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
