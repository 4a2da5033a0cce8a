//! Where a pass reads and writes its token: the Secret, live; or what memory holds in its place.
//!
//! With tokens in memory only, one that a Secret holds is taken over first, and that Secret is emptied: one write, which is the
//! only one that ever goes to a Secret then.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::Pass;
use super::look::choose;
use crate::api::TOKEN_LABEL;
use crate::cluster::ApiError;
use crate::decide::{Place, Reason, Trouble};
use crate::secret::{Judged, emptied, for_memory, judge};
use crate::store::Refused;

/// Waits after a Secret could not be emptied, in seconds: doubled from the first to the last.
const FIRST_WAIT: i64 = 5;
const LAST_WAIT: i64 = 120;

// === impl Pass ===

impl Pass<'_> {
    /// Reads the token Secret.
    pub(super) async fn fetch_secret(&self) -> Result<Option<Secret>, ApiError> {
        if self.ctx.store.is_in_memory() {
            if self.ctx.store.kept(&self.token).is_none() {
                self.take_over().await?;
            }
            self.empty_leftovers().await?;
            return Ok(self.ctx.store.kept(&self.token));
        }
        let key = self.key.beside(self.token.secret_name());
        let secret = self.ctx.cluster.secret(&key).await?;
        self.ctx.versions.note(&key, secret.as_ref().map(|s| &s.metadata));
        Ok(secret)
    }

    /// Reads where the token was before: the Secret of the name that the spec had, or memory.
    pub(super) async fn fetch_former_secret(&self) -> Result<Option<Secret>, ApiError> {
        if self.ctx.store.is_in_memory() {
            return Ok(None);
        }
        if let Some(kept) = self.ctx.store.kept(&self.token) {
            return Ok(Some(kept));
        }
        match self.token.former_secret_name() {
            Some(name) => self.ctx.cluster.secret(&self.key.beside(name)).await,
            None => Ok(None),
        }
    }

    /// Writes the token Secret, or tries whether it could be. Returns what was written.
    pub(super) async fn write_secret(&self, secret: Secret, dry_run: bool) -> Result<Secret, ApiError> {
        if self.ctx.store.is_in_memory() {
            return if dry_run { Ok(secret) } else { self.ctx.store.write(&self.token, secret) };
        }
        let written = self.ctx.cluster.write_secret(secret, dry_run).await?;
        if !dry_run {
            self.ctx.versions.note(&self.key.beside(self.token.secret_name()), Some(&written.metadata));
        }
        Ok(written)
    }

    /// Counts a write, if it went to a Secret.
    pub(super) fn count_write(&self, kind: &'static str) {
        if !self.ctx.store.is_in_memory() {
            self.ctx.metrics.secret_written(kind);
        }
    }

    /// Where the token is kept.
    pub(super) fn place(&self) -> Place {
        if self.ctx.store.is_in_memory() {
            Place::Memory { leftover: !self.ctx.store.leftovers(&self.token).is_empty() }
        } else {
            Place::Secret
        }
    }

    /// The Secret of the spec holds the token that was kept in memory.
    pub(super) fn leave_memory(&self) -> bool {
        let leaves = !self.ctx.store.is_in_memory() && self.ctx.store.kept(&self.token).is_some();
        if leaves {
            self.ctx.store.forget(&self.key);
            tracing::info!("the token is in its Secret, and in memory no longer");
        }
        leaves
    }

    /// When to try again to empty a Secret, and why that was not possible.
    pub(super) fn refused_emptying(&self, now: Timestamp) -> Option<(Timestamp, Trouble)> {
        let refused = self.ctx.store.refused(&self.token).filter(|_| self.ctx.store.is_in_memory())?;
        let left = refused.until.saturating_sub(self.ctx.clock.elapsed());
        let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
        Some((now.saturating_add(left).unwrap_or(Timestamp::MAX), refused.trouble))
    }

    /// A token that a Secret holds is used to its end.
    async fn take_over(&self) -> Result<(), ApiError> {
        if self.token.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let names = [Some(self.token.secret_name()), self.token.former_secret_name()];
        let (mut found, mut leftovers) = (Vec::new(), Vec::new());
        for name in names {
            let secret = match name {
                Some(name) => self.ctx.cluster.secret(&self.key.beside(name)).await?,
                None => None,
            };
            let judged = self.judge_stored(secret.as_ref());
            if judged.stored.is_ours() {
                leftovers.extend(name.map(str::to_owned));
            }
            found.push((secret, judged));
        }
        let (former, present) = (found.pop(), found.pop());
        let Some((present, judged)) = present else { return Ok(()) };
        let (former, old) = former.unzip();
        let (judged, moving) = choose(judged, old, self.ctx.clock.now());
        let secret = if moving { former.flatten() } else { present };
        let Some(secret) = secret.filter(|_| judged.stored.is_ours()) else { return Ok(()) };
        self.ctx.store.take(&self.token, for_memory(&self.token, &secret), leftovers);
        Ok(())
    }

    /// Takes the token out of the Secrets that it was taken from. It is used whether that succeeds or not.
    async fn empty_leftovers(&self) -> Result<(), ApiError> {
        let waits = self.ctx.store.refused(&self.token).is_some_and(|no| self.ctx.clock.elapsed() < no.until);
        if waits || self.token.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for name in self.ctx.store.leftovers(&self.token) {
            let secret = self.ctx.cluster.secret(&self.key.beside(name.as_str())).await?;
            let ours = secret.as_ref().filter(|secret| self.judge_stored(Some(secret)).stored.is_ours());
            let written = match ours.and_then(|secret| emptied(&self.token, secret)) {
                Some(secret) => self.ctx.cluster.write_secret(secret, false).await.map(drop),
                None => Ok(()),
            };
            match written {
                Ok(()) | Err(ApiError::NotFound { .. } | ApiError::Terminating { .. }) => {
                    self.ctx.store.emptied(&self.token, &name);
                    tracing::info!(secret = name, "the token is in memory, and in its Secret no longer");
                }
                Err(error @ (ApiError::Conflict { .. } | ApiError::Unavailable { .. })) => return Err(error),
                Err(ApiError::Forbidden { call, message }) => {
                    self.note_refusal(Reason::Forbidden, &name, call, &message);
                }
                Err(ApiError::Refused { call, message }) => {
                    self.note_refusal(Reason::WriteRefused, &name, call, &message);
                }
            }
        }
        Ok(())
    }

    fn note_refusal(&self, reason: Reason, name: &str, call: &str, message: &str) {
        let message = format!(
            "the token is kept in memory, but Secret {name} could not be emptied of it; {call}: {message}; empty or delete it"
        );
        tracing::warn!(reason = reason.as_str(), "{message}");
        self.ctx.memory.with(&self.key, |entry| entry.logged = Some(reason));
        let count = self.ctx.store.refused(&self.token).map_or(0, |refused| refused.count);
        let wait = (FIRST_WAIT << count.min(10)).min(LAST_WAIT);
        let until = self.ctx.clock.elapsed().saturating_add(Duration::from_secs(wait.unsigned_abs()));
        let refused = Refused { trouble: Trouble::new(reason, message), count: count.saturating_add(1), until };
        self.ctx.store.refuse(&self.token, refused);
    }

    /// What a Secret of the cluster holds.
    fn judge_stored(&self, secret: Option<&Secret>) -> Judged {
        let label = secret.and_then(|secret| secret.labels().get(TOKEN_LABEL)).map(String::as_str);
        judge(&self.token, secret, None, false, &self.ctx.rivals.neighbours(&self.key, self.token.secret_name(), label))
    }
}
