//! Looking: what is read, and what it means.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use url::Url;

use super::Pass;
use super::authority::Authority;
use super::line::is_new;
use super::pace::Change;
use super::unsaved::unsaved;
use crate::api::{ObjectVersion, RENEW_ANNOTATION, TOKEN_LABEL, VerteilTokenStatus};
use crate::cluster::{ApiError, version};
use crate::credentials::{check_issuer, read_inputs};
use crate::decide::{FailureClass, Held, HeldFacts, Pace, Reason, Stored, Trouble, Unsaved, Wanted};
use crate::memory::Issued;
use crate::secret::{Judged, Neighbours, TemplateError, check_templates, judge, render_templates};
use crate::token::{Inputs, renewal_point};

/// What was read.
pub(super) struct Fetched {
    /// The inputs, with the version of the Secret that holds the credentials; or why there are none.
    pub(super) inputs: Result<Inputs, Trouble>,
    pub(super) credentials: Option<ObjectVersion>,
    /// The token endpoint, or why it may not be asked.
    pub(super) issuer: Result<Url, Trouble>,
    /// Whom to trust as the token endpoint.
    pub(super) authority: Authority,
    /// The token Secret.
    pub(super) secret: Option<Secret>,
    /// The Secret of the name that the spec had before, until it is left for good.
    pub(super) former: Option<Secret>,
    /// It was not read: the dry run that precedes a request will show.
    pub(super) assumed_absent: bool,
}

/// What it means.
pub(super) struct View {
    pub(super) now: Timestamp,
    pub(super) wanted: Wanted,
    pub(super) judged: Judged,
    /// The record was found in the former Secret, and the one that the spec names is yet to be written from it.
    pub(super) moving: bool,
    /// The former Secret is there, and ours to mark as left behind.
    pub(super) leaves_former: bool,
    pub(super) unsaved: Option<Unsaved>,
    pub(super) pace: Pace,
    /// What has changed since the last attempt, or since this resource was held.
    pub(super) change: Change,
    /// What keeps a request from being sent, in words; or a template that the stored token's values do not suit, which does not.
    pub(super) obstacle: Option<Trouble>,
}

// === impl View ===

impl View {
    /// The end of the stored token.
    pub(super) fn held_until(&self) -> Option<Timestamp> {
        let Stored::Held(held) = &self.judged.stored else { return None };
        Some(held.validity.expires_at)
    }

    /// What the stored token means for the status.
    pub(super) fn held_facts(&self) -> Option<HeldFacts> {
        let Stored::Held(held) = &self.judged.stored else { return None };
        let renewal = renewal_point(held.validity, self.wanted.renew_before, &held.seal, self.wanted.issuer_repeats);
        let in_place = !self.moving;
        Some(HeldFacts { validity: held.validity, seal: held.seal.clone(), renewal, current: held.current, in_place })
    }
}

// === impl Pass ===

impl Pass<'_> {
    /// Reads the credentials, and the token Secret unless nothing suggests that there is one.
    pub(super) async fn fetch(&self) -> Result<Fetched, ApiError> {
        let status = self.token.status.as_ref();
        let new = !self.ctx.store.is_in_memory() && status.is_none_or(is_new);
        self.fetch_by(new).await
    }

    /// Reads both.
    pub(super) async fn fetch_all(&self) -> Result<Fetched, ApiError> {
        self.fetch_by(false).await
    }

    async fn fetch_by(&self, assumed_absent: bool) -> Result<Fetched, ApiError> {
        let spec = &self.token.spec;
        let credentials_key = self.key.beside(spec.credentials_secret_ref.name.as_str());
        let credentials = self.ctx.cluster.data(&credentials_key).await?;
        let credentials = credentials.as_deref();
        self.ctx.versions.note(&credentials_key, credentials.map(|s| &s.metadata));
        let authority = self.fetch_authority(credentials).await?;
        let secret = if assumed_absent { None } else { self.fetch_secret().await? };
        let former = self.fetch_former_secret().await?;
        Ok(Fetched {
            inputs: read_inputs(spec, credentials),
            credentials: credentials.and_then(|s| version(&s.metadata)),
            issuer: check_issuer(&spec.token_url, self.ctx.allow_http, &self.ctx.allowed_hosts),
            authority,
            secret,
            former,
            assumed_absent,
        })
    }

    /// Reads the resource, live. False if it is gone, or another one has taken its name.
    pub(super) async fn reload(&mut self) -> Result<bool, ApiError> {
        match self.ctx.cluster.token(&self.key).await? {
            Some(token) if token.uid() == self.token.uid() => {
                self.token = token;
                self.confirmed = true;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// What was read means this, now.
    pub(super) fn view(&self, fetched: &Fetched) -> View {
        let (token, ctx) = (&self.token, self.ctx);
        let now = ctx.clock.now();
        let blank = VerteilTokenStatus::default();
        let status = token.status.as_ref().unwrap_or(&blank);
        let verified = status.verified.as_ref().is_some_and(|v| {
            Some(v.generation) == token.metadata.generation && Some(&v.credentials) == fetched.credentials.as_ref()
        });
        let inputs = fetched.inputs.as_ref().ok();
        let judge = |secret: Option<&Secret>| {
            let label = secret.and_then(|secret| secret.labels().get(TOKEN_LABEL));
            // In memory each has a place of its own.
            let neighbours = || ctx.rivals.neighbours(&self.key, token.secret_name(), label.map(String::as_str));
            let rivals = if ctx.store.is_in_memory() { Neighbours::default() } else { neighbours() };
            judge(token, secret, inputs, verified, &rivals)
        };
        let former = fetched.former.as_ref().map(|former| judge(Some(former)));
        let leaves_former = former.as_ref().is_some_and(|f| matches!(f.stored, Stored::Held(_) | Stored::Unusable));
        let (judged, moving) = choose(judge(fetched.secret.as_ref()), former, now);
        let obstacle = fetched
            .inputs
            .as_ref()
            .err()
            .cloned()
            .or_else(|| fetched.issuer.as_ref().err().cloned())
            .or_else(|| fetched.authority.bundle.as_ref().err().cloned())
            .or_else(|| check_templates(token).err().as_ref().map(template_trouble))
            .or_else(|| immutable(fetched.secret.as_ref()).filter(|_| judged.stored.is_ours()));
        self.restore_hold(fetched, now);
        let wish = token.annotations().get(RENEW_ANNOTATION);
        let served = judged.content.as_ref().and_then(|content| content.renewed.as_ref());
        let wanted = Wanted {
            deleting: token.metadata.deletion_timestamp.is_some(),
            suspended: token.spec.suspend,
            renew_before: token.spec.renew_before.signed(),
            issuer_repeats: self.issuer_repeats(status),
            renew_pending: wish.is_some() && wish != served,
            obstacle: obstacle.as_ref().map(|trouble| trouble.reason),
        };
        let (unsaved, (pace, change)) = ctx.memory.with(&self.key, |entry| {
            let own = |issued: &Issued| issued.owner == token.metadata.uid;
            let unsaved =
                entry.issued.as_deref().and_then(|issued| unsaved(issued, own(issued), &judged, inputs, wish));
            (unsaved, self.pace(entry, status, fetched, now))
        });
        let unrendered =
            || render_templates(token, &judged.content.as_ref()?.record).failed.as_ref().map(template_trouble);
        let obstacle = obstacle.or_else(unrendered).or_else(|| self.refused_emptying(now).map(|(_, trouble)| trouble));
        View { now, wanted, judged, moving, leaves_former, unsaved, pace, change, obstacle }
    }

    /// Whether this token URL answers with the token it already gave: as the status remembers, or as the last answer showed.
    fn issuer_repeats(&self, status: &VerteilTokenStatus) -> bool {
        let remembered = status.issuer_repeats.as_ref() == Some(&self.token.spec.token_url);
        let end = status.expires_at.as_ref().map(|time| time.0);
        let shown = self.ctx.memory.peek(&self.key, |entry| {
            let issued = entry.issued.as_ref()?;
            // Another token before the old one's end: it does not repeat.
            let early = end.is_some_and(|end| issued.requested_at < end);
            if issued.repeated { Some(true) } else { early.then_some(false) }
        });
        shown.flatten().unwrap_or(remembered)
    }
}

/// What counts: the Secret that the spec names, or the record of the former one if that is all there is, or the later one. True:
/// the former one, from which the other is to be written.
pub(super) fn choose(present: Judged, former: Option<Judged>, now: Timestamp) -> (Judged, bool) {
    let Some(former) = former else { return (present, false) };
    let Stored::Held(old) = &former.stored else { return (present, false) };
    let serves = |held: &Held| held.current && held.validity.holds_at(now);
    let moves = match &present.stored {
        Stored::Absent { .. } | Stored::Unusable => true,
        Stored::Held(new) => serves(old) && (!serves(new) || old.validity.issued_at > new.validity.issued_at),
        Stored::Terminating | Stored::Foreign => false,
    };
    if !moves {
        return (present, false);
    }
    let stored = Stored::Held(Held { tidy: false, ..old.clone() });
    (Judged { stored, ..former }, true)
}

/// What an immutable Secret stands in the way of: it can only be deleted.
pub(super) fn immutable(secret: Option<&Secret>) -> Option<Trouble> {
    let secret = secret.filter(|secret| secret.immutable == Some(true))?;
    let name = secret.name_any();
    let message = format!("Secret {name} is immutable: delete it, or name another one in spec.secret.name");
    Some(Trouble::new(Reason::SecretImmutable, message))
}

fn template_trouble(error: &TemplateError) -> Trouble {
    Trouble::new(Reason::TemplateInvalid, error.to_string())
}

pub(super) fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

/// The longest that a wait for `reason` can be: what a status says is not believed beyond it.
pub(super) fn longest_wait(reason: Reason) -> SignedDuration {
    let class = FailureClass::ALL.into_iter().find(|class| Reason::from(*class) == reason);
    // Whole jitter on top.
    let wait = class.map_or(FailureClass::Refused.longest_wait(), FailureClass::longest_wait);
    SignedDuration::from_secs(wait.as_secs().saturating_mul(6) / 5)
}
