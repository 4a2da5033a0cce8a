//! The Secret of the name that the spec had before: once its token stands in the present one, it is marked as left behind.

use super::Pass;
use super::look::{Fetched, View};
use crate::cluster::ApiError;
use crate::secret::{supersede, would_add_owner};

// === impl Pass ===

impl Pass<'_> {
    /// Marks the former Secret, if there is one. True if it need not be remembered any more.
    pub(super) async fn leave_former(&mut self, fetched: &Fetched, view: &View) -> Result<bool, ApiError> {
        if self.leave_memory() {
            return Ok(true);
        }
        let Some(former) = fetched.former.as_ref().filter(|_| view.leaves_former) else { return Ok(true) };
        let Some(marked) = supersede(&self.token, former) else { return Ok(true) };
        if would_add_owner(former, &marked) && !self.may_name_owner().await? {
            return Ok(false);
        }
        match self.ctx.cluster.write_secret(marked, false).await {
            Ok(_) => {
                self.ctx.metrics.secret_written("repair");
                tracing::info!("the Secret of the former name is left behind");
                Ok(true)
            }
            Err(ApiError::NotFound { .. } | ApiError::Terminating { .. }) => Ok(true),
            Err(error @ (ApiError::Conflict { .. } | ApiError::Unavailable { .. })) => Err(error),
            // It is no longer in use: not worth a trouble that stands in the way of what is.
            Err(error @ (ApiError::Forbidden { .. } | ApiError::Refused { .. })) => {
                tracing::warn!(%error, "the Secret of the former name cannot be marked as left behind");
                Ok(true)
            }
        }
    }

    /// Whether the resource may be named as an owner: one that is being deleted would take the token with it, so that is
    /// looked up live.
    pub(super) async fn may_name_owner(&mut self) -> Result<bool, ApiError> {
        Ok(self.reload().await? && self.token.metadata.deletion_timestamp.is_none())
    }
}
