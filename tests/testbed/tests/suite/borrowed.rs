//! In a cluster of somebody else's: are tests refused where they would take something away, and does all of theirs go?

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use testbed::binaries::{Binaries, Component, helm};
use testbed::node::{Borrowed, LABEL};
use testbed::world::{CHART, PATIENCE};
use testbed::{ControlPlane, Options, eventually};

/// Everything of a release that a cluster can have without a node, and the namespaces of its tests.
async fn left_over(cluster: &ControlPlane, release: &str) -> String {
    let mut found = String::new();
    for (kinds, label) in [
        ("crd,clusterroles,clusterrolebindings", "app.kubernetes.io/instance"),
        ("deployments,services,roles,secrets", "app.kubernetes.io/instance"),
        ("namespaces", LABEL),
    ] {
        let selector = format!("--selector={label}={release}");
        let listed = cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "name", &selector], None).await.unwrap();
        found += &listed.succeeded();
    }
    found
}

#[tokio::test]
async fn a_release_of_the_tests_goes_with_them_and_nothing_else_does() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    let (helm, kubectl) =
        tokio::task::spawn_blocking(|| (helm().unwrap(), Binaries::find().unwrap().tool(Component::Kubectl).unwrap()))
            .await
            .unwrap();
    let borrow = async || Borrowed::of(cluster.client(), cluster.kubeconfig(), &helm, &kubectl).await;
    let borrowed = borrow().await.unwrap();
    let release = borrowed.release().to_owned();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let create = async |name: &str, labels: serde_json::Value| {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    };
    create(&release, json!({LABEL: release})).await;
    create("of-a-test", json!({LABEL: release})).await;
    create("of-another-run", json!({LABEL: "another"})).await;
    let install = ["upgrade", "--install", &release, CHART, "--namespace", &release];
    cluster.helm(&install).await.unwrap().succeeded();
    let there = left_over(&cluster, &release).await;
    for object in [format!("deployment.apps/{release}"), "verteiltokens.verteil.dev".to_owned(), "of-a-test".to_owned()]
    {
        assert!(there.contains(&object), "{object} is not in {there}");
    }

    // The definition is in use: by somebody, as far as another run can see.
    let refused = borrow().await.unwrap_err().to_string();
    assert!(refused.contains("E2E_KUBECONFIG has the definition verteiltokens.verteil.dev already"), "{refused}");

    drop(borrowed);
    eventually("the end of the release", 2 * PATIENCE, async || {
        let left = left_over(&cluster, &release).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    namespaces.get("of-another-run").await.unwrap();
    borrow().await.expect("as if nobody had been here");
}
