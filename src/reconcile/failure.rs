//! A request that brought no token: what is remembered of it, and when the next one may go out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::look::{Fetched, View};
use super::{Pass, Step};
use crate::cluster::{ApiError, Occurrence};
use crate::credentials::hint;
use crate::decide::{ClaimView, FailureClass, Failures, LAST_SECOND_DELAY, Reason, Standing, Trouble, jittered};
use crate::issuer::{Failure, Hold, Turn};
use crate::memory::Failed;
use crate::quote::hide;
use crate::token::{Inputs, Lifetime};

/// A first token without any life left is asked for anew so often.
const MOST_LIFELESS_ANSWERS: u32 = 3;
const LIFELESS: &str = "the issuer answers with tokens that have no life left";
/// The stored token's successor is asked for so often at its end, which is a minute: an issuer that repeats its token has another
/// one by then, and one that does not would be asked for ever.
const MOST_ENDED_ANSWERS: u32 = 12;
const ENDED: &str = "the issuer keeps answering with the stored token, which has ended";
/// Conflicts over which the status of a failure is tried: it is what keeps the next request back after a restart.
const MOST_CONFLICTS: usize = 3;

// === impl Pass ===

impl Pass<'_> {
    /// What follows from an answer with a token at its end: none if it is worth keeping.
    pub(super) async fn ended(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        lifetime: Lifetime,
        repeated: bool,
    ) -> Result<Option<Step>, ApiError> {
        let lifeless = lifetime.seconds <= 0;
        // With less life than lies between two requests the stored token never holds for long enough to be used.
        let ends = lifeless || (repeated && lifetime.seconds <= LAST_SECOND_DELAY.as_secs());
        let answers = self.ctx.memory.with(&self.key, |entry| {
            entry.lifeless_answers = if ends { entry.lifeless_answers.saturating_add(1) } else { 0 };
            entry.lifeless_answers
        });
        if !ends {
            return Ok(None);
        }
        let (most, message) = if repeated { (MOST_ENDED_ANSWERS, ENDED) } else { (MOST_LIFELESS_ANSWERS, LIFELESS) };
        // After a restart the status tells that the issuer has had its time.
        let told = self.token.status.as_ref().and_then(Trouble::told_by);
        if answers > most || told.is_some_and(|told| told.message == message) {
            // What was given before is no token that could be lost.
            let failure = Failure { ambiguous: !repeated, ..Failure::new(FailureClass::Answer, message) };
            return self.record_failure(fetched, view, inputs, failure, None).await.map(Some);
        }
        if lifeless { self.lifeless(view, repeated).await.map(Some) } else { Ok(None) }
    }

    /// A token in its last second: the stored one is about to be replaced, a first one should not be like that.
    async fn lifeless(&mut self, view: &View, repeated: bool) -> Result<Step, ApiError> {
        let until = after(self.ctx.clock.elapsed(), LAST_SECOND_DELAY);
        self.ctx.memory.with(&self.key, |entry| entry.not_before = Some(until));
        let standing = Standing::Progressing(Trouble::new(
            Reason::Issuing,
            "the issuer answered with a token in its last second and is asked again for its successor",
        ));
        let mut status = self.next(view, standing);
        status.claim = None;
        // For whoever else may ask. It is no failure.
        let now = self.ctx.clock.now();
        status.last_request_time = Some(Time(whole_second_after(now, SignedDuration::ZERO)));
        status.next_attempt_time = Some(Time(whole_second_after(now, LAST_SECOND_DELAY)));
        if repeated {
            status.issuer_repeats = Some(self.token.spec.token_url.clone());
        }
        self.put_status(status).await?;
        Ok(Step::LookAgain)
    }

    /// A failed request: nothing is stored but when the next one may go out.
    pub(super) async fn record_failure(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        failure: Failure,
        turn: Option<Turn>,
    ) -> Result<Step, ApiError> {
        let now = self.ctx.clock.now();
        // An issuer may quote the token that it gave before.
        let stored = view.judged.content.as_ref().map(|content| content.record.access_token().expose().as_bytes());
        let message = hide(&failure.message, stored);
        let trouble = Trouble::new(
            Reason::from(failure.class),
            match failure.class {
                FailureClass::Refused => {
                    let hint = hint(&self.token.spec, inputs, &message);
                    message + &hint
                }
                FailureClass::Unreached
                | FailureClass::Unavailable
                | FailureClass::RateLimited
                | FailureClass::Unanswered
                | FailureClass::Answer => message,
            },
        );
        // Corrected inputs have failed but once, whatever the former have.
        let told = self.token.status.as_ref().filter(|_| !view.change.corrects).map(Failures::told_by);
        let mut counts = told.unwrap_or_default();
        // What the account was told before counts as well: with many resources each of them has asked but once.
        let failures = counts.add(failure.class, turn.as_ref().map_or(0, Turn::failures));
        let wait = failure.class.wait(failures, failure.retry_after);
        if let Some(turn) = turn {
            let until = after(self.ctx.clock.elapsed(), wait);
            turn.held(Hold { class: failure.class, until, failures, restored: false });
        }
        let wait = jittered(wait, self.spread(now));
        let next_attempt = whole_second_after(now, wait);
        tracing::warn!(reason = trouble.reason.as_str(), failures, %next_attempt, "token request failed: {}", trouble.message);
        if failure.ambiguous {
            self.say_ambiguous(&trouble.message);
        }
        let failed = Failed { trouble, failures: counts, at: now, next_attempt, attempted: self.attempted(fetched) };
        self.ctx.memory.with(&self.key, |entry| {
            entry.not_before = Some(after(self.ctx.clock.elapsed(), wait));
            entry.attempted = self.attempt(fetched).map(Box::new);
            entry.reachable = false;
            entry.untold = Some(Box::new(failed.clone()));
            entry.logged = Some(failed.trouble.reason);
        });
        self.tell_failure(view, &failed).await
    }

    /// A failure that the status does not tell yet, as long as the claim still says that nobody else has gone on since.
    pub(super) fn untold_failure(&self, view: &View) -> Option<Failed> {
        self.ctx.memory.with(&self.key, |entry| {
            if view.pace.claim != ClaimView::Mine {
                entry.untold = None;
            }
            entry.untold.as_deref().cloned()
        })
    }

    /// Writes a failed attempt into the status, and gives the claim back with it: so that others keep the wait as well.
    pub(super) async fn tell_failure(&mut self, view: &View, failed: &Failed) -> Result<Step, ApiError> {
        for conflicts in 0..MOST_CONFLICTS {
            let mut status = self.next(view, Standing::Troubled(failed.trouble.clone()));
            status.claim = None;
            failed.failures.enter(&mut status);
            status.last_failure_time = Some(Time(failed.at));
            status.next_attempt_time = Some(Time(failed.next_attempt));
            status.attempted.clone_from(&failed.attempted);
            match self.put_status(status).await {
                Ok(()) => {
                    self.ctx.memory.with(&self.key, |entry| entry.untold = None);
                    // Read anew, the resource may want something else than what was fetched for it.
                    return Ok(if conflicts == 0 { Step::Decide } else { Step::LookAgain });
                }
                // As long as the claim is ours only others' fields have changed. Else somebody has taken over, and what was
                // seen is no longer what is.
                Err(ApiError::Conflict { .. }) if self.reload().await? && self.has_claim() => {}
                Err(ApiError::Conflict { .. }) => return Ok(Step::LookAgain),
                Err(error) => return Err(error),
            }
        }
        Ok(Step::LookAgain)
    }

    pub(super) fn say_ambiguous(&self, why: &str) {
        self.ctx.metrics.ambiguous();
        self.tell_of(Occurrence::AmbiguousGeneration, why);
    }

    /// A number for jitter, from what is at hand.
    pub(super) fn spread(&self, now: Timestamp) -> u32 {
        let seed = self.token.uid().unwrap_or_default();
        seed.bytes().fold(now.subsec_nanosecond().unsigned_abs(), |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b)))
    }
}

/// The end of a wait, by the clock that nobody sets.
fn after(elapsed: Duration, wait: SignedDuration) -> Duration {
    elapsed.saturating_add(Duration::try_from(wait).unwrap_or_default())
}

/// The end of a wait, in whole seconds as the status holds it; never earlier.
pub(super) fn whole_second_after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    let end = now.as_second().saturating_add(wait.as_secs()).saturating_add(1);
    Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
}
