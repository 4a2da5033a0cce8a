//! The floor: what the calls of an issue take when nothing is decided, looked at or remembered between them.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;
use verteil_token_operator::api::VerteilToken;

use super::bed::{Bed, FLOOR, name_of};

/// As much as the operator writes: the token four times, once in the record and flat, with labels and annotations around it.
const SECRET_BYTES: usize = 3000;

/// How long the writes of all first issues take: dry run, claim, Secret, status, with `concurrency` issues at a time.
pub(super) async fn writes(bed: &Bed, concurrency: usize) -> anyhow::Result<Duration> {
    let tokens = &Api::<VerteilToken>::namespaced(bed.client.clone(), FLOOR);
    let secrets = &Api::<Secret>::namespaced(bed.client.clone(), FLOOR);
    let found = tokens.list(&kube::api::ListParams::default()).await?.items;
    anyhow::ensure!(found.len() == bed.resources, "{} resources", found.len());
    let issues = found.into_iter().enumerate().map(|(i, token)| async move {
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name_of(i)), ..Default::default() },
            string_data: Some([("verteil_token.json".to_owned(), "x".repeat(SECRET_BYTES))].into()),
            ..Default::default()
        };
        secrets.create(&PostParams { dry_run: true, ..Default::default() }, &secret).await?;
        let claimed = write_status(
            tokens,
            token,
            json!({"claim": {"id": "floor", "holder": "floor", "startedAt": TIME, "seconds": 30}}),
        )
        .await?;
        secrets.create(&PostParams::default(), &secret).await?;
        write_status(tokens, claimed, json!({"recordSeal": "x".repeat(43), "issuedAt": TIME, "expiresAt": TIME}))
            .await?;
        anyhow::Ok(())
    });
    let began = Instant::now();
    stream::iter(issues).buffer_unordered(concurrency).try_collect::<()>().await?;
    Ok(began.elapsed())
}

const TIME: &str = "2030-01-01T00:00:00Z";

async fn write_status(
    tokens: &Api<VerteilToken>,
    mut token: VerteilToken,
    status: serde_json::Value,
) -> anyhow::Result<VerteilToken> {
    token.status = Some(serde_json::from_value(status)?);
    let name = token.metadata.name.clone().unwrap_or_default();
    Ok(tokens.replace_status(&name, &PostParams::default(), &token).await?)
}

/// How long a bare client takes to list what a restart lists: the resources, and the metadata of all Secrets beside them.
pub(super) async fn lists(bed: &Bed) -> anyhow::Result<Duration> {
    let began = Instant::now();
    tokio::try_join!(bed.list(|_| {}), bed.list_secrets())?;
    Ok(began.elapsed())
}
