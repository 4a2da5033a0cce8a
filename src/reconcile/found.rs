//! Stored tokens that a process finds: each of them is one that need not be requested.

use jiff::Timestamp;

use super::Context;
use super::look::View;
use crate::memory::Key;

/// How the first look at a resource went, as the process that requests its tokens.
#[derive(Clone, Copy)]
pub(super) enum FirstLook {
    /// Versions tell that the token is the one that the status knows, which ends then.
    Settled(Option<Timestamp>),
    /// The Secret was read: it holds a token that serves until then, or none.
    Read(Option<Timestamp>),
}

// === impl FirstLook ===

impl FirstLook {
    /// What was read.
    pub(super) fn of(view: &View) -> Self {
        let held = view.held_facts().filter(|held| held.current && view.now < held.renewal);
        Self::Read(held.map(|held| held.validity.expires_at))
    }

    /// Counts and logs the token that was found, once for each resource.
    pub(super) fn note(self, ctx: &Context, key: &Key) {
        // Who stands by takes nothing over yet.
        if !ctx.leads() || !ctx.memory.looks_first(key) {
            return;
        }
        let (Self::Settled(end) | Self::Read(end)) = self;
        let Some(end) = end else { return };
        ctx.metrics.reused();
        let expires_in_seconds = end.as_second().saturating_sub(ctx.clock.now().as_second());
        let expires_in_hours = expires_in_seconds / 3600;
        let said =
            format_args!("Loaded valid token. Expires in {expires_in_seconds} seconds ({expires_in_hours} hours)");
        match self {
            // At start there may be thousands of them, of which one line tells.
            Self::Settled(_) => tracing::debug!(expires_in_seconds, expires_in_hours, "{said}"),
            Self::Read(_) => tracing::info!(expires_in_seconds, expires_in_hours, "{said}"),
        }
    }
}
