//! What can somebody cost who deletes or damages the Secret again and again? And what does a clock that is set?

use std::time::Duration;

use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::day::Day;
use testbed::world::TestClock;
use testbed::{Answer, World};

/// Time for one look, which may show that nothing is to be done.
const A_LOOK: Duration = Duration::from_secs(1);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A resource `flight` with its first token, in a day whose passes are run one by one.
async fn begin(world: &World) -> Day<'_> {
    world.create_token("flight", json!({})).await;
    let mut day = Day::begin(world, TestClock::default(), ["flight".to_owned()]).await;
    // A minute: the authorizer may learn of the operator's role only now.
    day.pass(Duration::from_secs(60)).await;
    world.ready("flight").await;
    day
}

/// What has changed is looked at, before anything else happens.
async fn look(day: &mut Day<'_>, span: Duration) {
    day.look();
    day.pass(span).await;
}

async fn set_clock(day: &mut Day<'_>, by: SignedDuration) {
    day.clock.step(by);
    look(day, A_LOOK).await;
}

#[tokio::test]
async fn whoever_deletes_the_secret_all_day_costs_no_more_than_the_brake_allows() {
    let world = World::new().await;
    let mut day = begin(&world).await;
    let mut deletions = 0;
    // No token lives long enough to be renewed by the schedule.
    for _ in 0..24 * 6 {
        if world.secrets().get_opt("flight").await.unwrap().is_some() {
            world.delete_secret("flight").await;
            deletions += 1;
        }
        look(&mut day, TEN_MINUTES).await;
    }
    // 5 s, 1 min, 5 min, 15 min, then one an hour.
    let requests = world.issuer.count();
    assert!((24..=1 + 4 + 24).contains(&requests), "{requests} requests for {deletions} deletions");
}

#[tokio::test]
async fn credentials_that_flap_all_day_cost_no_more_than_the_brake_allows() {
    let world = World::new().await;
    let mut day = begin(&world).await;
    for flap in 0..24 * 6 {
        world.set_credentials("credentials", "somebody", &format!("password-{flap}")).await;
        look(&mut day, TEN_MINUTES).await;
    }
    // 5 s, 1 min, 5 min, then one in 15 minutes: of the flaps in between nobody asks.
    let requests = world.issuer.count();
    assert!((80..=1 + 3 + 96).contains(&requests), "{requests} requests in a day");
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
    operator.clock.advance(Duration::from_mins(1));
    world.change("flight", json!({"metadata": {"annotations": {"bell": "1"}}})).await;
    world.status("flight", "the third token", |s| s.tokens_issued == Some(3)).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_by_an_hour_either_way_costs_nothing_and_stalls_nothing() {
    let world = World::new().await;
    let mut day = begin(&world).await;
    for hours in [1, -1, -1, 1] {
        set_clock(&mut day, SignedDuration::from_hours(hours)).await;
        world.ready("flight").await;
        assert_eq!(world.issuer.count(), 1, "after {hours} h: {}", world.issuer.log());
    }
    // Set back right after a token: the gap to the next one cannot be dated, and does not last for an hour.
    set_clock(&mut day, SignedDuration::from_hours(-1)).await;
    world.delete_secret("flight").await;
    look(&mut day, Duration::from_secs(10)).await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    // Set back during a wait: its end is further ahead than any wait of its class lasts, and is not believed beyond that.
    world.issuer.enqueue(Answer::status(503).header("retry-after", "60"));
    world.set_credentials("credentials", "another", "password").await;
    day.clock.advance(Duration::from_hours(2));
    look(&mut day, A_LOOK).await;
    world.condition("flight", "Ready", "False", "IssuerUnavailable").await;
    set_clock(&mut day, SignedDuration::from_hours(-20)).await;
    assert_eq!(world.issuer.count(), 3, "{}", world.issuer.log());
    day.pass(Duration::from_mins(73)).await;
    world.status("flight", "the third token", |s| s.tokens_issued == Some(3)).await;
    assert_eq!(world.issuer.count(), 4, "{}", world.issuer.log());
}
