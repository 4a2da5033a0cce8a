//! Does anything that is restarted cost a token, or take it from a pod?

use serde_json::json;

use crate::consumer::By;
use crate::stage::{Stage, helm_upgrade};

const REPLICAS: usize = 2;

async fn restart_consumers(stage: &Stage) {
    for by in By::ALL {
        stage.kubectl(&["rollout", "restart", &format!("deployment/{}", by.app())]).await;
    }
}

async fn operator(stage: &Stage, args: &[&str]) {
    let args: Vec<&str> = ["--namespace", stage.cluster.release()].into_iter().chain(args.iter().copied()).collect();
    stage.cluster.kubectl(&args, None).await.unwrap().succeeded();
}

async fn operator_is_rolled_out(stage: &Stage) {
    operator(stage, &["rollout", "status", "deployment", stage.cluster.release(), "--timeout=110s"]).await;
}

#[tokio::test]
async fn nothing_that_is_restarted_costs_a_token() {
    let Some(stage) = Stage::alone("restart").await else { return };
    stage.deploy("flight", REPLICAS).await;
    stage.create(&stage.token("flight", json!({}))).await;
    stage.ready("flight").await;
    let token = stage.issuer.last_token("flight").unwrap();
    let holds = async |after: &str| {
        stage.all_use(&token, REPLICAS).await;
        assert_eq!(stage.issuer.count(), 1, "after {after}: {}", stage.issuer.log());
    };
    holds("the start").await;

    restart_consumers(&stage).await;
    holds("a restart of the consumers").await;

    operator(&stage, &["rollout", "restart", "deployment", stage.cluster.release()]).await;
    operator_is_rolled_out(&stage).await;
    restart_consumers(&stage).await;
    holds("a restart of the operator").await;

    operator(&stage, &["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"]).await;
    stage.kubectl(&["delete", "pods", "--all", "--wait=false"]).await;
    operator_is_rolled_out(&stage).await;
    holds("the deletion of all pods").await;

    helm_upgrade(stage.cluster, &["--set", "log.filter=info\\,kube=warn"]).await;
    holds("helm upgrade").await;

    if let Some(node) = stage.cluster.node() {
        node.restart_kubelet_and_containerd().await.unwrap();
        holds("a restart of kubelet and containerd").await;

        node.reboot().await.unwrap();
        operator_is_rolled_out(&stage).await;
        holds("a power cut").await;
    }
    // Whoever is the leader now works: there is a second token, for another resource.
    stage.create(&stage.token("other", json!({}))).await;
    stage.ready("other").await;
    stage.stays_at(2).await;
    stage.close().await;
}
