//! Where a token comes from: the Secret, read live, or the memory of this process while the Secret cannot be written.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::TokenApi;
use super::problem::Problem;
use crate::api::{TOKEN_LABEL, VerteilToken};
use crate::cluster::{ApiError, Tokens};
use crate::decide::Reason;
use crate::memory::Key;
use crate::reconcile::Context;
use crate::resources::reason;
use crate::secret::{Neighbours, judge};
use crate::token::Record;
use axum::http::StatusCode;

/// In how many seconds to ask again for a token that is not there yet.
pub(super) const SOON: u64 = 5;

/// The record of the Secret; none if there is none that counts.
pub(super) type Stored = Result<Option<Record>, ApiError>;

// === impl TokenApi ===

impl TokenApi {
    /// The token of `key`, if it holds at the moment; or what a caller who may have it is told instead.
    pub(super) async fn look(&self, key: &Key) -> Result<Record, Problem> {
        let Some(object) = self.resources.get(key) else { return Err(self.missing(key)) };
        let token = readable(&object)?;
        let stored = self.reads.share(key, stored(&self.context, token)).await;
        let found = match (&*stored, self.unsaved(key, token)) {
            (Ok(Some(stored)), Some(unsaved)) => Some(later(stored.clone(), unsaved)),
            (Ok(stored), unsaved) => unsaved.or_else(|| stored.clone()),
            (Err(_), Some(unsaved)) => Some(unsaved),
            (Err(error), None) => {
                tracing::debug!(namespace = &*key.namespace, name = &*key.name, %error, "the token API could not read a Secret");
                let detail = "the Secret that holds the token cannot be read at the moment";
                return Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail));
            }
        };
        let reason = token.status.as_ref().and_then(reason).filter(|reason| *reason != Reason::TokenValid);
        let unavailable = |detail: String| {
            let problem = Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail);
            reason.map_or_else(|| problem.clone(), |reason| problem.clone().because(reason.as_str()))
        };
        match found {
            Some(record) if record.validity().holds_at(self.context.clock.now()) => Ok(record),
            Some(record) => {
                Err(unavailable(format!("the token of {key} has expired, at {}", record.validity().expires_at)))
            }
            None => Err(unavailable(format!("there is no token of {key} yet"))),
        }
    }

    /// A token that this process was given for this very resource, and that no Secret is known to hold. That of an earlier one of
    /// the same name, who may have been somebody else, is given only once it is stored for this one.
    fn unsaved(&self, key: &Key, token: &VerteilToken) -> Option<Record> {
        self.context.memory.peek(key, |entry| {
            let issued = entry.issued.as_ref().filter(|issued| !entry.saved && issued.owner == token.metadata.uid)?;
            Some(issued.content.record.clone())
        })?
    }

    /// Told only to who may have the token of that name.
    fn missing(&self, key: &Key) -> Problem {
        if self.resources.are_listed(Some(&key.namespace)) {
            let detail = format!("there is no VerteilToken {key} in the namespaces that this operator watches");
            Problem::new(StatusCode::NOT_FOUND, detail)
        } else {
            Problem::later(StatusCode::SERVICE_UNAVAILABLE, 1, "the VerteilTokens are not listed yet")
        }
    }
}

fn readable(object: &Tokens) -> Result<&VerteilToken, Problem> {
    object.get().map_err(|_| {
        let detail = "the VerteilToken cannot be read: its spec is not of the expected form";
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, SOON, detail).because("Undecodable")
    })
}

/// What the Secret of `token` holds, live; until it is written, that of the name that the spec had before. What is kept in memory
/// needs no read, if nothing may be written, and is yet to be written else.
async fn stored(ctx: &Context, token: &VerteilToken) -> Stored {
    let kept = ctx.store.kept(token).and_then(|secret| record(token, Some(&secret), &Neighbours::default()));
    if ctx.store.is_in_memory() && kept.is_some() {
        return Ok(kept);
    }
    let present = read(ctx, token, token.secret_name()).await?;
    let former = match token.former_secret_name() {
        Some(former) => read(ctx, token, former).await?,
        None => None,
    };
    Ok([kept, present, former].into_iter().flatten().reduce(later))
}

/// Only a Secret that is this resource's counts.
async fn read(ctx: &Context, token: &VerteilToken, name: &str) -> Stored {
    let key = Key::of(token);
    let secret = ctx.cluster.secret(&key.beside(name)).await?;
    let label = secret.as_ref().and_then(|secret| secret.labels().get(TOKEN_LABEL)).map(String::as_str);
    Ok(record(token, secret.as_ref(), &ctx.rivals.neighbours(&key, token.secret_name(), label)))
}

fn record(token: &VerteilToken, secret: Option<&Secret>, neighbours: &Neighbours) -> Option<Record> {
    judge(token, secret, None, false, neighbours).content.map(|content| content.record)
}

/// The one that was asked for later; of equals the first.
fn later(one: Record, other: Record) -> Record {
    if other.validity().issued_at > one.validity().issued_at { other } else { one }
}
