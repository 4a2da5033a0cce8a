//! What the past allows: waits and gaps, somebody else's claim, and whether something has changed since the last attempt.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::Pass;
use super::look::{Fetched, longest_wait, signed};
use crate::api::{Attempted, RENEW_ANNOTATION, VerteilTokenStatus};
use crate::decide::{ClaimView, Pace, Reason, Trouble, held_by_account, since_first_sight, view_claim};
use crate::memory::{Attempt, Entry};

/// The precision of times in a status.
const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);

/// What has changed since the last attempt.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    /// Something that ends a wait, once.
    pub(super) lifts: bool,
    /// It is the inputs.
    pub(super) corrects: bool,
}

// === impl Pass ===

impl Pass<'_> {
    /// What has changed since the last attempt, or since this resource was held.
    fn change(&self, entry: &Entry, status: &VerteilTokenStatus, fetched: &Fetched) -> Change {
        let Some(next) = self.attempt(fetched) else { return Change::default() };
        let outdated = match (&status.attempted, self.attempted(fetched)) {
            (Some(told), Some(next)) => told.is_outdated_by(&next),
            (told, next) => *told != next,
        };
        match entry.attempted.as_deref() {
            // Changed since this process tried; but another one may have tried with the same since.
            Some(last) => Change {
                lifts: outdated && last.is_outdated_by(&next),
                corrects: outdated && last.inputs != next.inputs,
            },
            // After a restart versions stand for what they held: good for an attempt, but not for a count that begins anew,
            // since it may have been a label that was touched.
            None => Change { lifts: outdated && status.attempted.is_some(), corrects: false },
        }
    }

    /// What the past allows, and what has changed since.
    pub(super) fn pace(
        &self,
        entry: &mut Entry,
        status: &VerteilTokenStatus,
        fetched: &Fetched,
        now: Timestamp,
    ) -> (Pace, Change) {
        let change = self.change(entry, status, fetched);
        let told = Trouble::told_by(status).map(|trouble| trouble.reason);
        let longest = longest_wait(told.unwrap_or(Reason::RequestRefused));
        let latest = now.saturating_add(longest).unwrap_or(Timestamp::MAX);
        // Somebody else has reached the host since.
        let reachable = entry.reachable && told.is_none_or(|reason| reason == Reason::IssuerUnreachable);
        let elapsed = self.ctx.clock.elapsed();
        // A wait for another resource's sake is kept by those who know whether it has ended.
        let own_wait = status.next_attempt_time.as_ref().filter(|_| held_by_account(status).is_none());
        let told_wait = own_wait.map(|time| time.0);
        let told_wait = told_wait.map(|until| since_first_sight(&mut entry.wait_ahead, until, latest, elapsed));
        let told_issue = status.last_request_time.as_ref().map(|time| time.0);
        let told_issue = told_issue.map(|at| since_first_sight(&mut entry.request_ahead, at, now, elapsed));
        // Of a failed attempt only the second is told, in which it ended.
        let told_failure = status.last_failure_time.as_ref().and_then(|time| time.0.checked_add(ONE_SECOND).ok());
        let told_request =
            told_issue.max(told_failure.filter(|at| *at <= now.saturating_add(ONE_SECOND).unwrap_or(now)));
        let by_now = |at: Duration| now.saturating_add(signed(at) - signed(elapsed)).unwrap_or(now);
        let pace = Pace {
            leading: self.ctx.leads(),
            not_before: told_wait.filter(|_| !change.lifts && !reachable),
            own_not_before: entry.not_before.map(by_now).filter(|_| !change.lifts && !entry.reachable),
            write_not_before: entry.refused_writes.as_deref().map(|(_, until)| by_now(*until)),
            last_request: told_request.max(entry.last_request.map(by_now)),
            last_issue: told_issue.max(entry.last_issue.map(by_now)),
            unscheduled: status.unscheduled_issues.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
            claim: self.claim_view(entry, status, now),
        };
        (pace, change)
    }

    /// Somebody else's claim counts from when it was first seen: also by a process that stands by.
    pub(super) fn see_claim(&self) {
        let Some(status) = self.token.status.as_ref().filter(|status| status.claim.is_some()) else { return };
        let now = self.ctx.clock.now();
        self.ctx.memory.with(&self.key, |entry| self.claim_view(entry, status, now));
    }

    fn claim_view(&self, entry: &mut Entry, status: &VerteilTokenStatus, now: Timestamp) -> ClaimView {
        let Some(claim) = &status.claim else { return ClaimView::Free };
        if self.has_claim() {
            return ClaimView::Mine;
        }
        let elapsed = self.ctx.clock.elapsed();
        let since = match entry.seen_claim.as_deref() {
            Some((id, since)) if *id == claim.id => *since,
            Some(_) | None => {
                entry.seen_claim = Some(Box::new((claim.id.clone(), elapsed)));
                elapsed
            }
        };
        view_claim(now, claim.seconds, elapsed.saturating_sub(since))
    }

    /// What an attempt would be made with: in memory by a fingerprint.
    pub(super) fn attempt(&self, fetched: &Fetched) -> Option<Attempt> {
        let spec = &self.token.spec;
        let ca = fetched.authority.bundle.as_ref().ok()?.as_ref().map(|ca| ca.digest().to_string()).unwrap_or_default();
        let transport = format!("{:?} {:?} {} {ca}", spec.client_authentication, spec.parameters_in, spec.timeout);
        let inputs = self.ctx.process_key.fingerprint(fetched.inputs.as_ref().ok()?, &transport);
        Some(Attempt { inputs, renew_request: self.renew_request() })
    }

    /// The same for the status: by versions.
    pub(super) fn attempted(&self, fetched: &Fetched) -> Option<Box<Attempted>> {
        Some(Box::new(Attempted {
            generation: self.token.metadata.generation?,
            credentials: fetched.credentials.clone()?,
            ca: fetched.authority.version.clone(),
            renew_request: self.renew_request(),
        }))
    }

    /// The value of verteil.dev/renew, or the one that was tried last: taken away and written again it is no new one.
    fn renew_request(&self) -> Option<String> {
        let tried = || self.token.status.as_ref()?.attempted.as_ref()?.renew_request.clone();
        self.token.annotations().get(RENEW_ANNOTATION).cloned().or_else(tried)
    }
}
