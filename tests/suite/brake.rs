//! What can somebody cost who deletes or damages the Secret again and again? And what does a clock that is set?

use std::time::Duration;

use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::world::{InProcess, TestClock};
use testbed::{Answer, World};
use verteil_token_operator::clock::Clock as _;

/// Makes the operator look, and gives it time to act. Nothing tells when it has decided to do nothing.
async fn look(world: &World, operator: &InProcess) {
    let bell = operator.clock.now().as_nanosecond().to_string();
    world.change("flight", json!({"metadata": {"annotations": {"bell": bell}}})).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
}

async fn later(world: &World, operator: &InProcess, by: Duration) {
    operator.clock.advance(by);
    look(world, operator).await;
}

async fn set_clock(world: &World, operator: &InProcess, by: SignedDuration) {
    operator.clock.step(by);
    look(world, operator).await;
}

#[tokio::test]
async fn whoever_deletes_the_secret_all_day_costs_no_more_than_the_brake_allows() {
    let world = World::new().await;
    let operator = world.in_process(&[], TestClock::default());
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let mut deletions = 0;
    // No token lives long enough to be renewed by the schedule.
    for _ in 0..24 * 6 {
        if world.secrets().get_opt("flight").await.unwrap().is_some() {
            world.delete_secret("flight").await;
            deletions += 1;
        }
        later(&world, &operator, Duration::from_mins(10)).await;
    }
    // 5 s, 1 min, 5 min, 15 min, then one an hour.
    let requests = world.issuer.count();
    assert!((12..=1 + 4 + 24).contains(&requests), "{requests} requests for {deletions} deletions");
    operator.stop().await;
}

#[tokio::test]
async fn credentials_that_flap_all_day_cost_no_more_than_the_brake_allows() {
    let world = World::new().await;
    let operator = world.in_process(&[], TestClock::default());
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    for flap in 0..24 * 6 {
        world.set_credentials("credentials", "somebody", &format!("password-{flap}")).await;
        later(&world, &operator, Duration::from_mins(10)).await;
    }
    // 5 s, 1 min, 5 min, then one in 15 minutes: of the flaps in between nobody asks.
    let requests = world.issuer.count();
    assert!((40..=1 + 3 + 96).contains(&requests), "{requests} requests in a day");
    operator.stop().await;
}

#[tokio::test]
async fn whoever_damages_the_record_is_named() {
    let world = World::new().await;
    let operator = world.in_process(&[], TestClock::default());
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let damage = async || {
        let params = PatchParams { field_manager: Some("saboteur".into()), ..PatchParams::default() };
        let change = json!({"stringData": {"verteil_token.json": "{}"}});
        world.secrets().patch("flight", &params, &Patch::Merge(change)).await.unwrap();
    };
    damage().await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    damage().await;
    let status = world.condition("flight", "Ready", "False", "GenerationThrottled").await;
    let message = &status.conditions.iter().find(|c| c.type_ == "Ready").unwrap().message;
    assert!(message.contains("last written by saboteur"), "{message}");
    world.stays_at(2).await;
    later(&world, &operator, Duration::from_mins(1)).await;
    world.status("flight", "the third token", |s| s.tokens_issued == Some(3)).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_by_an_hour_either_way_costs_nothing_and_stalls_nothing() {
    let world = World::new().await;
    let operator = world.in_process(&[], TestClock::default());
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    for hours in [1, -1, -1, 1] {
        set_clock(&world, &operator, SignedDuration::from_hours(hours)).await;
        world.ready("flight").await;
    }
    world.stays_at(1).await;
    // Set back right after a token: the gap to the next one cannot be dated, and does not last for an hour.
    set_clock(&world, &operator, SignedDuration::from_hours(-1)).await;
    world.delete_secret("flight").await;
    later(&world, &operator, Duration::from_secs(10)).await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    // Set back during a wait: its end is further ahead than any wait of its class lasts, and is not believed beyond that.
    world.issuer.enqueue(Answer::status(503));
    world.set_credentials("credentials", "another", "password").await;
    later(&world, &operator, Duration::from_hours(2)).await;
    world.condition("flight", "Ready", "False", "IssuerUnavailable").await;
    set_clock(&world, &operator, SignedDuration::from_hours(-20)).await;
    later(&world, &operator, Duration::from_mins(73)).await;
    world.status("flight", "the third token", |s| s.tokens_issued == Some(3)).await;
    world.stays_at(4).await;
    operator.stop().await;
}
