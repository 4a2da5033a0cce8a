//! Which resources does the apiserver admit, which does it refuse, and does a refusal tell what to write instead?

use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use testbed::World;
use verteil_token_operator::api::VerteilToken;

use crate::OPERATOR;

mod behaviour;
mod names;
mod request;
mod round_trip;
mod secret;

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
