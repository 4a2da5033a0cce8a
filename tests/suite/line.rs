//! What do resources cost that are due at once, while they wait for their turn at the issuer and after it? Who goes first?

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use testbed::proxy::Kind;
use testbed::world::{Operator, PASSWORD, PATIENCE, QUIET, TestClock, USERNAME};
use testbed::{Answer, Proxy, World, eventually, never};
use verteil_token_operator::clock::{Clock as _, SystemClock};

use crate::OPERATOR;

const RESOURCES: usize = 6;
/// A request that is held lasts no longer than this.
const LONGEST_TIMEOUT: &str = "15s";

fn calls(proxy: &Proxy) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for call in proxy.calls().iter().filter(|call| call.kind != Kind::Watch) {
        *counts.entry(call.kind).or_insert(0) += 1;
    }
    counts
}

fn names() -> impl Iterator<Item = String> {
    (0..RESOURCES).map(|number| format!("flight-{number}"))
}

async fn ask(world: &World, name: &str) {
    world.change(name, json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
}

/// Waits until a token may be asked for by hand: it follows the one before after five seconds.
async fn after_the_gap(world: &World) {
    let last = world.issuer.requests().iter().map(|request| request.at).max().unwrap();
    eventually("the end of the gap after the last token", PATIENCE, async || {
        let gone = SystemClock.now().duration_since(last);
        if gone > SignedDuration::from_secs(7) { Ok(()) } else { Err(gone.to_string()) }
    })
    .await;
}

async fn passes(operator: &Operator) -> f64 {
    operator.metric("verteil_token_reconcile_duration_seconds_count").await.unwrap_or_default()
}

/// Waits for so many passes more than there were `before`.
async fn passes_after(operator: &Operator, before: f64, more: f64) {
    eventually("passes", PATIENCE, async || match passes(operator).await - before {
        seen if seen >= more => Ok(()),
        seen => Err(format!("{seen} of {more}")),
    })
    .await;
}

#[tokio::test]
async fn who_stands_in_line_reads_nothing_and_a_first_token_takes_six_calls() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &["--issuer-concurrency=1"]);
    operator.wait_until_ready().await;
    world.issuer.hold();
    let mut names = names();
    world.create_token(&names.next().unwrap(), json!({})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    for name in names {
        world.create_token(&name, json!({})).await;
    }
    world.stays_at(1).await;
    assert_eq!(calls(&proxy), [(Kind::GetSecret, 1), (Kind::DryRun, 1), (Kind::Claim, 1)].into());

    world.issuer.release();
    for name in self::names() {
        world.ready(&name).await;
    }
    world.stays_at(RESOURCES).await;
    let each = [Kind::GetSecret, Kind::DryRun, Kind::Claim, Kind::WriteSecret, Kind::Status, Kind::Event];
    assert_eq!(calls(&proxy), each.map(|kind| (kind, RESOURCES)).into());
}

#[tokio::test]
async fn a_renewal_takes_seven_calls() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    world.issuer.enqueue_for("flight", Answer::token("fake-short").expires_in(20));
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let event = |count| {
        let what = format!("{count} events");
        let proxy = &proxy;
        async move {
            eventually(&what, PATIENCE, async || match calls(proxy).get(&Kind::Event) {
                Some(seen) if *seen == count => Ok(()),
                seen => Err(format!("{seen:?}")),
            })
            .await;
        }
    };
    event(1).await;
    let before = calls(&proxy);
    world.status("flight", "the second token", |status| status.tokens_issued == Some(2)).await;
    event(2).await;
    world.stays_at(2).await;
    let took: BTreeMap<Kind, usize> =
        calls(&proxy).into_iter().map(|(kind, count)| (kind, count - before.get(&kind).unwrap_or(&0))).collect();
    let each = [(Kind::DryRun, 1), (Kind::Claim, 1), (Kind::WriteSecret, 1), (Kind::Status, 1), (Kind::Event, 1)];
    // Credentials and token.
    assert_eq!(took, each.into_iter().chain([(Kind::GetSecret, 2)]).collect());
}

#[tokio::test]
async fn a_renewal_with_under_two_minutes_left_goes_before_a_first_token_and_others_after_it() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &["--issuer-concurrency=1"]).await;
    world.issuer.enqueue_for("expiring", Answer::token("fake-expiring").expires_in(118));
    for name in ["renewal", "expiring"] {
        world.create_token(name, json!({})).await;
        world.ready(name).await;
    }
    after_the_gap(&world).await;
    world.issuer.hold();
    world.create_token("ahead", json!({"timeout": LONGEST_TIMEOUT})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    for name in ["renewal", "new", "expiring"] {
        let before = passes(&operator).await;
        match name {
            "new" => drop(world.create_token(name, json!({})).await),
            _ => ask(&world, name).await,
        }
        passes_after(&operator, before, 1.0).await;
    }
    assert_eq!(world.issuer.count(), 3, "{}", world.issuer.log());
    world.issuer.release();
    world.issuer.wait_for_count(6, PATIENCE).await;
    let order: Vec<String> = world.issuer.requests().into_iter().skip(2).map(|request| request.tag).collect();
    assert_eq!(order, ["ahead", "expiring", "new", "renewal"]);
}

#[tokio::test]
async fn a_token_that_expires_in_line_is_shown_as_expired_and_keeps_its_place() {
    let world = World::new().await;
    let operator = world.in_process(&["--issuer-concurrency=1"], TestClock::default());
    world.issuer.enqueue_for("flight", Answer::token("fake-short").expires_in(300));
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.issuer.hold();
    world.create_token("ahead", json!({"timeout": LONGEST_TIMEOUT})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    operator.clock.advance(Duration::from_secs(300 + 90));
    world.change("flight", json!({"metadata": {"annotations": {"bell": "1"}}})).await;
    let status = world.condition("flight", "Ready", "False", "TokenExpired").await;
    // It was not its own claim that told so.
    assert_eq!((status.claim, world.issuer.count_for("flight")), (None, 1));
    world.create_token("behind", json!({})).await;
    world.issuer.release();
    world.ready("flight").await;
    world.ready("behind").await;
    let order: Vec<String> = world.issuer.requests().into_iter().map(|request| request.tag).collect();
    assert_eq!(order, ["flight", "ahead", "flight", "behind"]);
    operator.stop().await;
}

#[tokio::test]
async fn who_tries_again_after_an_outage_reads_nothing_in_line() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &["--issuer-concurrency=1"]);
    operator.wait_until_ready().await;
    for name in names() {
        world.create_token(&name, json!({"timeout": LONGEST_TIMEOUT})).await;
    }
    for name in names() {
        world.ready(&name).await;
    }
    after_the_gap(&world).await;
    world.issuer.go_down().unwrap();
    for name in names() {
        ask(&world, &name).await;
    }
    for name in names() {
        world.condition(&name, "RenewalFailing", "True", "IssuerUnreachable").await;
    }
    world.issuer.hold();
    world.issuer.come_back().unwrap();
    world.issuer.wait_until_held(1, PATIENCE).await;
    // The one whose request is held has read its own Secret. The others come back by their own timers meanwhile.
    let reads = || proxy.calls().iter().filter(|c| c.kind == Kind::GetSecret && c.name.starts_with("flight")).count();
    let (read, asked) = (reads(), world.issuer.count());
    for name in names() {
        let due = world.tokens().get_status(&name).await.unwrap().status.unwrap_or_default().next_attempt_time;
        eventually(&format!("the next attempt of {name}"), PATIENCE, async || match &due {
            Some(due) if SystemClock.now() < due.0 => Err(due.0.to_string()),
            Some(_) | None => Ok(()),
        })
        .await;
    }
    never("a read in line", QUIET, async || match (reads() - read, world.issuer.count() - asked) {
        // Should the held one be given up meanwhile, the next in line goes on.
        (read, asked) if read <= asked + 1 => Ok(()),
        (read, asked) => Err(format!("{read} reads for {asked} requests")),
    })
    .await;
    world.issuer.release();
    for name in names() {
        world.status(&name, "the second token", |status| status.tokens_issued == Some(2)).await;
    }
}

#[tokio::test]
async fn no_more_requests_are_in_flight_to_a_host_than_allowed() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &["--issuer-concurrency=2"]).await;
    // What is known of the host and of one account holds nobody back.
    world.create_token("first", json!({})).await;
    world.ready("first").await;
    world.issuer.hold();
    for number in 0..RESOURCES {
        let (name, credentials) = (format!("flight-{number}"), format!("credentials-{number}"));
        world.set_credentials(&credentials, &format!("{USERNAME}-{number}"), PASSWORD).await;
        world.create_token(&name, json!({"credentialsSecretRef": {"name": credentials}})).await;
    }
    world.issuer.wait_until_held(2, PATIENCE).await;
    never("another request in flight", QUIET, async || match world.issuer.held() {
        2 => Ok(()),
        held => Err(format!("{held} requests are held")),
    })
    .await;
    world.issuer.release();
    for number in 0..RESOURCES {
        world.ready(&format!("flight-{number}")).await;
    }
    assert_eq!((world.issuer.count(), world.issuer.max_in_flight()), (1 + RESOURCES, 2), "{}", world.issuer.log());
}
