//! Are further keys rendered from templates, kept as they should be, and mistakes in them told before they cost anything?

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use testbed::world::{PATIENCE, QUIET};
use testbed::{Answer, World, eventually};
use verteil_token_operator::api::{VerteilToken, VerteilTokenStatus};
use verteil_token_operator::decide::condition;
use verteil_token_operator::token::Record;

use crate::OPERATOR;
use crate::events::{event, events};

const HEADER: &str = "Bearer {{ access_token }}";
const DOTENV: &str = "TOKEN={{ access_token }}\nEXPIRES={{ expires_at }}\n";
/// What it computes shows its mistake only with a token of another type than Bearer.
const PICKY: &str = "{% if token_type == 'Bearer' %}{{ access_token }}{% else %}{{ access_token - 1 }}{% endif %}";

fn template(keys: Value) -> Value {
    json!({"secret": Value::from_iter([("template", keys)])})
}

async fn set_template(world: &World, name: &str, keys: Value) {
    world.change(name, json!({"spec": template(keys)})).await;
}

/// Waits until a key of the Secret has this value.
async fn holds(world: &World, secret: &str, key: &str, value: &str) {
    eventually(&format!("{key} of Secret {secret}"), PATIENCE, async || {
        let found = world.secret_key(secret, key).await;
        if found == value { Ok(()) } else { Err(found) }
    })
    .await;
}

fn message(status: &VerteilTokenStatus, type_: &str) -> String {
    condition(status, type_).map(|condition| condition.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_header_and_a_dotenv_file_are_rendered_and_follow_each_renewal() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let keys = json!({"AUTHORIZATION": HEADER, ".env": DOTENV, "of": "{{ namespace }}/{{ name }}"});
    world.create_token("flight", template(keys)).await;
    world.ready("flight").await;
    let rendered = async || {
        let token = world.issuer.last_token("flight").unwrap();
        holds(&world, "flight", "AUTHORIZATION", &format!("Bearer {token}")).await;
        let expires = world.tokens().get("flight").await.unwrap().status.unwrap().expires_at.unwrap().0;
        holds(&world, "flight", ".env", &format!("TOKEN={token}\nEXPIRES={expires}\n")).await;
        token
    };
    let first = rendered().await;
    assert_eq!(world.secret_key("flight", "of").await, format!("{}/flight", world.namespace));
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_ne!(rendered().await, first);
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_changed_template_is_rendered_without_a_request_also_while_no_operator_ran() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let token = world.issuer.last_token("flight").unwrap();
    set_template(&world, "flight", json!({"AUTHORIZATION": HEADER})).await;
    holds(&world, "flight", "AUTHORIZATION", &format!("Bearer {token}")).await;
    set_template(&world, "flight", json!({"AUTHORIZATION": "{{ token_type | lower }} {{ access_token }}"})).await;
    holds(&world, "flight", "AUTHORIZATION", &format!("bearer {token}")).await;
    operator.kill();
    set_template(&world, "flight", json!({"AUTHORIZATION": "{{ access_token | tojson }}"})).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    holds(&world, "flight", "AUTHORIZATION", &format!("\"{token}\"")).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn an_edited_or_removed_key_is_rendered_again_without_a_request() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", template(json!({"AUTHORIZATION": HEADER}))).await;
    world.ready("flight").await;
    let header = world.secret_key("flight", "AUTHORIZATION").await;
    assert_eq!(header, format!("Bearer {}", world.issuer.last_token("flight").unwrap()));
    for damage in [json!(BASE64_STANDARD.encode("Bearer fake-intruder")), json!(null)] {
        world.change_secret("flight", json!({"data": {"AUTHORIZATION": damage}})).await;
        holds(&world, "flight", "AUTHORIZATION", &header).await;
    }
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn mistakes_are_refused_with_their_place_before_any_request_and_mended_with_one() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let mistakes = [
        ("syntax", "x\n {{ access_token", "line 2, column 5: syntax error: unexpected end of input"),
        (
            "name",
            "{% if not name %}{{ token }}{% endif %}",
            "line 1, column 21: token is unknown: there are access_token,",
        ),
        ("filter", "{{ access_token | quote }}", "line 1, column 19: filter quote is unknown: there are b64encode,"),
        ("size", "{{ 'x' * 70000 }}", "it renders to more than 64 KiB"),
        ("loop", "{{ 'x' * 99999999 }}", "line 1, column 4: it takes too much time or memory"),
    ];
    for (name, text, _) in mistakes {
        world.create_token(name, template(json!({"A": HEADER, "KEY": text}))).await;
    }
    for (name, text, told) in mistakes {
        let status = world.condition(name, "Stalled", "True", "TemplateInvalid").await;
        assert!(condition(&status, "Ready").is_some_and(|c| c.status == "False" && c.reason == "TemplateInvalid"));
        let message = message(&status, "Ready");
        assert!(message.contains(&format!("spec.secret.template, key KEY, {told}")), "{text}\n{message}");
        assert!(world.secrets().get_opt(name).await.unwrap().is_none(), "{name}");
        let (kind, note) = event(&world, name, "TemplateInvalid").await;
        assert_eq!((kind.as_str(), note.contains(told)), ("Warning", true), "{note}");
    }
    world.stays_at(0).await;
    for (name, ..) in mistakes {
        set_template(&world, name, json!({"KEY": "{{ access_token }}"})).await;
    }
    for (name, ..) in mistakes {
        world.ready(name).await;
        assert_eq!(world.secret_key(name, "KEY").await, world.issuer.last_token(name).unwrap());
    }
    world.stays_at(mistakes.len()).await;
}

#[tokio::test]
async fn a_template_as_deep_as_its_text_is_long_does_not_end_the_process() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let texts = ["-".repeat(4000) + "1", "1".to_owned() + &"()".repeat(2000), "1+".repeat(2000) + "1"];
    for (name, text) in ["neg", "call", "add"].into_iter().zip(texts) {
        world.create_token(name, template(json!({"KEY": format!("{{{{ {text} }}}}")}))).await;
    }
    world.condition("call", "Stalled", "True", "TemplateInvalid").await;
    world.ready("neg").await;
    world.ready("add").await;
    assert_eq!(world.secret_key("add", "KEY").await, "2001");
    world.stays_at(2).await;
    assert_eq!(operator.terminate().await, Some(0));
}

#[tokio::test]
async fn a_template_that_breaks_while_a_token_is_valid_changes_nothing_but_what_is_told() {
    let world = World::new().await;
    let mut operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", template(json!({"AUTHORIZATION": HEADER}))).await;
    world.ready("flight").await;
    let before = world.secrets().get("flight").await.unwrap();
    set_template(&world, "flight", json!({"AUTHORIZATION": "Bearer {{ acces_token }}"})).await;
    let status = world.condition("flight", "RenewalFailing", "True", "TemplateInvalid").await;
    assert!(message(&status, "RenewalFailing").contains("line 1, column 11: acces_token is unknown"));
    for _ in 0..2 {
        let status = world.ready("flight").await;
        assert!(condition(&status, "RenewalFailing").is_some_and(|c| c.reason == "TemplateInvalid"));
        // A renewal that is asked for waits too.
        world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
        world.stays_at(1).await;
        assert_eq!(world.secrets().get("flight").await.unwrap(), before);
        operator.kill();
        operator = world.operator(OPERATOR, &[]).await;
    }
    set_template(&world, "flight", json!({"AUTHORIZATION": HEADER})).await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    world.condition("flight", "RenewalFailing", "False", "").await;
    holds(&world, "flight", "AUTHORIZATION", &format!("Bearer {}", world.issuer.last_token("flight").unwrap())).await;
    world.stays_at(2).await;
    drop(operator);
}

#[tokio::test]
async fn a_token_whose_values_a_template_does_not_suit_is_stored_all_the_same() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.issuer.enqueue(Answer::token("fake-canary-of-a-mac").field("token_type", "mac"));
    world.create_token("flight", template(json!({"PICKY": PICKY, "PLAIN": "{{ access_token }}"}))).await;
    let status = world.condition("flight", "RenewalFailing", "True", "TemplateInvalid").await;
    assert!(condition(&status, "Ready").is_some_and(|c| c.status == "True"));
    let told = message(&status, "RenewalFailing");
    assert_eq!(told, "spec.secret.template, key PICKY, line 1, column 63: invalid operation");
    world.stores("flight", "fake-canary-of-a-mac").await;
    holds(&world, "flight", "PLAIN", "fake-canary-of-a-mac").await;
    assert!(!world.secrets().get("flight").await.unwrap().data.unwrap().contains_key("PICKY"));
    world.stays_at(1).await;
    for note in events(&world).await.into_iter().filter_map(|event| event.note) {
        assert!(!note.contains("fake-canary"), "{note}");
    }
    // It is no obstacle: the next token is requested, and suits.
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    world.condition("flight", "RenewalFailing", "False", "").await;
    holds(&world, "flight", "PICKY", &world.issuer.last_token("flight").unwrap()).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_key_that_a_new_token_does_not_suit_keeps_its_former_value() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", template(json!({"PICKY": PICKY}))).await;
    world.ready("flight").await;
    let former = world.issuer.last_token("flight").unwrap();
    holds(&world, "flight", "PICKY", &former).await;
    world.issuer.enqueue(Answer::token("fake-canary-of-a-mac").field("token_type", "mac"));
    world.change("flight", json!({"spec": {"scopes": ["other"]}})).await;
    world.condition("flight", "RenewalFailing", "True", "TemplateInvalid").await;
    world.ready("flight").await;
    world.stores("flight", "fake-canary-of-a-mac").await;
    assert_eq!(world.secret_key("flight", "PICKY").await, former);
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_template_that_breaks_while_its_token_is_requested_does_not_lose_it() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.issuer.hold();
    world.create_token("flight", template(json!({"AUTHORIZATION": HEADER}))).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    set_template(&world, "flight", json!({"AUTHORIZATION": "{{", "PLAIN": "{{ access_token }}"})).await;
    world.issuer.release();
    world.condition("flight", "RenewalFailing", "True", "TemplateInvalid").await;
    world.ready("flight").await;
    let token = world.issuer.last_token("flight").unwrap();
    world.stores("flight", &token).await;
    set_template(&world, "flight", json!({"AUTHORIZATION": HEADER})).await;
    holds(&world, "flight", "AUTHORIZATION", &format!("Bearer {token}")).await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn keys_of_the_operators_own_and_keys_that_no_secret_has_are_refused_by_kubectl_apply() {
    let world = World::new().await;
    let apply = async |keys: Value| {
        let token = world.token("flight", template(keys)).to_string();
        world.kubectl(&["apply", "--dry-run=server", "-f", "-"], Some(&token)).await
    };
    let refused = async |keys: Value, message: &str| {
        let output = apply(keys.clone()).await;
        assert!(!output.status.success() && output.stderr.contains(message), "{keys}\n{}", output.stderr);
    };
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let now = jiff::Timestamp::now();
    let record = Record::new("fake".to_owned().into(), "Bearer".into(), 60, now, now).unwrap();
    for (key, _) in record.keys() {
        refused(
            json!({key: "x"}),
            "verteil_token.json are written by the operator itself: write the template under another key",
        )
        .await;
    }
    for key in ["", ".", "..", "..data", "a/b", "a b", "ü", &"k".repeat(254)] {
        refused(json!({key: "x"}), "write keys of a Secret: at most 253 letters, digits, '-', '_' and '.'").await;
    }
    refused(json!({"KEY": "x".repeat(4097)}), "may not be more than 4096").await;
    let many = |n: usize| (0..n).map(|n| (format!("{n}{}", "k".repeat(200)), json!("ü".repeat(4096)))).collect();
    refused(Value::Object(many(17)), "must have at most 16 items").await;
    apply(Value::Object(many(16))).await.succeeded();
    apply(json!({".env": "", "AUTHORIZATION": HEADER, "a-b_c.D": "x", &"k".repeat(253): "x"})).await.succeeded();
}

#[tokio::test]
async fn what_templates_render_is_in_the_dry_run_that_precedes_a_request() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [{
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": world.namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]},
            ]},
            "validations": [{
                "expression": "!has(object.data) || !('AUTHORIZATION' in object.data) || size(object.data['AUTHORIZATION']) < 1024",
                "message": "no long header here",
            }],
        },
    }, {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": world.namespace},
        "spec": {
            "policyName": world.namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}},
        },
    }]});
    world.kubectl_apply(&policy.to_string()).await;
    let long = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "long"},
        "stringData": {"AUTHORIZATION": "x".repeat(2048)},
    });
    eventually("the policy to be in force", PATIENCE, async || {
        let output = world.kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&long.to_string())).await;
        if output.stderr.contains("no long header here") { Ok(()) } else { Err(output.stderr) }
    })
    .await;
    world.create_token("flight", template(json!({"AUTHORIZATION": HEADER}))).await;
    let status = world.condition("flight", "Ready", "False", "WriteRefused").await;
    assert!(message(&status, "Ready").contains("no long header here"));
    world.stays_at(0).await;
    set_template(&world, "flight", json!({"AUTHORIZATION": null, "OTHER": HEADER})).await;
    world.ready("flight").await;
    world.stays_at(1).await;
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        world.kubectl(&["delete", kind, &world.namespace], None).await.succeeded();
    }
}

/// A settled resource is not written again and again: what is rendered is the same each time.
#[tokio::test]
async fn a_restart_writes_nothing_and_requests_nothing() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", template(json!({"AUTHORIZATION": HEADER, ".env": DOTENV}))).await;
    world.ready("flight").await;
    let versions = async || {
        let token: VerteilToken = world.tokens().get("flight").await.unwrap();
        let secret = world.secrets().get("flight").await.unwrap();
        (token.metadata.resource_version, secret.metadata.resource_version)
    };
    let before = versions().await;
    operator.kill();
    let _operator = world.operator(OPERATOR, &[]).await;
    testbed::never("a write", QUIET, async || {
        let now = versions().await;
        if now == before { Ok(()) } else { Err(format!("{now:?} instead of {before:?}")) }
    })
    .await;
    world.stays_at(1).await;
}
