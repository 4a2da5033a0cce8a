//! The Secret that a resource leaves behind when its spec names another one.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::build::name_owner;
use super::is_adopted;
use crate::api::{MANAGED_BY_LABEL, MANAGER, SUPERSEDED_BY_ANNOTATION, TOKEN_LABEL, VerteilToken};

/// `former` without our labels and marked as superseded; it goes with the resource, unless it is its user's. Its keys stay, for
/// pods that still mount it. None if it is marked already.
#[must_use]
pub fn supersede(resource: &VerteilToken, former: &Secret) -> Option<Secret> {
    let mut secret = former.clone();
    let ours = [(MANAGED_BY_LABEL, MANAGER.to_owned()), (TOKEN_LABEL, resource.name_any())];
    for (name, value) in ours {
        if secret.labels().get(name) == Some(&value) {
            secret.labels_mut().remove(name);
        }
    }
    let successor = resource.secret_name().to_owned();
    secret.annotations_mut().insert(SUPERSEDED_BY_ANNOTATION.into(), successor);
    if !is_adopted(resource, former) {
        name_owner(resource, &mut secret);
    }
    (secret != *former).then_some(secret)
}
