//! Failures with tokens in memory only: what is told and waited out is as with Secrets, and survives a restart as there.

use serde_json::json;
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{Answer, World};

use super::taken_over::is_emptied;
use super::{FLAG, given, start};
use crate::OPERATOR;
use crate::token_api::client::{self, TokenApi};

#[tokio::test]
async fn a_wait_after_a_failure_outlives_the_process_and_changed_inputs_end_it() {
    let world = World::new().await;
    let (operator, _) = start(&world, &[]).await;
    world.issuer.rule(|_| Some(Answer::status(429).header("retry-after", "3000")));
    world.create_token("flight", json!({})).await;
    let before = world.condition("flight", "Ready", "False", "RateLimited").await;
    assert_eq!(before.failed_attempts, Some(1));
    operator.kill();
    let (_operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.stays_at(1).await;
    let answer = api.get(&world.namespace, "flight", &bearer).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!("RateLimited")));
    let after = world.condition("flight", "Ready", "False", "RateLimited").await;
    assert_eq!(after.next_attempt_time, before.next_attempt_time);
    world.issuer.clear_script();
    world.set_credentials("others", "another-user", "another").await;
    world.change("flight", json!({"spec": {"credentialsSecretRef": {"name": "others"}}})).await;
    world.ready("flight").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, world.issuer.last_token("flight").unwrap());
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_token_that_is_held() {
    let world = World::new().await;
    let (operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let first = given(&world, &api, &bearer, "flight").await;
    world.issuer.rule(|_| Some(Answer::unauthorized("/token")));
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.condition("flight", "RenewalFailing", "True", "RequestRefused").await;
    world.ready("flight").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, first);
    world.stays_at(2).await;
    let failed = operator.metric("verteil_token_requests_total{outcome=\"RequestRefused\"}").await;
    assert_eq!(failed, Some(1.0));
}

#[tokio::test]
async fn a_secret_is_emptied_also_while_nothing_is_to_be_requested() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(operator.terminate().await, Some(0));
    world.change("flight", json!({"spec": {"suspend": true}})).await;
    let proxy = world.proxy();
    let refused = |call: &Call| call.kind == Kind::WriteSecret;
    let met = proxy.fault(refused, std::iter::repeat_n(Fault::Status(422, None), 1000));
    let (_operator, api) = TokenApi::start_behind(&world, &proxy, &[FLAG]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.status("flight", "its new place", |status| status.in_memory == Some(true)).await;
    met.wait("the Secret is to be emptied", PATIENCE).await;
    let token = world.issuer.last_token("flight").unwrap();
    assert_eq!(given(&world, &api, &bearer, "flight").await, token);
    proxy.clear();
    is_emptied(&world, "flight").await;
    world.change("flight", json!({"spec": {"suspend": false}})).await;
    world.ready("flight").await;
    assert_eq!(given(&world, &api, &bearer, "flight").await, token);
    world.stays_at(1).await;
}
