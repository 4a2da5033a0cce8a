//! Is a damaged record noticed and replaced, a damaged Secret repaired, and everybody else's left alone?

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::World;
use testbed::world::PATIENCE;
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;

const RECORD: &str = "verteil_token.json";

type Damage = fn(&mut Value);

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

async fn record(world: &World, secret: &str) -> Value {
    serde_json::from_str(&world.secret_key(secret, RECORD).await).unwrap()
}

#[tokio::test]
async fn the_record_is_that_of_the_original_and_its_loader_accepts_it() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let status = world.ready("flight").await;
    let token = world.issuer.last_token("flight").unwrap();
    let record = record(&world, "flight").await;
    let (expiry, saved) = (record["token_expiry"].as_i64().unwrap(), record["saved_at"].as_i64().unwrap());
    let expected = json!({
        "access_token": token,
        "token_data": {"access_token": token, "token_type": "Bearer", "expires_in": 43199},
        "token_expiry": expiry,
        "saved_at": saved,
    });
    assert_eq!(record, expected);
    assert_eq!(status.expires_at.unwrap().0.as_second(), expiry);
    for (key, value) in [
        ("access_token", token),
        ("token_type", "Bearer".into()),
        ("expires_in", "43199".into()),
        ("token_expiry", expiry.to_string()),
        ("saved_at", saved.to_string()),
    ] {
        assert_eq!(world.secret_key("flight", key).await, value, "{key}");
    }
    let folder = tempfile::tempdir().unwrap();
    mount(&world, "flight", folder.path()).await;
    #[expect(clippy::disallowed_methods, reason = "the loader's own clock")]
    let now = Timestamp::now().as_second();
    assert_eq!(load(folder.path(), now), Some(record["access_token"].as_str().unwrap().to_owned()));
    assert_eq!(load(folder.path(), expiry - 301).is_some(), load(folder.path(), expiry - 300).is_none());
    assert!((saved - now).abs() < 60);
}

/// Writes a Secret into a folder as the kubelet mounts it: keys that lead through `..data`, which is swapped as a whole.
async fn mount(world: &World, secret: &str, folder: &Path) {
    let keys = world.secrets().get(secret).await.unwrap().data.unwrap();
    let version = folder.join("..2026_11_24_00_00_00.1");
    std::fs::create_dir(&version).unwrap();
    std::os::unix::fs::symlink(version.file_name().unwrap(), folder.join("..data")).unwrap();
    for (name, bytes) in keys {
        std::fs::write(version.join(&name), bytes.0).unwrap();
        std::os::unix::fs::symlink(Path::new("..data").join(&name), folder.join(&name)).unwrap();
    }
}

/// What the original's loader makes of the folder: the four fields, and five minutes to go.
fn load(folder: &Path, now: i64) -> Option<String> {
    let bytes = std::fs::read(folder.join(RECORD)).ok()?;
    let record: Value = serde_json::from_slice(&bytes).ok()?;
    record.get("token_data")?.get("access_token")?;
    record.get("saved_at")?.as_f64()?;
    let valid = now < record.get("token_expiry")?.as_i64()? - 300;
    valid.then(|| record.get("access_token")?.as_str().map(str::to_owned)).flatten()
}

#[tokio::test]
async fn every_damage_to_the_record_is_noticed_replaced_and_told() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let damages: [(&str, Damage); 9] = [
        ("no-token", |r| drop(r.as_object_mut().unwrap().remove("access_token"))),
        ("no-data", |r| drop(r.as_object_mut().unwrap().remove("token_data"))),
        ("no-expiry", |r| drop(r.as_object_mut().unwrap().remove("token_expiry"))),
        ("no-saved-at", |r| drop(r.as_object_mut().unwrap().remove("saved_at"))),
        ("wrong-type", |r| r["token_expiry"] = json!("tomorrow")),
        ("other-expiry", |r| r["token_expiry"] = json!(r["token_expiry"].as_i64().unwrap() + 3600)),
        ("other-lifetime", |r| r["token_data"]["expires_in"] = json!(99)),
        ("other-token", |r| {
            r["access_token"] = json!("fake-intruder");
            r["token_data"]["access_token"] = json!("fake-intruder");
        }),
        ("two-tokens", |r| r["access_token"] = json!("fake-intruder")),
    ];
    for (name, _) in damages {
        world.create_token(name, json!({})).await;
    }
    for name in ["truncated", "gone"] {
        world.create_token(name, json!({})).await;
    }
    for (name, damage) in damages {
        world.ready(name).await;
        let mut record = record(&world, name).await;
        damage(&mut record);
        world.change_secret(name, json!({"data": {RECORD: encoded(&record.to_string())}})).await;
    }
    world.ready("truncated").await;
    let whole = world.secret_key("truncated", RECORD).await;
    world.change_secret("truncated", json!({"data": {RECORD: encoded(&whole[..whole.len() / 2])}})).await;
    world.ready("gone").await;
    world.change_secret("gone", json!({"data": {RECORD: null}})).await;
    let all = damages.len() + 2;
    for name in damages.iter().map(|(name, _)| *name).chain(["truncated", "gone"]) {
        let status = world.status(name, "the second token", |s| s.tokens_issued == Some(2)).await;
        assert_eq!(status.last_issue_reason, Some(IssueReason::RecordInvalid), "{name}");
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        told(&world, name, "RecordInvalid (").await;
    }
    world.stays_at(2 * all).await;
}

/// Waits for an event about `name` whose note has `text`.
async fn told(world: &World, name: &str, text: &str) {
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    testbed::eventually(&format!("an event about {name} with {text}"), PATIENCE, async || {
        let events = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let about = |e: &&Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name);
        let notes: Vec<_> = events.iter().filter(about).filter_map(|e| e.note.clone()).collect();
        if notes.iter().any(|note| note.contains(text)) { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
}

#[tokio::test]
async fn all_but_the_record_is_repaired_without_a_request() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"secret": {"annotations": {"note": "mine"}}})).await;
    world.ready("flight").await;
    let whole = world.secrets().get("flight").await.unwrap();
    let repaired = async |what: &str| {
        testbed::eventually(&format!("the repair after {what}"), PATIENCE, async || {
            let now = world.secrets().get("flight").await.map_err(|e| e.to_string())?;
            let same = now.data == whole.data
                && now.metadata.labels == whole.metadata.labels
                && now.metadata.annotations == whole.metadata.annotations
                && now.metadata.owner_references == whole.metadata.owner_references;
            if same { Ok(()) } else { Err(format!("{:?}", now.metadata)) }
        })
        .await;
    };
    for (what, damage) in [
        ("a changed key", json!({"data": {"access_token": encoded("fake-intruder")}})),
        ("a lost key", json!({"data": {"saved_at": null}})),
        ("lost labels", json!({"metadata": {"labels": null}})),
        ("lost annotations", json!({"metadata": {"annotations": null}})),
        ("a changed record seal", json!({"metadata": {"annotations": {"verteil.dev/record-seal": "r1.xxxx"}}})),
        ("a changed input seal", json!({"metadata": {"annotations": {"verteil.dev/input-seal": "i1.xxxx"}}})),
        ("a lost owner", json!({"metadata": {"ownerReferences": null}})),
        ("a record written differently", {
            let record = record(&world, "flight").await;
            json!({"data": {RECORD: encoded(&serde_json::to_string_pretty(&record).unwrap())}})
        }),
    ] {
        world.change_secret("flight", damage).await;
        repaired(what).await;
    }
    world.stays_at(1).await;
    // What others have added is theirs.
    world
        .change_secret("flight", json!({"metadata": {"labels": {"theirs": "x"}}, "data": {"theirs": encoded("y")}}))
        .await;
    world.change_secret("flight", json!({"data": {"saved_at": null}})).await;
    testbed::eventually("the repaired key", PATIENCE, async || {
        let key = world.secret_key("flight", "saved_at").await;
        if key.is_empty() { Err("not there".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(world.secret_key("flight", "theirs").await, "y");
    world.stays_at(1).await;
}

#[tokio::test]
async fn seals_of_a_newer_version_are_trusted_and_kept() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    operator.kill();
    // As a newer operator would have left it, before a rollback.
    let seals = json!({"verteil.dev/record-seal": "r2.unknown", "verteil.dev/input-seal": "i7.unknown"});
    world.change_secret("flight", json!({"metadata": {"annotations": seals}})).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.ready("flight").await;
    world.stays_at(1).await;
    let annotations = world.secrets().get("flight").await.unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations["verteil.dev/record-seal"], "r2.unknown");
    assert_eq!(annotations["verteil.dev/input-seal"], "i7.unknown");
}

#[tokio::test]
async fn a_deleted_secret_is_written_anew_with_a_new_token() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.delete_secret("flight").await;
    let status = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::SecretDeleted));
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    // The next one is braked for a minute, and the condition says so.
    world.delete_secret("flight").await;
    world.condition("flight", "Ready", "False", "GenerationThrottled").await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.set_credentials("theirs", "a", "b").await;
    let before = world.secrets().get("theirs").await.unwrap();
    world.create_token("flight", json!({"secret": {"name": "theirs"}})).await;
    world.condition("flight", "Stalled", "True", "SecretNotOurs").await;
    world.create_token("owner", json!({})).await;
    world.ready("owner").await;
    world.create_token("intruder", json!({"secret": {"name": "owner"}})).await;
    world.condition("intruder", "Stalled", "True", "SecretNotOurs").await;
    world.stays_at(1).await;
    assert_eq!(world.secrets().get("theirs").await.unwrap(), before);
}
