//! The status: what follows from a look, what an issued token enters into its books, and the one place that writes it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Pass;
use super::look::View;
use crate::api::VerteilTokenStatus;
use crate::cluster::{ApiError, Occurrence, number};
use crate::decide::{
    Failures, Place, Reason, Report, Standing, Stored, Trouble, condition, held_by_account, next_status,
    unscheduled_after, wants_saving,
};
use crate::memory::Issued;

// === impl Pass ===

impl Pass<'_> {
    /// Enters an issued token that the Secret now holds into the books of the status: once, whatever is repeated.
    pub(super) fn account(&self, view: &View, status: &mut VerteilTokenStatus) {
        let Stored::Held(held) = &view.judged.stored else { return };
        if let Some(content) = &view.judged.content {
            status.last_renew_request.clone_from(&content.renewed);
        }
        let old = self.token.status.as_ref();
        let issued = self.issued().filter(|_| view.unsaved.as_ref().is_some_and(|unsaved| unsaved.saved));
        let Some(issued) = issued else {
            // Issued and saved by a process that did not live to say so: its claim, or a younger token than the known one, tells.
            let known = old.and_then(|s| s.issued_at.as_ref()).map(|time| time.0);
            let claimed = old.is_some_and(|s| s.claim.is_some());
            if known.map_or(claimed, |known| held.validity.issued_at > known) {
                status.tokens_issued = Some(status.tokens_issued.unwrap_or_default().saturating_add(1));
                let known = status.last_request_time.as_ref().map(|time| time.0);
                status.last_request_time = known.max(Some(held.validity.issued_at)).map(Time);
            }
            return;
        };
        let sent = Time(whole_second(issued.requested_at));
        // Entered before, or entered late after somebody else's; a time ahead was told by a clock that was set back since.
        let told = status.last_request_time.as_ref().filter(|told| told.0 <= next_second(view.now));
        if told.is_some_and(|told| told.0 >= sent.0) {
            return;
        }
        status.last_request_time = Some(sent);
        let unscheduled = status.unscheduled_issues.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        status.unscheduled_issues = Some(i64::from(unscheduled_after(issued.reason, unscheduled)));
        // Entered late, it may be older than a failure.
        if status.last_failure_time.as_ref().is_none_or(|failed| failed.0 < issued.requested_at) {
            Failures::forget(status);
        }
        status.issuer_repeats = view.wanted.issuer_repeats.then(|| self.token.spec.token_url.clone());
        if !issued.repeated {
            status.tokens_issued = Some(status.tokens_issued.unwrap_or_default().saturating_add(1));
            status.last_issue_reason = Some(issued.reason);
        }
    }

    /// Writes `status` if it says anything new; then what it told of is no longer only in memory.
    pub(super) async fn write(&mut self, view: &View, status: VerteilTokenStatus) -> Result<(), ApiError> {
        if self.token.status.as_ref() != Some(&status) {
            match self.put_status(status).await {
                Ok(()) => {}
                // The event of whatever was faster rings; the Secret and the memory keep what is to be said.
                Err(ApiError::Terminating { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let Some(issued) = self.issued() else { return Ok(()) };
        let Some(unsaved) = &view.unsaved else { return Ok(()) };
        if wants_saving(view.now, &view.judged.stored, unsaved) {
            return Ok(());
        }
        self.ctx.memory.with(&self.key, |entry| entry.issued = None);
        self.ctx.count_unsaved();
        if unsaved.saved && !issued.repeated {
            let cause = issued.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
            let note = format!(
                "{}{cause}: new token in {}, valid until {}",
                issued.reason.as_str(),
                match self.place() {
                    Place::Secret => format!("Secret {}", self.token.secret_name()),
                    Place::Memory { .. } => "memory".to_owned(),
                },
                issued.content.record.validity().expires_at
            );
            self.tell_of(Occurrence::TokenIssued, &note);
        } else if unsaved.saved {
            tracing::info!(
                "the issuer answered with the token it had already given: it is asked again after its expiry"
            );
        } else {
            self.count_if_superseded(view, &issued);
            tracing::info!("dropped a token that is no longer wanted");
        }
        Ok(())
    }

    /// Replaces the status, and says what has changed.
    pub(super) async fn put_status(&mut self, status: VerteilTokenStatus) -> Result<(), ApiError> {
        self.ctx.memory.begin_write(&self.key);
        let answer = self.ctx.cluster.write_status(&self.token, &status).await;
        self.ctx.memory.end_write(&self.key, answer.as_ref().ok().and_then(|written| number(&written.metadata)));
        let written = answer?;
        self.ctx.memory.with(&self.key, |entry| entry.clock_offset = None);
        let before = std::mem::replace(&mut self.token, written);
        self.confirmed = true;
        self.tell(before.status.as_ref(), &status);
        Ok(())
    }

    /// The status that follows from `view` and `standing`.
    pub(super) fn next(&self, view: &View, standing: Standing) -> VerteilTokenStatus {
        let report = Report {
            generation: self.token.metadata.generation.unwrap_or_default(),
            secret_name: self.token.secret_name(),
            place: self.place(),
            held: view.held_facts(),
            standing,
            rivals: if view.judged.stored.is_ours() && !self.ctx.store.is_in_memory() {
                self.ctx.rivals.of(&self.key, self.token.secret_name())
            } else {
                Vec::new()
            },
        };
        let blank = VerteilTokenStatus::default();
        let old = self.token.status.as_ref().unwrap_or(&blank);
        let mut next = next_status(old, &report, view.now);
        if held_by_account(old).is_some() {
            // It is told anew as long as it lasts.
            next.next_attempt_time = None;
        }
        self.tell_clock(&mut next, view.now);
        next
    }

    /// Whether the status says, of this very spec, that a token is on its way; or, where a claim is waited out, what somebody
    /// for whom it has run out already found in the way.
    pub(super) fn says_enough(&self, reason: Reason) -> bool {
        let Some(status) = &self.token.status else { return false };
        let ready = condition(status, "Ready").filter(|c| c.status == "False");
        let progress = ready.and_then(|c| Reason::parse(&c.reason)).is_some_and(Reason::is_progress);
        status.observed_generation == self.token.metadata.generation
            && (progress || (reason == Reason::Claimed && Trouble::told_by(status).is_some()))
    }

    fn issued(&self) -> Option<Arc<Issued>> {
        self.ctx.memory.peek(&self.key, |entry| entry.issued.clone()).flatten()
    }

    pub(super) fn has_unsaved(&self) -> bool {
        self.ctx.memory.is_unsaved(&self.key)
    }
}

/// The latest time that a status written at `now` may tell.
fn next_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second().saturating_add(1)).unwrap_or(now)
}

/// `at` as the status holds it.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
