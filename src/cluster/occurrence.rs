//! What happens once and is told by an event of its own. What lasts is told by an event with the reason of its condition.

use super::{Note, Severity};
use crate::decide::{CLOCK_SKEW, Reason, SECRET_CONTESTED, WORKLOADS_RESTARTED};

/// An event's reason, beside the reasons of what is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// A new token is in its Secret.
    TokenIssued,
    /// What was in the way is over.
    Recovered,
    /// A Secret was taken over from its user.
    SecretAdopted,
    /// The listed workloads were restarted.
    WorkloadsRestarted,
    /// The stored token has expired before it could be replaced.
    TokenExpired,
    /// The issuer did not say how long its token lives.
    LifetimeAssumed,
    /// A token may have been issued that nobody holds.
    AmbiguousGeneration,
    /// Another resource names the Secret, and waits.
    SecretContested,
    /// The issuer's clock is far from the operator's.
    ClockSkew,
    /// The resource cannot be read.
    Undecodable,
}

// === impl Occurrence ===

impl Occurrence {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::TokenIssued,
        Self::Recovered,
        Self::SecretAdopted,
        Self::WorkloadsRestarted,
        Self::TokenExpired,
        Self::LifetimeAssumed,
        Self::AmbiguousGeneration,
        Self::SecretContested,
        Self::ClockSkew,
        Self::Undecodable,
    ];

    /// The event's reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenIssued => "TokenIssued",
            Self::Recovered => "Recovered",
            Self::SecretAdopted => "SecretAdopted",
            Self::WorkloadsRestarted => WORKLOADS_RESTARTED,
            Self::TokenExpired => Reason::TokenExpired.as_str(),
            Self::LifetimeAssumed => "LifetimeAssumed",
            Self::AmbiguousGeneration => "AmbiguousGeneration",
            Self::SecretContested => SECRET_CONTESTED,
            Self::ClockSkew => CLOCK_SKEW,
            Self::Undecodable => "Undecodable",
        }
    }

    /// The event, in these words.
    #[must_use]
    pub const fn note(self, note: String) -> Note {
        let (severity, action) = match self {
            Self::TokenIssued => (Severity::Normal, "RequestToken"),
            Self::Recovered => (Severity::Normal, "Reconcile"),
            Self::SecretAdopted => (Severity::Normal, "AdoptSecret"),
            Self::WorkloadsRestarted => (Severity::Normal, "RestartWorkloads"),
            Self::TokenExpired | Self::SecretContested => (Severity::Warning, "Reconcile"),
            Self::LifetimeAssumed | Self::AmbiguousGeneration | Self::ClockSkew => (Severity::Warning, "RequestToken"),
            Self::Undecodable => (Severity::Warning, "Read"),
        };
        Note { severity, reason: self.as_str(), action, note }
    }
}
