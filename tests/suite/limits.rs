//! Who waits for what an issuer tells one resource, and who comes back when it is over?

use std::time::Duration;

use serde_json::json;
use testbed::day::Day;
use testbed::world::{PASSWORD, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::clock::Clock as _;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

const RESOURCES: usize = 20;

fn names() -> impl Iterator<Item = String> {
    (0..RESOURCES).map(|number| format!("token-{number}"))
}

async fn create_all(world: &World) {
    for name in names() {
        world.create_token(&name, json!({})).await;
    }
}

fn limited(seconds: &str) -> Answer {
    Answer::status(429).header("retry-after", seconds)
}

#[tokio::test]
async fn a_429_holds_the_resources_with_the_same_account_and_no_others() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    // The same account in another Secret; another one at the same host.
    world.set_credentials("same", USERNAME, PASSWORD).await;
    world.set_credentials("other", "somebody-else", PASSWORD).await;
    world.issuer.enqueue_for("first", limited("600"));
    world.create_token("first", json!({})).await;
    let first = world.condition("first", "Ready", "False", "RateLimited").await;
    for (name, credentials) in [("second", "credentials"), ("third", "same")] {
        world.create_token(name, json!({"credentialsSecretRef": {"name": credentials}})).await;
        let status = world.condition(name, "Ready", "False", "RateLimited").await;
        let said = &condition(&status, "Ready").unwrap().message;
        assert!(said.contains("another resource with the same account") && said.contains("429"), "{said}");
        assert_eq!(condition(&status, "Stalled").unwrap().status, "False");
        let until = status.next_attempt_time.clone().unwrap().0;
        let wait = until.duration_since(first.last_failure_time.clone().unwrap().0).as_secs();
        assert!((595..=725).contains(&wait), "{wait} s");
        assert_eq!((status.failed_attempts, status.claim), (None, None));
    }
    world.create_token("elsewhere", json!({"credentialsSecretRef": {"name": "other"}})).await;
    world.ready("elsewhere").await;
    let settled = world.tokens().get("second").await.unwrap().metadata.resource_version;
    world.stays_at(2).await;
    // A new process knows as much.
    operator.kill();
    let operator = world.operator(OPERATOR, &[]).await;
    world.stays_at(2).await;
    assert_eq!(world.tokens().get("second").await.unwrap().metadata.resource_version, settled);
    // Somebody who asks for it by hand is not held, once; and others with the account still are.
    world.change("second", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.ready("second").await;
    // That it works again is news to the others; the first one keeps the wait that it was told itself.
    world.ready("third").await;
    world.stays_at(4).await;
    drop(operator);
}

#[tokio::test]
async fn a_limit_costs_one_request_for_each_wait_and_its_end_is_known_to_all_at_once() {
    let world = World::new().await;
    create_all(&world).await;
    world.issuer.rule(|_| Some(limited("1200")));
    let mut day = Day::begin(&world, TestClock::default(), names()).await;
    day.pass(Duration::from_secs(60)).await;
    assert_eq!(world.issuer.count(), 1, "{}", world.issuer.log());
    // What was in memory is gone, again and again: the status of each tells.
    for _ in 0..3 {
        day.restart().await;
        day.pass(Duration::from_secs(60)).await;
    }
    assert_eq!(world.issuer.count(), 1, "{}", world.issuer.log());
    // The statuses are gone as well: one request for the account, not one for each.
    for name in names() {
        let path = r#"[{"op":"remove","path":"/status"}]"#;
        let wipe = ["patch", "vt", &name, "--subresource=status", "--type=json", "-p", path];
        world.kubectl(&wipe, None).await.succeeded();
    }
    day.restart().await;
    day.pass(Duration::from_secs(60)).await;
    assert_eq!(world.issuer.count(), 2, "{}", world.issuer.log());
    // Three more waits of 20 minutes each, lengthened by the earliest jitter of many.
    day.pass(Duration::from_secs(3 * 1200 + 180)).await;
    assert_eq!(world.issuer.count(), 5, "{}", world.issuer.log());
    world.issuer.clear_script();
    day.pass(Duration::from_secs(1300)).await;
    for name in names() {
        let status = world.ready(&name).await;
        assert_eq!((status.next_attempt_time, status.failed_attempts, status.attempted), (None, None, None), "{name}");
    }
    assert_eq!(world.issuer.count(), 5 + RESOURCES, "{}", world.issuer.log());
    assert!(world.issuer.max_in_flight() <= 8, "{}", world.issuer.max_in_flight());
}

#[tokio::test]
async fn without_retry_after_the_waits_of_an_account_grow_whoever_asks() {
    let world = World::new().await;
    create_all(&world).await;
    world.issuer.rule(|_| Some(Answer::status(429)));
    let mut day = Day::begin(&world, TestClock::default(), names()).await;
    day.pass(Duration::from_secs(3600)).await;
    // 5, 10, 20, … 640, 900 s: as for one alone.
    let requests = world.issuer.count();
    assert!((9..=13).contains(&requests), "{requests}\n{}", world.issuer.log());
}

#[tokio::test]
async fn the_first_that_reaches_a_host_again_wakes_the_others() {
    let world = World::new().await;
    create_all(&world).await;
    world.issuer.go_down().unwrap();
    let mut day = Day::begin(&world, TestClock::default(), names()).await;
    day.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.issuer.count(), 0);
    for name in names() {
        world.condition(&name, "Ready", "False", "IssuerUnreachable").await;
    }
    world.issuer.come_back().unwrap();
    while world.issuer.count() == 0 {
        day.pass(Duration::from_secs(1)).await;
    }
    let back = day.clock.elapsed();
    day.pass(Duration::from_secs(60)).await;
    // Each has a wait of five to six minutes of its own.
    assert!(day.clock.elapsed() < back + Duration::from_secs(120));
    for name in names() {
        world.ready(&name).await;
    }
    assert_eq!(world.issuer.count(), RESOURCES, "{}", world.issuer.log());
    assert!(world.issuer.max_in_flight() <= 8, "{}", world.issuer.max_in_flight());
}
