//! One issuance, step by step. Each step's failure has one next step; none of them leads to a second request by itself.
//!
//! | step | fails with | next |
//! |---|---|---|
//! | permit of the host | none free | rest; the permit's release rings |
//! | live reads | anything | the pass fails, backoff 1 s to 30 s; nothing was spent |
//! | limits of the account | it was told to wait | blocked until then; told in the status |
//! | | another resource asks first | rest; its verdict rings |
//! | dry run of the Secret write | conflict | look again |
//! | | quota, admission, RBAC | blocked, backoff 5 s to 2 min; nothing was spent |
//! | claim | conflict | look again: somebody else was faster |
//! | | not in the answer | blocked: the installed CRD prunes it |
//! | | answer lost | the pass fails; the next one finds the claim its own, or makes it |
//! | Secret read again after a takeover | it has changed | look again: the former holder had saved its token |
//! | time left in the claim | too little | look again, which claims anew |
//! | right to send | leadership lost by the clock, or shutdown | the claim is given back; the leader asks |
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

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::line::priority;
use super::look::{Fetched, View};
use super::report::UNFINISHED;
use super::{Pass, Step};
use crate::api::{IssueReason, RENEW_ANNOTATION};
use crate::cluster::{ApiError, Occurrence, version};
use crate::decide::{FailureClass, covers_request};
use crate::issuer::{Answer, Exchange, Failure, Turn, host_of, interpret};
use crate::memory::{Entry, Issued, OwnClaim};
use crate::secret::{Content, placeholder};
use crate::token::{InputSeal, Inputs, JwtTimes, LifetimeSource, Record, RecordSeal};

/// A request that is about to be sent.
struct Due<'a> {
    inputs: &'a Inputs,
    exchange: &'a Exchange,
    reason: IssueReason,
    claim: Option<OwnClaim>,
    turn: Turn,
}

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
        if !self.ctx.may_request() {
            return Ok(Step::Rest);
        }
        let (Ok(inputs), Ok(ca)) = (fetched.inputs.clone(), fetched.authority.bundle.clone()) else {
            return Ok(Step::LookAgain);
        };
        let spec = &self.token.spec;
        let timeout = spec.timeout.signed();
        let url = match &fetched.issuer {
            Ok(url) => url.clone(),
            Err(trouble) => return Ok(Step::Blocked { trouble: trouble.clone(), until: None }),
        };
        let (host, exchange) = (host_of(&url), Exchange::new(url, spec, &inputs, ca));
        let account = self.ctx.process_key.account(&host, inputs.username());
        if let Some(step) = self.account_hold(view, account) {
            // No dry run follows that would show whether there is a Secret.
            return Ok(if fetched.assumed_absent { Step::LookAgain } else { step });
        }
        let priority = priority(view.held_until(), view.now);
        let Some(_permit) = self.ctx.permits.obtain(&host, &self.key, priority) else {
            return Ok(Step::Queued);
        };
        // Another resource may name the Secret that is not there yet.
        let writes = fetched.secret.is_none() && !self.ctx.store.is_in_memory();
        if writes && !self.ctx.rivals.begin(&self.key, self.token.secret_name()) {
            return Ok(Step::Decide);
        }
        if let Some(step) = self.dry_run(fetched, view).await? {
            return Ok(step);
        }
        let turn = match self.turn(view, account) {
            Ok(turn) => turn,
            Err(step) => return Ok(step),
        };
        if takeover {
            // Remembered until a request follows, since the answer to the claim may be lost.
            self.ctx.memory.with(&self.key, |entry| entry.taking_over = true);
        }
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
        // The former holder's claim is gone, and its token is not in the Secret: from here on nobody else can know.
        if self.ctx.memory.with(&self.key, Entry::ends_takeover) {
            self.say_ambiguous(UNFINISHED);
        }
        let covered = self.claim_left().is_some_and(|left| covers_request(left, timeout));
        if !covered {
            return Ok(Step::LookAgain);
        }
        if !self.ctx.may_request() {
            return self.stand_back().await;
        }
        let claim = self.ctx.memory.peek(&self.key, |entry| entry.claim.clone()).flatten();
        self.request(fetched, view, Due { inputs: &inputs, exchange: &exchange, reason, claim, turn }).await
    }

    async fn request(&mut self, fetched: &Fetched, view: &View, due: Due<'_>) -> Result<Step, ApiError> {
        let requested_at = self.ctx.clock.now();
        let started = self.ctx.clock.elapsed();
        self.ctx.memory.with(&self.key, |entry| entry.last_request = Some(started));
        tracing::info!(reason = due.reason.as_str(), "requesting token");
        let answer = match self.ctx.issuer.send(due.exchange).await {
            Ok(raw) => {
                self.note_clock(&raw, requested_at);
                interpret(&raw, due.inputs, requested_at)
            }
            Err(failure) => Err(failure),
        };
        self.note_reach(due.exchange, answer.as_ref());
        let took = self.ctx.clock.elapsed().saturating_sub(started);
        match answer {
            Ok(answer) => {
                self.ctx.metrics.answered(requested_at, took);
                self.keep(fetched, view, due, answer, requested_at).await
            }
            Err(failure) => {
                self.ctx.metrics.failed(failure.class, requested_at, took);
                let turn = match failure.class {
                    FailureClass::Unreached | FailureClass::Unanswered => {
                        due.turn.unheard();
                        None
                    }
                    FailureClass::RateLimited | FailureClass::Unavailable if failure.holds_account() => Some(due.turn),
                    FailureClass::RateLimited
                    | FailureClass::Unavailable
                    | FailureClass::Answer
                    | FailureClass::Refused => {
                        due.turn.opened();
                        None
                    }
                };
                self.record_failure(fetched, view, due.inputs, failure, turn).await
            }
        }
    }

    /// The answer's token goes into memory.
    async fn keep(
        &mut self,
        fetched: &Fetched,
        view: &View,
        due: Due<'_>,
        answer: Answer,
        requested_at: Timestamp,
    ) -> Result<Step, ApiError> {
        let Due { inputs, reason, claim, turn, exchange: _ } = due;
        turn.opened();
        let stored = view.judged.content.as_ref().map(|content| &content.record);
        let same = stored.filter(|record| record.access_token().is_same(&answer.access_token));
        let repeated = same.is_some() || view.judged.seen.iter().any(|token| token.is_same(&answer.access_token));
        let lifetime = same.map_or(answer.lifetime, |record| {
            let jwt = JwtTimes::of(answer.access_token.expose());
            answer.lifetime.of_repeated(record.validity().expires_at, jwt, requested_at)
        });
        if repeated {
            self.ctx.metrics.unchanged();
        }
        if let Some(step) = self.ended(fetched, view, inputs, lifetime, repeated).await? {
            return Ok(step);
        }
        if answer.lifetime.source == LifetimeSource::Assumed && !repeated {
            let note = "the issuer does not say how long the token lives: an hour is assumed";
            self.tell_of(Occurrence::LifetimeAssumed, note);
        }
        if !answer.token_type.eq_ignore_ascii_case("Bearer") {
            tracing::warn!("the issuer gave a token of another type than Bearer");
        }
        let now = self.ctx.clock.now();
        let fresh = Record::new(answer.access_token, answer.token_type, lifetime.seconds, requested_at, now);
        let record = match (same, fresh) {
            (Some(record), Ok(fresh)) => record.extended_to(fresh.validity().expires_at),
            (None, Ok(fresh)) => fresh,
            (_, Err(error)) => {
                let failure = Failure::new(FailureClass::Answer, format!("the issuer's answer is unusable: {error}"));
                return self.record_failure(fetched, view, inputs, failure, None).await;
            }
        };
        if !repeated {
            self.ctx.metrics.issued(reason, now);
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
        self.ctx.memory.with(&self.key, |entry| {
            let counted = std::mem::take(&mut entry.took_over);
            let owner = self.token.metadata.uid.clone();
            let issued = Issued { owner, content, reason, repeated, trouble, requested_at, replaces, counted, claim };
            // A repeated token is this process's own only if it was given it the first time too.
            if !repeated || entry.given.is_some() && entry.given == issued.replaces {
                entry.given = Some(RecordSeal::of(&issued.content.record));
            }
            entry.issued = Some(issued.into());
            entry.last_issue = entry.last_request;
            entry.saved = false;
            entry.untold = None;
            entry.not_before = None;
            entry.attempted = None;
            entry.reachable = false;
        });
        self.ctx.count_unsaved();
        self.ctx.wakes.ring(&self.key);
        Ok(Step::Decide)
    }

    /// Whether the apiserver would take the Secret: quota, admission and RBAC refuse before a token is spent.
    async fn dry_run(&mut self, fetched: &mut Fetched, view: &View) -> Result<Option<Step>, ApiError> {
        let secret = placeholder(&self.token, fetched.secret.as_ref());
        match self.write_secret(secret, true).await {
            Ok(_) => {
                fetched.assumed_absent = false;
                Ok(None)
            }
            Err(error) => self.refused_write(error, fetched, view).map(Some),
        }
    }
}
