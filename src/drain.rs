//! The end of the process, once the last pass is over: what is still only in memory.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tracing::Instrument;

use crate::memory::Key;
use crate::reconcile::{Context, reconcile};

/// Pause between two tries to save one token.
const PAUSE: Duration = Duration::from_millis(500);
/// Tokens that are saved at a time.
const CONCURRENCY: usize = 32;

/// Saves the tokens that no Secret or status holds yet, for `patience` at most and without regard to any backoff. What is then
/// left is counted as ambiguous: it was issued, and the next process cannot know it.
///
/// Assumes that no pass is running any more, and that none may send a request.
pub async fn save_unsaved(ctx: &Context, patience: Duration) {
    let mut unsaved = ctx.memory.unsaved();
    if !ctx.store.is_in_memory() {
        unsaved.extend(ctx.store.keys());
    }
    unsaved.sort_unstable();
    unsaved.dedup();
    if unsaved.is_empty() {
        return;
    }
    tracing::info!(count = unsaved.len(), "saving what is still in memory");
    let saving = stream::iter(unsaved).for_each_concurrent(CONCURRENCY, |key| async move {
        // Of the highest level, as that of a pass.
        let span = tracing::error_span!("drain", namespace = &*key.namespace, name = &*key.name);
        while !save(ctx, &key).instrument(span.clone()).await {
            tokio::time::sleep(PAUSE).await;
        }
    });
    drop(tokio::time::timeout(patience, saving).await);
    let kept = if ctx.store.is_in_memory() { Vec::new() } else { ctx.store.keys() };
    for Key { namespace, name } in ctx.memory.unwritten().into_iter().chain(kept) {
        ctx.metrics.ambiguous();
        tracing::warn!(
            namespace = &*namespace,
            name = &*name,
            "a token could not be saved before the end: it may be requested again"
        );
    }
}

/// One try. True if there is nothing more to do.
async fn save(ctx: &Context, key: &Key) -> bool {
    let token = match ctx.cluster.token(key).await {
        Ok(Some(token)) => token,
        // Nobody wants it any more.
        Ok(None) => return true,
        Err(error) => {
            tracing::debug!(%error, "the resource cannot be read");
            return false;
        }
    };
    ctx.memory.with(key, |entry| entry.refused_writes = None);
    match AssertUnwindSafe(reconcile(&token, ctx)).catch_unwind().await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "not saved"),
        Err(_) => tracing::error!("the pass panicked"),
    }
    !ctx.memory.is_unsaved(key) && (ctx.store.is_in_memory() || !ctx.store.keeps(key))
}
