//! What do resources cost that are due at once, while they wait for their turn at the issuer and after it?

use std::collections::BTreeMap;

use serde_json::json;
use testbed::proxy::Kind;
use testbed::world::{PASSWORD, PATIENCE, QUIET, USERNAME};
use testbed::{World, never};

use crate::OPERATOR;

const RESOURCES: usize = 6;

#[tokio::test]
async fn who_stands_in_line_reads_nothing_and_a_first_token_takes_six_calls() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &["--issuer-concurrency=1"]);
    operator.wait_until_ready().await;
    let calls = || {
        let mut counts = BTreeMap::new();
        for call in proxy.calls().iter().filter(|call| call.kind != Kind::Watch) {
            *counts.entry(call.kind).or_insert(0) += 1;
        }
        counts
    };
    world.issuer.hold();
    world.create_token("flight-0", json!({})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    for number in 1..RESOURCES {
        world.create_token(&format!("flight-{number}"), json!({})).await;
    }
    world.stays_at(1).await;
    assert_eq!(calls(), [(Kind::GetSecret, 1), (Kind::DryRun, 1), (Kind::Claim, 1)].into());

    world.issuer.release();
    for number in 0..RESOURCES {
        world.ready(&format!("flight-{number}")).await;
    }
    world.stays_at(RESOURCES).await;
    let each = [Kind::GetSecret, Kind::DryRun, Kind::Claim, Kind::WriteSecret, Kind::Status, Kind::Event];
    assert_eq!(calls(), each.map(|kind| (kind, RESOURCES)).into());
}

#[tokio::test]
async fn no_more_requests_are_in_flight_to_a_host_than_allowed() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &["--issuer-concurrency=2"]).await;
    // What is known of the host and of one account holds nobody back.
    world.create_token("first", json!({})).await;
    world.ready("first").await;
    world.issuer.hold();
    for number in 0..RESOURCES {
        let (name, credentials) = (format!("flight-{number}"), format!("credentials-{number}"));
        world.set_credentials(&credentials, &format!("{USERNAME}-{number}"), PASSWORD).await;
        world.create_token(&name, json!({"credentialsSecretRef": {"name": credentials}})).await;
    }
    world.issuer.wait_until_held(2, PATIENCE).await;
    never("another request in flight", QUIET, async || match world.issuer.held() {
        2 => Ok(()),
        held => Err(format!("{held} requests are held")),
    })
    .await;
    world.issuer.release();
    for number in 0..RESOURCES {
        world.ready(&format!("flight-{number}")).await;
    }
    assert_eq!((world.issuer.count(), world.issuer.max_in_flight()), (1 + RESOURCES, 2), "{}", world.issuer.log());
}
