//! Writing the Secret: an unsaved token, or the stored record anew.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::look::{Fetched, View, immutable};
use super::report::forbidden;
use super::{Pass, Step};
use crate::api::ADOPTED_ANNOTATION;
use crate::cluster::{ApiError, Occurrence};
use crate::decide::{CLAIM_SLACK, Reason, SAVE_RESERVE, Standing, Trouble};
use crate::secret::{Content, annotation, build, is_adopted, would_add_owner};

/// Waits after refused writes of the Secret, in seconds: doubled from the first to the last.
const FIRST_WAIT: i64 = 5;
const LAST_WAIT: i64 = 120;

// === impl Pass ===

impl Pass<'_> {
    /// Writes the unsaved token.
    pub(super) async fn save(&mut self, fetched: &mut Fetched, view: &View) -> Result<Step, ApiError> {
        let issued = self.ctx.memory.peek(&self.key, |entry| entry.issued.clone()).flatten();
        let Some(issued) = issued else { return Ok(Step::LookAgain) };
        if let Some(step) = self.claim(view, |left| left >= SAVE_RESERVE).await? {
            return Ok(step);
        }
        let existed = fetched.secret.is_some();
        let secret = build(&self.token, fetched.secret.as_ref(), &issued.content);
        let names_owner = fetched.secret.as_ref().is_some_and(|existing| would_add_owner(existing, &secret));
        if names_owner && !self.may_name_owner().await? {
            return Ok(Step::LookAgain);
        }
        match self.write_secret(secret, false).await {
            Ok(written) => {
                self.count_write(if existed { "update" } else { "create" });
                self.tell_of_adoption(fetched, None);
                self.wrote(fetched, written);
                self.count_if_superseding(view, &issued);
                self.ctx.memory.with(&self.key, |entry| entry.saved = true);
                Ok(Step::Decide)
            }
            Err(error) => {
                let step = self.refused_write(error, fetched, view)?;
                self.keep_claim(view, &step).await?;
                Ok(step)
            }
        }
    }

    /// Writes the stored record anew: keys, labels, annotations and owner as they should be. It costs no token.
    pub(super) async fn repair(&mut self, fetched: &mut Fetched, view: &View) -> Result<Step, ApiError> {
        let Some(content) = &view.judged.content else { return Ok(Step::LookAgain) };
        if let Some(trouble) = immutable(fetched.secret.as_ref()) {
            return Ok(Step::Blocked { trouble, until: None });
        }
        let secret = build(&self.token, fetched.secret.as_ref(), content);
        let names_owner = fetched.secret.as_ref().is_none_or(|existing| would_add_owner(existing, &secret));
        if names_owner && !self.may_name_owner().await? {
            return Ok(Step::Rest);
        }
        match self.write_secret(secret, false).await {
            Ok(written) => {
                self.count_write("repair");
                tracing::info!("repaired the Secret from its own record");
                self.tell_of_adoption(fetched, Some(content));
                self.wrote(fetched, written);
                Ok(Step::Decide)
            }
            Err(error) => self.refused_write(error, fetched, view),
        }
    }

    /// An event for a Secret that was just taken over, with its token or without.
    fn tell_of_adoption(&self, before: &Fetched, imported: Option<&Content>) {
        let Some(secret) = before.secret.as_ref().filter(|secret| is_adopted(&self.token, secret)) else { return };
        if annotation(secret, ADOPTED_ANNOTATION).is_some() {
            return;
        }
        let name = self.token.secret_name();
        let note = match imported {
            Some(content) => {
                let end = content.record.validity().expires_at;
                format!("took over Secret {name} with its token, valid until {end}: no token is requested")
            }
            None => format!("took over Secret {name}"),
        };
        self.tell_of(Occurrence::SecretAdopted, &note);
    }

    fn wrote(&self, fetched: &mut Fetched, written: Secret) {
        self.ctx.memory.with(&self.key, |entry| entry.refused_writes = None);
        fetched.secret = Some(written);
    }

    /// A write of the Secret, or its dry run, did not succeed.
    pub(super) fn refused_write(&self, error: ApiError, fetched: &Fetched, view: &View) -> Result<Step, ApiError> {
        let immutable = immutable(fetched.secret.as_ref());
        let name = self.token.secret_name();
        let trouble = match error {
            ApiError::Conflict { .. } | ApiError::NotFound { .. } => return Ok(Step::LookAgain),
            ApiError::Terminating { .. } => return Ok(Step::Rest),
            ApiError::Unavailable { .. } => return Err(error),
            ApiError::Forbidden { call, message } => {
                Trouble::new(Reason::Forbidden, forbidden(&format!("{call} {name}: {message}")))
            }
            ApiError::Refused { call, message } => immutable.unwrap_or_else(|| {
                Trouble::new(Reason::WriteRefused, format!("the Secret cannot be written: {call} {name}: {message}"))
            }),
        };
        let until = self.ctx.memory.with(&self.key, |entry| {
            let refused = entry.refused_writes.as_deref().map_or(0, |(count, _)| *count);
            let wait = SignedDuration::from_secs((FIRST_WAIT << refused.min(10)).min(LAST_WAIT));
            let until = view.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
            let ends = self.ctx.clock.elapsed().saturating_add(Duration::try_from(wait).unwrap_or_default());
            entry.refused_writes = Some((refused.saturating_add(1), ends).into());
            entry.logged = Some(trouble.reason);
            until
        });
        tracing::warn!(reason = trouble.reason.as_str(), "{}", trouble.message);
        Ok(Step::Blocked { trouble, until: Some(until) })
    }

    /// While a token waits to be saved its claim is kept alive, so that nobody else requests one meanwhile.
    async fn keep_claim(&mut self, view: &View, step: &Step) -> Result<(), ApiError> {
        let Step::Blocked { trouble, until: Some(until) } = step else { return Ok(()) };
        let mut status = self.next(view, Standing::Troubled(trouble.clone()));
        let Some(claim) = &mut status.claim else { return Ok(()) };
        let wait = until.duration_since(view.now).as_secs().max(0);
        claim.id = self.ctx.new_claim_id();
        claim.started_at = Time(view.now);
        claim.seconds = wait.saturating_add(self.token.spec.timeout.as_secs()).saturating_add(CLAIM_SLACK);
        let own = self.own_claim(claim.id.clone(), claim.seconds);
        self.ctx.memory.with(&self.key, |entry| entry.claim = Some(own));
        match self.put_status(status).await {
            Ok(()) | Err(ApiError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
