//! What the operator says and remembers. The Secret is the source of truth: all of this can be wiped.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

// One of each resource is kept in memory: what is large and seldom there is on the heap.
/// The observed state of a VerteilToken. It can be deleted at any time without costing a token.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerteilTokenStatus {
    /// The generation of the spec that this status speaks of; -1 until an operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled (kstatus), RenewalFailing, WorkloadsRestarted if the spec lists workloads, and ClockSkew
    /// while the issuer's clock is far from the operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The Secret that holds the token; none if it is in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The Secret that held the token under the name that the spec had before, until it is marked as superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_secret_name: Option<String>,
    /// The uid of the Secret that was taken over from its user: it never gets an owner reference.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "adoptedSecretUID")]
    pub adopted_secret_uid: Option<String>,
    /// The token is in the memory of an operator that runs with --disable-token-persistence, and in no Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_memory: Option<bool>,
    /// When the stored token was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// When the stored token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When the next token is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,
    /// Tokens issued for this resource so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_issued: Option<i64>,
    /// Why the last token was requested.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_reason")]
    pub last_issue_reason: Option<IssueReason>,
    /// Seal over the stored record: a copy of the Secret's, from which a lost annotation is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_seal: Option<String>,
    /// The tokenURL that was seen to answer with the token it already gave; such an issuer is asked only after expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_repeats: Option<String>,
    /// Tokens issued outside the schedule since one last reached its renewal point: the more, the longer the next one waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscheduled_issues: Option<i64>,
    /// When the last request that brought a token was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request_time: Option<Time>,
    /// Failed attempts since the last success, or since the inputs were changed; of an account that the issuer limits, those of
    /// all resources that share it. None while another resource's wait is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i64>,
    /// The same by reason: the waits of each grow with its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_by_reason: Option<BTreeMap<String, i64>>,
    /// When the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_time: Option<Time>,
    /// No token request goes out before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// What the last failed attempt was made with, or would have been: a change of it ends the wait, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<Box<Attempted>>,
    /// Who is about to request a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Box<Claim>>,
    /// The value of the annotation verteil.dev/renew that was served last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renew_request: Option<String>,
    /// The versions of the objects that were last found to be as wanted: while they hold, nothing is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What the workloads of spec.rolloutRestart know of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_restart: Option<Box<RolloutRestart>>,
}

/// Why a token was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum IssueReason {
    /// The first token.
    Initial,
    /// The renewal point was reached.
    Expired,
    /// Token URL, user name, password, scopes or parameters have changed.
    InputsChanged,
    /// The Secret is gone.
    SecretDeleted,
    /// The record in the Secret is unreadable or altered.
    RecordInvalid,
    /// Asked for by the annotation verteil.dev/renew.
    Manual,
    /// The token was in the memory of a process that has ended, and in no Secret.
    MemoryLost,
}

/// The announcement of one token request: while it stands, nobody else sends one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// One claim's identity.
    pub id: String,
    /// The process that claims: its host name and a part that is new with each start.
    pub holder: String,
    /// When it was made, by the holder's clock; for people only.
    pub started_at: Time,
    /// How long it lasts, in seconds from when others first see it.
    pub seconds: i64,
}

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectVersion {
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion
    pub resource_version: String,
}

/// Versions that were found to be as wanted, taken only from what a read or a write returned.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The resource's metadata.generation.
    pub generation: i64,
    /// The layout of the Secret that this operator writes.
    pub format: i64,
    /// The token Secret.
    pub secret: ObjectVersion,
    /// The credentials Secret.
    pub credentials: ObjectVersion,
    /// The ConfigMap or Secret of spec.caBundleRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<ObjectVersion>,
}

/// What a failed attempt was made with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempted {
    /// The resource's metadata.generation.
    pub generation: i64,
    /// The credentials Secret.
    pub credentials: ObjectVersion,
    /// The ConfigMap or Secret of spec.caBundleRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<ObjectVersion>,
    /// The value of the annotation verteil.dev/renew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_request: Option<String>,
}

/// What the listed workloads know of the token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRestart {
    /// Fingerprint of the token that they were last restarted for, or of the one that was stored when there was none to compare
    /// with: another one in the Secret is a change.
    pub token_fingerprint: String,
    /// Those that did not exist at the last restart, as kind/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

// === impl Attempted ===

impl Attempted {
    /// Whether `next` would be made with other inputs.
    #[must_use]
    pub fn has_other_inputs(&self, next: &Self) -> bool {
        (self.generation, &self.credentials, &self.ca) != (next.generation, &next.credentials, &next.ca)
    }

    /// Whether `next` is worth an attempt: it has other inputs, or asks for another renewal. A request that was taken back asks
    /// for none.
    #[must_use]
    pub fn is_outdated_by(&self, next: &Self) -> bool {
        let asks = next.renew_request.is_some() && next.renew_request != self.renew_request;
        asks || self.has_other_inputs(next)
    }
}

/// A reason that a newer operator wrote is none to this one, rather than a resource that cannot be read: a rollback must work.
fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IssueReason>, D::Error> {
    let written = Option::<String>::deserialize(deserializer)?;
    Ok(written.and_then(|text| IssueReason::ALL.into_iter().find(|reason| reason.as_str() == text)))
}

// === impl IssueReason ===

impl IssueReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Initial,
        Self::Expired,
        Self::InputsChanged,
        Self::SecretDeleted,
        Self::RecordInvalid,
        Self::Manual,
        Self::MemoryLost,
    ];

    /// The name used in status, event, metric and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "Initial",
            Self::Expired => "Expired",
            Self::InputsChanged => "InputsChanged",
            Self::SecretDeleted => "SecretDeleted",
            Self::RecordInvalid => "RecordInvalid",
            Self::Manual => "Manual",
            Self::MemoryLost => "MemoryLost",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn a_reason_of_a_newer_operator_is_no_obstacle() {
        let read = |reason: &str| {
            let status: VerteilTokenStatus =
                serde_json::from_value(serde_json::json!({"lastIssueReason": reason})).unwrap();
            status.last_issue_reason
        };
        assert_eq!(read("Manual"), Some(IssueReason::Manual));
        assert_eq!(read("NotYetInvented"), None);
    }
}
