//! Two tokens where one was due: seen afterwards, when a process with a token in memory finds another's in the Secret.
//!
//! A claim keeps this from happening; it does happen if somebody wipes the status, claim and all, while a request is in
//! flight. Whoever sees it counts it, unless it was counted when the claim was taken over.

use jiff::{SignedDuration, Timestamp};

use super::Pass;
use super::look::View;
use crate::decide::{Order, Stored};
use crate::memory::Issued;

const WIPED: &str =
    "a token was requested twice: the claim in the status was lost while the first request was in flight";

// === impl Pass ===

impl Pass<'_> {
    /// The token in memory gives way to another process's: was that one requested while our claim should have kept it back?
    pub(super) fn count_if_superseded(&self, view: &View, issued: &Issued) {
        // Once it was in the Secret, whoever replaced it there has seen it, and has counted.
        let was_seen = self.ctx.memory.peek(&self.key, |entry| entry.saved).unwrap_or_default();
        let Some(requested_at) = other_token(view, issued).filter(|_| !was_seen) else { return };
        if self.claim_ended_at(issued).is_some_and(|end| requested_at < end) {
            self.say_ambiguous(WIPED);
        }
    }

    /// The token in memory has replaced another process's that had come to the Secret since the request.
    pub(super) fn count_if_superseding(&self, view: &View, issued: &Issued) {
        let expected = view.unsaved.as_ref().is_some_and(|unsaved| unsaved.order == Order::Successor);
        if !expected && !issued.counted && other_token(view, issued).is_some() {
            self.say_ambiguous(WIPED);
        }
    }

    /// The end of the last claim that kept others back, by the time of day: that of the request, or of a save that took long.
    fn claim_ended_at(&self, issued: &Issued) -> Option<Timestamp> {
        let (elapsed, now) = (self.ctx.clock.elapsed(), self.ctx.clock.now());
        let kept = self.ctx.memory.peek(&self.key, |entry| entry.claim.clone()).flatten();
        let end =
            [kept, issued.claim.clone()].into_iter().flatten().map(|own| own.taken.saturating_add(own.lasts)).max()?;
        let signed = |span| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        now.saturating_add(signed(end).checked_sub(signed(elapsed))?).ok()
    }
}

/// When the valid token that the Secret holds for the present inputs was requested, if it is not the one in memory.
fn other_token(view: &View, issued: &Issued) -> Option<Timestamp> {
    let Stored::Held(held) = &view.judged.stored else { return None };
    let stored = &view.judged.content.as_ref()?.record;
    let other = !stored.access_token().is_same(issued.content.record.access_token());
    let wanted = view.unsaved.as_ref().is_some_and(|unsaved| unsaved.current && !unsaved.saved);
    let counts = other && wanted && !issued.repeated && held.current && held.validity.holds_at(view.now);
    counts.then_some(held.validity.issued_at)
}
