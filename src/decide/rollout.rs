//! Restarting workloads after the token has changed: whether it is due, and what is said of it.
//!
//! The status holds the fingerprint of the token that the workloads know. The stored token is another one: they are to be
//! restarted. None is held (first issue, list just given, status wiped): the stored token becomes the one they know, and nothing
//! is restarted.

use jiff::{SignedDuration, Timestamp};

use super::report::Conditions;
use super::{Outcome, RestartReason, WORKLOADS_RESTARTED, condition};
use crate::api::{RolloutRestart, VerteilTokenStatus, Workload};
use crate::token::{AccessToken, TokenFingerprint, Verdict};

/// Waits after failed attempts, in seconds: doubled from the first to the last.
const FIRST_WAIT: i64 = 5;
const LAST_WAIT: i64 = 120;
/// So much of the apiserver's words goes into the condition.
const LONGEST_ERROR: usize = 400;

/// What is wanted, and what is there.
pub struct RolloutFacts<'a> {
    /// `spec.rolloutRestart`
    pub workloads: &'a [Workload],
    /// `--rollout-restart`
    pub enabled: bool,
    /// The stored token, if there is one.
    pub token: Option<&'a AccessToken>,
    /// This process has begun a restart and not finished it: also a wiped status does not end that.
    pub under_way: bool,
    /// metadata.generation
    pub generation: i64,
}

/// How long to wait after so many failed attempts.
#[must_use]
pub fn restart_wait(failures: u32) -> SignedDuration {
    SignedDuration::from_secs((FIRST_WAIT << failures.saturating_sub(1).min(10)).min(LAST_WAIT))
}

/// Whether the status says that nothing is to be done, for a stored token that it has verified: no read is needed.
#[must_use]
pub fn rollout_is_settled(workloads: &[Workload], enabled: bool, status: &VerteilTokenStatus) -> bool {
    if workloads.is_empty() {
        return status.rollout_restart.is_none() && condition(status, WORKLOADS_RESTARTED).is_none();
    }
    let told = RestartReason::told_by(status).filter(|_| status.rollout_restart.is_some());
    told.is_some_and(|reason| !reason.is_pending() && (reason == RestartReason::RolloutRestartDisabled) != enabled)
}

/// Enters into `status` what the stored token means for the listed workloads. True: they are to be restarted.
///
/// Guarantees: the same status comes of it again, unless something has changed.
#[must_use]
pub fn enter_rollout(status: &mut VerteilTokenStatus, facts: &RolloutFacts<'_>, now: Timestamp) -> bool {
    if facts.workloads.is_empty() {
        status.rollout_restart = None;
        status.conditions.retain(|c| c.type_ != WORKLOADS_RESTARTED);
        return false;
    }
    let Some(token) = facts.token else { return false };
    let told = RestartReason::told_by(status);
    let pending = facts.under_way || told.is_some_and(RestartReason::is_pending);
    let known = status.rollout_restart.as_ref().map(|r| TokenFingerprint::check(&r.token_fingerprint, token));
    match known {
        // What changes meanwhile is not made up for when the flag is given.
        _ if !facts.enabled => {
            remember(status, token, Vec::new());
            let message = "the operator runs without --rollout-restart: nothing is restarted when the token changes";
            say(status, facts, now, RestartReason::RolloutRestartDisabled, message);
            false
        }
        Some(Verdict::Holds) => {
            keep(status, facts, now);
            false
        }
        Some(Verdict::Broken) => {
            expect(status, facts, now);
            true
        }
        None if pending => {
            expect(status, facts, now);
            true
        }
        // A fingerprint that a newer operator made cannot be compared.
        Some(Verdict::Unknown) | None => {
            remember(status, token, Vec::new());
            keep(status, facts, now);
            false
        }
    }
}

/// Enters what became of the workloads. The restart is finished if every outcome is final.
pub fn finish_rollout(
    status: &mut VerteilTokenStatus,
    facts: &RolloutFacts<'_>,
    outcomes: &[(Workload, Outcome)],
    now: Timestamp,
) -> RestartReason {
    let worst = [RestartReason::RestartForbidden, RestartReason::RestartFailed, RestartReason::WorkloadMissing];
    let found = |reason: &RestartReason| outcomes.iter().any(|(_, outcome)| outcome.reason() == *reason);
    let reason = worst.into_iter().find(found).unwrap_or(RestartReason::Restarted);
    if let Some(token) = facts.token.filter(|_| !reason.is_pending()) {
        let missing = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Missing);
        remember(status, token, missing.map(|(workload, _)| workload.to_string()).collect());
    }
    let issued = status.issued_at.as_ref().map(|time| format!(" of {}", time.0)).unwrap_or_default();
    let message = describe(outcomes, &issued);
    say(status, facts, now, reason, &message);
    reason
}

/// A restart is due. Why the last attempt for it failed stands until the next one is over.
fn expect(status: &mut VerteilTokenStatus, facts: &RolloutFacts<'_>, now: Timestamp) {
    let failed = RestartReason::told_by(status).filter(|reason| reason.is_pending());
    if let Some((reason, message)) = failed.zip(message_told(status)) {
        say(status, facts, now, reason, &message);
    } else {
        let names: Vec<String> = facts.workloads.iter().map(ToString::to_string).collect();
        let message = format!("the token has changed, to be restarted: {}", names.join(", "));
        say(status, facts, now, RestartReason::Restarting, &message);
    }
}

fn message_told(status: &VerteilTokenStatus) -> Option<String> {
    condition(status, WORKLOADS_RESTARTED).map(|c| c.message.clone())
}

/// Nothing is due: what was said of the last restart stays, as far as it concerns what is still listed.
fn keep(status: &mut VerteilTokenStatus, facts: &RolloutFacts<'_>, now: Timestamp) {
    let listed: Vec<String> = facts.workloads.iter().map(ToString::to_string).collect();
    let missing = status.rollout_restart.as_mut().map(|known| {
        let before = known.missing.len();
        known.missing.retain(|name| listed.contains(name));
        (known.missing.clone(), known.missing.len() == before)
    });
    let (missing, same) = missing.unwrap_or_default();
    let told = RestartReason::told_by(status);
    let message = message_told(status).unwrap_or_default();
    let unchanged = || format!("restarted when the token changes: {}", listed.join(", "));
    match told {
        Some(reason @ RestartReason::Restarted) => say(status, facts, now, reason, &message),
        Some(reason @ RestartReason::WorkloadMissing) if same && !missing.is_empty() => {
            say(status, facts, now, reason, &message);
        }
        _ if !missing.is_empty() => {
            let message = format!("not found at the last restart: {}", missing.join(", "));
            say(status, facts, now, RestartReason::WorkloadMissing, &message);
        }
        Some(_) | None => say(status, facts, now, RestartReason::TokenUnchanged, &unchanged()),
    }
}

fn remember(status: &mut VerteilTokenStatus, token: &AccessToken, missing: Vec<String>) {
    let token_fingerprint = TokenFingerprint::of(token).as_str().to_owned();
    status.rollout_restart = Some(Box::new(RolloutRestart { token_fingerprint, missing }));
}

fn say(
    status: &mut VerteilTokenStatus,
    facts: &RolloutFacts<'_>,
    now: Timestamp,
    reason: RestartReason,
    message: &str,
) {
    let good = matches!(reason, RestartReason::Restarted | RestartReason::TokenUnchanged);
    let list = status.conditions.clone();
    let mut conditions = Conditions { old: status, generation: facts.generation, now, list };
    conditions.set(WORKLOADS_RESTARTED, good, reason.as_str(), message);
    status.conditions = conditions.list;
}

/// What became of whom, the worst first.
fn describe(outcomes: &[(Workload, Outcome)], issued: &str) -> String {
    let mut parts = Vec::new();
    for (workload, outcome) in outcomes {
        if let Outcome::Forbidden(error) | Outcome::Failed(error) = outcome {
            let error: String = error.chars().take(LONGEST_ERROR).collect();
            parts.push(format!("{workload}: {error}"));
        }
    }
    let missing = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Missing).map(|(w, _)| w.to_string());
    let missing: Vec<String> = missing.collect();
    if !missing.is_empty() {
        parts.push(format!("not found: {}", missing.join(", ")));
    }
    let restarted = outcomes.iter().filter_map(|(workload, outcome)| match outcome {
        Outcome::Restarted(None) => Some(workload.to_string()),
        Outcome::Restarted(Some(later)) => Some(format!("{workload} ({later})")),
        Outcome::Missing | Outcome::Forbidden(_) | Outcome::Failed(_) => None,
    });
    let restarted: Vec<String> = restarted.collect();
    if !restarted.is_empty() {
        parts.push(format!("restarted for the token{issued}: {}", restarted.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;
