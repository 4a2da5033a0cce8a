//! Waiting for the operator.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::bed::Bed;
use super::progress;
use super::requests::Requests;

const LOOK: Duration = Duration::from_millis(100);
/// For any phase to end.
const PATIENCE: Duration = Duration::from_secs(1800);
/// It is at rest when nothing was asked of the apiserver for so long: events are posted some time after what they tell of.
const QUIET: Duration = Duration::from_secs(3);

/// Waits until the issuer has had `more` requests on top of `before`.
pub(super) async fn requests(bed: &Bed, what: &str, before: usize, more: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    let done = || bed.issuer.count().saturating_sub(before);
    let waiting = async {
        while done() < more {
            ensure!(began.elapsed() < PATIENCE, "{} of {more} requests", done());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    progress(what, more, began, done, waiting).await
}

/// Waits until the operator asks nothing of the apiserver any more, and returns what it asked until then.
pub(super) async fn rest(bed: &Bed) -> anyhow::Result<Requests> {
    let began = Instant::now();
    let mut before = bed.requests()?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = bed.requests()?;
        if now.since(&before).at_rest() == 0 {
            return Ok(now);
        }
        ensure!(began.elapsed() < PATIENCE, "no rest: {}", now.since(&before));
        before = now;
    }
}

/// Waits until every resource has its token in its status. The last ones come one after another.
pub(super) async fn tokens(bed: &Bed) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut waiting = None;
        bed.list(&bed.client, |token| {
            if token.status.as_ref().is_none_or(|status| status.expires_at.is_none()) {
                waiting.clone_from(&token.metadata.name);
            }
        })
        .await?;
        if waiting.is_none() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{waiting:?} has no token");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until one resource has its token in its status.
pub(super) async fn token(bed: &Bed, name: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while bed.tokens().get(name).await?.status.unwrap_or_default().expires_at.is_none() {
        ensure!(began.elapsed() < PATIENCE, "{name} has no token");
        tokio::time::sleep(LOOK / 5).await;
    }
    Ok(())
}
