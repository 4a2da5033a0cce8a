//! Does `cargo scale` measure what it says, and does it find the counts that the README tells?

use std::collections::HashSet;

use clap::Parser as _;
use serde_json::{Value, json};
use testbed::scale::{Args, run};
use testbed::world::PATIENCE;
use testbed::{World, eventually};

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

/// Connections that `pid` has to `port`, as the kernel lists them (proc(5)).
fn connections(pid: u32, port: u16) -> usize {
    let sockets: HashSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()?.into_os_string().into_string().ok())
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|fields| fields[2].ends_with(&remote) && sockets.contains(fields[9])).count()
}

#[tokio::test]
async fn many_tokens_at_once_take_one_connection_to_the_apiserver() {
    const TOKENS: usize = 40;
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &["--issuer-concurrency=32"]).await;
    let port = world.cluster.url().rsplit_once(':').unwrap().1.parse().unwrap();
    // Of a burst at the start each call may have begun one of its own, which is given up once the first one is there.
    eventually("one connection", PATIENCE, async || match connections(operator.process().pid(), port) {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    let names: Vec<String> = (0..TOKENS).map(|number| format!("flight-{number}")).collect();
    for name in &names {
        world.create_token(name, json!({})).await;
    }
    for name in &names {
        world.ready(name).await;
        // A second one takes the place of one that was silent for too long, on a machine that stood still.
        assert!(connections(operator.process().pid(), port) <= 2);
    }
    world.stays_at(TOKENS).await;
}
