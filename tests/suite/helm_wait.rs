//! Does `helm --wait` wait for what can still come right, and fail at once where a person has to act?
//!
//! Helm 4 decides by kstatus: InProgress while `observedGeneration` lags or Reconciling is True, Failed at once while Stalled is
//! True, and done otherwise.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::control_plane::Output;
use testbed::world::{PASSWORD, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

/// Far above what a token takes.
const LONG: &str = "--timeout=90s";
/// For a wait that is to end in vain.
const SHORT: &str = "--timeout=15s";

/// A chart with one resource `flight`, whose spec is merged with `spec`.
async fn chart(world: &World, spec: Value) -> (tempfile::TempDir, PathBuf) {
    // Where Helm is yet to be built, before anything is waited for.
    let version = world.helm(&["version", "--short"]).await.succeeded();
    assert!(version.starts_with("v4."), "{version}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app");
    std::fs::create_dir_all(path.join("templates")).unwrap();
    std::fs::write(path.join("Chart.yaml"), "apiVersion: v2\nname: app\nversion: 0.1.0\n").unwrap();
    write(&path, &world.token("flight", spec));
    (dir, path)
}

fn write(chart: &std::path::Path, token: &Value) {
    // JSON is YAML.
    std::fs::write(chart.join("templates/flight.yaml"), token.to_string()).unwrap();
}

/// `helm upgrade --install`, and how long it took.
async fn install(world: &World, chart: &std::path::Path, timeout: &str) -> (Output, Duration) {
    let began = tokio::time::Instant::now();
    let output = world.helm(&["upgrade", "--install", "app", chart.to_str().unwrap(), "--wait", timeout]).await;
    (output, began.elapsed())
}

#[tokio::test]
async fn a_release_waits_for_its_token_and_for_credentials_that_arrive_later() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let (_dir, chart) = chart(&world, json!({"credentialsSecretRef": {"name": "late"}})).await;
    let late = async {
        let status = world.condition("flight", "Reconciling", "True", "CredentialsMissing").await;
        assert_eq!(condition(&status, "Stalled").unwrap().status, "False");
        world.set_credentials("late", USERNAME, PASSWORD).await;
    };
    let ((installed, _), ()) = tokio::join!(install(&world, &chart, LONG), late);
    installed.succeeded();
    let status = world.tokens().get("flight").await.unwrap().status.unwrap();
    assert_eq!(condition(&status, "Ready").unwrap().status, "True", "the release was done before its token");
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_renewal_that_fails_holds_up_no_release() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let (_dir, chart) = chart(&world, json!({})).await;
    install(&world, &chart, LONG).await.0.succeeded();
    world.issuer.rule(|_| Some(Answer::status(503).header("retry-after", "3600")));
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.condition("flight", "RenewalFailing", "True", "IssuerUnavailable").await;
    // Another generation, which the operator has to have seen.
    write(&chart, &world.token("flight", json!({"renewBefore": "11m"})));
    install(&world, &chart, LONG).await.0.succeeded();
    let token = world.tokens().get("flight").await.unwrap();
    let status = token.status.unwrap();
    assert_eq!(status.observed_generation, token.metadata.generation);
    assert_eq!(condition(&status, "RenewalFailing").unwrap().status, "True");
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_wrong_password_fails_a_release_at_once_and_says_so() {
    let world = World::new().await;
    world.issuer.require(USERNAME, "another");
    let _operator = world.operator(OPERATOR, &[]).await;
    let (_dir, chart) = chart(&world, json!({})).await;
    let (failed, took) = install(&world, &chart, LONG).await;
    assert!(!failed.status.success() && took < Duration::from_secs(60), "{took:?}: {failed:?}");
    for words in ["VerteilToken", "flight not ready. status: Failed", "the issuer refused the credentials: 401"] {
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }
    assert!(!failed.stderr.contains(PASSWORD), "{}", failed.stderr);
    world.stays_at(1).await;
    // Corrected, the same release is done.
    world.set_credentials("credentials", USERNAME, "another").await;
    world.ready("flight").await;
    install(&world, &chart, LONG).await.0.succeeded();
    world.stays_at(2).await;
}

#[tokio::test]
async fn an_issuer_that_is_away_is_waited_for() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.issuer.enqueue_for("flight", Answer::status(503));
    let (_dir, chart) = chart(&world, json!({})).await;
    install(&world, &chart, LONG).await.0.succeeded();
    world.stays_at(2).await;
}

#[tokio::test]
async fn without_an_operator_a_release_is_never_done() {
    let world = World::new().await;
    let (_dir, chart) = chart(&world, json!({})).await;
    let (failed, took) = install(&world, &chart, SHORT).await;
    assert!(!failed.status.success() && took >= Duration::from_secs(15), "{took:?}: {failed:?}");
    for words in ["status: InProgress", "latest observed generation is -1"] {
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }
    world.stays_at(0).await;
}
