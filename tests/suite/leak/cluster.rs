//! What the apiserver, its admission, and whatever stands before it may quote; and contents of Secrets that are not as they should be.

use serde_json::{Value, json};
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{Operator, PASSWORD, PATIENCE, USERNAME};
use testbed::{Proxy, World, eventually};

use crate::events::event;

/// The Secrets that a policy refuses, quoting them, unless it is a dry run.
const QUOTED: [&str; 2] = ["quoted", "quoted-again"];
/// Resources that cannot go on, and with which reason.
const BLOCKED: [(&str, &str); 7] = [
    ("template-syntax", "TemplateInvalid"),
    ("ca-is-a-password", "CAInvalid"),
    ("colon", "CredentialsInvalid"),
    ("not-text", "CredentialsInvalid"),
    ("blank", "CredentialsInvalid"),
    ("no-key", "CredentialsMissing"),
    ("foreign", "SecretNotOurs"),
];
/// Resources whose credentials Secret is answered in a form that is none, at first.
const ODD: [&str; 4] = ["odd-data", "odd-half", "odd-status", "odd-text"];

/// Faults of the way to the apiserver, with true content in them.
pub fn script(proxy: &Proxy) {
    let secret =
        |name: &'static str| move |call: &Call| call.kind == Kind::GetSecret && call.name == format!("{name}-c");
    proxy.fault(secret("odd-data"), [Fault::Changed(200, |body| body.replace("\"data\":{", "\"data\":[{"))]);
    proxy.fault(secret("odd-half"), [Fault::Changed(200, |body| body[..body.len() / 2].to_owned())]);
    proxy.fault(secret("odd-status"), [Fault::Changed(500, str::to_owned)]);
    proxy.fault(
        secret("odd-text"),
        [Fault::Changed(200, |body| body.replace("\"metadata\":{", "\"metadata\":\"canary\",\"x\":{"))],
    );
    let page = || Fault::Answer(502, format!("<html>canary-gateway: {PASSWORD}</html>"));
    proxy.fault(|call| call.kind == Kind::Claim && call.name == "odd-data", [page()]);
    proxy.fault(|call| call.kind == Kind::WriteSecret && call.name == "odd-half", [page()]);
    proxy.fault(|call| call.kind == Kind::Status && call.name == "odd-status", [page()]);
    proxy.fault(|call| call.kind == Kind::Event && call.name.starts_with("basic."), [page()]);
    let list = |call: &Call| call.kind == Kind::Watch && call.uri.contains("/secrets") && !call.uri.contains("watch=");
    let odd_list: fn(&str) -> String =
        |_| r#"{"metadata": {}, "items": [{"metadata": "canary-annotation"}]}"#.to_owned();
    proxy.fault(list, [Fault::Changed(200, odd_list), Fault::Changed(500, str::to_owned)]);
    let watch = |call: &Call| call.kind == Kind::Watch && call.uri.contains("/secrets") && call.uri.contains("watch=");
    proxy.fault(
        watch,
        [Fault::Answer(200, "{\"type\": \"ADDED\", \"object\": {\"metadata\": \"canary-watch\"}}\n".into())],
    );
}

fn policy(world: &World) -> Value {
    let message = "'the policy quotes ' + string(object.data['access_token']) + ' and ' + string(object.data['verteil_token.json'])";
    json!({"apiVersion": "v1", "kind": "List", "items": [{
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": world.namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]},
            ]},
            "validations": [{
                "expression": "request.dryRun || !object.metadata.name.startsWith('quoted')",
                "messageExpression": message, "message": "the policy quotes nothing",
            }],
        },
    }, {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": world.namespace},
        "spec": {
            "policyName": world.namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}},
        },
    }]})
}

fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// Creates the resources.
pub async fn begin(world: &World) {
    world.kubectl_apply(&policy(world).to_string()).await;
    let probe = json!({"access_token": "canary-probe", "verteil_token.json": "canary"});
    eventually("the policy to be in force", PATIENCE, async || {
        let args = ["create", "-f", "-"];
        let output = world.kubectl(&args, Some(&secret("quoted-probe", &probe).to_string())).await;
        let quotes = output.stderr.contains("the policy quotes Y2FuYXJ5LXByb2Jl");
        let _ = world.kubectl(&["delete", "secret", "quoted-probe", "--ignore-not-found"], None).await;
        if quotes { Ok(()) } else { Err(output.stderr) }
    })
    .await;
    for name in ODD {
        // As kubectl leaves it: with all of it in an annotation.
        let credentials = secret(&format!("{name}-c"), &json!({"username": USERNAME, "password": PASSWORD}));
        world.kubectl_apply(&credentials.to_string()).await;
        world.create_token(name, json!({"credentialsSecretRef": {"name": format!("{name}-c")}})).await;
    }
    world.set_credentials("colon-c", "canary:user", PASSWORD).await;
    world.set_credentials("blank-c", USERNAME, "").await;
    world.kubectl_apply(&secret("no-key-c", &json!({"username": USERNAME})).to_string()).await;
    world.kubectl_apply(&secret("foreign", &json!({"verteil_token.json": "canary-foreign"})).to_string()).await;
    let not_text = json!({"data": {"username": "Y2FuYXJ5", "password": "Y2FuYXJ5gP8="}});
    let mut object = secret("not-text-c", &json!({}));
    testbed::world::merge(&mut object, not_text);
    world.kubectl_apply(&object.to_string()).await;
    let named = |name: &str| json!({"credentialsSecretRef": {"name": name}});
    let by_value = "{% if token_type != 'Bearer' %}{{ access_token - token_type }}{% endif %}";
    for (name, spec) in [
        ("template-syntax", json!({"secret": {"template": {"KEY": "{{ access_token"}}})),
        ("ca-is-a-password", json!({"caBundleRef": {"kind": "Secret", "name": "credentials", "key": "password"}})),
        ("colon", named("colon-c")),
        ("not-text", named("not-text-c")),
        ("blank", named("blank-c")),
        ("no-key", named("no-key-c")),
        ("foreign", json!({})),
        ("quoted", json!({})),
        ("quoted-again", json!({"secret": {"template": {"ENCODED": "{{ access_token | b64encode }}"}}})),
        ("damaged", json!({})),
    ] {
        world.create_token(name, spec).await;
    }
    let mac = testbed::Answer::token("canary-token-mac").field("token_type", "mac");
    world.issuer.enqueue_for("template-value", mac);
    world.create_token("template-value", json!({"secret": {"template": {"KEY": by_value}}})).await;
}

/// Waits until each has come to its end.
pub async fn end(world: &World, operator: &Operator) {
    for (name, reason) in BLOCKED {
        world.condition(name, "Ready", "False", reason).await;
        event(world, name, reason).await;
    }
    for name in QUOTED {
        let status = world.condition(name, "Ready", "False", "WriteRefused").await;
        let said = verteil_token_operator::decide::condition(&status, "Ready").unwrap().message.clone();
        assert!(said.contains("the policy quotes [hidden] and [hidden]"), "{said}");
    }
    world.condition("template-value", "RenewalFailing", "True", "TemplateInvalid").await;
    for name in ODD {
        world.ready(name).await;
    }
    let log = operator.log();
    for words in ["the answer is not of the expected form", "is there a proxy in between?", "watch failed"] {
        assert!(log.contains(words), "{words}");
    }
    world.ready("damaged").await;
    let cut = json!({"stringData": {"verteil_token.json": "{\"access_token\": \"canary-token-dam"}});
    world.change_secret("damaged", cut).await;
    let (_, note) = loop_until_second(world).await;
    assert!(note.contains("RecordInvalid"), "{note}");
}

/// The event of the token that replaces the damaged one.
async fn loop_until_second(world: &World) -> (String, String) {
    world.status("damaged", "the second token", |status| status.tokens_issued == Some(2)).await;
    eventually("an event that tells of the damage", PATIENCE, async || {
        let all = crate::events::events(world).await;
        let note = |event: &k8s_openapi::api::events::v1::Event| event.note.clone().unwrap_or_default();
        all.iter()
            .map(note)
            .find(|note| note.starts_with("RecordInvalid"))
            .map(|n| (String::new(), n))
            .ok_or_else(String::new)
    })
    .await
}
