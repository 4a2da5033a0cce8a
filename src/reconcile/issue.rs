//! One issuance, step by step. Each step's failure has one next step; none of them leads to a second request by itself.
//!
//! | step | fails with | next |
//! |---|---|---|
//! | permit of the host | none free | rest; the permit's release rings |
//! | live reads | anything | the pass fails, backoff 1 s to 30 s; nothing was spent |
//! | dry run of the Secret write | conflict | look again |
//! | | quota, admission, RBAC | blocked, backoff 5 s to 2 min; nothing was spent |
//! | claim | conflict | look again: somebody else was faster |
//! | | not in the answer | blocked: the installed CRD prunes it |
//! | | answer lost | the pass fails; the next one finds the claim its own, or makes it |
//! | Secret read again after a takeover | it has changed | look again: the former holder had saved its token |
//! | time left in the claim | too little | look again, which claims anew |
//! | request | any failure | recorded with its class; nothing is stored, the stored token stays |
//! | | crash | the claim stands; others wait it out, and count the token as possibly lost |
//! | token in memory | – | from here on every pass saves, none requests |
//! | write of the Secret | conflict | look again: save, or drop it for a later token |
//! | | refused, unavailable, answer lost | the token stays in memory, the write is tried again |
//! | | crash | as with the request |
//! | status | anything | the Secret tells the next pass all that it needs |
//!
//! What cannot be had: an issuer knows no fencing. A crash or a freeze between the request and the write of the Secret, or a
//! status that somebody wipes in between, may cost one token. It is counted as ambiguous.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::look::{Fetched, View};
use super::{Pass, Step};
use crate::api::{Claim, IssueReason, RENEW_ANNOTATION};
use crate::cluster::{ApiError, Severity, version};
use crate::credentials::{check_issuer, hint};
use crate::decide::{
    FailureClass, LAST_SECOND_DELAY, Reason, Standing, Stored, Trouble, claim_seconds, covers_request, jittered,
};
use crate::issuer::{Answer, Exchange, Failure, Priority, host_of, interpret};
use crate::memory::{Issued, OwnClaim};
use crate::secret::{Content, placeholder};
use crate::token::{InputSeal, Inputs, LifetimeSource, Record, RecordSeal};

/// A renewal with less life left than this goes before those that can wait, in seconds.
const URGENT: i64 = 120;
/// A first token without any life left is asked for anew so often.
const MOST_LIFELESS_ANSWERS: u32 = 3;

// === impl Pass ===

impl Pass<'_> {
    /// Requests a token and leaves it in memory.
    pub(super) async fn issue(
        &mut self,
        fetched: &mut Fetched,
        view: &View,
        reason: IssueReason,
        takeover: bool,
    ) -> Result<Step, ApiError> {
        let Ok(inputs) = fetched.inputs.clone() else { return Ok(Step::LookAgain) };
        let spec = self.token.spec.clone();
        let exchange =
            match check_issuer(&spec.token_url, self.ctx.allow_http, &self.ctx.allowed_hosts).and_then(|_| {
                Exchange::new(&spec, &inputs).map_err(|e| Trouble::new(Reason::IssuerNotAllowed, e.to_string()))
            }) {
                Ok(exchange) => exchange,
                Err(trouble) => return Ok(Step::Blocked { trouble, until: None }),
            };
        let priority = priority(view);
        let Some(_permit) = self.ctx.permits.obtain(&host_of(&exchange.url), &self.key, priority) else {
            return Ok(Step::Queued);
        };
        if let Some(step) = self.dry_run(fetched, view).await? {
            return Ok(step);
        }
        let timeout = spec.timeout.signed();
        if let Some(step) = self.claim(view, |left| covers_request(left, timeout)).await? {
            return Ok(step);
        }
        if takeover {
            let secret = self.fetch_secret().await?;
            let read = |secret: &Option<Secret>| secret.as_ref().and_then(|s| version(&s.metadata));
            if read(&secret) != read(&fetched.secret) {
                return Ok(Step::LookAgain);
            }
        }
        let covered = self.claim_left().is_some_and(|left| covers_request(left, timeout));
        if !covered || !*self.ctx.leading.borrow() {
            return Ok(Step::LookAgain);
        }
        if takeover {
            self.say_ambiguous("a request of a process that did not finish it may have cost a token");
        }
        self.request(fetched, view, &inputs, &exchange, reason).await
    }

    async fn request(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        exchange: &Exchange,
        reason: IssueReason,
    ) -> Result<Step, ApiError> {
        let requested_at = self.ctx.clock.now();
        let started = self.ctx.clock.elapsed();
        self.ctx.memory.with(&self.key, |entry| entry.last_request = Some(started));
        tracing::info!(reason = reason.as_str(), "requesting token");
        let answer = match self.ctx.issuer.send(exchange).await {
            Ok(raw) => interpret(&raw, inputs, requested_at),
            Err(failure) => Err(failure),
        };
        let took = self.ctx.clock.elapsed().saturating_sub(started);
        match answer {
            Ok(answer) => {
                self.ctx.metrics.answered(took);
                self.keep(fetched, view, inputs, answer, requested_at, reason).await
            }
            Err(failure) => {
                self.ctx.metrics.failed(failure.class, took);
                self.record_failure(fetched, view, inputs, failure).await
            }
        }
    }

    /// The answer's token goes into memory.
    async fn keep(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        answer: Answer,
        requested_at: Timestamp,
        reason: IssueReason,
    ) -> Result<Step, ApiError> {
        let stored = view.judged.content.as_ref().map(|content| &content.record);
        let same = stored.filter(|record| record.access_token().is_same(&answer.access_token));
        let repeated = same.is_some() || view.judged.seen.iter().any(|token| token.is_same(&answer.access_token));
        if answer.lifetime.seconds <= 0 {
            return self.lifeless(fetched, view, inputs, repeated).await;
        }
        if answer.lifetime.source == LifetimeSource::Assumed && !repeated {
            self.say(
                Severity::Warning,
                "LifetimeAssumed",
                "RequestToken",
                "the issuer does not say how long the token lives: an hour is assumed",
            );
        }
        if !answer.token_type.eq_ignore_ascii_case("Bearer") {
            tracing::warn!("the issuer gave a token of another type than Bearer");
        }
        let now = self.ctx.clock.now();
        let fresh = Record::new(answer.access_token, answer.token_type, answer.lifetime.seconds, requested_at, now);
        let record = match (same, fresh) {
            (Some(record), Ok(fresh)) => record.extended_to(fresh.validity().expires_at),
            (None, Ok(fresh)) => fresh,
            (_, Err(error)) => {
                let failure = Failure::new(FailureClass::Answer, format!("the issuer's answer is unusable: {error}"));
                return self.record_failure(fetched, view, inputs, failure).await;
            }
        };
        if repeated {
            self.ctx.metrics.unchanged();
        } else {
            self.ctx.metrics.issued(reason);
            let expires_in_seconds = record.validity().expires_at.as_second().saturating_sub(now.as_second());
            let expires_in_hours = expires_in_seconds / 3600;
            tracing::info!(
                reason = reason.as_str(),
                expires_in_seconds,
                expires_in_hours,
                "Successfully obtained new token. Expires in {expires_in_seconds} seconds ({expires_in_hours} hours)"
            );
        }
        let served = view.judged.content.as_ref().and_then(|content| content.renewed.as_ref());
        let content = Content {
            record_seal: RecordSeal::of(&record).as_str().to_owned(),
            input_seal: Some(InputSeal::of(inputs, record.access_token()).as_str().to_owned()),
            renewed: self.token.annotations().get(RENEW_ANNOTATION).cloned().or_else(|| served.cloned()),
            record,
        };
        let replaces = view.held_facts().map(|held| held.seal);
        let trouble = view.judged.trouble.clone();
        let issued = Issued { content, reason, repeated, trouble, requested_at, replaces };
        self.ctx.memory.with(&self.key, |entry| {
            entry.issued = Some(issued.into());
            entry.lifeless_answers = 0;
            entry.not_before = None;
            entry.attempted = None;
        });
        self.count_unsaved();
        Ok(Step::Decide)
    }

    /// A token in its last second: the stored one is about to be replaced, a first one should not be like that.
    async fn lifeless(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        repeated: bool,
    ) -> Result<Step, ApiError> {
        let until = after(self.ctx.clock.elapsed(), LAST_SECOND_DELAY);
        let answers = self.ctx.memory.with(&self.key, |entry| {
            entry.lifeless_answers = entry.lifeless_answers.saturating_add(1);
            entry.lifeless_answers
        });
        if repeated {
            self.ctx.metrics.unchanged();
        } else if answers > MOST_LIFELESS_ANSWERS {
            let failure = Failure {
                ambiguous: true,
                ..Failure::new(FailureClass::Answer, "the issuer answers with tokens that have no life left")
            };
            return self.record_failure(fetched, view, inputs, failure).await;
        }
        self.ctx.memory.with(&self.key, |entry| entry.not_before = Some(until));
        let standing = Standing::Progressing(Trouble::new(
            Reason::Issuing,
            "the issuer answered with a token in its last second and is asked again for its successor",
        ));
        let mut status = self.next(view, standing);
        status.claim = None;
        if repeated {
            status.issuer_repeats = Some(self.token.spec.token_url.clone());
        }
        self.put_status(status).await?;
        Ok(Step::LookAgain)
    }

    /// A failed request: nothing is stored but when the next one may go out.
    async fn record_failure(
        &mut self,
        fetched: &Fetched,
        view: &View,
        inputs: &Inputs,
        failure: Failure,
    ) -> Result<Step, ApiError> {
        let now = self.ctx.clock.now();
        let before = self.token.status.clone().unwrap_or_default();
        let told = Trouble::told_by(&before).map(|trouble| trouble.reason);
        let trouble = Trouble::new(
            Reason::from(failure.class),
            match failure.class {
                FailureClass::Refused => failure.message.clone() + &hint(&self.token.spec, inputs),
                FailureClass::Unreached
                | FailureClass::Unavailable
                | FailureClass::RateLimited
                | FailureClass::Unanswered
                | FailureClass::Answer => failure.message.clone(),
            },
        );
        // A class with waits of hours begins at its own beginning.
        let begins =
            matches!(failure.class, FailureClass::Refused | FailureClass::Answer) && told != Some(trouble.reason);
        let before = before.failed_attempts.and_then(|n| u32::try_from(n).ok()).filter(|_| !begins);
        let failures = before.unwrap_or_default().saturating_add(1);
        let wait = jittered(failure.class.wait(failures, failure.retry_after), self.spread(now));
        let until = whole_second_after(now, wait);
        self.ctx.memory.with(&self.key, |entry| {
            entry.not_before = Some(after(self.ctx.clock.elapsed(), wait));
            entry.attempted = self.attempt(fetched);
        });
        tracing::warn!(reason = trouble.reason.as_str(), failures, next_attempt = %until, "token request failed: {}", trouble.message);
        if failure.ambiguous {
            self.say_ambiguous(&trouble.message);
        }
        for _ in 0..3 {
            let mut status = self.next(view, Standing::Troubled(trouble.clone()));
            status.claim = None;
            status.failed_attempts = Some(i64::from(failures));
            status.last_failure_time = Some(Time(now));
            status.next_attempt_time = Some(Time(until));
            status.attempted = self.attempted(fetched);
            match self.put_status(status).await {
                Ok(()) => break,
                Err(ApiError::Conflict { .. }) if self.reload().await? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Step::Decide)
    }

    /// Whether the apiserver would take the Secret: quota, admission and RBAC refuse before a token is spent.
    async fn dry_run(&mut self, fetched: &mut Fetched, view: &View) -> Result<Option<Step>, ApiError> {
        let secret = placeholder(&self.token, fetched.secret.as_ref());
        match self.ctx.cluster.write_secret(&secret, true).await {
            Ok(_) => {
                fetched.assumed_absent = false;
                Ok(None)
            }
            Err(error) => self.refused_write(error, fetched, view).map(Some),
        }
    }

    /// Makes sure that the claim is ours and long enough. None if it is.
    pub(super) async fn claim(
        &mut self,
        view: &View,
        enough: impl Fn(Duration) -> bool,
    ) -> Result<Option<Step>, ApiError> {
        if self.claim_left().is_some_and(&enough) {
            return Ok(None);
        }
        let id = self.ctx.new_claim_id();
        let seconds = claim_seconds(self.token.spec.timeout.signed());
        let own = OwnClaim {
            id: id.clone(),
            taken: self.ctx.clock.elapsed(),
            lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        };
        let issuing = Trouble::new(Reason::Issuing, "a token is being requested");
        let mut status = self.next(view, Standing::Progressing(issuing));
        status.claim = Some(Claim {
            id: id.clone(),
            holder: self.ctx.identity.to_string(),
            started_at: Time(self.ctx.clock.now()),
            seconds,
        });
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

    /// What is left of the claim in the status, if it is ours.
    pub(super) fn claim_left(&self) -> Option<Duration> {
        let claim = self.token.status.as_ref()?.claim.as_ref()?;
        let elapsed = self.ctx.clock.elapsed();
        self.ctx.memory.peek(&self.key, |entry| {
            entry.claim.as_ref().filter(|own| own.id == claim.id).map(|own| own.left(elapsed))
        })?
    }

    fn say_ambiguous(&self, why: &str) {
        self.ctx.metrics.ambiguous();
        self.say(Severity::Warning, "AmbiguousGeneration", "RequestToken", why);
    }

    /// A number for jitter, from what is at hand.
    fn spread(&self, now: Timestamp) -> u32 {
        let seed = self.token.uid().unwrap_or_default();
        seed.bytes().fold(now.subsec_nanosecond().unsigned_abs(), |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b)))
    }
}

fn priority(view: &View) -> Priority {
    let Stored::Held(held) = &view.judged.stored else { return Priority::Urgent };
    let left = held.validity.expires_at.as_second().saturating_sub(view.now.as_second());
    if left < URGENT { Priority::Urgent } else { Priority::Renewal }
}

/// The end of a wait, by the clock that nobody sets.
fn after(elapsed: Duration, wait: SignedDuration) -> Duration {
    elapsed.saturating_add(Duration::try_from(wait).unwrap_or_default())
}

/// The end of a wait, in whole seconds as the status holds it; never earlier.
fn whole_second_after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    let end = now.as_second().saturating_add(wait.as_secs()).saturating_add(1);
    Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
}
