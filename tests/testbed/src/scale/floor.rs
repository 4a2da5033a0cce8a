//! The floor: what the calls of an issue take when nothing is decided, looked at or remembered between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use verteil_token_operator::api::{VerteilToken, VerteilTokenStatus};
use verteil_token_operator::cluster::Cluster;

use super::bed::{Bed, FLOOR, NAMESPACE, name_of};

/// As much as the operator writes: the token three times, twice in the record and once flat, with labels and annotations
/// around it.
const SECRET_BYTES: usize = 3000;
/// A resource with the status that the operator writes in the end.
const SETTLED: &str = include_str!("../../../../benches/core/token.json");
const TIME: &str = "2030-01-01T00:00:00Z";

/// How long the writes of all first issues take: dry run, claim, Secret, status, with `concurrency` issues at a time, each a
/// task as the operator's passes are. By an account with the operator's rights, through the operator's own client and calls.
pub(super) async fn writes(bed: &Bed, concurrency: usize) -> anyhow::Result<Duration> {
    let client = bed.account(FLOOR).client()?;
    let tokens = Api::<VerteilToken>::namespaced(client.clone(), FLOOR).list(&ListParams::default()).await?.items;
    anyhow::ensure!(tokens.len() == bed.resources, "{} resources", tokens.len());
    let (cluster, places) = (Cluster::new(client), Arc::new(Semaphore::new(concurrency)));
    let mut issues = JoinSet::new();
    let began = Instant::now();
    for (number, token) in tokens.into_iter().enumerate() {
        let place = Arc::clone(&places).acquire_owned().await?;
        let cluster = cluster.clone();
        issues.spawn(async move {
            let outcome = issue(&cluster, number, &token).await;
            drop(place);
            outcome
        });
    }
    while let Some(issue) = issues.join_next().await {
        issue??;
    }
    Ok(began.elapsed())
}

async fn issue(cluster: &Cluster, number: usize, token: &VerteilToken) -> anyhow::Result<()> {
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name_of(number)), namespace: Some(FLOOR.into()), ..Default::default() },
        string_data: Some([("verteil_token.json".to_owned(), "x".repeat(SECRET_BYTES))].into()),
        ..Default::default()
    };
    cluster.write_secret(secret.clone(), true).await?;
    let settled = serde_json::from_str::<VerteilToken>(SETTLED)?.status.context("a status")?;
    let claim = json!({"id": "floor", "holder": "floor", "startedAt": TIME, "seconds": 30});
    let claim = VerteilTokenStatus {
        observed_generation: settled.observed_generation,
        conditions: settled.conditions.clone(),
        claim: serde_json::from_value(claim)?,
        ..VerteilTokenStatus::default()
    };
    let claimed = cluster.write_status(token, &claim).await?;
    cluster.write_secret(secret, false).await?;
    cluster.write_status(&claimed, &settled).await?;
    Ok(())
}

/// How long a bare client takes to list what a restart lists: the resources, and the metadata of all Secrets beside them.
pub(super) async fn lists(bed: &Bed) -> anyhow::Result<Duration> {
    let client = bed.account(NAMESPACE).client()?;
    let began = Instant::now();
    tokio::try_join!(bed.list(&client, |_| {}), bed.list_secrets(&client))?;
    Ok(began.elapsed())
}
