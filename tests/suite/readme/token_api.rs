//! What the README shows to those who ask the token API: run against one.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testbed::world::{Operator, PATIENCE};
use testbed::{Child, World, eventually};

use super::block_under;
use crate::token_api::client::{self, TokenApi};

const HEADING: &str = "### A pod that asks for its token";
/// Where a pod finds what the kubelet projects.
const PROJECTED: &str = "/var/run/token-api";

include!("snippet.rs");

/// A resource with a token, and a folder as a pod of its reader has it.
async fn projected(world: &World) -> (Operator, TokenApi, tempfile::TempDir) {
    let (operator, api) = TokenApi::start(world, &[]).await;
    let bearer = client::caller(world, "reader", "flight").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), bearer).unwrap();
    std::fs::write(dir.path().join("ca.crt"), api.authority.pem()).unwrap();
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    (operator, api, dir)
}

fn url(world: &World, api: &TokenApi) -> String {
    format!("https://localhost:{}/api/token/{}/flight", api.port(), world.namespace)
}

/// Whether the program is there; else the test says that it has shown nothing.
fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("there is no {program}: its part of the README was not run");
    }
    there
}

#[tokio::test]
async fn the_python_function_returns_the_token() {
    if !is_there("python3") {
        return;
    }
    let world = World::new().await;
    let (_operator, api, dir) = projected(&world).await;
    let snippet = block_under(HEADING, "python");
    assert!(snippet.contains(PROJECTED));
    let script = snippet.replace(PROJECTED, dir.path().to_str().unwrap());
    let script = format!("{script}\nprint(json.dumps(token({:?})))\n", url(&world, &api));
    let log = dir.path().join("log");
    let child = Child::spawn("the README's function", "python3", ["-c", &script], &[], &log).unwrap();
    let status = child.wait(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{}", child.log());
    let answer: Value = serde_json::from_str(&child.log()).unwrap();
    assert_eq!(answer["access_token"], json!(world.issuer.last_token("flight")));
    assert_eq!(answer.as_object().unwrap().len(), 4, "as its comment says");
}

#[tokio::test]
async fn the_loop_of_the_pod_has_the_present_token_and_does_not_spin() {
    if !is_there("curl") {
        return;
    }
    let world = World::new().await;
    let (operator, api, dir) = projected(&world).await;
    let pod: Value = serde_saphyr::from_str(block_under(HEADING, "yaml")).unwrap();
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    assert!(script.contains(PROJECTED) && script.contains("cd /tmp\n"));
    let folder = dir.path().to_str().unwrap();
    let script = script.replace(PROJECTED, folder).replace("cd /tmp\n", &format!("cd {folder}\n"));
    let env = [("URL", url(&world, &api))];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let child = Child::spawn("the README's loop", "sh", ["-c", &script], &env, &dir.path().join("log")).unwrap();
    has(dir.path(), &world).await;
    assert_eq!(child.log(), "", "no noise");
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    has(dir.path(), &world).await;
    // Two answers and one call that waits, at most twice that if one was cut off: nothing asks in a circle.
    let given = operator.metric("verteil_token_api_requests_total{code=\"200\"}").await;
    let same = operator.metric("verteil_token_api_requests_total{code=\"304\"}").await.unwrap_or_default();
    assert!(given == Some(2.0) && same < 3.0, "{given:?} and {same}");
    // At the end of the operator it is told to come back, and pauses.
    assert_eq!(operator.terminate().await, Some(0));
    eventually("a word of the loop", PATIENCE, async || match child.log() {
        log if log.starts_with("no token: ") => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(child.log().lines().count() < 5, "{}", child.log());
    has(dir.path(), &world).await;
}

/// Waits until the loop has stored the last token.
async fn has(dir: &Path, world: &World) {
    eventually("the present token in its file", PATIENCE, async || {
        let text = std::fs::read_to_string(dir.join("token.json")).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let wanted = json!(world.issuer.last_token("flight"));
        if answer["access_token"] == wanted { Ok(()) } else { Err(text) }
    })
    .await;
}

#[test]
fn the_rust_function_is_one_that_compiles() {
    assert_eq!(block_under(HEADING, "rust"), include_str!("snippet.rs"));
    verteil_token_operator::start::init_crypto();
    // It reads a path that only pods have: made, and not run.
    drop(token(&reqwest::Client::new(), "https://localhost"));
}
