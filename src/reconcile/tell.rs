//! Events: posted where a status tells something new, and for what happens once.

use super::Pass;
use crate::api::VerteilTokenStatus;
use crate::cluster::{Note, Occurrence, Severity};
use crate::decide::{CLOCK_SKEW, Reason, SECRET_CONTESTED, Trouble, condition, told_expiry};

// === impl Pass ===

impl Pass<'_> {
    /// An event for a trouble that is new, and for one that is over.
    pub(super) fn tell(&self, before: Option<&VerteilTokenStatus>, now: &VerteilTokenStatus) {
        let contest = |status: &VerteilTokenStatus| condition(status, SECRET_CONTESTED).map(|c| c.message.clone());
        if let Some(message) = contest(now).filter(|message| before.and_then(contest).as_ref() != Some(message)) {
            self.tell_of(Occurrence::SecretContested, &message);
        }
        let skewed = |status| condition(status, CLOCK_SKEW);
        if let (None, Some(skew)) = (before.and_then(skewed), skewed(now)) {
            tracing::warn!("{}", skew.message);
            self.tell_of(Occurrence::ClockSkew, &skew.message);
        }
        if let Some(message) = told_expiry(before, now) {
            tracing::warn!(reason = Reason::TokenExpired.as_str(), "{message}");
            self.tell_of(Occurrence::TokenExpired, message);
        }
        let logged = self.ctx.memory.with(&self.key, |entry| entry.logged.take());
        let old = before.and_then(Trouble::told_by);
        let new = Trouble::told_by(now);
        match (old, new) {
            (Some(old), Some(new)) if old.reason == new.reason => {}
            (_, Some(new)) => {
                if logged != Some(new.reason) {
                    tracing::warn!(reason = new.reason.as_str(), "{}", new.message);
                }
                self.say(Severity::Warning, new.reason.as_str(), "Reconcile", &new.message);
            }
            // With a claim, a request is about to show whether it is over.
            (Some(_), None) if now.claim.is_none() && condition(now, "Ready").is_some_and(|c| c.status == "True") => {
                self.tell_of(Occurrence::Recovered, "the token is valid and renewal works again");
            }
            (Some(_) | None, None) => {}
        }
    }

    /// An event for what has happened.
    pub(super) fn tell_of(&self, occurrence: Occurrence, note: &str) {
        self.post(&occurrence.note(note.to_owned()));
    }

    /// An event with the reason of a condition.
    pub(super) fn say(&self, severity: Severity, reason: &'static str, action: &'static str, note: &str) {
        self.post(&Note { severity, reason, action, note: note.to_owned() });
    }

    fn post(&self, note: &Note) {
        self.ctx.events.say(&self.token.metadata, note, self.ctx.clock.now());
    }
}
