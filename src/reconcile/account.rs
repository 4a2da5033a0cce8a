//! What one resource hears from an issuer and others profit from: waits of an account, a host that is back, its clock.

use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use super::failure::whole_second_after;
use super::look::{Fetched, View, longest_wait, signed};
use super::{Pass, Step};
use crate::api::VerteilTokenStatus;
use crate::decide::{
    FailureClass, Failures, Reason, Trouble, clock_offset, held_by_account, jittered, tell_clock_skew,
};
use crate::issuer::{Answer, Exchange, Failure, Hold, RawAnswer, Turn, date_of, host_of};
use crate::token::AccountFingerprint;

// === impl Pass ===

impl Pass<'_> {
    /// A wait for the whole account that the status tells of is kept by a process that has just started as well.
    pub(super) fn restore_hold(&self, fetched: &Fetched, now: Timestamp) {
        let Some(status) = &self.token.status else { return };
        let (Some(until), Ok(inputs)) = (&status.next_attempt_time, &fetched.inputs) else { return };
        let class = match Trouble::told_by(status).map(|trouble| trouble.reason) {
            Some(Reason::RateLimited) => FailureClass::RateLimited,
            Some(Reason::IssuerUnavailable) if held_by_account(status).is_some() => FailureClass::Unavailable,
            Some(_) | None => return,
        };
        // Told by other inputs, it may have been another account's.
        let next = self.attempted(fetched);
        let changed =
            status.attempted.as_ref().is_some_and(|told| next.is_none_or(|next| told.has_other_inputs(&next)));
        let left = until.0.duration_since(now).min(longest_wait(Reason::from(class)));
        let url = Url::parse(inputs.token_url()).ok().filter(|_| left.is_positive() && !changed);
        let Some(account) = url.map(|url| self.ctx.process_key.account(&host_of(&url), inputs.username())) else {
            return;
        };
        let left = Duration::try_from(left).unwrap_or_default();
        let failures = Failures::told_by(status).of(class).max(1);
        let hold = Hold { class, until: self.ctx.clock.elapsed().saturating_add(left), failures, restored: true };
        self.ctx.limits.restore(account, hold);
    }

    /// What another resource with this account was told to wait.
    pub(super) fn account_hold(&self, view: &View, account: AccountFingerprint) -> Option<Step> {
        if view.change.lifts {
            return None;
        }
        let elapsed = self.ctx.clock.elapsed();
        let hold = self.ctx.limits.hold(account, &self.key, elapsed)?;
        // As it was told, if it was: two operators may know of different ends, and would write against each other.
        let told = self.token.status.as_ref().and_then(held_by_account).filter(|(_, until)| *until > view.now);
        let (trouble, until) = told.unwrap_or_else(|| {
            let left = signed(hold.until.saturating_sub(elapsed));
            let left = if hold.restored { left } else { jittered(left, self.spread(view.now)) };
            (explain(hold.class), whole_second_after(view.now, left))
        });
        Some(Step::Held { trouble, until })
    }

    /// The right to ask with this account; or what to do while another resource asks first, or was told to wait meanwhile.
    pub(super) fn turn(&self, view: &View, account: AccountFingerprint) -> Result<Turn, Step> {
        let elapsed = (!view.change.lifts).then(|| self.ctx.clock.elapsed());
        let turn = self.ctx.limits.turn(account, &self.key, elapsed);
        turn.ok_or_else(|| self.account_hold(view, account).unwrap_or(Step::Behind))
    }

    /// The issuer's clock, by the head of its answer.
    pub(super) fn note_clock(&self, raw: &RawAnswer, requested_at: Timestamp) {
        let Some(date) = date_of(raw) else { return };
        let offset = clock_offset(date, requested_at, self.ctx.clock.now());
        self.ctx.metrics.set_clock_skew(offset.as_secs());
        self.ctx.memory.with(&self.key, |entry| entry.clock_offset = Some(offset.into()));
    }

    /// Tells what this pass has measured, once: two operators with different clocks must not write against each other.
    pub(super) fn tell_clock(&self, status: &mut VerteilTokenStatus, now: Timestamp) {
        if let Some(offset) = self.ctx.memory.peek(&self.key, |entry| entry.clock_offset.as_deref().copied()).flatten()
        {
            tell_clock_skew(status, offset, self.token.metadata.generation.unwrap_or_default(), now);
        }
    }

    /// The host was reached, or was not: who could not reach it either is woken by the first that could.
    pub(super) fn note_reach(&self, exchange: &Exchange, answer: Result<&Answer, &Failure>) {
        // With another bundle the same server may be no issuer: it is reached by those alone who trust the same.
        let ca = exchange.ca.as_ref().map(|ca| ca.digest().to_string()).unwrap_or_default();
        let host = format!("{} {ca}", host_of(&exchange.url));
        if answer.is_err_and(|failure| failure.class == FailureClass::Unreached) {
            self.ctx.reach.lost(&host, &self.key);
            return;
        }
        for woken in self.ctx.reach.found(&host, &self.key) {
            self.ctx.memory.with(&woken, |entry| entry.reachable = true);
            self.ctx.reach.ring(woken);
        }
    }
}

fn explain(class: FailureClass) -> Trouble {
    let reason = Reason::from(class);
    let status = if reason == Reason::RateLimited { "429" } else { "5xx" };
    Trouble::new(
        reason,
        format!(
            "the issuer told another resource with the same account to wait ({status}): nothing is sent for this one before status.nextAttemptTime"
        ),
    )
}
