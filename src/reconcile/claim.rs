//! The claim in the status: made before a request is sent, given back when none is.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::look::View;
use super::{Pass, Step};
use crate::api::Claim;
use crate::cluster::ApiError;
use crate::decide::{FailureClass, Reason, Standing, Trouble, claim_seconds, held_by_account};
use crate::memory::OwnClaim;

// === impl Pass ===

impl Pass<'_> {
    /// Makes sure that the claim is ours and long enough. None if it is.
    ///
    /// A claim that was inherited from an earlier pass is made again: somebody may have wiped it since, or changed the inputs.
    pub(super) async fn claim(
        &mut self,
        view: &View,
        enough: impl Fn(Duration) -> bool,
    ) -> Result<Option<Step>, ApiError> {
        if self.confirmed && self.claim_left().is_some_and(&enough) {
            return Ok(None);
        }
        let id = self.ctx.new_claim_id();
        let seconds = claim_seconds(self.token.spec.timeout.signed());
        let own = self.own_claim(id.clone(), seconds);
        let standing = self.still_failing().map_or_else(
            || Standing::Progressing(Trouble::new(Reason::Issuing, "a token is being requested")),
            Standing::Troubled,
        );
        let mut status = self.next(view, standing);
        status.claim = Some(Box::new(Claim {
            id: id.clone(),
            holder: self.ctx.identity.to_string(),
            started_at: Time(self.ctx.clock.now()),
            seconds,
        }));
        // Remembered before it is sent: if the answer is lost, the claim is found our own.
        self.ctx.memory.with(&self.key, |entry| entry.claim = Some(own));
        match self.put_status(status).await {
            Ok(()) => {}
            Err(ApiError::Conflict { .. } | ApiError::NotFound { .. }) => return Ok(Some(Step::LookAgain)),
            Err(error) => return Err(error),
        }
        let held = self.token.status.as_ref().and_then(|s| s.claim.as_ref()).is_some_and(|claim| claim.id == id);
        let outdated = || Step::Blocked {
            trouble: Trouble::new(
                Reason::CRDOutdated,
                "the installed CustomResourceDefinition does not know status.claim: apply the one of this operator's version (verteil-token-operator crd)",
            ),
            until: None,
        };
        Ok((!held).then(outdated))
    }

    /// A claim of this process that begins now: before it is sent, so that it ends before others may take it over.
    pub(super) fn own_claim(&self, id: String, seconds: i64) -> OwnClaim {
        let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        OwnClaim { id, taken: self.ctx.clock.elapsed(), lasts }
    }

    /// Why the last request for the same spec failed: that is over when an answer says so, not when the next one is sent.
    pub(super) fn still_failing(&self) -> Option<Trouble> {
        let status = self.token.status.as_ref()?;
        let tried = status.failed_attempts.is_some() || held_by_account(status).is_some();
        let repeated = tried && status.observed_generation == self.token.metadata.generation;
        let told = Trouble::told_by(status).filter(|_| repeated)?;
        FailureClass::ALL.into_iter().any(|class| Reason::from(class) == told.reason).then_some(told)
    }

    /// Gives the claim back unused, so that nobody waits it out.
    pub(super) async fn stand_back(&mut self) -> Result<Step, ApiError> {
        let mut status = self.token.status.clone().unwrap_or_default();
        status.claim = None;
        match self.put_status(status).await {
            Ok(()) | Err(ApiError::Conflict { .. } | ApiError::NotFound { .. }) => Ok(Step::Rest),
            Err(error) => Err(error),
        }
    }

    /// Whether the claim in the status is this process's.
    pub(super) fn has_claim(&self) -> bool {
        let claim = self.token.status.as_ref().and_then(|status| status.claim.as_ref());
        claim.is_some_and(|claim| *claim.holder == *self.ctx.identity)
    }

    /// What is left of the claim in the status, if it is ours.
    pub(super) fn claim_left(&self) -> Option<Duration> {
        let claim = self.token.status.as_ref()?.claim.as_ref()?;
        let elapsed = self.ctx.clock.elapsed();
        self.ctx.memory.peek(&self.key, |entry| {
            entry.claim.as_ref().filter(|own| own.id == claim.id).map(|own| own.left(elapsed))
        })?
    }
}
