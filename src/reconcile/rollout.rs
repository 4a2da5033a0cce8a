//! Restarting the listed workloads, once the token is stored and the status says so. Nothing of it stands in the token's way:
//! what goes wrong is said in a condition of its own and tried again.
//!
//! | after | a crash or a fault leads to |
//! |---|---|
//! | write of the Secret | the status still knows the old token: restart |
//! | some of the patches | all of them again; the same value in a pod template restarts nothing |
//! | all patches | the same |
//! | status | nothing more |

use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::Pass;
use super::look::View;
use crate::api::{RESTARTED_FOR_PREFIX, VerteilTokenStatus, Workload};
use crate::cluster::{ApiError, Occurrence, Severity};
use crate::decide::{
    Outcome, RestartReason, RolloutFacts, WORKLOADS_RESTARTED, condition, enter_rollout, finish_rollout, restart_wait,
};
use crate::memory::Restart;
use crate::token::TokenFingerprint;

// === impl Pass ===

impl Pass<'_> {
    /// Enters into `status` what the stored token means for the listed workloads. True: they are to be restarted.
    pub(super) fn enter_rollout(&self, view: &View, status: &mut VerteilTokenStatus) -> bool {
        enter_rollout(status, &self.rollout_facts(view), view.now)
    }

    /// Restarts the listed workloads if that is due. Returns when to try again, if it is not finished.
    pub(super) async fn restart_workloads(&mut self, view: &View) -> Option<Timestamp> {
        if self.token.spec.rollout_restart.is_empty() {
            self.forget_restart();
            return None;
        }
        let mut status = self.token.status.clone().unwrap_or_default();
        if !self.enter_rollout(view, &mut status) {
            self.forget_restart();
            return None;
        }
        // Whoever leads does it, and the resumed resource has it done.
        if view.wanted.suspended || view.wanted.deleting || !self.ctx.may_request() {
            return None;
        }
        let fingerprint = TokenFingerprint::of(view.judged.content.as_ref()?.record.access_token());
        let (remaining, wait) = self.begin_restart(fingerprint.as_str());
        if !remaining.is_empty() && !wait.is_zero() {
            return Some(later(view.now, wait));
        }
        let outcomes = join_all(remaining.iter().map(|workload| self.restart(workload, &fingerprint))).await;
        self.finish_restart(view, remaining.into_iter().zip(outcomes).collect()).await
    }

    fn rollout_facts<'a>(&'a self, view: &'a View) -> RolloutFacts<'a> {
        RolloutFacts {
            workloads: &self.token.spec.rollout_restart,
            enabled: self.ctx.rollout_restart,
            token: view.judged.content.as_ref().map(|content| content.record.access_token()),
            under_way: self.ctx.memory.peek(&self.key, |entry| entry.restart.is_some()).unwrap_or_default(),
            generation: self.token.metadata.generation.unwrap_or_default(),
        }
    }

    /// The workloads that are yet to be restarted for this token, and how long to wait before.
    fn begin_restart(&self, fingerprint: &str) -> (Vec<Workload>, Duration) {
        let elapsed = self.ctx.clock.elapsed();
        self.ctx.memory.with(&self.key, |entry| {
            let restart = entry.restart.get_or_insert_default();
            if restart.fingerprint != fingerprint {
                **restart = Restart { fingerprint: fingerprint.to_owned(), ..Restart::default() };
            }
            let listed = self.token.spec.rollout_restart.iter();
            let remaining = listed.filter(|workload| !restart.done.iter().any(|(done, _)| done == *workload));
            (remaining.cloned().collect(), restart.not_before.saturating_sub(elapsed))
        })
    }

    /// Restarts one workload.
    async fn restart(&self, workload: &Workload, fingerprint: &TokenFingerprint) -> Outcome {
        let annotation = format!("{RESTARTED_FOR_PREFIX}{}", self.token.name_any());
        let patched =
            self.ctx.cluster.annotate_template(&self.key.namespace, workload, &annotation, fingerprint.as_str()).await;
        let outcome = match patched {
            Ok(later) => Outcome::Restarted(later),
            Err(ApiError::NotFound { .. }) => Outcome::Missing,
            Err(error @ ApiError::Forbidden { .. }) => Outcome::Forbidden(error.to_string()),
            Err(
                error @ (ApiError::Conflict { .. }
                | ApiError::Terminating { .. }
                | ApiError::Refused { .. }
                | ApiError::Unavailable { .. }),
            ) => Outcome::Failed(error.to_string()),
        };
        match &outcome {
            Outcome::Restarted(_) => tracing::info!(%workload, "restarted the workload for the new token"),
            Outcome::Missing => tracing::warn!(%workload, "the workload to be restarted does not exist"),
            Outcome::Forbidden(error) | Outcome::Failed(error) => {
                tracing::warn!(%workload, error, "the workload cannot be restarted");
            }
        }
        self.ctx.metrics.rollout_restart(&outcome);
        outcome
    }

    /// Says what became of it, in status and events. Returns when to try again.
    async fn finish_restart(&mut self, view: &View, now_done: Vec<(Workload, Outcome)>) -> Option<Timestamp> {
        let outcomes = self.ctx.memory.with(&self.key, |entry| {
            let restart = entry.restart.get_or_insert_default();
            let (done, failed): (Vec<_>, Vec<_>) = now_done.into_iter().partition(|(_, outcome)| outcome.is_final());
            restart.done.extend(done);
            let listed = |of: &(Workload, Outcome)| self.token.spec.rollout_restart.contains(&of.0);
            restart.done.iter().filter(|of| listed(of)).cloned().chain(failed).collect::<Vec<_>>()
        });
        let before = self.token.status.clone().unwrap_or_default();
        let mut status = before.clone();
        let reason = finish_rollout(&mut status, &self.rollout_facts(view), &outcomes, self.ctx.clock.now());
        let finished = outcomes.iter().all(|(_, outcome)| outcome.is_final());
        let told = status == before || self.tell_restart(status).await;
        if told && RestartReason::told_by(&before) != Some(reason) {
            self.announce_restart(reason, &outcomes, finished);
        }
        if told && finished {
            self.forget_restart();
            return None;
        }
        let wait = self.ctx.memory.with(&self.key, |entry| {
            let restart = entry.restart.get_or_insert_default();
            restart.failures = restart.failures.saturating_add(1);
            let wait = Duration::try_from(restart_wait(restart.failures)).unwrap_or_default();
            restart.not_before = self.ctx.clock.elapsed().saturating_add(wait);
            wait
        });
        Some(later(self.ctx.clock.now(), wait))
    }

    /// Writes the status. False if it could not be: what was done is remembered, and said the next time.
    async fn tell_restart(&mut self, status: VerteilTokenStatus) -> bool {
        match self.put_status(status).await {
            Ok(()) => true,
            Err(ApiError::Conflict { .. } | ApiError::NotFound { .. } | ApiError::Terminating { .. }) => false,
            Err(error) => {
                tracing::warn!(%error, "the status of a restart could not be written");
                false
            }
        }
    }

    fn announce_restart(&self, reason: RestartReason, outcomes: &[(Workload, Outcome)], finished: bool) {
        let status = self.token.status.clone().unwrap_or_default();
        let message = condition(&status, WORKLOADS_RESTARTED).map(|c| c.message.clone()).unwrap_or_default();
        if finished && outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Restarted(_))) {
            self.tell_of(Occurrence::WorkloadsRestarted, &message);
        }
        if reason != RestartReason::Restarted {
            self.say(Severity::Warning, reason.as_str(), "RestartWorkloads", &message);
        }
    }

    fn forget_restart(&self) {
        if self.ctx.memory.peek(&self.key, |entry| entry.restart.is_some()) == Some(true) {
            self.ctx.memory.with(&self.key, |entry| entry.restart = None);
        }
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}
