//! What can be said of a restart of workloads, and what can become of one.

use super::condition;
use crate::api::VerteilTokenStatus;

/// The condition that tells of it. Ready and its like say nothing of workloads.
pub const WORKLOADS_RESTARTED: &str = "WorkloadsRestarted";

/// Reason of the condition [`WORKLOADS_RESTARTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// There is nothing to tell the workloads.
    TokenUnchanged,
    /// The token has changed, and they are yet to be restarted.
    Restarting,
    /// All were restarted.
    Restarted,
    /// Some did not exist; the others were restarted.
    WorkloadMissing,
    /// The operator's role does not allow it.
    RestartForbidden,
    /// The apiserver did not take the change of a pod template.
    RestartFailed,
    /// The operator runs without `--rollout-restart`.
    RolloutRestartDisabled,
}

/// What became of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its pod template was changed. With what still has to happen before its pods are replaced.
    Restarted(Option<&'static str>),
    /// It does not exist: whatever pods it will have start with the present token.
    Missing,
    /// RBAC does not allow it.
    Forbidden(String),
    /// Refused, or not reached.
    Failed(String),
}

// === impl RestartReason ===

impl RestartReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::TokenUnchanged,
        Self::Restarting,
        Self::Restarted,
        Self::WorkloadMissing,
        Self::RestartForbidden,
        Self::RestartFailed,
        Self::RolloutRestartDisabled,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenUnchanged => "TokenUnchanged",
            Self::Restarting => "Restarting",
            Self::Restarted => "Restarted",
            Self::WorkloadMissing => "WorkloadMissing",
            Self::RestartForbidden => "RestartForbidden",
            Self::RestartFailed => "RestartFailed",
            Self::RolloutRestartDisabled => "RolloutRestartDisabled",
        }
    }

    /// What a status tells.
    #[must_use]
    pub fn told_by(status: &VerteilTokenStatus) -> Option<Self> {
        let told = condition(status, WORKLOADS_RESTARTED)?;
        Self::ALL.into_iter().find(|reason| reason.as_str() == told.reason)
    }

    /// Whether a restart is not finished.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        match self {
            Self::Restarting | Self::RestartForbidden | Self::RestartFailed => true,
            Self::TokenUnchanged | Self::Restarted | Self::WorkloadMissing | Self::RolloutRestartDisabled => false,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Those that an outcome can have.
    pub const REASONS: [RestartReason; 4] = [
        RestartReason::Restarted,
        RestartReason::WorkloadMissing,
        RestartReason::RestartForbidden,
        RestartReason::RestartFailed,
    ];

    /// In one word.
    #[must_use]
    pub const fn reason(&self) -> RestartReason {
        match self {
            Self::Restarted(_) => RestartReason::Restarted,
            Self::Missing => RestartReason::WorkloadMissing,
            Self::Forbidden(_) => RestartReason::RestartForbidden,
            Self::Failed(_) => RestartReason::RestartFailed,
        }
    }

    /// Whether nothing more is to be done for it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !self.reason().is_pending()
    }
}
