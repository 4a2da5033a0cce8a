//! What ends a wait after a failure, and what does not?

use std::time::Duration;

use serde_json::json;
use testbed::day::Day;
use testbed::world::{PATIENCE, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

#[tokio::test]
async fn a_restart_does_not_start_the_backoff_anew() {
    let world = World::new().await;
    world.create_token("flight", json!({})).await;
    world.issuer.rule(|_| Some(Answer::status(503)));
    let mut day = Day::begin(&world, TestClock::default(), ["flight".to_owned()]).await;
    day.pass(Duration::from_secs(3600)).await;
    let requests = world.issuer.count();
    assert!((9..=12).contains(&requests), "{}", world.issuer.log());
    let before = world.condition("flight", "Ready", "False", "IssuerUnavailable").await;
    for _ in 0..10 {
        day.restart().await;
        day.pass(Duration::from_secs(1)).await;
    }
    let after = world.condition("flight", "Ready", "False", "IssuerUnavailable").await;
    let told = |s: &verteil_token_operator::api::VerteilTokenStatus| (s.failed_attempts, s.next_attempt_time.clone());
    if told(&before) == told(&after) {
        assert_eq!(world.issuer.count(), requests);
    }
    // Nor does the count begin anew: of two hours with a restart in each minute all waits are of a quarter of an hour.
    for _ in 0..120 {
        day.restart().await;
        day.pass(Duration::from_secs(60)).await;
    }
    let more = world.issuer.count() - requests;
    assert!((6..=9).contains(&more), "{more}\n{}", world.issuer.log());
}

#[tokio::test]
async fn a_change_ends_a_wait_once_and_a_touched_label_does_not() {
    let world = World::new().await;
    world.issuer.require("nobody", "knows");
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Stalled", "True", "RequestRefused").await;
    world.change_secret("credentials", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    world.change("flight", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    world.change("flight", json!({"spec": {"renewBefore": "20m"}})).await;
    world.stays_at(1).await;
    let renew = json!({"metadata": {"annotations": {"verteil.dev/renew": "one"}}});
    let changes = [("timeout", json!({"spec": {"timeout": "9s"}})), ("renew", renew)];
    for (requests, (what, change)) in (2..).zip(changes) {
        // Twice the same is one change.
        for _ in 0..2 {
            world.change("flight", change.clone()).await;
        }
        world.issuer.wait_for_count(requests, PATIENCE).await;
        assert_eq!(world.issuer.count(), requests, "{what}");
    }
    world.set_credentials("credentials", USERNAME, "another").await;
    world.issuer.wait_for_count(4, PATIENCE).await;
    world.stays_at(4).await;
    let status = world.condition("flight", "Stalled", "True", "RequestRefused").await;
    assert!(condition(&status, "Ready").unwrap().message.contains("401"));
}

#[tokio::test]
async fn however_fast_things_change_five_seconds_lie_between_two_requests() {
    let world = World::new().await;
    world.issuer.require("nobody", "knows");
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.issuer.wait_for_count(1, PATIENCE).await;
    for change in 0..60 {
        world.set_credentials("credentials", USERNAME, &format!("password-{change}")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.issuer.wait_for_count(3, PATIENCE).await;
    let requests = world.issuer.requests();
    for pair in requests.windows(2) {
        let gap = pair[1].instant.duration_since(pair[0].instant);
        assert!(gap >= Duration::from_secs(5), "{gap:?}");
    }
}

#[tokio::test]
async fn a_renewal_that_is_no_longer_asked_for_ends_no_wait_and_a_new_one_does() {
    let world = World::new().await;
    world.issuer.require("nobody", "knows");
    world.create_token("flight", json!({})).await;
    let renew = async |value: serde_json::Value| {
        world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": value}}})).await;
    };
    let mut day = Day::begin(&world, TestClock::default(), ["flight".to_owned()]).await;
    renew("one".into()).await;
    day.pass(Duration::from_secs(30)).await;
    assert_eq!(world.issuer.count(), 1);
    // Taken away, and written again; by a process that was there, and by one that was not.
    for restarts in [false, true] {
        for value in [serde_json::Value::Null, "one".into()] {
            renew(value).await;
            if restarts {
                day.restart().await;
            }
            day.look();
            day.pass(Duration::from_secs(30)).await;
            assert_eq!(world.issuer.count(), 1, "{}", world.issuer.log());
        }
    }
    renew("two".into()).await;
    day.look();
    day.pass(Duration::from_secs(30)).await;
    assert_eq!(world.issuer.count(), 2, "{}", world.issuer.log());
}

#[tokio::test]
async fn corrected_credentials_that_fail_as_well_are_tried_as_after_a_first_failure() {
    let world = World::new().await;
    world.issuer.require("nobody", "knows");
    world.create_token("flight", json!({})).await;
    let mut day = Day::begin(&world, TestClock::default(), ["flight".to_owned()]).await;
    // At once, after 3 min and after an hour; the next one would follow in 8 h.
    day.pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(world.issuer.count(), 3, "{}", world.issuer.log());
    world.set_credentials("credentials", USERNAME, "another").await;
    day.look();
    day.pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(world.issuer.count(), 6, "{}", world.issuer.log());
    let status = world.condition("flight", "Stalled", "True", "RequestRefused").await;
    assert_eq!(status.failed_attempts, Some(3));
    // To ask by hand corrects nothing.
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "one"}}})).await;
    day.look();
    day.pass(Duration::from_secs(7 * 3600)).await;
    assert_eq!(world.issuer.count(), 7, "{}", world.issuer.log());
}
