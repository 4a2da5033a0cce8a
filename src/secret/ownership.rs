//! Whose Secret it is. What is not ours is never touched.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::api::{TOKEN_LABEL, VerteilToken};

/// Whose a Secret is, as seen by one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This resource's.
    Ours,
    /// Somebody else's: who, in words for a condition.
    Foreign(String),
}

/// Whose `secret` is. `sealed`: its record's seal, as annotated, holds.
///
/// Ours is a Secret with an owner reference to this resource's UID, or whose UID the status records as ours, or one with this
/// resource's name in its label and a seal that holds; unless something else controls it.
#[must_use]
pub fn ownership(resource: &VerteilToken, secret: &Secret, sealed: bool) -> Ownership {
    let name = resource.name_any();
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let owners = secret.owner_references();
    if let Some(other) = owners.iter().find(|o| o.controller == Some(true) && o.uid != uid && !is_predecessor(o, &name))
    {
        return Ownership::Foreign(format!("it is controlled by {} {}", other.kind, other.name));
    }
    if owners.iter().any(|owner| owner.uid == uid) {
        return Ownership::Ours;
    }
    match secret.labels().get(TOKEN_LABEL) {
        Some(label) if *label != name => Ownership::Foreign(format!("it belongs to the VerteilToken {label}")),
        Some(_) if sealed => Ownership::Ours,
        Some(_) | None if is_recorded(resource, secret) => Ownership::Ours,
        Some(_) => Ownership::Foreign("it carries this resource's label, but no record whose seal holds".into()),
        None => Ownership::Foreign("it exists already and was not made for this resource".into()),
    }
}

/// An owner reference to an earlier resource of the same name, which was deleted and made again.
fn is_predecessor(owner: &OwnerReference, name: &str) -> bool {
    owner.kind == VerteilToken::kind(&())
        && owner.name == name
        && owner.api_version.starts_with(VerteilToken::group(&()).as_ref())
}

fn is_recorded(resource: &VerteilToken, secret: &Secret) -> bool {
    let recorded = resource.status.as_ref().and_then(|s| s.verified.as_ref()).map(|v| &v.secret.uid);
    recorded.is_some() && recorded == secret.metadata.uid.as_ref()
}
