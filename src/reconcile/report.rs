//! Reporting: the status that follows, written only if it differs, and an event where it tells something new.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::look::{Fetched, View};
use super::{LONGEST_SLEEP, Pass, sleep_until};
use crate::api::{Attempted, Verified, VerteilTokenStatus};
use crate::cluster::{ApiError, Severity, version};
use crate::decide::{
    Block, ClaimView, HeldFacts, Lost, Place, Reason, Report, Standing, Stored, TOKEN_EXPIRED_GRACE, Trouble,
    condition, held_by_account, next_status, unscheduled_after, wants_saving,
};
use crate::memory::Issued;
use crate::secret::{FORMAT, is_adopted};
use crate::token::{RecordSeal, Validity};

/// Said when a claim is found that nobody will finish.
pub(super) const UNFINISHED: &str = "a request of a process that did not finish it may have cost a token";
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
        (status.failed_attempts, status.last_failure_time, status.next_attempt_time, status.attempted) =
            (None, None, None, None);
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
                told if self.has_unsaved() => {
                    told.unwrap_or_else(|| Trouble::new(Reason::Issuing, "the next attempt is waited for"))
                }
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
        self.ctx.memory.with(&self.key, |entry| entry.attempted = self.attempt(fetched));
        self.say_trouble(view, trouble, Some(until), Some((until, self.attempted(fetched)))).await
    }

    async fn say_trouble(
        &mut self,
        view: &View,
        trouble: Trouble,
        until: Option<Timestamp>,
        held: Option<(Timestamp, Option<Attempted>)>,
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
            // The account's count of failures stands with whoever was told to wait.
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
        let trouble = Trouble::new(Reason::Forbidden, format!("the operator's role does not allow it: {error}"));
        let report = Report {
            generation: self.token.metadata.generation.unwrap_or_default(),
            secret_name: self.token.secret_name(),
            place: self.place(),
            held,
            standing: Standing::Troubled(trouble),
            rivals: Vec::new(),
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
                "another process ({}) has announced a request and is waited for",
                self.token.status.as_ref().and_then(|s| s.claim.as_ref()).map_or("unknown", |c| c.holder.as_str())
            ),
            Reason::SecretNotOurs => {
                format!("Secret {name} is left alone: {found}")
            }
            Reason::SecretTerminating => {
                format!("Secret {name} is being deleted; a new one is written when it is gone")
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
                    "{cause}{writer}; tokens outside the schedule are issued at growing intervals, of an hour at most"
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

    /// Enters an issued token that the Secret now holds into the books of the status: once, whatever is repeated.
    fn account(&self, view: &View, status: &mut VerteilTokenStatus) {
        let Stored::Held(held) = &view.judged.stored else { return };
        if let Some(content) = &view.judged.content {
            status.last_renew_request.clone_from(&content.renewed);
        }
        let old = self.token.status.as_ref();
        let issued = self.issued().filter(|_| view.unsaved.as_ref().is_some_and(|unsaved| unsaved.saved));
        let Some(issued) = issued else {
            // Issued and saved by a process that did not live to say so: its claim, or a younger token than the known one, tells.
            let known = old.and_then(|s| s.issued_at.as_ref()).map(|time| time.0);
            let claimed = old.is_some_and(|s| s.claim.is_some());
            if known.map_or(claimed, |known| held.validity.issued_at > known) {
                status.tokens_issued = Some(status.tokens_issued.unwrap_or_default().saturating_add(1));
                let known = status.last_request_time.as_ref().map(|time| time.0);
                status.last_request_time = known.max(Some(held.validity.issued_at)).map(Time);
            }
            return;
        };
        let sent = Time(whole_second(issued.requested_at));
        // Entered before, or entered late after somebody else's; a time ahead was told by a clock that was set back since.
        let told = status.last_request_time.as_ref().filter(|told| told.0 <= next_second(view.now));
        if told.is_some_and(|told| told.0 >= sent.0) {
            return;
        }
        status.last_request_time = Some(sent);
        let unscheduled = status.unscheduled_issues.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        status.unscheduled_issues = Some(i64::from(unscheduled_after(issued.reason, unscheduled)));
        // Entered late, it may be older than a failure.
        if status.last_failure_time.as_ref().is_none_or(|failed| failed.0 < issued.requested_at) {
            (status.failed_attempts, status.last_failure_time, status.next_attempt_time, status.attempted) =
                (None, None, None, None);
        }
        status.issuer_repeats = view.wanted.issuer_repeats.then(|| self.token.spec.token_url.clone());
        if !issued.repeated {
            status.tokens_issued = Some(status.tokens_issued.unwrap_or_default().saturating_add(1));
            status.last_issue_reason = Some(issued.reason);
        }
    }

    /// Writes `status` if it says anything new; then what it told of is no longer only in memory.
    async fn write(&mut self, view: &View, status: VerteilTokenStatus) -> Result<(), ApiError> {
        if self.token.status.as_ref() != Some(&status) {
            match self.put_status(status).await {
                Ok(()) => {}
                // The event of whatever was faster rings; the Secret and the memory keep what is to be said.
                Err(ApiError::Terminating { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let Some(issued) = self.issued() else { return Ok(()) };
        let Some(unsaved) = &view.unsaved else { return Ok(()) };
        if wants_saving(view.now, &view.judged.stored, unsaved) {
            return Ok(());
        }
        self.ctx.memory.with(&self.key, |entry| entry.issued = None);
        self.count_unsaved();
        if unsaved.saved && !issued.repeated {
            let cause = issued.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
            let note = format!(
                "{}{cause}: new token in {}, valid until {}",
                issued.reason.as_str(),
                match self.place() {
                    Place::Secret => format!("Secret {}", self.token.secret_name()),
                    Place::Memory { .. } => "memory".to_owned(),
                },
                issued.content.record.validity().expires_at
            );
            self.say(Severity::Normal, "TokenIssued", "RequestToken", &note);
        } else if unsaved.saved {
            tracing::info!(
                "the issuer answered with the token it had already given: it is asked again after its expiry"
            );
        } else {
            self.count_if_superseded(view, &issued);
            tracing::info!("dropped a token that is no longer wanted");
        }
        Ok(())
    }

    /// Replaces the status, and says what has changed.
    pub(super) async fn put_status(&mut self, status: VerteilTokenStatus) -> Result<(), ApiError> {
        let written = self.ctx.cluster.write_status(&self.token, &status).await?;
        let version = written.resource_version().and_then(|v| v.parse().ok());
        self.ctx.memory.with(&self.key, |entry| (entry.written, entry.clock_offset) = (version, None));
        let before = std::mem::replace(&mut self.token, written);
        self.confirmed = true;
        self.tell(before.status.as_ref(), &status);
        Ok(())
    }

    /// The status that follows from `view` and `standing`.
    pub(super) fn next(&self, view: &View, standing: Standing) -> VerteilTokenStatus {
        let report = Report {
            generation: self.token.metadata.generation.unwrap_or_default(),
            secret_name: self.token.secret_name(),
            place: self.place(),
            held: view.held_facts(),
            standing,
            rivals: if view.judged.stored.is_ours() && !self.ctx.store.is_in_memory() {
                self.ctx.rivals.of(&self.token)
            } else {
                Vec::new()
            },
        };
        let old = self.token.status.clone().unwrap_or_default();
        let mut next = next_status(&old, &report, view.now);
        if held_by_account(&old).is_some() {
            // It is told anew as long as it lasts.
            next.next_attempt_time = None;
        }
        self.tell_clock(&mut next, view.now);
        next
    }

    pub(super) fn count_unsaved(&self) {
        self.ctx.metrics.set_unsaved(self.ctx.memory.unsaved().len());
    }

    /// Whether the status says, of this very spec, that a token is on its way; or, where a claim is waited out, what somebody
    /// for whom it has run out already found in the way.
    fn says_enough(&self, reason: Reason) -> bool {
        let Some(status) = &self.token.status else { return false };
        let ready = condition(status, "Ready").filter(|c| c.status == "False");
        let progress = ready.and_then(|c| Reason::parse(&c.reason)).is_some_and(Reason::is_progress);
        status.observed_generation == self.token.metadata.generation
            && (progress || (reason == Reason::Claimed && Trouble::told_by(status).is_some()))
    }

    fn issued(&self) -> Option<Arc<Issued>> {
        self.ctx.memory.peek(&self.key, |entry| entry.issued.clone()).flatten()
    }

    pub(super) fn has_unsaved(&self) -> bool {
        self.issued().is_some()
    }
}

/// The latest time that a status written at `now` may tell.
fn next_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second().saturating_add(1)).unwrap_or(now)
}

/// `at` as the status holds it.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
