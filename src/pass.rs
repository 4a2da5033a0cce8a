//! One pass over one resource, as the queue runs it: whatever happens in it stays in it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kube::Resource as _;
use kube::runtime::controller::Action;
use tracing::Instrument as _;

use crate::cluster::{ApiError, Occurrence, Tokens};
use crate::memory::Key;
use crate::metrics::PANIC;
use crate::reconcile::{Context, reconcile};

/// Waits after a pass that failed at the apiserver, doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the pass panicked")]
    Panic,
}

// === impl PassError ===

impl PassError {
    const fn category(&self) -> &'static str {
        match self {
            Self::Api(error) => error.category(),
            Self::Panic => PANIC,
        }
    }
}

/// One pass over one resource. A panic in it is an error of that resource alone.
pub(crate) async fn pass(object: Arc<Tokens>, context: Arc<Context>) -> Result<Action, PassError> {
    let key = Key::of(object.as_ref());
    // Of the highest level: a filter that drops the span drops the resource's name from every line in it.
    let span = tracing::error_span!("reconcile", namespace = &*key.namespace, name = &*key.name);
    let started = context.clock.elapsed();
    let pass = async {
        context.stop.run_until_cancelled(context.listed(Some(&key.namespace))).await;
        match object.get() {
            Ok(token) => reconcile(token, &context).await.map_err(PassError::from),
            Err(invalid) => {
                tracing::warn!(error = invalid.error, "the resource cannot be read and is left alone");
                // It asks for nothing any more, and may have been rung for.
                context.leave_lines(&key);
                if !context.leads() {
                    return Ok(Action::await_change());
                }
                let note = format!("the resource cannot be read and is left alone: {}", invalid.error);
                context.events.say_once(object.meta(), &Occurrence::Undecodable.note(note), context.clock.now());
                Ok(Action::await_change())
            }
        }
    };
    let result = guarded(pass).instrument(span.clone()).await;
    let took = context.clock.elapsed().saturating_sub(started);
    context.metrics.reconciled(took, result.as_ref().err().map(PassError::category));
    match &result {
        Ok(_) => {
            // A resource that never failed has no entry, and gets none.
            if context.memory.peek(&key, |entry| entry.failures > 0) == Some(true) {
                context.memory.with(&key, |entry| entry.failures = 0);
            }
        }
        Err(error) => {
            context.memory.with(&key, |entry| entry.failures = entry.failures.saturating_add(1));
            let _in_span = span.enter();
            match error {
                PassError::Api(ApiError::Conflict { .. }) => tracing::debug!(%error, "pass to be repeated"),
                PassError::Api(_) => tracing::warn!(%error, "pass failed"),
                PassError::Panic => tracing::error!(%error, "pass failed"),
            }
        }
    }
    result
}

/// When to try a failed pass again.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
pub(crate) fn error_policy(object: Arc<Tokens>, error: &PassError, context: Arc<Context>) -> Action {
    let failures = context.memory.peek(&Key::of(object.as_ref()), |entry| entry.failures).unwrap_or_default();
    let wait = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LAST_RETRY);
    Action::requeue(match error {
        PassError::Api(ApiError::Conflict { .. }) => Duration::from_millis(100).max(wait / 10),
        PassError::Api(_) => wait,
        PassError::Panic => LAST_RETRY,
    })
}

/// A panic is an error of this pass alone: the queue would end with it.
async fn guarded<T>(pass: impl Future<Output = Result<T, PassError>>) -> Result<T, PassError> {
    AssertUnwindSafe(pass).catch_unwind().await.unwrap_or(Err(PassError::Panic))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "that is what is caught")]

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_own_pass_and_no_other() {
        let bad = tokio::spawn(guarded(async { if true { panic!("a bad object") } else { Ok(1) } }));
        let good = tokio::spawn(guarded(async { Ok(2) }));
        assert!(matches!(bad.await, Ok(Err(PassError::Panic))));
        assert!(matches!(good.await, Ok(Ok(2))));
    }
}
