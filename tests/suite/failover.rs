//! What does a leader cost that is cut off, or frozen in the middle of a request?

use std::time::Duration;

use serde_json::json;
use testbed::world::{Operator, PATIENCE};
use testbed::{Signal, World, eventually};

use crate::OPERATOR;

const ELECTION: [&str; 4] =
    ["--leader-election", "--lease-duration=12s", "--lease-renew-deadline=9s", "--lease-retry-period=2s"];

fn flags(world: &World) -> Vec<String> {
    let namespace = format!("--lease-namespace={}", world.namespace);
    ELECTION.iter().map(ToString::to_string).chain([namespace]).collect()
}

async fn leads(operator: &Operator) {
    eventually("the operator to lead", PATIENCE, async || match operator.metric("verteil_token_leader").await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_asks_no_more_and_its_successor_asks_once() {
    let world = World::new().await;
    let flags = flags(&world);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let proxy = world.proxy();
    let one = world.operator_behind(&proxy, OPERATOR, &flags);
    leads(&one).await;
    let two = world.operator(OPERATOR, &flags).await;
    world.issuer.set_lifetime(Duration::from_secs(30));
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.issuer.set_lifetime(Duration::from_secs(43199));
    proxy.cut();
    leads(&two).await;
    let status = world.status("flight", "the renewal", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(one.metric("verteil_token_leader").await, Some(0.0));
    proxy.mend();
    world.stays_at(2).await;
    assert_eq!(world.ready("flight").await.expires_at, status.expires_at);
    assert!(one.process().is_running());
    assert_eq!(two.metric("verteil_token_ambiguous_generations_total").await, Some(0.0));
}

#[tokio::test]
async fn a_leader_frozen_in_mid_issuance_costs_one_more_token_which_is_counted() {
    let world = World::new().await;
    let flags = flags(&world);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let one = world.operator(OPERATOR, &flags).await;
    leads(&one).await;
    let two = world.operator(OPERATOR, &flags).await;
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "5s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    one.process().signal(Signal::STOP).unwrap();
    world.issuer.release();
    leads(&two).await;
    // The claim is waited out first: time-out and 15 s.
    world.ready("flight").await;
    assert_eq!(world.issuer.count(), 2);
    assert_eq!(two.metric("verteil_token_ambiguous_generations_total").await, Some(1.0));
    let token = world.issuer.last_token("flight").unwrap();
    world.stores("flight", &token).await;
    one.process().signal(Signal::CONT).unwrap();
    eventually("the thawed one to stand by", PATIENCE, async || {
        // Until then nothing is unsaved because nothing has come.
        let log = one.log();
        if !log.contains("dropped a token that is no longer wanted") && !log.contains("token request failed") {
            return Err("it has not seen its answer".into());
        }
        match (one.metric("verteil_token_leader").await, one.metric("verteil_token_unsaved").await) {
            (Some(0.0), Some(0.0)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // It comes too late with whatever it has: the later token stays, and stays Ready.
    world.stays_at(2).await;
    world.stores("flight", &token).await;
    world.ready("flight").await;
}
