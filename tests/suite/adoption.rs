//! Is a Secret that its user hands over taken over with its token, and does it stay its user's?

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::world::{PASSWORD, PATIENCE, USERNAME};
use testbed::{World, eventually};
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;
use crate::events::event;
use crate::readme::block_under;

/// What the file-based original keeps: its fields and no others.
fn original(token: &str, expires_in: i64) -> Value {
    #[expect(clippy::disallowed_methods, reason = "the original's own clock")]
    let now = Timestamp::now().as_second();
    json!({
        "access_token": token,
        "token_data": {"access_token": token, "token_type": "Bearer", "expires_in": 43199},
        "token_expiry": now + expires_in,
        "saved_at": now + expires_in - 43199,
    })
}

/// `kubectl create secret generic NAME --from-file=verteil_token.json --from-literal=theirs=kept`
async fn create_from_file(world: &World, name: &str, content: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verteil_token.json");
    std::fs::write(&path, content).unwrap();
    let file = format!("--from-file={}", path.display());
    let args = ["create", "secret", "generic", name, &file, "--from-literal=theirs=kept"];
    world.kubectl(&args, None).await.succeeded();
}

async fn hand_over(world: &World, secret: &str, resource: &str) {
    let annotation = format!("verteil.dev/adopt={resource}");
    world.kubectl(&["annotate", "secret", secret, &annotation], None).await.succeeded();
}

async fn secret(world: &World, name: &str) -> Secret {
    world.secrets().get(name).await.unwrap()
}

#[tokio::test]
async fn a_handed_over_token_is_imported_and_used_without_a_request() {
    let world = World::new().await;
    let record = original("imported-1", 30_000);
    create_from_file(&world, "flight", &record.to_string()).await;
    hand_over(&world, "flight", "flight").await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let status = world.ready("flight").await;
    assert_eq!(status.expires_at.unwrap().0.as_second(), record["token_expiry"].as_i64().unwrap());
    assert_eq!(status.tokens_issued, None);
    assert_eq!(world.secret_key("flight", "access_token").await, "imported-1");
    assert_eq!(world.secret_key("flight", "theirs").await, "kept");
    let adopted = secret(&world, "flight").await;
    assert!(adopted.owner_references().is_empty(), "{:?}", adopted.owner_references());
    assert_eq!(adopted.labels()["verteil.dev/token"], "flight");
    let (type_, note) = event(&world, "flight", "SecretAdopted").await;
    assert!(type_ == "Normal" && note.contains("no token is requested"), "{type_} {note}");
    world.stays_at(0).await;
    // Its life is its user's, whatever deletionPolicy says and whoever takes the annotations away.
    let gone = json!({"metadata": {"annotations": {"verteil.dev/adopt": null, "verteil.dev/adopted": null}}});
    world.change_secret("flight", gone).await;
    eventually("the mark of the adoption to be put back", PATIENCE, async || {
        let annotations = secret(&world, "flight").await.annotations().clone();
        if annotations.contains_key("verteil.dev/adopted") { Ok(()) } else { Err(format!("{annotations:?}")) }
    })
    .await;
    world.kubectl(&["delete", "vt", "flight", "--cascade=foreground"], None).await.succeeded();
    testbed::never("the Secret to go", testbed::world::QUIET, async || {
        match world.secrets().get_opt("flight").await.map_err(|e| e.to_string())? {
            Some(secret) if secret.owner_references().is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.stays_at(0).await;
}

#[tokio::test]
async fn the_three_commands_of_the_readme_move_a_token_file_without_a_request() {
    let world = World::new().await;
    world.set_credentials("verteil-credentials", USERNAME, PASSWORD).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("verteil_token.json");
    std::fs::write(&file, original("imported-0", 30_000).to_string()).unwrap();
    let commands: Vec<&str> = block_under("### Moving from a token file", "sh").lines().collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let from_file = format!("--from-file={}", file.display());
        let command = command.replace("--from-file=verteil_token.json", &from_file).replace("verteil-token.yaml", "-");
        let args: Vec<&str> = command.split(' ').collect();
        let ["kubectl", args @ ..] = args.as_slice() else { panic!("{command}") };
        world.kubectl(args, Some(block_under("## A first token", "yaml"))).await.succeeded();
    }
    world.ready("verteil-token").await;
    assert_eq!(world.secret_key("verteil-token", "access_token").await, "imported-0");
    let status = world.tokens().get("verteil-token").await.unwrap().status.unwrap();
    assert_eq!(status.tokens_issued, None, "{status:?}");
}

#[tokio::test]
async fn the_originals_four_fields_are_enough() {
    let world = World::new().await;
    let mut record = original("imported-2", 30_000);
    record["token_data"] = json!({"access_token": "imported-2"});
    record["token_expiry"] = json!(record["token_expiry"].as_f64().unwrap() + 0.5);
    create_from_file(&world, "file", &record.to_string()).await;
    hand_over(&world, "file", "flight").await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"secret": {"name": "file"}})).await;
    world.ready("flight").await;
    assert_eq!(world.secret_key("file", "token_type").await, "Bearer");
    assert_eq!(world.secret_key("file", "expires_in").await, "43199");
    world.stays_at(0).await;
}

#[tokio::test]
async fn an_expired_or_broken_import_is_replaced_and_an_empty_secret_filled() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let expired = original("imported-3", -600).to_string();
    let cases = [
        ("expired", expired.as_str(), IssueReason::Expired),
        ("broken", "{\"access_token\": \"x\"", IssueReason::RecordInvalid),
    ];
    for (name, content, reason) in cases {
        create_from_file(&world, name, content).await;
        hand_over(&world, name, name).await;
        world.create_token(name, json!({})).await;
        assert_eq!(world.ready(name).await.last_issue_reason, Some(reason), "{name}");
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        assert_eq!(world.secret_key(name, "theirs").await, "kept");
    }
    let args = ["create", "secret", "generic", "empty", "--from-literal=theirs=kept"];
    world.kubectl(&args, None).await.succeeded();
    hand_over(&world, "empty", "empty").await;
    world.create_token("empty", json!({})).await;
    assert_eq!(world.ready("empty").await.last_issue_reason, Some(IssueReason::Initial));
    assert_eq!(world.secret_key("empty", "theirs").await, "kept");
    for name in ["expired", "broken", "empty"] {
        assert!(secret(&world, name).await.owner_references().is_empty(), "{name}");
    }
    world.stays_at(3).await;
}

#[tokio::test]
async fn consent_counts_for_the_one_it_names_and_not_for_what_something_else_controls() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    for name in ["other", "controlled", "silent"] {
        create_from_file(&world, name, &original("theirs", 30_000).to_string()).await;
    }
    hand_over(&world, "other", "somebody").await;
    hand_over(&world, "controlled", "controlled").await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    world.kubectl_apply(&owner.to_string()).await;
    let uid = world.kubectl(&["get", "cm", "owner", "-o", "jsonpath={.metadata.uid}"], None).await.succeeded();
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": true});
    world.change_secret("controlled", json!({"metadata": {"ownerReferences": [reference]}})).await;
    for (name, message) in [
        ("other", "its annotation verteil.dev/adopt hands it over to somebody: write other there"),
        ("controlled", "it is controlled by ConfigMap owner"),
        ("silent", "annotate it with verteil.dev/adopt=silent to hand it over"),
    ] {
        let before = secret(&world, name).await;
        world.create_token(name, json!({})).await;
        let status = world.condition(name, "Stalled", "True", "SecretNotOurs").await;
        let told = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
        assert!(told.message.contains(message), "{name}: {}", told.message);
        assert_eq!(secret(&world, name).await, before, "{name}");
    }
    world.stays_at(0).await;
    // Doing what the message says helps.
    hand_over(&world, "silent", "silent").await;
    world.ready("silent").await;
    world.stays_at(0).await;
}
