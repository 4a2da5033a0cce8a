//! What this process has done, in the words of the debug endpoint.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use serde::Serialize;

use super::Metrics;
use crate::api::IssueReason;
use crate::decide::{FailureClass, Reason};

/// Counts since the start of the process, over all resources, with the times of the last ones in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Tokens issued.
    pub token_generations: u64,
    /// Those of them that were not the first one of their resource.
    pub token_refreshes: u64,
    /// Token requests, whatever came of them.
    pub total_token_requests: u64,
    /// Attempts that found another process at work on the same token.
    pub concurrent_refresh_attempts: u64,
    /// When a token was last issued.
    pub last_token_generation: Option<i64>,
    /// When a first one was last succeeded by another.
    pub last_token_refresh: Option<i64>,
    /// When a request was last sent.
    pub last_token_request: Option<i64>,
    /// When another process was last found at work.
    pub last_concurrent_refresh_attempt: Option<i64>,
}

/// When things last happened.
#[derive(Default)]
pub(super) struct Latest {
    pub(super) generation: Moment,
    pub(super) refresh: Moment,
    pub(super) request: Moment,
    pub(super) concurrent_attempt: Moment,
}

/// A time in unix seconds; 0: never.
#[derive(Default)]
pub(super) struct Moment(AtomicI64);

// === impl Moment ===

impl Moment {
    pub(super) fn set(&self, at: Timestamp) {
        self.0.store(at.as_second(), Ordering::Relaxed);
    }

    fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|second| *second != 0)
    }
}

// === impl Metrics ===

impl Metrics {
    /// What this process has done so far.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let issued = |reason: IssueReason| self.generations.get_or_create(&[("reason", reason.as_str())]).get();
        let requested = |outcome| self.requests.get_or_create(&[("outcome", outcome)]).get();
        let failed = FailureClass::ALL.map(|class| requested(Reason::from(class).as_str()));
        let generations = IssueReason::ALL.map(issued).iter().sum();
        Activity {
            token_generations: generations,
            token_refreshes: generations - issued(IssueReason::Initial).min(generations),
            total_token_requests: requested("Issued") + failed.iter().sum::<u64>(),
            concurrent_refresh_attempts: self.concurrent.get(),
            last_token_generation: self.latest.generation.get(),
            last_token_refresh: self.latest.refresh.get(),
            last_token_request: self.latest.request.get(),
            last_concurrent_refresh_attempt: self.latest.concurrent_attempt.get(),
        }
    }
}
