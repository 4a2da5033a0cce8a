//! The Secret as it should be.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::judge::rfc3339;
use super::prune::prune;
use super::{is_adopted, render_templates};
use crate::api::{
    ADOPTED_ANNOTATION, DeletionPolicy, EXPIRES_AT_ANNOTATION, IN_MEMORY_ANNOTATION, INPUT_SEAL_ANNOTATION,
    ISSUED_AT_ANNOTATION, MANAGED_BY_LABEL, MANAGER, RECORD_SEAL_ANNOTATION, RENEW_ANNOTATION, RENEWED_ANNOTATION,
    SUPERSEDED_BY_ANNOTATION, TOKEN_LABEL, VerteilToken,
};
use crate::token::{Record, RecordSeal};

/// The layout of the Secret that [`build`] makes. A change of it makes every Secret be looked at once, and repaired.
pub const FORMAT: i64 = 1;
/// As long as a long token.
const PLACEHOLDER_LENGTH: usize = 2048;

/// What the operator puts into the Secret.
#[derive(Clone)]
pub struct Content {
    /// The token and its times.
    pub record: Record,
    /// Seal over the record, as annotated.
    pub record_seal: String,
    /// Seal over the inputs, as annotated.
    pub input_seal: Option<String>,
    /// The value of verteil.dev/renew that this token serves.
    pub renewed: Option<String>,
}

/// The Secret with `content`: `existing` with our fields changed and all others kept, or a new one.
#[must_use]
pub fn build(resource: &VerteilToken, existing: Option<&Secret>, content: &Content) -> Secret {
    let mut secret = frame(resource, existing);
    let data = secret.data.get_or_insert_default();
    // A template that cannot be rendered leaves its key as it was: it must not cost the token beside it.
    data.extend(render_templates(resource, &content.record).keys);
    data.extend(content.record.keys().map(|(name, bytes)| (name.to_owned(), ByteString(bytes))));
    let validity = content.record.validity();
    let annotations = secret.annotations_mut();
    let mut set = |name: &str, value: String| annotations.insert(name.to_owned(), value);
    set(ISSUED_AT_ANNOTATION, rfc3339(validity.issued_at));
    set(EXPIRES_AT_ANNOTATION, rfc3339(validity.expires_at));
    set(RECORD_SEAL_ANNOTATION, content.record_seal.clone());
    for (name, value) in [(INPUT_SEAL_ANNOTATION, &content.input_seal), (RENEWED_ANNOTATION, &content.renewed)] {
        match value {
            Some(value) => annotations.insert(name.to_owned(), value.clone()),
            None => annotations.remove(name),
        };
    }
    secret
}

/// The Secret as it would be written, with a token that is none: for the dry run that precedes a request. What could be refused
/// about the real one (names, sizes, labels, annotations) is in it.
#[must_use]
pub fn placeholder(resource: &VerteilToken, existing: Option<&Secret>) -> Secret {
    let Some(content) = &*PLACEHOLDER else { return frame(resource, existing) };
    let renewed = resource.annotations().get(RENEW_ANNOTATION).cloned();
    build(resource, existing, &Content { renewed, ..content.clone() })
}

/// A record as an issuer's answer would make it, with a long token that is none.
pub(super) fn placeholder_record() -> Option<&'static Record> {
    PLACEHOLDER.as_ref().map(|content| &content.record)
}

/// Made once: its seal is the same each time.
static PLACEHOLDER: LazyLock<Option<Content>> = LazyLock::new(|| {
    let requested_at = Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_hours(500_000)).unwrap_or_default();
    let token = "-".repeat(PLACEHOLDER_LENGTH);
    let record = Record::new(token.into(), "Bearer".into(), 43_199, requested_at, requested_at).ok()?;
    let record_seal = RecordSeal::of(&record).as_str().to_owned();
    Some(Content { input_seal: Some(record_seal.clone()), record_seal, renewed: None, record })
});

/// Whether `wanted` names an owner that `existing` does not.
#[must_use]
pub fn would_add_owner(existing: &Secret, wanted: &Secret) -> bool {
    wanted.owner_references().iter().any(|owner| !existing.owner_references().contains(owner))
}

/// Everything of the Secret but the token.
fn frame(resource: &VerteilToken, existing: Option<&Secret>) -> Secret {
    let mut secret = existing.cloned().unwrap_or_else(|| Secret {
        type_: Some("Opaque".into()),
        metadata: kube::core::ObjectMeta {
            name: Some(resource.secret_name().to_owned()),
            namespace: resource.metadata.namespace.clone(),
            ..Default::default()
        },
        ..Default::default()
    });
    prune(resource, &mut secret);
    let extra = &resource.spec.secret;
    let labels: &mut BTreeMap<String, String> = secret.labels_mut();
    labels.extend(extra.labels.clone());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    labels.insert(TOKEN_LABEL.into(), resource.name_any());
    secret.annotations_mut().extend(extra.annotations.clone());
    secret.annotations_mut().remove(SUPERSEDED_BY_ANNOTATION);
    secret.annotations_mut().remove(IN_MEMORY_ANNOTATION);
    let adopted = existing.is_some_and(|existing| is_adopted(resource, existing));
    if adopted {
        secret.annotations_mut().insert(ADOPTED_ANNOTATION.into(), resource.name_any());
    }
    match resource.spec.secret.deletion_policy {
        DeletionPolicy::Delete if !adopted => name_owner(resource, &mut secret),
        DeletionPolicy::Delete | DeletionPolicy::Retain => disown(resource, &mut secret),
    }
    secret
}

/// Sets the owner reference: the Secret goes with the resource. It does not block the owner's deletion.
pub(super) fn name_owner(resource: &VerteilToken, secret: &mut Secret) {
    let Some(uid) = resource.metadata.uid.clone() else { return };
    forget_predecessor(resource, secret);
    if secret.owner_references().iter().any(|owner| owner.uid == uid) {
        return;
    }
    secret.owner_references_mut().push(OwnerReference {
        api_version: VerteilToken::api_version(&()).into_owned(),
        kind: VerteilToken::kind(&()).into_owned(),
        name: resource.name_any(),
        uid,
        controller: Some(true),
        block_owner_deletion: None,
    });
}

/// Takes the owner reference away: the Secret stays when the resource goes.
fn disown(resource: &VerteilToken, secret: &mut Secret) {
    forget_predecessor(resource, secret);
    secret.owner_references_mut().retain(|owner| Some(&owner.uid) != resource.metadata.uid.as_ref());
    if secret.owner_references().is_empty() {
        secret.metadata.owner_references = None;
    }
}

/// Takes away the reference to an earlier resource of this name.
fn forget_predecessor(resource: &VerteilToken, secret: &mut Secret) {
    let (kind, name) = (VerteilToken::kind(&()), resource.name_any());
    secret
        .owner_references_mut()
        .retain(|o| Some(&o.uid) == resource.metadata.uid.as_ref() || !(o.kind == kind && o.name == name));
}
