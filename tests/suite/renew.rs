//! Does the next request come when the stored token has reached its end, and not before?

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use testbed::World;
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{InProcess, PATIENCE, TestClock};
use verteil_token_operator::api::{IssueReason, VerteilTokenStatus};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

/// Time of each request at the issuer, in unix seconds with a fraction.
fn requested(world: &World, tag: &str) -> Vec<f64> {
    world.issuer.requests_for(tag).iter().map(|r| r.at.as_duration().as_secs_f64()).collect()
}

#[tokio::test]
async fn a_token_is_renewed_at_its_renewal_point_and_not_before() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(40));
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let first = world.ready("flight").await;
    let renewal = first.renewal_time.unwrap().0;
    // A fifth of the lifetime, since the wanted ten minutes are more.
    assert_eq!(first.expires_at.unwrap().0.duration_since(renewal), SignedDuration::from_secs(8));
    world.issuer.wait_for_count(2, PATIENCE).await;
    let second = requested(&world, "flight")[1];
    assert!((0.0..8.0).contains(&(second - renewal.as_duration().as_secs_f64())), "{second} after {renewal}");
    let status = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::Expired));
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
}

#[tokio::test]
async fn without_a_margin_a_token_is_renewed_strictly_after_its_expiry() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(8));
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"renewBefore": "0s"})).await;
    let expiry = world.ready("flight").await.expires_at.unwrap().0;
    // Ready all the way: the gap of a second is within the grace.
    let stays_ready = |status: &VerteilTokenStatus| {
        assert_eq!(condition(status, "Ready").unwrap().status, "True", "{status:?}");
        status.tokens_issued >= Some(2)
    };
    world.status("flight", "the second token", stays_ready).await;
    let second = requested(&world, "flight")[1];
    assert!(second >= expiry.as_duration().as_secs_f64(), "{second} before {expiry}");
}

#[tokio::test]
async fn an_issuer_that_repeats_its_token_is_asked_again_only_after_expiry() {
    let world = World::new().await;
    world.issuer.repeats_tokens(Duration::from_secs(40));
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let first = world.ready("flight").await;
    // At the renewal point it repeats: one request that gains nothing, from which the operator learns.
    let learnt = world.status("flight", "that the issuer repeats", |s| s.issuer_repeats.is_some()).await;
    assert_eq!(learnt.tokens_issued, Some(1));
    let expiry = learnt.expires_at.clone().unwrap().0;
    assert_eq!(learnt.renewal_time.unwrap().0.duration_since(expiry), SignedDuration::from_secs(2));
    assert!(expiry.duration_since(first.expires_at.unwrap().0).abs() <= SignedDuration::from_secs(2));
    let second = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(world.issuer.issued().len(), 2);
    // From then on one renewal costs one request, after expiry.
    let before = world.issuer.count();
    assert!((3..=4).contains(&before), "{}", world.issuer.log());
    let third = world.status("flight", "the third token", |s| s.tokens_issued == Some(3)).await;
    let requests = world.issuer.count() - before;
    assert!((1..=2).contains(&requests), "{}", world.issuer.log());
    assert!(second.issuer_repeats.is_some() && third.issuer_repeats.is_some());
    assert!(operator.metric("verteil_token_unchanged_total").await >= Some(1.0));
}

#[tokio::test]
async fn a_repeated_token_serves_what_it_was_asked_for() {
    let world = World::new().await;
    world.issuer.repeats_tokens(Duration::from_secs(3600));
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    // Other inputs, the same token: the Secret must say that they were asked for, or they would be again and again.
    world.change("flight", json!({"spec": {"parameters": {"audience": "x"}}})).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    world.status("flight", "that the issuer repeats", |s| s.issuer_repeats.is_some()).await;
    world.ready("flight").await;
    world.stays_at(2).await;
    assert_eq!(world.ready("flight").await.tokens_issued, Some(1));
}

#[tokio::test]
async fn a_twelve_hour_token_is_left_alone_for_twelve_hours() {
    let world = World::new().await;
    let operator: InProcess = world.in_process(&[], TestClock::default());
    world.create_token("flight", json!({})).await;
    let first = world.ready("flight").await;
    let ring = async |n: i32| {
        world.change("flight", json!({"metadata": {"annotations": {"bell": n.to_string()}}})).await;
    };
    for hour in 1..=11 {
        operator.clock.advance(Duration::from_hours(1));
        ring(hour).await;
    }
    world.stays_at(1).await;
    operator.clock.advance(Duration::from_mins(48));
    ring(12).await;
    world.stays_at(1).await;
    operator.clock.advance(Duration::from_mins(3));
    ring(13).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    let second = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert!(second.expires_at.unwrap().0 > first.expires_at.unwrap().0);
    world.stays_at(2).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_renew_annotation_is_served_once_for_each_value() {
    let world = World::new().await;
    let mut operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let renew = async |value: &str| {
        world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": value}}})).await;
    };
    // The brake keeps 5 s between a token and the next one outside the schedule.
    renew("one").await;
    let status = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::Manual));
    assert_eq!(status.last_renew_request.as_deref(), Some("one"));
    renew("one").await;
    operator.kill();
    operator = world.operator(OPERATOR, &[]).await;
    world.change("flight", json!({"metadata": {"annotations": {"other": "x"}}})).await;
    world.stays_at(2).await;
    drop(operator);
}

#[tokio::test]
async fn a_renew_value_is_served_once_over_a_crash_a_wiped_status_and_a_manifest_applied_again() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let mut manifest = world.token("flight", json!({}));
    world.kubectl_apply(&manifest.to_string()).await;
    world.ready("flight").await;
    // The Secret is written, and the process dies before it can say so.
    let of_status = |call: &Call| call.kind == Kind::Status && call.name == "flight";
    let met = proxy.fault(of_status, std::iter::repeat_n(Fault::Hang, 100));
    manifest["metadata"]["annotations"] = json!({"verteil.dev/renew": "one"});
    world.kubectl_apply(&manifest.to_string()).await;
    world.issuer.wait_for_count(2, PATIENCE).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    operator.kill();
    assert!(met.count() > 0);
    let operator = world.operator(OPERATOR, &[]).await;
    let status = world.status("flight", "what the Secret tells", |s| s.last_renew_request.is_some()).await;
    assert_eq!((status.last_renew_request.as_deref(), status.tokens_issued), (Some("one"), Some(2)));
    world.kubectl_apply(&manifest.to_string()).await;
    let path = r#"[{"op":"remove","path":"/status"}]"#;
    world
        .kubectl(&["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", path], None)
        .await
        .succeeded();
    world.ready("flight").await;
    world.kubectl_apply(&manifest.to_string()).await;
    world.stays_at(2).await;
    assert_eq!(operator.terminate().await, Some(0));
}
