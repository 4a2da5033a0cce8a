//! A Secret whose token is kept in memory only.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::prune::written_keys;
use super::template_keys;
use crate::api::{
    EXPIRES_AT_ANNOTATION, IN_MEMORY_ANNOTATION, INPUT_SEAL_ANNOTATION, ISSUED_AT_ANNOTATION, RECORD_SEAL_ANNOTATION,
    RENEWED_ANNOTATION, VerteilToken,
};
use crate::token::Record;

/// Where `kubectl apply` keeps what it was given: perhaps the token, if somebody applied the Secret.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `secret` without what the operator wrote of the token, and marked as emptied by `resource`. None if there is nothing to take
/// out. Labels stay, and so do the keys of others.
#[must_use]
pub fn emptied(resource: &VerteilToken, secret: &Secret) -> Option<Secret> {
    let mut empty = secret.clone();
    let written = written_keys(secret);
    let ours = |key: &str| is_ours(resource, key) || written.iter().any(|name| name == key);
    let taken: Vec<&String> = secret.data.iter().flatten().map(|(key, _)| key).filter(|key| ours(key)).collect();
    if let Some(data) = &mut empty.data {
        data.retain(|key, _| !ours(key));
    }
    let seals = [
        ISSUED_AT_ANNOTATION,
        EXPIRES_AT_ANNOTATION,
        RECORD_SEAL_ANNOTATION,
        INPUT_SEAL_ANNOTATION,
        RENEWED_ANNOTATION,
    ];
    let annotations = empty.annotations_mut();
    annotations.retain(|name, value| {
        // In base64 or, under stringData, as it is.
        let shows = name == LAST_APPLIED && taken.iter().any(|key| value.contains(key.as_str()));
        !shows && !seals.contains(&name.as_str())
    });
    if empty == *secret {
        return None;
    }
    empty.annotations_mut().insert(IN_MEMORY_ANNOTATION.into(), resource.name_any());
    Some(empty)
}

/// `secret` as memory keeps it: with the operator's own keys alone, under the name that the spec gives it now.
#[must_use]
pub fn for_memory(resource: &VerteilToken, secret: &Secret) -> Secret {
    let mut kept = secret.clone();
    kept.metadata.name = Some(resource.secret_name().to_owned());
    (kept.metadata.managed_fields, kept.immutable) = (None, None);
    kept.annotations_mut().remove(LAST_APPLIED);
    if let Some(data) = &mut kept.data {
        data.retain(|key, _| is_ours(resource, key));
    }
    kept
}

fn is_ours(resource: &VerteilToken, key: &str) -> bool {
    Record::is_key(key) || template_keys(resource).any(|name| name == key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::json;

    use super::*;
    use crate::decide::{Lost, Stored};
    use crate::secret::{Neighbours, judge};

    fn resource(status: &serde_json::Value) -> VerteilToken {
        serde_json::from_value(json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken", "metadata": {"name": "flight", "uid": "u"},
            "spec": {
                "tokenURL": "https://a.b/token", "credentialsSecretRef": {"name": "c"},
                "secret": {"template": {"HEADER": "x"}, "deletionPolicy": "Retain"},
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_was_written_of_the_token_goes_wherever_it_stands_and_all_else_stays() {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": "flight", "uid": "s", "labels": {"verteil.dev/token": "flight", "theirs": "1"},
                "annotations": {
                    "verteil.dev/record-seal": "r1.x", "verteil.dev/expires-at": "x", "verteil.dev/adopted": "flight",
                    "theirs": "1", LAST_APPLIED: r#"{"stringData":{"access_token":"fake-token"}}"#,
                },
                "managedFields": [{
                    "manager": crate::api::MANAGER, "operation": "Update", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:data": {"f:access_token": {}, "f:OLD": {}}},
                }],
            },
            "data": {"access_token": "eA==", "verteil_token.json": "eA==", "HEADER": "eA==", "OLD": "eA==", "theirs": "eA=="},
        }))
        .unwrap();
        let resource = resource(&json!({}));
        let empty = emptied(&resource, &secret).unwrap();
        assert_eq!(empty.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["theirs"]);
        let annotations: Vec<&str> = empty.annotations().keys().map(String::as_str).collect();
        assert_eq!(annotations, ["theirs", "verteil.dev/adopted", IN_MEMORY_ANNOTATION]);
        assert_eq!((empty.labels(), &empty.metadata.uid), (secret.labels(), &secret.metadata.uid));
        assert_eq!(emptied(&resource, &empty), None, "once is enough");
        let kept = for_memory(&resource, &secret);
        let keys: Vec<&String> = kept.data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["HEADER", "access_token", "verteil_token.json"]);
    }

    #[test]
    fn an_emptied_secret_is_its_resources_still_and_says_that_nothing_was_removed() {
        let secret: Secret = serde_json::from_value(json!({"metadata": {
            "name": "flight", "uid": "s", "labels": {"verteil.dev/token": "flight"},
            "annotations": {IN_MEMORY_ANNOTATION: "flight"},
        }}))
        .unwrap();
        let stored = |status: &serde_json::Value, secret: &Secret| {
            judge(&resource(status), Some(secret), None, false, &Neighbours::default()).stored
        };
        let lost = json!({"recordSeal": "r1.x", "inMemory": true});
        assert!(matches!(stored(&lost, &secret), Stored::Absent { lost: Lost::Memory }));
        assert!(matches!(stored(&json!({"recordSeal": "r1.x"}), &secret), Stored::Absent { lost: Lost::Secret }));
        assert!(matches!(stored(&json!({}), &secret), Stored::Absent { lost: Lost::Nothing }));
        let mut other = secret.clone();
        other.annotations_mut().insert(IN_MEMORY_ANNOTATION.into(), "hotel".into());
        assert!(matches!(stored(&json!({}), &other), Stored::Foreign));
    }
}
