//! Does a token survive everything that happens to the operator and the cluster?

use serde_json::json;
use testbed::World;

use crate::OPERATOR;

#[tokio::test]
async fn a_token_is_issued_once_and_survives_a_crash() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let status = world.ready("flight").await;
    assert_eq!(status.tokens_issued, Some(1));
    operator.kill();
    let _operator = world.operator(OPERATOR, &[]).await;
    world.stays_at(1).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
}
