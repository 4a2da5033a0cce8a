//! From Secrets to memory only and back, by values of the chart: what does it cost? No token.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use testbed::world::{CHART, Operator, PATIENCE};
use testbed::{ControlPlane, World, eventually};

use super::{RELEASE, certificate, for_tests, with_token_api};
use crate::OPERATOR;
use crate::token_api::client::{self, TokenApi};

/// What a release has in memory only.
fn in_memory_only(more: Value) -> Value {
    let mut values = with_token_api(json!({"disableTokenPersistence": true, "replicas": 1}));
    testbed::world::merge(&mut values, more);
    values
}

/// How the apiserver has it that pods are replaced.
async fn strategy(world: &World) -> Value {
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace);
    let spec = deployments.get(RELEASE).await.unwrap().spec.unwrap();
    serde_json::to_value(spec.strategy).unwrap()
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
}

/// The operator of the release as it now is has the token in memory, no Secret holds it, and the API gives it.
async fn gives_from_memory(world: &World, api: &TokenApi, bearer: &str) -> Operator {
    assert_eq!(strategy(world).await, json!({"type": "Recreate"}));
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.status("flight", "its place", |status| status.in_memory == Some(true)).await;
    world.ready("flight").await;
    let api = api.at(operator.token_api().expect("a token API"));
    let answer = eventually("the token", PATIENCE, async || {
        let answer = api.get(&world.namespace, "flight", bearer).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(answer.json()["access_token"].as_str().unwrap(), world.issuer.last_token("flight").unwrap());
    assert_eq!(world.secret_key("flight", "access_token").await, "");
    operator
}

/// The operator that has run so far saves the token at its end, and that of the release as it now is finds it.
async fn is_back_in_its_secret(world: &World, running: Operator) -> Operator {
    assert_eq!(strategy(world).await, rolling());
    assert_eq!(running.terminate().await, Some(0));
    assert_eq!(world.secret_key("flight", "access_token").await, world.issuer.last_token("flight").unwrap());
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.status("flight", "its Secret", |s| s.secret_name.as_deref() == Some("flight") && s.in_memory.is_none()).await;
    world.ready("flight").await;
    operator
}

#[tokio::test]
async fn memory_only_and_back_and_a_rollback_of_each_cost_no_token() {
    let world = World::without_role(ControlPlane::shared().await).await;
    let api = certificate(&world).await;
    let bearer = client::caller(&world, "reader", "*").await;
    let base = for_tests(json!({"crds": {"enabled": false}, "namespaces": [world.namespace]}));
    let values = |more: Value| {
        let mut values = base.clone();
        testbed::world::merge(&mut values, more);
        values
    };
    world.install(CHART, RELEASE, &values(json!({}))).await.succeeded();
    assert_eq!(strategy(&world).await, rolling());
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;

    world.install(CHART, RELEASE, &values(in_memory_only(json!({})))).await.succeeded();
    assert_eq!(operator.terminate().await, Some(0));
    let operator = gives_from_memory(&world, &api, &bearer).await;

    world.install(CHART, RELEASE, &values(with_token_api(json!({})))).await.succeeded();
    let operator = is_back_in_its_secret(&world, operator).await;

    world.helm(&["rollback", RELEASE, "2"]).await.succeeded();
    assert_eq!(operator.terminate().await, Some(0));
    let operator = gives_from_memory(&world, &api, &bearer).await;

    world.helm(&["rollback", RELEASE, "3"]).await.succeeded();
    let operator = is_back_in_its_secret(&world, operator).await;
    world.stays_at(1).await;
    operator.terminate().await;

    // The same without the token API, for whoever wants one pod at a time.
    world.install(CHART, RELEASE, &values(json!({"strategy": {"type": "Recreate"}}))).await.succeeded();
    assert_eq!(strategy(&world).await, json!({"type": "Recreate"}));
    world.helm(&["rollback", RELEASE, "1"]).await.succeeded();
    assert_eq!(strategy(&world).await, rolling());
    world.helm(&["uninstall", RELEASE]).await.succeeded();
}
