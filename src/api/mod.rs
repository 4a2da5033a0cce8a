//! The resource `VerteilToken`, `verteil.dev/v1alpha1`: the only types that describe a schema.

mod crd;
mod duration;
mod spec;
mod status;
mod workload;

pub use crd::{crd, to_yaml};
pub use duration::{Duration, DurationError};
pub use spec::{
    CaBundleKind, CaBundleRef, ClientAuthentication, CredentialsSecretRef, DeletionPolicy, ParametersIn, SecretSpec,
    VerteilToken, VerteilTokenSpec,
};
pub use status::{Attempted, Claim, IssueReason, ObjectVersion, RolloutRestart, Verified, VerteilTokenStatus};
pub use workload::{Workload, WorkloadKind};

/// Label on the token Secret: the name of the resource that it belongs to.
pub const TOKEN_LABEL: &str = "verteil.dev/token";
/// Label on the token Secret that says which program keeps it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`], and the field manager of every write.
pub const MANAGER: &str = "verteil-token-operator";
/// Annotation on the resource: any new value asks for one new token, once.
pub const RENEW_ANNOTATION: &str = "verteil.dev/renew";
/// Annotation on the Secret: the value of [`RENEW_ANNOTATION`] that its token serves.
pub const RENEWED_ANNOTATION: &str = "verteil.dev/renewed";
/// Annotation on a Secret, by its user: the name of the resource that may take it over.
pub const ADOPT_ANNOTATION: &str = "verteil.dev/adopt";
/// Annotation on a Secret that was taken over: by which resource. It never gets an owner reference.
pub const ADOPTED_ANNOTATION: &str = "verteil.dev/adopted";
/// Annotation on a Secret that a resource has left for another one: the other one's name.
pub const SUPERSEDED_BY_ANNOTATION: &str = "verteil.dev/superseded-by";
/// Annotation on a Secret that was emptied, since tokens are kept in memory only: by which resource.
pub const IN_MEMORY_ANNOTATION: &str = "verteil.dev/in-memory";
/// Annotation on the Secret: when its token was asked for (RFC 3339).
pub const ISSUED_AT_ANNOTATION: &str = "verteil.dev/issued-at";
/// Annotation on the Secret: when its token expires (RFC 3339).
pub const EXPIRES_AT_ANNOTATION: &str = "verteil.dev/expires-at";
/// Annotation on the Secret: the seal over its record.
pub const RECORD_SEAL_ANNOTATION: &str = "verteil.dev/record-seal";
/// Annotation on the Secret: the seal over the inputs its token was issued for.
pub const INPUT_SEAL_ANNOTATION: &str = "verteil.dev/input-seal";
/// Annotation on the pod template of a restarted workload, followed by the resource's name: the fingerprint of the token that
/// it was restarted for. One for each resource, since several may restart the same workload.
pub const RESTARTED_FOR_PREFIX: &str = "restarted-for.verteil.dev/";
