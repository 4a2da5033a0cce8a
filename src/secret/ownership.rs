//! Whose Secret it is. What is not ours is never touched.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::annotation;
use crate::api::{ADOPT_ANNOTATION, ADOPTED_ANNOTATION, IN_MEMORY_ANNOTATION, TOKEN_LABEL, VerteilToken};

/// Whose a Secret is, as seen by one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This resource's.
    Ours,
    /// Somebody else's: who, and what to do, in words for a condition.
    Foreign(String),
}

/// The other resources of the namespace, as far as they concern one Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// The resource that the Secret's label names, if that is not this one.
    pub labelled: Labelled,
    /// The one that goes before this resource where the Secret itself does not tell: at work on a first token for it, or the
    /// oldest that names it.
    pub first: Option<String>,
}

/// What became of the resource that a Secret's label names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Labelled {
    /// There is none of that name.
    #[default]
    Gone,
    /// It exists, and names another Secret.
    Elsewhere,
    /// It exists, and names this Secret.
    Rival,
}

// === impl Neighbours ===

impl Neighbours {
    /// Who goes first instead of this resource, in words for a condition.
    #[must_use]
    pub fn contest(&self) -> Option<String> {
        let other = self.first.as_ref()?;
        Some(format!("the VerteilToken {other} names it as well and comes first: name another one in spec.secret.name"))
    }
}

/// Whose `secret` is. `sealed`: its record's seal, as annotated, holds.
///
/// Ours is a Secret with an owner reference to this resource's UID, or whose UID the status records as ours, or one with this
/// resource's name in its label and a seal that holds, or one whose user hands it over by annotation; unless something else
/// controls it, or another resource names it too and goes first: the one in the label while it exists, else the older.
#[must_use]
pub fn ownership(resource: &VerteilToken, secret: &Secret, sealed: bool, neighbours: &Neighbours) -> Ownership {
    let name = resource.name_any();
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let owners = secret.owner_references();
    if let Some(other) = owners.iter().find(|o| o.controller == Some(true) && o.uid != uid && !is_predecessor(o, &name))
    {
        let (kind, other) = (&other.kind, &other.name);
        return foreign(format!("it is controlled by {kind} {other}: name another one in spec.secret.name"));
    }
    if owners.iter().any(|owner| owner.uid == uid) {
        return Ownership::Ours;
    }
    let recorded = is_recorded(resource, secret);
    // Emptied by this resource, it holds no seal that could tell.
    let says = |key: &str| annotation(secret, key) == Some(name.as_str());
    let consents = says(ADOPT_ANNOTATION) || says(IN_MEMORY_ANNOTATION);
    let hand_over = format!("annotate it with {ADOPT_ANNOTATION}={name} to hand it over");
    match secret.labels().get(TOKEN_LABEL) {
        Some(label) if *label == name && (recorded || sealed || consents) => Ownership::Ours,
        Some(label) if *label == name => foreign(format!(
            "it carries this resource's label, but no record whose seal holds: {hand_over}, or delete it"
        )),
        Some(label) => {
            let theirs =
                || foreign(format!("it belongs to the VerteilToken {label}: name another one in spec.secret.name"));
            match neighbours.labelled {
                Labelled::Elsewhere | Labelled::Gone if recorded => Ownership::Ours,
                Labelled::Rival | Labelled::Elsewhere => theirs(),
                // Left behind with its token: who names it now takes it up.
                Labelled::Gone if sealed || consents => ours_if_first(neighbours),
                Labelled::Gone => foreign(format!("it was made for a VerteilToken {label}: {hand_over}, or delete it")),
            }
        }
        None if recorded => Ownership::Ours,
        None if consents => ours_if_first(neighbours),
        None => foreign(match annotation(secret, ADOPT_ANNOTATION) {
            Some(other) => format!("its annotation {ADOPT_ANNOTATION} hands it over to {other}: write {name} there"),
            None => format!(
                "it exists already and was not made for this resource: {hand_over}, name another one in spec.secret.name, or delete it"
            ),
        }),
    }
}

/// Whether `secret` is its user's, who has handed it over: its other keys are not ours, nor its life.
#[must_use]
pub fn is_adopted(resource: &VerteilToken, secret: &Secret) -> bool {
    let name = resource.name_any();
    let says = |key: &str| annotation(secret, key) == Some(name.as_str());
    let known = resource.status.as_ref().and_then(|status| status.adopted_secret_uid.as_ref());
    says(ADOPT_ANNOTATION) || says(ADOPTED_ANNOTATION) || (known.is_some() && known == secret.metadata.uid.as_ref())
}

/// Whether `secret` has just been handed over: nothing in it is of this operator's making yet.
pub(super) fn is_handed_over(resource: &VerteilToken, secret: &Secret) -> bool {
    is_adopted(resource, secret)
        && annotation(secret, ADOPTED_ANNOTATION).is_none()
        && annotation(secret, crate::api::RECORD_SEAL_ANNOTATION).is_none()
        && !is_recorded(resource, secret)
}

fn ours_if_first(neighbours: &Neighbours) -> Ownership {
    neighbours.contest().map_or(Ownership::Ours, Ownership::Foreign)
}

fn foreign(who: String) -> Ownership {
    Ownership::Foreign(who)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::{Value, json};

    use super::*;

    const OURS: &str = "uid-ours";

    fn resource(status: &Value) -> VerteilToken {
        serde_json::from_value(json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken", "metadata": {"name": "t", "uid": OURS},
            "spec": {"tokenURL": "https://a.b/token", "credentialsSecretRef": {"name": "c"}}, "status": status,
        }))
        .unwrap()
    }

    fn secret(meta: &Value) -> Secret {
        let mut secret: Secret = serde_json::from_value(json!({"metadata": meta})).unwrap();
        secret.metadata.uid = Some("uid-secret".into());
        secret
    }

    fn neighbours(labelled: Labelled, first: Option<&str>) -> Neighbours {
        Neighbours { labelled, first: first.map(str::to_owned) }
    }

    fn is_ours(meta: &Value, sealed: bool, neighbours: &Neighbours) -> bool {
        ownership(&resource(&json!({})), &secret(meta), sealed, neighbours) == Ownership::Ours
    }

    #[test]
    fn the_label_with_a_seal_the_owner_or_consent_make_it_ours() {
        let alone = Neighbours::default();
        let label = |name: &str| json!({"labels": {TOKEN_LABEL: name}});
        assert!(is_ours(&label("t"), true, &alone) && !is_ours(&label("t"), false, &alone));
        assert!(!is_ours(&json!({}), true, &alone));
        let owner = json!({"apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken", "name": "t", "uid": OURS});
        assert!(is_ours(&json!({"ownerReferences": [owner]}), false, &alone));
        let consent = |name: &str| json!({"annotations": {ADOPT_ANNOTATION: name}});
        assert!(is_ours(&consent("t"), false, &alone) && !is_ours(&consent("u"), true, &alone));
        let status = json!({"verified": {
            "generation": 1, "format": 1, "secret": {"uid": "uid-secret", "resourceVersion": "1"},
            "credentials": {"uid": "c", "resourceVersion": "1"},
        }});
        assert_eq!(ownership(&resource(&status), &secret(&json!({})), false, &alone), Ownership::Ours);
    }

    #[test]
    fn what_something_else_controls_is_never_ours() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "x", "controller": true});
        let owners = json!([owner]);
        let consent = json!({"annotations": {ADOPT_ANNOTATION: "t"}, "ownerReferences": owners});
        let label = json!({"labels": {TOKEN_LABEL: "t"}, "ownerReferences": owners});
        assert!(!is_ours(&consent, true, &Neighbours::default()) && !is_ours(&label, true, &Neighbours::default()));
    }

    #[test]
    fn the_one_in_the_label_goes_first_while_it_exists_else_the_older() {
        let theirs = || json!({"labels": {TOKEN_LABEL: "other"}});
        assert!(is_ours(&theirs(), true, &neighbours(Labelled::Gone, None)));
        assert!(!is_ours(&theirs(), false, &neighbours(Labelled::Gone, None)));
        assert!(!is_ours(&theirs(), true, &neighbours(Labelled::Gone, Some("older"))));
        assert!(!is_ours(&theirs(), true, &neighbours(Labelled::Elsewhere, None)));
        assert!(!is_ours(&theirs(), true, &neighbours(Labelled::Rival, None)));
        let ours = json!({"labels": {TOKEN_LABEL: "t"}});
        assert!(is_ours(&ours, true, &neighbours(Labelled::Gone, Some("older"))));
    }
}
