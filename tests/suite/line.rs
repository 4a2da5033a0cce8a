//! What do resources cost that are due at once, while they wait for their turn at the issuer and after it?

use std::collections::BTreeMap;

use serde_json::json;
use testbed::World;
use testbed::proxy::Kind;
use testbed::world::PATIENCE;

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
