//! The line at an issuer, before anything is read for a request.
//!
//! Who will ask, by all that is known without a call, stands in line first: what is read once the turn has come need not be read
//! before it as well. With thousands of resources that is a call for each of them.

use jiff::Timestamp;
use kube::ResourceExt;

use super::Pass;
use crate::api::{RENEW_ANNOTATION, VerteilTokenStatus};
use crate::cluster::Seen;
use crate::issuer::{Priority, host_of};

/// A renewal with less life left than this goes before those that can wait, in seconds.
const URGENT: i64 = 120;

// === impl Pass ===

impl Pass<'_> {
    /// Whether there is a permit for the request that is due; else the resource stands in line for it. True also where none
    /// seems to be due, or something may be in the way, of which its status should tell at once.
    pub(super) fn has_permit(&self) -> bool {
        let now = self.ctx.clock.now();
        let spec = &self.token.spec;
        let credentials = self.key.beside(&spec.credentials_secret_ref.name);
        let held_up = spec.suspend
            || self.token.metadata.deletion_timestamp.is_some()
            || !matches!(self.ctx.versions.get(&credentials), Seen::Version(_));
        let Some(priority) = self.due(now).filter(|_| !held_up) else { return true };
        let Ok(url) = url::Url::parse(&spec.token_url) else { return true };
        self.ctx.permits.reserve(&host_of(&url), &self.key, priority)
    }

    /// The priority of the request that the status shows to be due.
    fn due(&self, now: Timestamp) -> Option<Priority> {
        let Some(status) = self.token.status.as_ref().filter(|status| !is_new(status)) else {
            return Some(Priority::Urgent);
        };
        let waits = status.claim.is_some() || status.next_attempt_time.is_some();
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

/// Who goes first: those whose stored token, if there is one, ends soon.
pub(super) fn priority(expires_at: Option<Timestamp>, now: Timestamp) -> Priority {
    let left = expires_at.map_or(0, |end| end.as_second().saturating_sub(now.as_second()));
    if left < URGENT { Priority::Urgent } else { Priority::Renewal }
}
