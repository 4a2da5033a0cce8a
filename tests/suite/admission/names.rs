//! Names and keys of other objects.

use serde_json::json;
use testbed::World;

use super::{admits, admits_object, credentials, rejects, rejects_object};

#[tokio::test]
async fn a_resources_name_has_at_most_63_characters() {
    let world = World::new().await;
    admits_object(&world, &world.token(&"n".repeat(63), json!({}))).await;
    let message = "metadata.name becomes a label value: write a name of at most 63 characters";
    rejects_object(&world, &world.token(&"n".repeat(64), json!({})), message).await;
    rejects_object(&world, &world.token("", json!({})), "name or generateName is required").await;
    rejects_object(&world, &world.token("Upper", json!({})), "a lowercase RFC 1123 subdomain must consist of").await;
}

#[tokio::test]
async fn secrets_are_named_as_secrets_can_be() {
    let world = World::new().await;
    let bad = ["", "Upper", "under_score", "-first", "last-", ".first", "last.", "a..b", "a.-b", "a b", "a/b", "ü"];
    for name in ["c", "verteil-credentials", "a.b", "7"] {
        admits(&world, credentials(json!({"name": name}))).await;
        admits(&world, json!({"secret": {"name": name}})).await;
    }
    for name in bad {
        let message = "write the name of a Secret in this namespace: lower case letters, digits, '-' and '.', such as";
        rejects(&world, credentials(json!({"name": name})), message).await;
        let message = "write the name of a Secret: lower case letters, digits, '-' and '.', such as verteil-token";
        rejects(&world, json!({"secret": {"name": name}}), message).await;
    }
    let (longest, longer) = ("n".repeat(253), "n".repeat(254));
    admits(&world, credentials(json!({"name": longest}))).await;
    admits(&world, json!({"secret": {"name": longest}})).await;
    rejects(&world, credentials(json!({"name": longer})), "may not be more than 253 bytes").await;
    rejects(&world, json!({"secret": {"name": longer}}), "may not be more than 253 bytes").await;
    rejects(&world, credentials(json!({"name": null})), "spec.credentialsSecretRef.name: Required value").await;
    rejects(&world, credentials(json!(null)), "spec.credentialsSecretRef: Required value").await;
    rejects(&world, credentials(json!("credentials")), "spec.credentialsSecretRef: Invalid value: \"string\"").await;
}

#[tokio::test]
async fn keys_of_the_credentials_are_such_as_a_secret_can_have() {
    let world = World::new().await;
    for field in ["usernameKey", "passwordKey"] {
        for key in ["client_id", "client-id", "a.B-7_", ".hidden"] {
            admits(&world, credentials(json!({field: key}))).await;
        }
        for key in ["", "a b", "a/b", "a:b", "ä", ".", "..", "..a"] {
            rejects(&world, credentials(json!({field: key})), "write a key of the Secret: letters, digits").await;
        }
        admits(&world, credentials(json!({field: "k".repeat(253)}))).await;
        rejects(&world, credentials(json!({field: "k".repeat(254)})), "may not be more than 253 bytes").await;
    }
}

#[tokio::test]
async fn a_ca_bundle_is_a_key_of_a_configmap_or_a_secret() {
    let world = World::new().await;
    for kind in ["ConfigMap", "Secret"] {
        let spec = admits(&world, json!({"caBundleRef": {"kind": kind, "name": "corp.ca-1"}})).await;
        assert_eq!(spec["caBundleRef"], json!({"kind": kind, "name": "corp.ca-1", "key": "ca.crt"}));
    }
    for (reference, message) in [
        (json!({"kind": "Bundle", "name": "corp-ca"}), "supported values: \"ConfigMap\", \"Secret\""),
        (json!({"name": "corp-ca"}), "kind: Required value"),
        (json!({"kind": "Secret"}), "name: Required value"),
        (json!({"kind": "Secret", "name": "Corp_CA"}), "write the name of a ConfigMap or Secret"),
        (json!({"kind": "Secret", "name": "corp-ca", "key": "../ca.crt"}), "write a key of the ConfigMap or Secret"),
    ] {
        rejects(&world, json!({"caBundleRef": reference}), message).await;
    }
}
