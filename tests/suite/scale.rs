//! Does `cargo scale` measure what it says, and does it find the counts that the README tells?

use clap::Parser as _;
use serde_json::Value;
use testbed::scale::{Args, run};

use crate::OPERATOR;

/// What takes longer on a busy machine is measured as well, and not judged.
#[tokio::test]
async fn few_resources_cost_the_calls_that_are_promised_and_none_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("scale.json");
    let args = Args::parse_from([
        "cargo scale".to_owned(),
        "--counts-only".to_owned(),
        "--resources=20".to_owned(),
        "--foreign-secrets=50".to_owned(),
        "--idle=3".to_owned(),
        "--skip-renewal".to_owned(),
        format!("--program={OPERATOR}"),
        format!("--json={}", json.display()),
    ]);
    assert!(run(args).await.unwrap(), "the table above says what is missed");
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let size = &figures["sizes"][0];
    assert_eq!((&size["resources"], &figures["setup"]["issuer_concurrency"]), (&20.into(), &32.into()));
    let requests = |phase: &str, call: &str| size["requests"][phase][call].as_u64().unwrap_or_default();
    // What whoever measures asks itself is not counted.
    assert_eq!(requests("first tokens", "get verteiltokens") + requests("renewals", "get verteiltokens"), 0);
    assert!(requests("first tokens", "create secrets (dry run)") >= 20, "{size}");
    assert!(requests("restart", "list verteiltokens") >= 1, "{size}");
}
