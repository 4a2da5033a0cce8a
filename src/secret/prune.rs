//! What this operator wrote into the Secret and no longer wants there: found in the managed fields (API conventions, "Server
//! Side Apply"), which tell who wrote each label, annotation and key last. What anybody else wrote stays.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::template_keys;
use crate::api::{MANAGED_BY_LABEL, MANAGER, TOKEN_LABEL, VerteilToken};
use crate::token::Record;

/// Prefix of the annotations that the operator keeps for itself.
const OWN_PREFIX: &str = "verteil.dev/";

/// Takes out of `secret` what the operator wrote for an earlier spec of `resource`.
pub(super) fn prune(resource: &VerteilToken, secret: &mut Secret) {
    let extra = &resource.spec.secret;
    let written = |path: &[&str]| written(secret, path);
    let labels = written(&["f:metadata", "f:labels"]);
    let annotations = written(&["f:metadata", "f:annotations"]);
    let keys = written(&["f:data"]);
    let own_labels = [MANAGED_BY_LABEL, TOKEN_LABEL];
    retain(&mut secret.metadata.labels, &labels, |name| extra.labels.contains_key(name) || own_labels.contains(&name));
    retain(&mut secret.metadata.annotations, &annotations, |name| {
        extra.annotations.contains_key(name) || name.starts_with(OWN_PREFIX)
    });
    retain(&mut secret.data, &keys, |name| Record::is_key(name) || template_keys(resource).any(|key| key == name));
}

/// The keys that the operator wrote last.
pub(super) fn written_keys(secret: &Secret) -> Vec<String> {
    written(secret, &["f:data"])
}

/// The names under `path` that the operator wrote last.
fn written(secret: &Secret, path: &[&str]) -> Vec<String> {
    let ours =
        secret.metadata.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref() == Some(MANAGER));
    let fields = ours.filter_map(|entry| entry.fields_v1.as_ref());
    let under = fields.filter_map(|fields| path.iter().try_fold(&fields.0, |value: &Value, step| value.get(step)));
    let names = under.filter_map(Value::as_object).flat_map(|map| map.keys());
    names.filter_map(|name| name.strip_prefix("f:").map(str::to_owned)).collect()
}

fn retain<V>(map: &mut Option<BTreeMap<String, V>>, written: &[String], wanted: impl Fn(&str) -> bool) {
    for name in written.iter().filter(|name| !wanted(name)) {
        if let Some(map) = map {
            map.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_we_wrote_and_want_no_more_goes_and_all_else_stays() {
        let resource: VerteilToken = serde_json::from_value(json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken", "metadata": {"name": "t"},
            "spec": {
                "tokenURL": "https://a.b/token", "credentialsSecretRef": {"name": "c"},
                "secret": {"labels": {"kept": "1"}, "template": {"KEPT": "x"}},
            },
        }))
        .unwrap();
        let mut secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "labels": {"kept": "1", "old": "1", "theirs": "1", "verteil.dev/token": "t"},
                "annotations": {"old": "1", "theirs": "1", "verteil.dev/record-seal": "r"},
                "managedFields": [
                    {"manager": MANAGER, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {
                        "f:metadata": {
                            "f:labels": {".": {}, "f:kept": {}, "f:old": {}, "f:verteil.dev/token": {}},
                            "f:annotations": {".": {}, "f:old": {}, "f:verteil.dev/record-seal": {}},
                        },
                        "f:data": {".": {}, "f:access_token": {}, "f:KEPT": {}, "f:OLD": {}},
                    }},
                    {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:theirs": {}}}, "f:data": {"f:theirs": {}},
                    }},
                ],
            },
            "data": {"access_token": "eA==", "KEPT": "eA==", "OLD": "eA==", "theirs": "eA=="},
        }))
        .unwrap();
        prune(&resource, &mut secret);
        let names = |map: &Option<BTreeMap<String, String>>| map.clone().unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(names(&secret.metadata.labels), ["kept", "theirs", "verteil.dev/token"]);
        assert_eq!(names(&secret.metadata.annotations), ["theirs", "verteil.dev/record-seal"]);
        assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["KEPT", "access_token", "theirs"]);
    }
}
