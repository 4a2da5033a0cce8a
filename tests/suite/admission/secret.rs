//! What is added to the Secret.

use serde_json::json;
use testbed::World;

use super::{admits, admits_object, rejects, rejects_object};

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
