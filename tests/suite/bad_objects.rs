//! Does one bad resource, or one that this operator may not serve, disturb the others or send anything anywhere?

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::world::PATIENCE;
use testbed::{ControlPlane, Options, World, eventually};
use verteil_token_operator::api::{VerteilToken, crd};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::{event, events};

const UNDECODABLE: &str = "verteil_token_undecodable_resources";

/// Replaces the installed schema, by the manager that has installed it, so that nothing of the former one stays.
async fn install(world: &World, definition: &CustomResourceDefinition) {
    let api = Api::<CustomResourceDefinition>::all(world.client.clone());
    let name = definition.metadata.name.clone().unwrap();
    api.patch(&name, &PatchParams::apply("testbed").force(), &Patch::Apply(definition)).await.unwrap();
}

/// The definition as some other version might have been: any spec goes.
fn lax() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    serde_json::from_value(definition).unwrap()
}

fn raw(world: &World) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<VerteilToken>(&());
    Api::namespaced_with(world.client.clone(), &world.namespace, &kind)
}

async fn create_raw(world: &World, token: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
    let params = PostParams { dry_run, ..PostParams::default() };
    raw(world).create(&params, &serde_json::from_value(token.clone()).unwrap()).await
}

#[tokio::test]
async fn an_undecodable_resource_is_reported_and_disturbs_nobody() {
    let cluster = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let bad = [
        ("negative", json!({"timeout": "-5m"})),
        ("numeric", json!({"renewBefore": 17})),
        ("homeless", json!({"tokenURL": null})),
        ("listless", json!({"scopes": "api", "suspend": "no"})),
        ("hollow", json!({"credentialsSecretRef": null})),
    ];
    install(&world, &lax()).await;
    for (name, spec) in &bad {
        let mut token = world.token(name, spec.clone());
        token["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        // The apiserver serves by a new schema a moment after it has taken it.
        eventually("a lax schema", PATIENCE, async || {
            create_raw(&world, &token, false).await.map_err(|e| e.to_string())
        })
        .await;
    }
    let mut spineless = world.token("spineless", json!({}));
    spineless.as_object_mut().unwrap().remove("spec");
    create_raw(&world, &spineless, false).await.unwrap();
    install(&world, &crd()).await;
    let probe = world.token("probe", json!({"timeout": "-5m"}));
    eventually("the strict schema", PATIENCE, async || match create_raw(&world, &probe, true).await {
        Ok(_) => Err("admitted".to_owned()),
        Err(kube::Error::Api(refused)) if refused.is_invalid() => Ok(()),
        Err(other) => Err(other.to_string()),
    })
    .await;
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).chain(["spineless"]).collect();

    world.create_token("before", json!({})).await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.ready("before").await;
    world.create_token("after", json!({})).await;
    world.ready("after").await;
    for name in &names {
        let (kind, note) = event(&world, name, "Undecodable").await;
        assert_eq!(kind, "Warning");
        assert!(note.contains("cannot be read and is left alone"), "{note}");
    }
    assert!(event(&world, "negative", "Undecodable").await.1.contains("write whole numbers with the units h, m or s"));
    let log = operator.log();
    for name in &names {
        let told = log.lines().any(|line| line.contains("cannot be read") && line.contains(name));
        assert!(told, "{name}:\n{log}");
    }
    assert_eq!(operator.metric(UNDECODABLE).await, Some(6.0));
    world.stays_at(2).await;

    // A restart finds the same, and says nothing twice.
    operator.kill();
    let operator = world.operator(OPERATOR, &[]).await;
    world.stays_at(2).await;
    for name in &names {
        assert!(operator.log().lines().any(|line| line.contains("cannot be read") && line.contains(name)), "{name}");
    }
    let told = events(&world).await.into_iter().filter(|event| event.reason.as_deref() == Some("Undecodable"));
    assert_eq!(told.count(), names.len());

    for name in &names {
        world.kubectl(&["replace", "-f", "-"], Some(&world.token(name, json!({})).to_string())).await.succeeded();
        world.ready(name).await;
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
    }
    world.stays_at(8).await;
    eventually("none left that cannot be read", PATIENCE, async || match operator.metric(UNDECODABLE).await {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn plain_http_is_held_until_the_operator_may_speak_it() {
    let world = World::new().await;
    let host = format!("--allowed-issuer-hosts={}", world.issuer.base_url().replace("http://", ""));
    let operator = world.bare_operator(OPERATOR, &[&host]).await;
    world.create_token("flight", json!({})).await;
    held(&world, "flight", "plain http, which would send the password in the clear: write https://").await;
    assert!(event(&world, "flight", "IssuerNotAllowed").await.1.contains("--allow-http"));
    world.stays_at(0).await;
    operator.kill();
    let _operator = world.bare_operator(OPERATOR, &[&host, "--allow-http"]).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_host_that_is_not_listed_gets_nothing_until_it_is() {
    let world = World::new().await;
    let host = world.issuer.base_url().replace("http://", "");
    // The same machine on the port that goes without saying is another issuer.
    let operator =
        world.bare_operator(OPERATOR, &["--allow-http", "--allowed-issuer-hosts=*.verteil.com,127.0.0.1"]).await;
    world.create_token("flight", json!({})).await;
    held(&world, "flight", &format!("host {host} is not among the operator's --allowed-issuer-hosts (*.verteil.com,"))
        .await;
    world.stays_at(0).await;
    assert!(!operator.log().contains("requesting token"));
    operator.kill();
    let listed = format!("--allowed-issuer-hosts={host}");
    let _operator = world.bare_operator(OPERATOR, &["--allow-http", &listed]).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}

/// Two parsers look at a URL, and what only one of them takes for one must not go anywhere.
#[tokio::test]
async fn a_url_that_only_the_apiserver_understands_is_held() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    for (name, url, said) in [
        ("port", "https://api.verteil.com:99999/oauth2/token", "invalid port number"),
        ("address", "http://127.0.0.1.256/oauth2/token", "invalid IPv4 address"),
        ("host", "https://api%2everteil%00.com/oauth2/token", ""),
    ] {
        let token = world.token(name, json!({"tokenURL": url}));
        match create_raw(&world, &token, false).await {
            Ok(_) => held(&world, name, said).await,
            // Better still.
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 422, "{name}: {}", status.message),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    world.create_token("good", json!({})).await;
    world.ready("good").await;
    world.stays_at(1).await;
    let troubled = events(&world).await.into_iter().filter(|event| event.reason.as_deref() == Some("IssuerNotAllowed"));
    assert!(troubled.count() >= 2);
}

/// Waits until a resource is held for its issuer, with these words.
async fn held(world: &World, name: &str, message: &str) {
    let status = world.condition(name, "Stalled", "True", "IssuerNotAllowed").await;
    let ready = condition(&status, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "IssuerNotAllowed"));
    assert!(ready.message.contains(message), "{}", ready.message);
    assert_eq!(condition(&status, "Reconciling").unwrap().status, "False");
    assert!(world.secrets().get_opt(name).await.unwrap().is_none());
}
