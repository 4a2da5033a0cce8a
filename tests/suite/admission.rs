//! Which resources does the apiserver admit, which does it refuse, and does a refusal tell what to write instead?

use kube::api::{DynamicObject, PostParams};
use kube::{Api, Resource};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use testbed::World;
use testbed::world::merge;
use verteil_token_operator::api::{VerteilToken, VerteilTokenSpec};

use crate::OPERATOR;

/// Generated specs that are created and read back.
const SAMPLES: usize = 64;

/// Asserts that a minimal resource with `spec` merged into it is admitted; what would be stored.
async fn admits(world: &World, spec: Value) -> Value {
    admits_object(world, &world.token("sample", spec)).await
}

/// Asserts that a minimal resource with `spec` merged into it is refused, and that the refusal says `message`.
async fn rejects(world: &World, spec: Value, message: &str) {
    rejects_object(world, &world.token("sample", spec), message).await;
}

async fn admits_object(world: &World, token: &Value) -> Value {
    match create(world, token, true).await {
        Ok(stored) => serde_json::to_value(stored).unwrap()["spec"].take(),
        Err(error) => panic!("not admitted: {}\n{error}", token["spec"]),
    }
}

async fn rejects_object(world: &World, token: &Value, message: &str) {
    match create(world, token, true).await {
        Ok(_) => panic!("admitted: {token}"),
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 422, "{token}\n{}", status.message);
            assert!(status.message.contains(message), "{token}\nnot said: {message}\nbut: {}", status.message);
        }
        Err(error) => panic!("{error}"),
    }
}

/// Sends `token` as it is written, not as the Rust type would write it.
async fn create(world: &World, token: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
    let kind = kube::api::ApiResource::erase::<VerteilToken>(&());
    let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), &world.namespace, &kind);
    let params = PostParams { dry_run, ..PostParams::default() };
    api.create(&params, &serde_json::from_value(token.clone()).unwrap()).await
}

fn url(url: impl Into<String>) -> Value {
    json!({"tokenURL": url.into()})
}

fn credentials(reference: Value) -> Value {
    Value::from_iter([("credentialsSecretRef", reference)])
}

#[tokio::test]
async fn what_is_left_out_gets_its_documented_default() {
    let world = World::new().await;
    let minimal = json!({"tokenURL": "https://api.stage.verteil.com/oauth2/token"});
    assert_eq!(
        admits(&world, minimal).await,
        json!({
            "tokenURL": "https://api.stage.verteil.com/oauth2/token",
            "credentialsSecretRef": {"name": "credentials", "usernameKey": "username", "passwordKey": "password"},
            "parametersIn": "Body",
            "clientAuthentication": "Basic",
            "timeout": "10s",
            "renewBefore": "10m",
            "suspend": false,
            "secret": {"deletionPolicy": "Delete"},
        })
    );
    let named = admits(&world, json!({"secret": {"name": "elsewhere"}})).await;
    assert_eq!(named["secret"], json!({"name": "elsewhere", "deletionPolicy": "Delete"}));
}

#[tokio::test]
async fn the_token_url_is_an_absolute_http_or_https_url() {
    let world = World::new().await;
    for good in [
        "https://api.stage.verteil.com/oauth2/token",
        "https://api.verteil.com:8443/oauth2/token?tenant=a%20b",
        "https://api.verteil.com",
        "https://[::1]:8443/token",
        "https://api.verteil.com/t/a@b",
        "http://127.0.0.1:8080/token",
    ] {
        admits(&world, url(good)).await;
    }
    for bad in [
        "",
        "not a url",
        "api.verteil.com/oauth2/token",
        "//api.verteil.com/oauth2/token",
        "/oauth2/token",
        "ftp://api.verteil.com/oauth2/token",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:/api.verteil.com",
        "https://",
        "https:///oauth2/token",
        "https://:8443/oauth2/token",
        "https://?tenant=a",
        "https://api .verteil.com/",
        "https://api.verteil.com\\@other.example/",
        " https://api.verteil.com/",
        "https://api.verteil.com/\n",
        "https://api.verteil.com/%zz",
        "https://[::1/token",
    ] {
        rejects(&world, url(bad), "write an absolute URL that starts with https://, such as https://api.stage").await;
    }
    rejects(&world, json!({"tokenURL": null}), "spec.tokenURL: Required value").await;
    rejects(&world, json!({"tokenURL": 7}), "spec.tokenURL: Invalid value: \"integer\"").await;
}

#[tokio::test]
async fn the_token_url_carries_no_password_no_fragment_and_no_novel() {
    let world = World::new().await;
    let host = "api.verteil.com/oauth2/token";
    for userinfo in ["user@", "user:password@", ":password@", "@"] {
        let message =
            "no user name or password belongs into the URL: put them into the Secret that credentialsSecretRef";
        rejects(&world, url(format!("https://{userinfo}{host}")), message).await;
    }
    for fragment in ["#", "#top", "?a=b#c"] {
        rejects(&world, url(format!("https://{host}{fragment}")), "leave out the part from # on").await;
    }
    let base = format!("https://{host}?");
    let longest = format!("{base}{}", "x".repeat(2048 - base.len()));
    admits(&world, url(longest.clone())).await;
    rejects(&world, url(longest + "x"), "may not be more than 2048 bytes").await;
}

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

#[tokio::test]
async fn a_scope_is_one_word() {
    let world = World::new().await;
    for good in [json!([]), json!(["api"]), json!(["https://a.example/b.c", "x:y", "!#$[]^~", "a"])] {
        admits(&world, json!({"scopes": good})).await;
    }
    for bad in ["", "two words", " api", "api\n", "a\tb", "\"api\"", "a\\b", "é"] {
        let message =
            "a scope is one word of printable ASCII without blanks, quotes or backslashes: write one list item";
        rejects(&world, json!({"scopes": ["api", bad]}), message).await;
    }
    rejects(&world, json!({"scopes": [""]}), "should be at least 1 chars long").await;
    admits(&world, json!({"scopes": vec!["s".repeat(128); 32]})).await;
    rejects(&world, json!({"scopes": ["s".repeat(129)]}), "may not be more than 128 bytes").await;
    rejects(&world, json!({"scopes": vec!["s"; 33]}), "must have at most 32 items").await;
    rejects(&world, json!({"scopes": "api"}), "spec.scopes: Invalid value: \"string\"").await;
    rejects(&world, json!({"scopes": [null]}), "spec.scopes[0]: Invalid value: \"null\"").await;
}

#[tokio::test]
async fn parameters_are_few_short_and_not_the_operators_own() {
    let world = World::new().await;
    admits(&world, json!({"parameters": {"audience": "x", "resource": "", "ü ": "any ünicode\n"}})).await;
    for own in ["grant_type", "scope", "client_id", "client_secret"] {
        let message =
            "sent by the operator itself: use spec.scopes, spec.credentialsSecretRef and spec.clientAuthentication";
        rejects(&world, json!({"parameters": {own: "x"}}), message).await;
    }
    let many = |count| (0..count).map(|n| (format!("p{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    admits(&world, json!({"parameters": many(16)})).await;
    rejects(&world, json!({"parameters": many(17)}), "must have at most 16 items").await;
    admits(&world, json!({"parameters": {"k".repeat(128): "v".repeat(1024)}})).await;
    rejects(&world, json!({"parameters": {"k": "v".repeat(1025)}}), "may not be more than 1024 bytes").await;
    for name in [String::new(), "k".repeat(129)] {
        rejects(&world, json!({"parameters": {name: "v"}}), "a parameter's name has 1 to 128 characters").await;
    }
    rejects(&world, json!({"parameters": {"max_age": 7}}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn choices_are_spelled_as_listed() {
    let world = World::new().await;
    for (pointer, words) in [
        ("parametersIn", ["Body", "Query"]),
        ("clientAuthentication", ["Basic", "Body"]),
        ("deletionPolicy", ["Delete", "Retain"]),
    ] {
        let spec = |word: Value| match pointer {
            "deletionPolicy" => json!({"secret": {pointer: word}}),
            _ => json!({pointer: word}),
        };
        for word in words {
            admits(&world, spec(json!(word))).await;
        }
        let supported = format!("supported values: \"{}\", \"{}\"", words[0], words[1]);
        for word in [words[0].to_lowercase(), "Header".into(), String::new(), format!(" {}", words[1])] {
            rejects(&world, spec(json!(word)), &supported).await;
        }
        rejects(&world, spec(json!(true)), "must be of type string: \"boolean\"").await;
    }
}

#[tokio::test]
async fn the_password_never_goes_into_the_url() {
    let world = World::new().await;
    let sent = |authentication: Option<&str>, parameters: Option<&str>| {
        let mut spec = json!({});
        for (field, value) in [("clientAuthentication", authentication), ("parametersIn", parameters)] {
            if let Some(value) = value {
                merge(&mut spec, json!({field: value}));
            }
        }
        spec
    };
    let message = "would put the password into the URL: write parametersIn: Body or clientAuthentication: Basic";
    rejects(&world, sent(Some("Body"), Some("Query")), message).await;
    // What is left out is Basic and Body, with which neither other half is a danger.
    for (authentication, parameters) in
        [(Some("Body"), None), (Some("Body"), Some("Body")), (None, Some("Query")), (Some("Basic"), Some("Query"))]
    {
        admits(&world, sent(authentication, parameters)).await;
    }
    // A change cannot bring about what creation may not.
    world.create_token("careful", sent(Some("Body"), None)).await;
    let patch = kube::api::Patch::Merge(json!({"spec": {"parametersIn": "Query"}}));
    let error = world.tokens().patch("careful", &kube::api::PatchParams::default(), &patch).await.unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
}

#[tokio::test]
async fn a_timeout_lasts_from_one_to_fifteen_seconds() {
    let world = World::new().await;
    for good in ["1s", "15s", "10s", "0m7s", "5s5s", "00015s", "0h0m1s"] {
        admits(&world, json!({"timeout": good})).await;
    }
    for outside in ["0s", "16s", "1m", "1h", "0h", "99999h99999m99999s"] {
        rejects(&world, json!({"timeout": outside}), "write a timeout from 1s to 15s").await;
    }
    for bad in ["", "10", "abc", "-5s", "+5s", "1.5s", "500ms", "5 s", " 5s", "5S", "1d", "99999999999h", "٣s", "s"] {
        let message = "write a duration of whole numbers with the units h, m or s, such as 10s";
        rejects(&world, json!({"timeout": bad}), message).await;
    }
    rejects(&world, json!({"timeout": "0".repeat(20) + "s"}), "may not be more than 20 bytes").await;
    rejects(&world, json!({"timeout": 10}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn a_renewal_comes_at_most_a_week_early() {
    let world = World::new().await;
    for good in ["0s", "10m", "1h30m", "168h", "10080m", "167h59m60s"] {
        admits(&world, json!({"renewBefore": good})).await;
    }
    for outside in ["169h", "168h1s", "99999h99999m99999s"] {
        rejects(&world, json!({"renewBefore": outside}), "write at most 168h").await;
    }
    for bad in ["", "10", "abc", "-5s", "-0s", "1.5h", "500ms", "1h 30m", "7d", "99999999999h", "PT10M", "m"] {
        let message = "write a duration of whole numbers with the units h, m or s, such as 10m or 1h30m";
        rejects(&world, json!({"renewBefore": bad}), message).await;
    }
    rejects(&world, json!({"renewBefore": "0".repeat(20) + "s"}), "may not be more than 20 bytes").await;
    rejects(&world, json!({"renewBefore": 600}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn suspend_is_true_or_false() {
    let world = World::new().await;
    assert_eq!(admits(&world, json!({"suspend": true})).await["suspend"], true);
    for (bad, kind) in [(json!("true"), "string"), (json!("yes"), "string"), (json!(1), "integer")] {
        rejects(&world, json!({"suspend": bad}), &format!("must be of type boolean: \"{kind}\"")).await;
    }
}

#[tokio::test]
async fn workloads_to_restart_are_few_known_by_kind_and_listed_once() {
    let world = World::new().await;
    let listed = |list: Value| json!({"rolloutRestart": list});
    let one = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    let many = |count: usize| (0..count).map(|n| one("Deployment", &format!("api-{n}"))).collect::<Value>();
    admits(&world, listed(json!([]))).await;
    admits(&world, listed(many(16))).await;
    admits(&world, listed(json!([one("Deployment", "a"), one("StatefulSet", "a"), one("DaemonSet", "a.b-c")]))).await;
    rejects(&world, listed(many(17)), "must have at most 16 items").await;
    rejects(&world, listed(json!([one("Deployment", "a"), one("Deployment", "a")])), "Duplicate value").await;
    rejects(
        &world,
        listed(json!([one("Job", "a")])),
        "supported values: \"Deployment\", \"StatefulSet\", \"DaemonSet\"",
    )
    .await;
    rejects(&world, listed(json!([{"kind": "Deployment"}])), "rolloutRestart[0].name: Required value").await;
    for name in ["", "Flight", "other/api", "-a"] {
        rejects(&world, listed(json!([one("Deployment", name)])), "write the name of a workload in this namespace")
            .await;
    }
}

#[tokio::test]
async fn labels_of_the_secret_are_labels_and_not_the_operators_own() {
    let world = World::new().await;
    let labels = |key: &str, value: &str| json!({"secret": {"labels": {key: value}}});
    for (key, value) in [("team", "search"), ("example.com/team", ""), ("app.kubernetes.io/name", "a.b_C-7")] {
        admits(&world, labels(key, value)).await;
    }
    for key in ["verteil.dev/token", "verteil.dev/mine", "app.kubernetes.io/managed-by"] {
        rejects(&world, labels(key, "x"), "are the operator's own: write labels under another name").await;
    }
    let long = "n".repeat(64);
    for key in ["", "a b", "-a", "a/b/c", "/a", "UPPER.example/a", &long] {
        rejects(&world, labels(key, "x"), "not a label: a key is a name of at most 63 letters").await;
    }
    for value in ["a b", "-a", "a/b", "ü"] {
        rejects(&world, labels("team", value), "a value is of the same letters").await;
    }
    rejects(&world, labels("team", &long), "may not be more than 63 bytes").await;
    let many = (0..17).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    rejects(&world, json!({"secret": {"labels": many}}), "must have at most 16 items").await;
}

#[tokio::test]
async fn annotations_of_the_secret_are_annotations_and_not_the_operators_own() {
    let world = World::new().await;
    let annotations = |key: &str, value: &str| json!({"secret": {"annotations": {key: value}}});
    admits(&world, annotations("example.com/note", "any text: ü\n \"quoted\"")).await;
    admits(&world, annotations("note", &"v".repeat(1024))).await;
    for key in ["verteil.dev/renewed", "verteil.dev/adopt"] {
        rejects(
            &world,
            annotations(key, "x"),
            "verteil.dev/ is the operator's own: write annotations under another name",
        )
        .await;
    }
    for key in ["", "a b", "-a", "a/b/c", "/a", &"n".repeat(64)] {
        rejects(&world, annotations(key, "x"), "not an annotation's key: write a name of at most 63 letters").await;
    }
    rejects(&world, annotations("note", &"v".repeat(1025)), "may not be more than 1024 bytes").await;
    let many = (0..17).map(|n| (format!("a{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    rejects(&world, json!({"secret": {"annotations": many}}), "must have at most 16 items").await;
}

#[tokio::test]
async fn the_token_is_not_written_over_its_own_credentials() {
    let world = World::new().await;
    let message =
        "the token Secret and the credentials Secret are one and the same: write another name in spec.secret.name";
    rejects(&world, json!({"secret": {"name": "credentials"}}), message).await;
    for by_default in [json!({}), json!({"secret": {}}), json!({"secret": null}), json!({"secret": {"name": null}})] {
        rejects_object(&world, &world.token("credentials", by_default), message).await;
    }
    admits_object(&world, &world.token("credentials", json!({"secret": {"name": "elsewhere"}}))).await;
}

#[tokio::test]
async fn kubectl_names_a_field_that_does_not_exist() {
    let world = World::new().await;
    let args = ["apply", "--validate=strict", "--dry-run=server", "-f", "-"];
    for (spec, field) in [
        (json!({"scope": "api"}), "spec.scope"),
        (json!({"tokenUrl": "https://api.verteil.com"}), "spec.tokenUrl"),
        (json!({"credentialsSecretRef": {"namespace": "other"}}), "spec.credentialsSecretRef.namespace"),
        (json!({"secret": {"type": "Opaque"}}), "spec.secret.type"),
    ] {
        let output = world.kubectl(&args, Some(&world.token("sample", spec).to_string())).await;
        assert!(!output.status.success(), "{}", output.stdout);
        assert!(output.stderr.contains(&format!("unknown field \"{field}\"")), "{field}: {}", output.stderr);
    }
    world.kubectl(&args, Some(&world.token("sample", json!({})).to_string())).await.succeeded();
}

/// Templates of Helm charts leave nulls where a value is not set.
#[tokio::test]
async fn a_null_counts_as_left_out() {
    let world = World::new().await;
    let nulls = json!({
        "scopes": null, "parameters": null, "parametersIn": null, "clientAuthentication": null, "timeout": null,
        "renewBefore": null, "suspend": null, "secret": null,
    });
    assert_eq!(admits(&world, nulls.clone()).await, admits(&world, json!({})).await);
    let inner = json!({
        "credentialsSecretRef": {"usernameKey": null, "passwordKey": null},
        "parameters": {"audience": null},
        "caBundleRef": null,
        "secret": {"name": null, "labels": null, "annotations": {"note": null}, "template": {"KEY": null}, "deletionPolicy": null},
    });
    let _operator = world.operator(OPERATOR, &[]).await;
    for (name, spec) in [("outer", nulls), ("inner", inner)] {
        create(&world, &world.token(name, spec), false).await.unwrap();
        let status = world.ready(name).await;
        assert_eq!(status.secret_name.as_deref(), Some(name));
        let sent = &world.issuer.requests_for(name)[0];
        assert_eq!(sent.body, "grant_type=client_credentials");
    }
    world.stays_at(2).await;
}

/// Any spec of the documented form, within the documented bounds, often on them.
fn specs() -> impl Strategy<Value = Value> {
    let some = |value: BoxedStrategy<Value>| proptest::option::weighted(0.6, value);
    let text = |pattern: &'static str| pattern.prop_map(Value::from).boxed();
    let map = |keys: &'static str, values: &'static str| {
        proptest::collection::btree_map(keys, values, 0..=16).prop_map(|map| json!(map)).boxed()
    };
    let url = text(
        "https?://([a-z][a-z0-9-]{0,20}[a-z0-9]\\.){1,3}[a-z]{2,10}(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9._~@!$&'()*+,;=-]{0,12}){0,3}(\\?[a-z]=[a-z0-9%]{0}x)?",
    );
    let scopes = proptest::collection::vec("[!#-\\[\\]-~]{1,128}", 0..=32).prop_map(|list| json!(list)).boxed();
    let authentication = prop_oneof![
        Just(json!({})),
        Just(json!({"clientAuthentication": "Basic", "parametersIn": "Query"})),
        Just(json!({"clientAuthentication": "Body", "parametersIn": "Body"})),
        Just(json!({"clientAuthentication": "Body"})),
        Just(json!({"parametersIn": "Query"})),
    ];
    let timeout = prop_oneof![Just("1s"), Just("15s"), Just("0h0m00015s"), Just("5s5s5s")].prop_map(Value::from);
    let renew_before = prop_oneof![
        Just(String::from("168h")),
        Just(String::from("0s")),
        (0..84u32, 0..5040u32, 0..60u32).prop_map(|(h, m, s)| format!("{s}s{h}h{m}m")),
    ];
    let secret = (
        some(text("[a-b]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]{1,20})?")),
        some(map(
            "([a-z]{1,9}\\.example/)?[A-Za-z]([A-Za-z0-9._-]{0,61}[a-z])?",
            "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[a-z])?)?",
        )),
        some(map("([a-z]{1,9}\\.example/)?[A-Za-z]([A-Za-z0-9._-]{0,61}[a-z])?", "\\PC{0,80}")),
        some(prop_oneof![Just(json!("Delete")), Just(json!("Retain"))].boxed()),
    )
        .prop_map(|(name, labels, annotations, policy)| {
            object([("name", name), ("labels", labels), ("annotations", annotations), ("deletionPolicy", policy)])
        });
    let reference =
        (text("credentials(\\.[a-z0-9]{1,9})?"), some(text("[-_a-zA-Z0-9]{1,40}")), some(text("k[._a-zA-Z0-9]{0,40}")))
            .prop_map(|(name, user, password)| {
                object([("name", Some(name)), ("usernameKey", user), ("passwordKey", password)])
            });
    let kinds = prop_oneof![Just("Deployment"), Just("StatefulSet"), Just("DaemonSet")];
    let workloads = proptest::collection::btree_map("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", kinds, 0..=16)
        .prop_map(|map| map.iter().map(|(name, kind)| json!({"kind": kind, "name": name})).collect::<Value>());
    let simple = (
        url,
        reference,
        some(scopes),
        some(map("[\\PC&&[^\\\\]]{1,40}", "\\PC{0,200}")),
        some(timeout.boxed()),
        some(renew_before.prop_map(Value::from).boxed()),
        some(any::<bool>().prop_map(Value::from).boxed()),
        some(secret.boxed()),
        some(workloads.boxed()),
    );
    (simple, authentication).prop_map(
        |((url, reference, scopes, parameters, timeout, renew, suspend, secret, workloads), choice)| {
            let mut spec = object([
                ("tokenURL", Some(url)),
                ("credentialsSecretRef", Some(reference)),
                ("scopes", scopes),
                ("parameters", parameters),
                ("timeout", timeout),
                ("renewBefore", renew),
                ("suspend", suspend),
                ("secret", secret),
                ("rolloutRestart", workloads),
            ]);
            merge(&mut spec, choice);
            spec
        },
    )
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The schema and the Rust type agree: nothing is admitted that cannot be read, and both fill in the same defaults.
#[tokio::test]
async fn what_is_admitted_is_read_back_unchanged() {
    let world = World::new().await;
    let (specs, mut runner) = (specs(), TestRunner::deterministic());
    for number in 0..SAMPLES {
        let spec = specs.new_tree(&mut runner).unwrap().current();
        let name = format!("sample-{number}");
        let mut token = world.token(&name, json!({}));
        token["spec"] = spec.clone();
        create(&world, &token, false).await.unwrap_or_else(|error| panic!("not admitted: {error}\n{spec:#}"));
        let read = world.tokens().get(&name).await.unwrap_or_else(|error| panic!("not read: {error}\n{spec:#}"));
        assert_eq!(read.spec, serde_json::from_value::<VerteilTokenSpec>(spec).unwrap());
        // And written back by the type, it is still the same.
        world.tokens().replace(&name, &PostParams::default(), &read).await.expect("admitted again");
        let again = world.tokens().get(&name).await.unwrap();
        assert_eq!(again.spec, read.spec);
        assert_eq!(again.meta().name.as_deref(), Some(name.as_str()));
    }
}
