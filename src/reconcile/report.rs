//! Reporting: what a pass says at its end of how things stand, and when to look again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::look::{Fetched, View};
use super::status::whole_second;
use super::{LONGEST_SLEEP, Pass, sleep_until};
use crate::api::{Attempted, Verified};
use crate::cluster::{ApiError, version};
use crate::decide::{
    Block, ClaimView, Failures, HeldFacts, Lost, Reason, Report, SECRET_CONTESTED, Standing, Stored,
    TOKEN_EXPIRED_GRACE, Trouble, condition, next_status,
};
use crate::secret::{FORMAT, is_adopted};
use crate::token::{RecordSeal, Validity};

/// Said when a claim is found that nobody will finish.
pub(super) const UNFINISHED: &str =
    "an operator process has ended between a token request and the write of the Secret: that token may be lost";
/// Nothing rings when a role is mended.
const FORBIDDEN_SLEEP: Duration = Duration::from_secs(60);

// === impl Pass ===

impl Pass<'_> {
    /// All is as wanted until `until`.
    pub(super) async fn settled(
        &mut self,
        fetched: &Fetched,
        view: &View,
        until: Timestamp,
    ) -> Result<Action, ApiError> {
        if !view.pace.leading && !self.has_unsaved() {
            return Ok(Action::requeue(LONGEST_SLEEP));
        }
        let standing = match &view.obstacle {
            // Not yet in the way, but it will be: better said while the token still holds.
            Some(trouble) => Standing::Troubled(trouble.clone()),
            None => Standing::Settled,
        };
        let mut status = self.next(view, standing);
        Failures::forget(&mut status);
        let claim_ends = match view.pace.claim {
            // Somebody may be at work on what we do not see yet.
            ClaimView::Foreign { until } => Some(until),
            ClaimView::Free | ClaimView::Mine | ClaimView::RunOut => {
                status.claim = None;
                None
            }
        };
        if self.leave_former(fetched, view).await? {
            status.former_secret_name = None;
        }
        let adopted = fetched.secret.as_ref().filter(|secret| is_adopted(&self.token, secret));
        status.adopted_secret_uid = adopted.and_then(ResourceExt::uid);
        let secret = fetched.secret.as_ref().and_then(|secret| version(&secret.metadata));
        let usable = fetched.inputs.is_ok() && fetched.authority.bundle.is_ok();
        if let (Some(secret), Some(credentials), Some(generation)) =
            (secret, fetched.credentials.clone().filter(|_| usable), self.token.metadata.generation)
        {
            let ca = fetched.authority.version.clone();
            status.verified = Some(Verified { generation, format: FORMAT, secret, credentials, ca });
        }
        self.account(view, &mut status);
        self.enter_rollout(view, &mut status);
        let unfinished = self.has_unfinished_claim(view);
        self.write(view, status).await?;
        if unfinished {
            self.say_ambiguous(UNFINISHED);
        }
        // If this process took a claim over, its former holder had saved its token.
        self.ctx.memory.with(&self.key, |entry| (entry.taking_over, entry.took_over) = (false, false));
        let restart = self.restart_workloads(view).await;
        let emptying = self.refused_emptying(view.now).map(|(at, _)| at);
        let next = [claim_ends, restart, emptying].into_iter().flatten().fold(until, Timestamp::min);
        Ok(sleep_until(next, self.ctx.clock.now()))
    }

    /// Somebody else's claim has run out and is about to be dropped, since nothing is due any more: and the stored token is
    /// older than that claim.
    fn has_unfinished_claim(&self, view: &View) -> bool {
        let (Some(status), Stored::Held(held)) = (&self.token.status, &view.judged.stored) else { return false };
        let issued = held.validity.issued_at;
        let older = status.claim.as_ref().is_some_and(|claim| issued < whole_second(claim.started_at.0));
        let known = status.issued_at.as_ref().is_some_and(|known| issued <= known.0);
        view.pace.claim == ClaimView::RunOut && older && known
    }

    /// Something is wanted that cannot be done now.
    pub(super) async fn blocked(
        &mut self,
        view: &View,
        by: Block,
        until: Option<Timestamp>,
    ) -> Result<Action, ApiError> {
        if by == Block::Reason(Reason::Claimed) {
            self.ctx.metrics.concurrent_attempt(view.now);
        }
        let told = Trouble::told_by(&self.token.status.clone().unwrap_or_default());
        let trouble = match by {
            Block::Reason(reason) => self.explain(view, reason),
            // What else the status tells of is over, or it would stand in the way itself.
            Block::Backoff | Block::Gap | Block::Own => match told.filter(|trouble| trouble.reason.is_waited_out()) {
                Some(trouble) if by == Block::Backoff => trouble,
                told if self.has_unsaved() => told.unwrap_or_else(|| {
                    Trouble::new(Reason::Issuing, "a token was issued and is about to be written to its Secret")
                }),
                // What only this process knows is not worth a status: two operators would write against each other meanwhile.
                Some(_) | None => {
                    return Ok(until.map_or(Action::requeue(LONGEST_SLEEP), |at| sleep_until(at, view.now)));
                }
            },
        };
        self.troubled(view, trouble, until).await
    }

    /// Says `trouble`, and looks again at `until`.
    pub(super) async fn troubled(
        &mut self,
        view: &View,
        trouble: Trouble,
        until: Option<Timestamp>,
    ) -> Result<Action, ApiError> {
        self.say_trouble(view, trouble, until, None).await
    }

    /// Says that another resource with the same account was told to wait, and until when nothing is sent for this one.
    pub(super) async fn held(
        &mut self,
        fetched: &Fetched,
        view: &View,
        trouble: Trouble,
        until: Timestamp,
    ) -> Result<Action, ApiError> {
        self.ctx.memory.with(&self.key, |entry| entry.attempted = self.attempt(fetched).map(Box::new));
        self.say_trouble(view, trouble, Some(until), Some((until, self.attempted(fetched)))).await
    }

    async fn say_trouble(
        &mut self,
        view: &View,
        trouble: Trouble,
        until: Option<Timestamp>,
        held: Option<(Timestamp, Option<Box<Attempted>>)>,
    ) -> Result<Action, ApiError> {
        let facts = view.held_facts();
        let (reason, progress) = (trouble.reason, trouble.reason.is_progress());
        let standing = if progress { Standing::Progressing(trouble) } else { Standing::Troubled(trouble) };
        // When the stored token's end changes what is to be said.
        let end = facts.filter(|held| held.current).and_then(|held| {
            let grace = if progress { TOKEN_EXPIRED_GRACE } else { jiff::SignedDuration::ZERO };
            held.validity.expires_at.saturating_add(grace).ok()
        });
        let mut status = self.next(view, standing);
        if let Some((at, attempted)) = held {
            // The account's count of failures stands with whoever was told to wait; those of this resource are kept by reason.
            (status.failed_attempts, status.attempted) = (None, attempted);
            status.next_attempt_time = Some(Time(at));
        }
        // How exactly it is on its way two processes may see differently, and would write against each other.
        if progress && !self.has_unsaved() && self.says_enough(reason) {
            status.conditions.clone_from(&self.token.status.clone().unwrap_or_default().conditions);
        }
        if view.pace.claim == ClaimView::Mine && !self.has_unsaved() {
            status.claim = None;
        }
        self.account(view, &mut status);
        self.enter_rollout(view, &mut status);
        self.write(view, status).await?;
        let restart = self.restart_workloads(view).await;
        let now = self.ctx.clock.now();
        let emptying = self.refused_emptying(now).map(|(at, _)| at);
        let next = [until, end, restart, emptying].into_iter().flatten().filter(|at| *at > now).min();
        Ok(next.map_or(Action::requeue(LONGEST_SLEEP), |at| sleep_until(at, now)))
    }

    /// The operator may not even read what it needs: said from what the status knows.
    pub(super) async fn forbidden(&mut self, error: &ApiError) -> Result<Action, ApiError> {
        if !self.ctx.leads() {
            return Ok(Action::requeue(FORBIDDEN_SLEEP));
        }
        let status = self.token.status.clone().unwrap_or_default();
        let known = status.issued_at.as_ref().zip(status.expires_at.as_ref()).zip(status.renewal_time.as_ref());
        let held = known.zip(status.record_seal.clone()).map(|(((issued, expires), renewal), seal)| HeldFacts {
            validity: Validity { issued_at: issued.0, expires_at: expires.0 },
            seal: RecordSeal::written(seal),
            renewal: renewal.0,
            current: true,
            in_place: true,
        });
        let trouble = Trouble::new(Reason::Forbidden, forbidden(&error.to_string()));
        let report = Report {
            generation: self.token.metadata.generation.unwrap_or_default(),
            secret_name: self.token.secret_name(),
            place: self.place(),
            held,
            standing: Standing::Troubled(trouble),
            // Whose the Secret is cannot be seen at the moment: whoever was told of goes on being told of.
            rivals: if condition(&status, SECRET_CONTESTED).is_some() {
                self.ctx.rivals.of(&self.key, self.token.secret_name())
            } else {
                Vec::new()
            },
        };
        let next = next_status(&status, &report, self.ctx.clock.now());
        if next != status {
            self.put_status(next).await?;
        }
        Ok(Action::requeue(FORBIDDEN_SLEEP))
    }

    fn explain(&self, view: &View, reason: Reason) -> Trouble {
        let name = self.token.secret_name();
        let found = view.judged.trouble.clone().unwrap_or_default();
        let message = match reason {
            Reason::Suspended => "spec.suspend is true: nothing is requested or written until it is false".into(),
            Reason::Claimed => format!(
                "another operator process ({}) has announced a request and is waited for",
                self.token.status.as_ref().and_then(|s| s.claim.as_ref()).map_or("unknown", |c| c.holder.as_str())
            ),
            Reason::SecretNotOurs => {
                format!("Secret {name} is left alone: {found}")
            }
            Reason::SecretTerminating => {
                format!(
                    "Secret {name} is being deleted; a new one is written when it is gone: if that lasts, look at its finalizers"
                )
            }
            Reason::GenerationThrottled => {
                let cause = match &view.judged.stored {
                    Stored::Absent { lost: Lost::Memory } => {
                        "the operator was started again and has lost what was in its memory".into()
                    }
                    Stored::Absent { lost: Lost::Nothing | Lost::Secret } => format!("Secret {name} was deleted"),
                    Stored::Unusable => found,
                    Stored::Held(_) | Stored::Terminating | Stored::Foreign => {
                        "inputs or the renew annotation have changed again".into()
                    }
                };
                let writer =
                    view.judged.writer.as_deref().map(|w| format!(", last written by {w}")).unwrap_or_default();
                format!(
                    "{cause}{writer}: find out why; tokens outside the schedule are issued at growing intervals, of an hour at most, and the next one follows by itself"
                )
            }
            Reason::TokenValid
            | Reason::Issuing
            | Reason::TokenExpired
            | Reason::CredentialsMissing
            | Reason::CredentialsInvalid
            | Reason::CANotFound
            | Reason::CAInvalid
            | Reason::IssuerNotAllowed
            | Reason::TemplateInvalid
            | Reason::IssuerUnreachable
            | Reason::IssuerUnavailable
            | Reason::RateLimited
            | Reason::IssuerTimeout
            | Reason::AnswerUnusable
            | Reason::RequestRefused
            | Reason::SecretImmutable
            | Reason::WriteRefused
            | Reason::Forbidden
            | Reason::CRDOutdated => return view.obstacle.clone().unwrap_or_else(|| Trouble::new(reason, found)),
        };
        Trouble::new(reason, message)
    }
}

/// What to say of a call that the operator's role lacks.
pub(super) fn forbidden(what: &str) -> String {
    format!("the operator's role does not allow it, apply the chart's rules: {what}")
}
