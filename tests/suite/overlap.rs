//! Do two operators at once, without leader election, ever ask twice?

use std::time::Duration;

use serde_json::json;
use testbed::World;
use testbed::world::PATIENCE;

use crate::OPERATOR;

const RESOURCES: usize = 100;

#[tokio::test]
async fn two_operators_at_once_ask_once_for_each_token_and_once_for_each_renewal() {
    let world = World::new().await;
    world.issuer.set_latency(Duration::from_millis(20));
    // None is renewed, after four fifths of it, before all have their first.
    world.issuer.set_lifetime(Duration::from_secs(120));
    let one = world.operator(OPERATOR, &[]).await;
    let two = world.operator(OPERATOR, &[]).await;
    let names: Vec<String> = (0..RESOURCES).map(|n| format!("token-{n}")).collect();
    for name in &names {
        world.create_token(name, json!({})).await;
    }
    for name in &names {
        world.ready(name).await;
    }
    assert_eq!(world.issuer.count(), RESOURCES, "{}", world.issuer.log());
    // One round of renewals, after which the tokens live long.
    world.issuer.set_lifetime(Duration::from_secs(43199));
    world.issuer.wait_for_count(2 * RESOURCES, 4 * PATIENCE).await;
    for name in &names {
        world.status(name, "the second token", |s| s.tokens_issued == Some(2) && s.claim.is_none()).await;
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
    }
    world.stays_at(2 * RESOURCES).await;
    for operator in [one, two] {
        assert_eq!(operator.metric("verteil_token_ambiguous_generations_total").await, Some(0.0));
        assert_eq!(operator.metric("verteil_token_unsaved").await, Some(0.0));
    }
}
