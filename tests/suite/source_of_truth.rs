//! Is the Secret the source of truth? Whatever is lost around it, no token is requested while it is there.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testbed::world::PATIENCE;
use testbed::{ControlPlane, Options, World, eventually};

use crate::OPERATOR;

const RETAIN: &str = "Retain";
const REUSED: &str = "verteil_token_reused_total";

async fn created(world: &World, policy: &str) -> String {
    world.create_token("flight", json!({"secret": {"deletionPolicy": policy}})).await;
    world.ready("flight").await;
    world.secret_key("flight", "access_token").await
}

/// `kubectl get … -o json`, as a dump keeps it: without what the apiserver gives.
async fn dump(world: &World, what: &str, name: &str) -> Value {
    let text = world.kubectl(&["get", what, name, "-o", "json"], None).await.succeeded();
    let mut object: Value = serde_json::from_str(&text).unwrap();
    let meta = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences"] {
        meta.remove(field);
    }
    object
}

async fn gone(world: &World, what: &str, name: &str) {
    eventually(&format!("{what} {name} to go"), PATIENCE, async || {
        let found = world.kubectl(&["get", what, name, "--ignore-not-found", "-o", "name"], None).await.succeeded();
        if found.is_empty() { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn a_resource_deleted_as_an_orphan_and_made_again_finds_its_token() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let token = created(&world, "Delete").await;
    world.kubectl(&["delete", "vt", "flight", "--cascade=orphan"], None).await.succeeded();
    gone(&world, "vt", "flight").await;
    let again = world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.stores("flight", &token).await;
    eventually("the new owner", PATIENCE, async || {
        let owners = world.secrets().get("flight").await.map_err(|e| e.to_string())?.owner_references().to_vec();
        if owners.len() == 1 && Some(&owners[0].uid) == again.metadata.uid.as_ref() {
            Ok(())
        } else {
            Err(format!("{owners:?}"))
        }
    })
    .await;
    assert_eq!(operator.metric(REUSED).await, Some(1.0));
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_token_that_is_found_without_its_status_counts_as_taken_over_and_one_that_is_issued_does_not() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let token = created(&world, "Delete").await;
    world.change("flight", json!({"spec": {"renewBefore": "5m"}})).await;
    world.ready("flight").await;
    assert_eq!(operator.metric(REUSED).await, Some(0.0));
    assert_eq!(operator.terminate().await, Some(0));
    let wipe =
        ["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
    let operator = world.operator(OPERATOR, &[]).await;
    world.ready("flight").await;
    world.stores("flight", &token).await;
    assert_eq!(operator.metric(REUSED).await, Some(1.0));
    // Looked at again, it is the same one.
    world.change("flight", json!({"spec": {"renewBefore": "6m"}})).await;
    world.ready("flight").await;
    assert_eq!(operator.metric(REUSED).await, Some(1.0));
    assert_eq!(operator.log().matches("Loaded valid token. Expires in ").count(), 1);
    world.stays_at(1).await;
}

#[tokio::test]
async fn an_operator_and_crd_uninstalled_and_installed_again_find_the_token() {
    let cluster = Box::leak(Box::new(ControlPlane::start(Options::default()).await.unwrap()));
    let world = World::in_cluster(cluster).await;
    let operator = world.operator(OPERATOR, &[]).await;
    let token = created(&world, RETAIN).await;
    operator.terminate().await;
    let crd = "verteiltokens.verteil.dev";
    world.kubectl(&["delete", "crd", crd], None).await.succeeded();
    gone(&world, "crd", crd).await;
    assert_eq!(world.secret_key("flight", "access_token").await, token);
    let definition = verteil_token_operator::api::to_yaml(&verteil_token_operator::api::crd()).unwrap();
    world.kubectl_apply(&definition).await;
    world.kubectl(&["wait", "crd", crd, "--for=condition=Established"], None).await.succeeded();
    let _operator = world.operator(OPERATOR, &[]).await;
    created(&world, RETAIN).await;
    world.stores("flight", &token).await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_namespace_restored_from_a_dump_finds_its_tokens() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let token = created(&world, "Delete").await;
    world.create_token("kept", json!({"secret": {"deletionPolicy": RETAIN}})).await;
    world.ready("kept").await;
    let mut dumped = Vec::new();
    for (what, name) in
        [("secret", "credentials"), ("secret", "flight"), ("secret", "kept"), ("vt", "flight"), ("vt", "kept")]
    {
        dumped.push(dump(&world, what, name).await);
    }
    let role = testbed::world::role(&world.namespace);
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    eventually("the namespace to go", 2 * PATIENCE, async || {
        let found = namespaces.get_opt(&world.namespace).await.map_err(|e| e.to_string())?;
        if found.is_none() { Ok(()) } else { Err("it is still there".to_owned()) }
    })
    .await;
    let again = serde_json::from_value(json!({"metadata": {"name": world.namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &again).await.unwrap();
    world.kubectl_apply(&role).await;
    for object in dumped {
        world.kubectl_apply(&object.to_string()).await;
    }
    world.ready("flight").await;
    world.ready("kept").await;
    world.stores("flight", &token).await;
    world.stays_at(2).await;
    let owner = world.tokens().get("flight").await.unwrap().metadata.uid;
    eventually("the new owner", PATIENCE, async || {
        let secret = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
        let uid = secret.owner_references().first().map(|owner| owner.uid.clone());
        if uid == owner { Ok(()) } else { Err(format!("{uid:?}")) }
    })
    .await;
}
