//! The line at an issuer, before anything is read for a request.
//!
//! Who will ask, by all that is known without a call, stands in line first: what is read once the turn has come need not be read
//! before it as well. With thousands of resources that is a call for each of them.
//!
//! Who stands in line looks again when the stored token's end comes near, to go forward, and when the status has to tell of it.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::look::Fetched;
use super::{LONGEST_SLEEP, Pass, sleep_until};
use crate::api::{RENEW_ANNOTATION, VerteilTokenStatus};
use crate::cluster::{ApiError, Seen};
use crate::decide::{Reason, Standing, TOKEN_EXPIRED_GRACE, Trouble, condition, holds};
use crate::issuer::{Priority, host_of};

/// A renewal with no more life left than this goes before all that can wait.
const URGENT: SignedDuration = SignedDuration::from_secs(120);
/// One with more left than this, asked for by hand, counts as if it had no more: else all that come due later would go before it.
const LONGEST: SignedDuration = SignedDuration::from_secs(600);

// === impl Pass ===

impl Pass<'_> {
    /// Stands in line for the request that is due, and says when to look again. None if there is a permit for it; also where no
    /// request seems to be due, or something may be in the way, of which the status should tell at once.
    pub(super) fn stand_in_line(&self) -> Option<Action> {
        let now = self.ctx.clock.now();
        let spec = &self.token.spec;
        let credentials = self.key.beside(spec.credentials_secret_ref.name.as_str());
        let held_up = spec.suspend
            || self.token.metadata.deletion_timestamp.is_some()
            || !matches!(self.ctx.versions.get(&credentials), Seen::Version(_));
        let priority = self.due(now).filter(|_| !held_up)?;
        let url = url::Url::parse(&spec.token_url).ok()?;
        if self.ctx.permits.reserve(&host_of(&url), &self.key, priority) {
            return None;
        }
        let expires_at = self.token.status.as_ref().and_then(|status| status.expires_at.as_ref()).map(|time| time.0);
        let over = expires_at.is_some_and(|end| end.saturating_add(TOKEN_EXPIRED_GRACE).is_ok_and(|end| end <= now));
        // It goes on, finds no permit, and says so. Its place stays.
        (!over || !self.says_ready()).then(|| patience(expires_at, now))
    }

    /// No permit was free, and the resource stands in line: with a status that says how things stand by now.
    pub(super) async fn queued(&mut self, fetched: &Fetched) -> Result<Action, ApiError> {
        let view = self.view(fetched);
        // Ready may stay True for a while after the end, as long as nothing new has happened.
        let serves = view.held_facts().is_some_and(|held| holds(&held, &Standing::Settled, view.now));
        if self.says_ready() && !serves {
            let turn = || Trouble::new(Reason::Issuing, "a token is due: other requests to the same host go first");
            self.troubled(&view, self.still_failing().unwrap_or_else(turn), None).await?;
        }
        Ok(patience(view.held_until(), view.now))
    }

    fn says_ready(&self) -> bool {
        let ready = self.token.status.as_ref().and_then(|status| condition(status, "Ready"));
        ready.is_some_and(|ready| ready.status == "True")
    }

    /// The priority of the request that the status shows to be due.
    fn due(&self, now: Timestamp) -> Option<Priority> {
        let Some(status) = self.token.status.as_ref().filter(|status| !is_new(status)) else {
            return Some(Priority::Unserved);
        };
        // Somebody else may have reached the host since, which ends a wait.
        let ended = || self.ctx.memory.peek(&self.key, |entry| entry.reachable).unwrap_or_default();
        let waits =
            status.claim.is_some() || status.next_attempt_time.as_ref().is_some_and(|until| now < until.0) && !ended();
        let renewed = self.token.annotations().get(RENEW_ANNOTATION);
        let asked = renewed.is_some_and(|value| Some(value) != status.last_renew_request.as_ref());
        let due = status.renewal_time.as_ref().is_some_and(|time| time.0 <= now);
        let until = status.expires_at.as_ref().map(|time| time.0);
        ((asked || due) && !waits).then(|| priority(until, now))
    }
}

/// Nothing suggests that there ever was a token.
pub(super) fn is_new(status: &VerteilTokenStatus) -> bool {
    status.secret_name.is_none() && status.verified.is_none() && status.record_seal.is_none()
}

/// Who goes first: those whose stored token ends soon, then those who have none.
pub(super) fn priority(expires_at: Option<Timestamp>, now: Timestamp) -> Priority {
    match expires_at.filter(|end| now < *end) {
        Some(end) if end.duration_since(now) <= URGENT => Priority::Expiring(end),
        Some(end) => Priority::Renewal(now.saturating_add(LONGEST).map_or(end, |longest| longest.min(end))),
        None => Priority::Unserved,
    }
}

/// How long a place in the line is left alone: until it becomes urgent, or the end of the stored token is to be told.
fn patience(expires_at: Option<Timestamp>, now: Timestamp) -> Action {
    let urgent = expires_at.and_then(|end| end.checked_sub(URGENT).ok());
    let told = expires_at.and_then(|end| end.checked_add(TOKEN_EXPIRED_GRACE).ok());
    let next = [urgent, told].into_iter().flatten().filter(|at| now < *at).min();
    next.map_or(Action::requeue(LONGEST_SLEEP), |at| sleep_until(at, now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn a_renewal_becomes_urgent_two_minutes_before_the_end_and_counts_as_none_after_it() {
        let of = |left: i64| priority(Some(at(1000)), at(1000 - left));
        assert_eq!((of(600), of(121)), (Priority::Renewal(at(1000)), Priority::Renewal(at(1000))));
        assert_eq!(of(900), Priority::Renewal(at(700)));
        assert_eq!((of(120), of(1)), (Priority::Expiring(at(1000)), Priority::Expiring(at(1000))));
        assert_eq!(
            (of(0), of(-60), priority(None, at(0))),
            (Priority::Unserved, Priority::Unserved, Priority::Unserved)
        );
    }

    #[test]
    fn a_place_in_the_line_is_looked_at_when_it_becomes_urgent_and_when_the_expiry_is_to_be_told() {
        let slept = |now: i64| patience(Some(at(1000)), at(now));
        let millisecond = Duration::from_millis(1);
        assert_eq!(slept(400), Action::requeue(Duration::from_secs(480) + millisecond));
        assert_eq!(slept(880), Action::requeue(Duration::from_secs(180) + millisecond));
        assert_eq!(slept(1060), Action::requeue(LONGEST_SLEEP));
        assert_eq!(patience(None, at(0)), Action::requeue(LONGEST_SLEEP));
    }
}
