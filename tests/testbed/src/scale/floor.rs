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
use verteil_token_operator::memory::Key;

use super::bed::{Bed, CREDENTIALS, FLOOR, NAMESPACE, name_of};
use super::phases::count;
use super::{meter, seconds};

/// As much as the operator writes: the token three times, twice in the record and once flat, with labels and annotations
/// around it.
const SECRET_BYTES: usize = 3000;
/// A resource with the status that the operator writes in the end.
const SETTLED: &str = include_str!("../../../../benches/core/token.json");
const TIME: &str = "2030-01-01T00:00:00Z";
/// Calls of an issue: four writes, and the read of the credentials.
const CALLS: f64 = 5.0;
/// Calls in a second that such a loop made at least where the goals in seconds were set; at most it made 1,240.
const REFERENCE: f64 = 800.0;

/// What the bare loop took.
pub(super) struct Floor {
    /// For the writes of all first issues: dry run, claim, Secret, status.
    pub(super) writes: Duration,
    /// CPU of the client for them.
    pub(super) cpu: Duration,
    /// How fast it was, with a read of the credentials for each issue.
    pub(super) calls_per_second: f64,
}

// === impl Floor ===

impl Floor {
    /// With `concurrency` issues at a time, each a task as the operator's passes are. By an account with the operator's rights,
    /// through the operator's own client and calls.
    pub(super) async fn measure(bed: &Bed, concurrency: usize) -> anyhow::Result<Self> {
        let client = bed.account(FLOOR).client()?;
        let tokens = Api::<VerteilToken>::namespaced(client.clone(), FLOOR).list(&ListParams::default()).await?.items;
        anyhow::ensure!(tokens.len() == bed.resources, "{} resources", tokens.len());
        let (cluster, tokens) = (Cluster::new(client), Arc::new(tokens));
        let before = meter::cpu(std::process::id())?;
        let writes = {
            let (cluster, tokens) = (cluster.clone(), Arc::clone(&tokens));
            took(bed.resources, concurrency, move |number| {
                let (cluster, tokens) = (cluster.clone(), Arc::clone(&tokens));
                async move { write(&cluster, number, &tokens[number]).await }
            })
            .await?
        };
        let cpu = meter::cpu(std::process::id())?.saturating_sub(before);
        let reads = took(bed.resources, concurrency, move |_| {
            let cluster = cluster.clone();
            async move { read(&cluster).await }
        })
        .await?;
        let calls_per_second = CALLS * count(bed.resources) / seconds(writes + reads);
        Ok(Self { writes, cpu, calls_per_second })
    }

    /// A goal in seconds, on this machine in this hour: longer by as much as the loop is slower than it ever was where the goal was
    /// set, and never shorter.
    pub(super) fn goal(&self, seconds: f64) -> f64 {
        seconds * (REFERENCE / self.calls_per_second).max(1.0)
    }
}

/// How long `number` pieces of work take, `concurrency` at a time.
async fn took<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    number: usize,
    concurrency: usize,
    work: impl Fn(usize) -> F,
) -> anyhow::Result<Duration> {
    let places = Arc::new(Semaphore::new(concurrency));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for number in 0..number {
        let place = Arc::clone(&places).acquire_owned().await?;
        let work = work(number);
        tasks.spawn(async move {
            let outcome = work.await;
            drop(place);
            outcome
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(began.elapsed())
}

async fn read(cluster: &Cluster) -> anyhow::Result<()> {
    let key = Key::new(FLOOR, CREDENTIALS);
    cluster.secret(&key).await?.context("credentials").map(drop)
}

async fn write(cluster: &Cluster, number: usize, token: &VerteilToken) -> anyhow::Result<()> {
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

/// How long a bare client takes to list what a restart lists: the resources, and the metadata of all Secrets beside them. And the
/// CPU that it takes.
pub(super) async fn lists(bed: &Bed) -> anyhow::Result<[Duration; 2]> {
    let client = bed.account(NAMESPACE).client()?;
    let (began, before) = (Instant::now(), meter::cpu(std::process::id())?);
    tokio::try_join!(bed.list(&client, |_| {}), bed.list_secrets(&client))?;
    Ok([began.elapsed(), meter::cpu(std::process::id())?.saturating_sub(before)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_in_seconds_is_longer_where_the_floor_is_slower_and_never_shorter() {
        let goal = |calls_per_second| Floor { writes: Duration::ZERO, cpu: Duration::ZERO, calls_per_second }.goal(1.2);
        assert!((goal(REFERENCE / 2.0) - 2.4).abs() < f64::EPSILON);
        assert!((goal(REFERENCE * 2.0) - 1.2).abs() < f64::EPSILON);
    }
}
