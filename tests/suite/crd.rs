//! Is the definition what the types say, and does the apiserver take it without a word?

use serde_json::json;
use testbed::{ControlPlane, World};
use verteil_token_operator::api;

use crate::OPERATOR;

#[test]
fn the_file_in_crds_is_what_the_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/verteiltokens.verteil.dev.yaml");
    let expected = api::to_yaml(&api::crd()).unwrap();
    let found = std::fs::read_to_string(path).unwrap();
    assert!(found == expected, "run: cargo run -- crd > crds/verteiltokens.verteil.dev.yaml");
}

#[tokio::test]
async fn the_apiserver_accepts_it_without_warnings() {
    let cluster = ControlPlane::shared().await;
    // A server-side dry run validates everything, and other tests are not disturbed.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/verteiltokens.verteil.dev.yaml");
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", path];
    let output = cluster.kubectl(&args, None).await.unwrap();
    assert_eq!(output.stderr, "");
    output.succeeded();
}

#[tokio::test]
async fn who_wrote_the_status_is_written_down_in_a_word() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let token = world.tokens().get("flight").await.unwrap();
    let writes = token.metadata.managed_fields.unwrap();
    let ours: Vec<_> = writes.iter().filter(|write| write.manager.as_deref() == Some(api::MANAGER)).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(ours[0].fields_v1.as_ref().unwrap().0, json!({"f:status": {}}));
}

#[tokio::test]
async fn a_new_resource_waits_for_an_operator() {
    let world = World::new().await;
    world.create_token("new", json!({})).await;
    let status = world.tokens().get("new").await.unwrap().status.unwrap();
    assert_eq!(status.observed_generation, Some(-1));
}
