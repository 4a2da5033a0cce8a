//! Back to Secrets: what is in memory is saved, and none is requested.

use serde_json::{Value, json};
use testbed::plain_http;
use testbed::world::{Operator, PATIENCE};
use testbed::{World, eventually};

use super::{given, start};
use crate::OPERATOR;
use crate::token_api::client;

const NAMES: [&str; 3] = ["flight", "kept", "adopted"];

/// Three resources: one whose Secret goes with it, one whose Secret stays, and one whose Secret is its user's.
async fn create_all(world: &World) {
    world.create_token("flight", json!({})).await;
    world.create_token("kept", json!({"secret": {"deletionPolicy": "Retain"}})).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"theirs": "x"},
        "metadata": {"name": "adopted", "annotations": {"verteil.dev/adopt": "adopted"}},
    });
    world.kubectl_apply(&secret.to_string()).await;
    world.create_token("adopted", json!({})).await;
    for name in NAMES {
        world.ready(name).await;
    }
}

async fn put(operator: &Operator, body: &str) -> (u16, Value) {
    let url = format!("http://{}/api/debug/token-persistence", operator.debug());
    let answer = plain_http::exchange("PUT", &url, &[], body).await.unwrap();
    (answer.status, answer.json().unwrap())
}

async fn all_stored(world: &World) {
    for name in NAMES {
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        world.status(name, "its Secret", |s| s.secret_name.as_deref() == Some(name) && s.in_memory.is_none()).await;
        world.ready(name).await;
    }
    assert_eq!(world.secret_key("adopted", "theirs").await, "x");
}

#[tokio::test]
async fn at_run_time_what_is_in_memory_is_saved() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    create_all(&world).await;
    assert_eq!(operator.terminate().await, Some(0));
    // Taken over from Secrets, or issued since.
    let (operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    for name in NAMES {
        given(&world, &api, &bearer, name).await;
        world.status(name, "its place", |status| status.in_memory == Some(true)).await;
    }
    world.change("kept", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.issuer.wait_for_count(4, PATIENCE).await;
    world.status("kept", "the renewal", |status| status.claim.is_none() && status.tokens_issued == Some(2)).await;
    assert_eq!(put(&operator, "disabled").await.0, 409);
    assert_eq!(put(&operator, "rubbish").await.0, 400);
    assert_eq!(world.secret_key("flight", "access_token").await, "");
    assert_eq!(put(&operator, "enabled").await, (200, json!({"status": "success", "token_persistence": "enabled"})));
    all_stored(&world).await;
    for name in NAMES {
        assert_eq!(given(&world, &api, &bearer, name).await, world.issuer.last_token(name).unwrap());
    }
    operator.kill();
    let _operator = world.operator(OPERATOR, &[]).await;
    world.stays_at(4).await;
    all_stored(&world).await;
}

#[tokio::test]
async fn a_deployment_that_no_longer_asks_for_it_has_them_saved_at_the_end() {
    let world = World::new().await;
    // In the namespace of the kubeconfig's context.
    let name = format!("operator-of-{}", world.namespace);
    let deployment = |value: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
                    "name": "operator", "image": "registry.example/operator",
                    "env": [{"name": "DISABLE_TOKEN_PERSISTENCE", "value": value}],
                }]}},
            },
        })
        .to_string()
    };
    let kubectl = async |args: &[&str], stdin: Option<&str>| {
        world.cluster.kubectl(args, stdin).await.unwrap().succeeded();
    };
    let subject = format!("--serviceaccount={}:verteil-token-operator", world.namespace);
    let (role, named) = (format!("--role={name}"), format!("--resource-name={name}"));
    kubectl(&["create", "role", &name, "--verb=get", "--resource=deployments.apps", &named], None).await;
    kubectl(&["create", "rolebinding", &name, &role, &subject], None).await;
    kubectl(&["apply", "-f", "-"], Some(&deployment("true"))).await;
    let flag = format!("--deployment-name={name}");
    let (operator, _) = start(&world, &[&flag]).await;
    create_all(&world).await;
    // As it is, it is lost.
    assert_eq!(operator.terminate().await, Some(0));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    let (operator, _) = start(&world, &[&flag]).await;
    for name in NAMES {
        world.status(name, "another token", |status| status.tokens_issued == Some(2)).await;
        world.ready(name).await;
    }
    kubectl(&["apply", "-f", "-"], Some(&deployment("false"))).await;
    let log = operator.process().log_file().to_owned();
    assert_eq!(operator.terminate().await, Some(0));
    for name in NAMES {
        assert_eq!(world.secret_key(name, "access_token").await, world.issuer.last_token(name).unwrap(), "{name}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("saving what is in memory") && !log.contains("could not be saved"), "{log}");
    let _operator = world.operator(OPERATOR, &[]).await;
    all_stored(&world).await;
    world.stays_at(6).await;
    eventually("the Deployment to go", PATIENCE, async || {
        let args = ["delete", "deployment,role,rolebinding", &name, "--ignore-not-found"];
        world.cluster.kubectl(&args, None).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
