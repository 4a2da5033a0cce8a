//! Calls that wait for a token: who may, for how long, and what they are told when it comes to nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::TokenApi;
use super::answer::Wish;
use super::callers::Caller;
use super::problem::Problem;
use super::shares::{Piece, Shares};
use super::source::SOON;
use crate::memory::Key;
use crate::token::Record;

/// Callers that wait for a token; all others get their answer at once.
const MOST_WAITING: usize = 768;
/// Of one caller: a few pods cannot take all places.
const MOST_OF_ONE_CALLER: usize = 32;
/// For all that is asked of the apiserver beside the wait.
const PATIENCE: Duration = Duration::from_secs(12);

/// A call that was admitted.
pub(super) struct Call<'a> {
    pub(super) key: Key,
    pub(super) headers: &'a HeaderMap,
    pub(super) caller: Arc<Caller>,
    pub(super) wish: Wish,
}

/// The places for those who wait.
pub(super) struct Places {
    all: Semaphore,
    shares: Arc<Shares<String>>,
}

/// One of those who wait.
struct Waiting<'a> {
    api: &'a TokenApi,
    place: Option<(SemaphorePermit<'a>, Piece<String>)>,
}

// === impl TokenApi ===

impl TokenApi {
    /// A token that the caller does not have yet, as soon as there is one; else what there is at the end.
    pub(super) async fn fulfil(&self, call: &Call<'_>) -> Result<Record, Problem> {
        let longest = call.wish.wait.saturating_add(PATIENCE);
        tokio::time::timeout(longest, self.find(call)).await.unwrap_or_else(|_| {
            let detail = "the apiserver does not answer in time";
            Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail))
        })
    }

    async fn find(&self, call: &Call<'_>) -> Result<Record, Problem> {
        let patience = tokio::time::sleep(call.wish.wait);
        tokio::pin!(patience);
        // Before the first look, so that nothing is missed between the two.
        let mut bell = self.context.wakes.listen(&call.key);
        let first = self.look(&call.key).await;
        if call.wish.wait.is_zero() || call.ends_with(&first) {
            return first;
        }
        let _waiting = self.begin_to_wait(&call.caller)?;
        loop {
            let is_over = tokio::select! {
                () = bell.heard() => false,
                () = &mut patience => true,
                () = self.stop.cancelled() => {
                    let detail = "the operator is coming to its end, and nobody waits any longer";
                    return Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail));
                }
            };
            let found = self.look(&call.key).await;
            if is_over || call.ends_with(&found) {
                // A right may have been withdrawn meanwhile.
                self.callers.confirm(&self.context, call.headers, &call.key).await?;
                return found;
            }
        }
    }

    fn begin_to_wait(&self, caller: &Caller) -> Result<Waiting<'_>, Problem> {
        let full = |detail| Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail);
        let piece = self.places.shares.take(&caller.name).ok_or_else(|| {
            full("this caller waits for tokens in more calls than may: let one call wait for each token")
        })?;
        let place = self.places.all.try_acquire().map_err(|_| full("too many callers wait for tokens already"))?;
        self.count_waiting();
        Ok(Waiting { api: self, place: Some((place, piece)) })
    }

    fn count_waiting(&self) {
        let count = MOST_WAITING.saturating_sub(self.places.all.available_permits());
        self.context.metrics.set_token_api_waiting(count);
    }
}

// === impl Call ===

impl Call<'_> {
    /// Whether there is no point in waiting: it is new to the caller, or cannot come. What is not there cannot; what the operator
    /// has not listed yet can.
    fn ends_with(&self, found: &Result<Record, Problem>) -> bool {
        match found {
            Ok(record) => !self.wish.knows(record),
            Err(problem) => problem.status == StatusCode::NOT_FOUND,
        }
    }
}

// === impl Places ===

impl Places {
    /// Nobody waits yet.
    pub(super) fn new() -> Self {
        Self { all: Semaphore::new(MOST_WAITING), shares: Shares::new(MOST_OF_ONE_CALLER) }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.place = None;
        self.api.count_waiting();
    }
}
