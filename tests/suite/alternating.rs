//! What do failures of different kinds cost that take turns, as with a balancer in front of servers that differ?

use std::time::Duration;

use serde_json::json;
use testbed::day::{DAY, Day};
use testbed::world::{PASSWORD, TestClock, USERNAME};
use testbed::{Answer, World};

const HOUR: Duration = Duration::from_secs(3600);

fn refused(path: &str) -> Answer {
    Answer::unauthorized(path)
}

/// A resource with an account of its own.
async fn create(world: &World, name: &str) {
    let credentials = format!("{name}-credentials");
    world.set_credentials(&credentials, &format!("{USERNAME}-{name}"), PASSWORD).await;
    world.create_token(name, json!({"credentialsSecretRef": {"name": credentials}})).await;
}

#[tokio::test]
async fn failures_that_take_turns_cost_what_they_cost_together() {
    let world = World::new().await;
    // What takes turns with 401, and by which reasons both are counted.
    let rows = [("unavailable", "IssuerUnavailable"), ("html", "AnswerUnusable"), ("closed", "IssuerTimeout")];
    let names = rows.map(|(name, _)| name.to_owned());
    for name in &names {
        create(&world, name).await;
    }
    let mut counts = std::collections::HashMap::<String, usize>::new();
    world.issuer.rule(move |request| {
        let number = counts.entry(request.tag.clone()).or_default();
        *number += 1;
        Some(match request.tag.as_str() {
            _ if *number % 2 == 1 => refused(&request.path),
            "unavailable" => Answer::status(503),
            "html" => Answer::status(200).text("<html>maintenance</html>"),
            _ => Answer::close(),
        })
    });
    let mut day = Day::begin(&world, TestClock::default(), names).await;
    // A restart now and then changes nothing.
    for _ in 0..4 {
        day.pass(DAY / 4).await;
        day.restart().await;
    }
    let mut ambiguous = 0;
    for (name, reason) in rows {
        let requests = world.issuer.count_for(name);
        // 401 five times, as if nothing were between, and as often the other.
        assert!((8..=10).contains(&requests), "{name}: {requests} requests in a day\n{}", world.issuer.log());
        let status = world.tokens().get(name).await.unwrap().status.unwrap();
        let counted = status.failures_by_reason.unwrap();
        let of = |reason: &str| usize::try_from(counted[reason]).unwrap();
        assert_eq!(of("RequestRefused") + of(reason), requests, "{name}: {counted:?}");
        assert_eq!(status.failed_attempts, Some(i64::try_from(requests).unwrap()), "{name}");
        ambiguous += if reason == "IssuerUnavailable" { 0 } else { of(reason) };
    }
    assert!(ambiguous <= 10, "{ambiguous}");
    // A token ends all counts.
    world.issuer.clear_script();
    day.pass(8 * HOUR + 2 * HOUR).await;
    for (name, _) in rows {
        let status = world.ready(name).await;
        assert_eq!((status.failed_attempts, status.failures_by_reason), (None, None), "{name}");
    }
}

#[tokio::test]
async fn an_outage_that_ends_in_503_is_asked_about_as_at_its_beginning() {
    let world = World::new().await;
    create(&world, "flight").await;
    world.issuer.go_down().unwrap();
    let mut day = Day::begin(&world, TestClock::default(), ["flight".to_owned()]).await;
    day.pass(HOUR).await;
    world.issuer.enqueue(Answer::status(503));
    world.issuer.come_back().unwrap();
    while world.issuer.count() == 0 {
        day.pass(Duration::from_secs(5)).await;
    }
    day.pass(Duration::from_secs(10)).await;
    world.ready("flight").await;
    assert_eq!(world.issuer.count(), 2);
}

#[tokio::test]
async fn a_wait_for_the_sake_of_another_resource_does_not_start_the_own_count_anew() {
    let world = World::new().await;
    world.create_token("refused", json!({})).await;
    world.create_token("limited", json!({"suspend": true})).await;
    let mut limits = 0;
    world.issuer.rule(move |request| {
        if request.tag == "refused" {
            return Some(refused(&request.path));
        }
        limits += 1;
        (limits == 1).then(|| Answer::status(429).header("retry-after", "3600"))
    });
    let names = ["refused", "limited"].map(str::to_owned);
    let mut day = Day::begin(&world, TestClock::default(), names).await;
    // Twice: the third would follow after an hour.
    day.pass(HOUR / 2).await;
    assert_eq!(world.issuer.count_for("refused"), 2);
    world.change("limited", json!({"spec": {"suspend": false}})).await;
    day.look();
    day.pass(HOUR / 2 + HOUR / 3).await;
    let held = world.condition("refused", "Ready", "False", "RateLimited").await;
    assert_eq!(held.failed_attempts, None);
    assert_eq!(held.failures_by_reason, Some([("RequestRefused".to_owned(), 2)].into()));
    assert_eq!(world.issuer.count_for("refused"), 2);
    day.pass(4 * HOUR).await;
    world.ready("limited").await;
    // Once more, and then not for eight hours.
    assert_eq!(world.issuer.count_for("refused"), 3, "{}", world.issuer.log());
}
