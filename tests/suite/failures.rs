//! What becomes of each answer that brings no token, and of those that do not come?

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use testbed::world::{Operator, PASSWORD, PATIENCE, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::clock::{Clock as _, SystemClock};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::{event, events};

const AMBIGUOUS: &str = "verteil_token_ambiguous_generations_total";
const MEGABYTE: u64 = 1 << 20;

/// Its own account: what the issuer tells one to wait would hold all others with it.
async fn own_account(world: &World, name: &str) -> serde_json::Value {
    let credentials = format!("{name}-credentials");
    world.set_credentials(&credentials, &format!("{USERNAME}-{name}"), PASSWORD).await;
    json!({"credentialsSecretRef": {"name": credentials}})
}

/// What is expected of one answer.
struct Failing {
    name: &'static str,
    answer: Answer,
    reason: &'static str,
    message: &'static str,
    ambiguous: bool,
}

impl Failing {
    const fn new(name: &'static str, answer: Answer, reason: &'static str, message: &'static str) -> Self {
        Self { name, answer, reason, message, ambiguous: false }
    }

    /// It may have cost a token.
    fn ambiguous(self) -> Self {
        Self { ambiguous: true, ..self }
    }
}

/// Every one is followed by a wait of a minute or more, so that a second request within the test is a mistake.
fn failures(elsewhere: &str) -> Vec<Failing> {
    let (unusable, refused) = ("AnswerUnusable", "RequestRefused");
    let truncated = Answer::token("canary-token").truncated_after(30);
    vec![
        Failing::new("hang", Answer::hang(), "IssuerTimeout", "did not answer within 1 s").ambiguous(),
        Failing::new(
            "slow-body",
            Answer::token("canary-token").dripping(1, Duration::from_millis(200)),
            "IssuerTimeout",
            "raise spec.timeout",
        )
        .ambiguous(),
        Failing::new("closed", Answer::close(), "IssuerTimeout", "broke after the request was sent").ambiguous(),
        Failing::new("truncated", truncated, "IssuerTimeout", "broke after the request was sent").ambiguous(),
        Failing::new("html", Answer::status(200).text("<html>hello</html>"), unusable, "not a JSON object").ambiguous(),
        Failing::new("empty", Answer::status(200), unusable, "its body is empty").ambiguous(),
        Failing::new("no-token", Answer::token("x").without("access_token"), unusable, "no access_token").ambiguous(),
        Failing::new(
            "large",
            Answer::token("canary-token").field("padding", "x".repeat(64 * 1024)),
            unusable,
            "larger than 64 KiB",
        )
        .ambiguous(),
        Failing::new("endless", Answer::endless(1 << 40), unusable, "larger than 64 KiB").ambiguous(),
        Failing::new("error-200", Answer::oauth_error(200, "slow_down"), unusable, "slow_down").ambiguous(),
        Failing::new("redirect", Answer::status(302).header("location", elsewhere), unusable, elsewhere_named()),
        Failing::new("moved", Answer::status(307).header("location", elsewhere), unusable, elsewhere_named()),
        Failing::new("not-found", Answer::status(404).text("<html>"), unusable, "check spec.tokenURL"),
        Failing::new("spring", Answer::unauthorized("/t/spring/oauth2/token"), refused, "401, Unauthorized"),
        Failing::new("scope", Answer::oauth_error(400, "invalid_scope"), refused, "400, invalid_scope"),
        Failing::new(
            "busy",
            Answer::status(503).header("retry-after", "600").text("<html>"),
            "IssuerUnavailable",
            "the issuer answered 503",
        ),
        Failing::new(
            "rate-limited",
            Answer::status(429).header("retry-after", "600"),
            "RateLimited",
            "429: too many requests",
        ),
    ]
}

const fn elsewhere_named() -> &'static str {
    "redirects are not followed, write the final address in spec.tokenURL"
}

#[tokio::test]
async fn every_failure_costs_one_request_stores_nothing_and_says_who_must_act() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let elsewhere = format!("{}?code=canary-query", world.issuer.url_for("elsewhere"));
    let failures = failures(&elsewhere);
    for Failing { name, answer, .. } in &failures {
        world.issuer.enqueue_for(name, answer.clone());
        let timeout = if ["hang", "slow-body"].contains(name) { "1s" } else { "15s" };
        let mut spec = own_account(&world, name).await;
        spec["timeout"] = timeout.into();
        world.create_token(name, spec).await;
    }
    for Failing { name, reason, message, ambiguous, .. } in &failures {
        let status = world.condition(name, "Ready", "False", reason).await;
        let said = &condition(&status, "Ready").unwrap().message;
        assert!(said.contains(message), "{name}: {said}");
        let (stalled, reconciling) = if *reason == "RequestRefused" { ("True", "False") } else { ("False", "True") };
        assert_eq!(condition(&status, "Stalled").unwrap().status, stalled, "{name}");
        assert_eq!(condition(&status, "Reconciling").unwrap().status, reconciling, "{name}");
        assert_eq!((status.failed_attempts, status.tokens_issued), (Some(1), None), "{name}");
        assert!(status.next_attempt_time.as_ref().unwrap().0 > SystemClock.now(), "{name}");
        assert_eq!(event(&world, name, reason).await.0, "Warning", "{name}");
        if *ambiguous {
            assert_eq!(event(&world, name, "AmbiguousGeneration").await.0, "Warning", "{name}");
        }
    }
    world.stays_at(failures.len()).await;
    for Failing { name, .. } in &failures {
        assert_eq!(world.issuer.count_for(name), 1, "{name}");
        assert!(world.secrets().get_opt(name).await.unwrap().is_none(), "{name}");
    }
    assert_eq!(world.issuer.count_for("elsewhere"), 0);
    let ambiguous = failures.iter().filter(|failing| failing.ambiguous).count();
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(f64::from(u32::try_from(ambiguous).unwrap())));
    shows_no_canary(&world, &operator).await;
}

/// What a person can read shows neither credentials nor anything of a token or a body.
pub async fn shows_no_canary(world: &World, operator: &Operator) {
    let statuses = world.kubectl(&["get", "vt", "-o", "yaml"], None).await.succeeded();
    let events = format!("{:?}", events(world).await);
    let (_, metrics) = operator.get("/metrics").await.unwrap();
    for (place, text) in [("status", statuses), ("events", events), ("log", operator.log()), ("metrics", metrics)] {
        let found = text.lines().find(|line| line.to_lowercase().contains("canary"));
        assert_eq!(found, None, "in {place}");
    }
}

#[tokio::test]
async fn refused_credentials_are_named_by_secret_and_key() {
    let world = World::new().await;
    world.issuer.require("somebody", "else");
    world.change_secret("credentials", json!({"stringData": {"id": USERNAME, "key": format!("{PASSWORD}\n")}})).await;
    let operator = world.operator(OPERATOR, &[]).await;
    let keys = json!({"credentialsSecretRef": {"usernameKey": "id", "passwordKey": "key"}});
    world.create_token("flight", keys).await;
    let status = world.condition("flight", "Stalled", "True", "RequestRefused").await;
    let said = &condition(&status, "Ready").unwrap().message;
    let hint =
        "look at keys id and key of Secret credentials (key ends in a line break: use --from-literal, or echo -n)";
    assert!(said.contains(hint), "{said}");
    world.stays_at(1).await;
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(0.0));
    shows_no_canary(&world, &operator).await;
}

#[tokio::test]
async fn retry_after_is_obeyed_in_seconds_and_as_a_date() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    // RFC 9110: always GMT.
    let in_half_an_hour = SystemClock.now() + SignedDuration::from_mins(30);
    let date = in_half_an_hour.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let limited = |after: &str| Answer::status(429).header("retry-after", after);
    for (name, answer, least, most) in [
        ("seconds", limited("600"), 600, 725),
        ("date", limited(&date), 1790, 2165),
        ("absurd", limited("99999999999"), 3600, 4325),
        ("unavailable", Answer::status(503).header("retry-after", "600"), 600, 725),
        ("wrong", limited("soon"), 5, 10),
    ] {
        world.issuer.enqueue_for(name, answer);
        world.create_token(name, own_account(&world, name).await).await;
        let status = world.status(name, "a failure", |status| status.next_attempt_time.is_some()).await;
        let wait = status.next_attempt_time.unwrap().0.as_second() - status.last_failure_time.unwrap().0.as_second();
        assert!((least..=most).contains(&wait), "{name}: {wait} s");
    }
}

#[tokio::test]
async fn an_unavailable_issuer_is_asked_again_after_five_seconds() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    // Twice, so that it is long enough to be seen by who looks.
    for _ in 0..2 {
        world.issuer.enqueue_for("flight", Answer::status(503));
    }
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Ready", "False", "IssuerUnavailable").await;
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    let status = world.ready("flight").await;
    assert_eq!((status.failed_attempts, status.next_attempt_time, status.tokens_issued), (None, None, Some(1)));
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    let requests = world.issuer.requests();
    let gap = requests[1].instant.duration_since(requests[0].instant);
    assert!(gap >= Duration::from_secs(5), "{gap:?}");
    assert_eq!(event(&world, "flight", "Recovered").await.0, "Normal");
    world.stays_at(3).await;
}

/// Each refused attempt may lock an account, and each unusable answer may have cost a token.
#[tokio::test]
async fn a_failure_that_lasts_is_asked_about_less_and_less() {
    let world = World::new().await;
    let operator = world.in_process(&[], TestClock::default());
    let (refused, unusable) = ([180, 3600, 8 * 3600], [60, 240, 960]);
    world.issuer.rule(|request| match request.tag.as_str() {
        "refused" => Some(Answer::unauthorized(&request.path)),
        _ => Some(Answer::status(404)),
    });
    for (name, reason, waits) in [("refused", "RequestRefused", refused), ("unusable", "AnswerUnusable", unusable)] {
        world.create_token(name, json!({})).await;
        for (attempt, least) in (1..).zip(waits) {
            let is_told =
                |status: &VerteilTokenStatus| status.failed_attempts == Some(attempt) && status.claim.is_none();
            let status = world.status(name, &format!("failure {attempt}"), is_told).await;
            let wait =
                status.next_attempt_time.unwrap().0.as_second() - status.last_failure_time.unwrap().0.as_second();
            assert!((least..=least * 6 / 5 + 1).contains(&wait), "{name}: {wait} s after failure {attempt}");
            operator.clock.advance(Duration::from_secs(u64::try_from(wait).unwrap() + 1));
            // A bell: the operator's own waits are not moved by the clock.
            world.change(name, json!({"metadata": {"annotations": {"bell": attempt.to_string()}}})).await;
        }
        world.issuer.wait_for_count_of(name, 4, PATIENCE).await;
        let told = events(&world).await.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        assert_eq!(told.count(), 1, "{name}: one event, however often it is tried");
    }
    world.stays_at(8).await;
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_once_and_since_when() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let token = world.issuer.last_token("flight").unwrap();
    for _ in 0..2 {
        world.issuer.enqueue_for("flight", Answer::status(503).header("retry-after", "20"));
    }
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    let failures = |n| move |status: &VerteilTokenStatus| status.failed_attempts == Some(n);
    let (mut since, mut messages) = (Vec::new(), Vec::new());
    let expiry = world.ready("flight").await.expires_at.unwrap().0;
    for attempt in 1..=2 {
        let status = world.status("flight", "a failed renewal", failures(attempt)).await;
        let failing = condition(&status, "RenewalFailing").unwrap();
        assert_eq!((failing.status.as_str(), failing.reason.as_str()), ("True", "IssuerUnavailable"));
        assert_eq!(condition(&status, "Ready").unwrap().status, "True");
        since.push(failing.last_transition_time.clone());
        messages.push(failing.message.clone());
        world.stores("flight", &token).await;
    }
    assert_eq!((&since[0], &messages[0]), (&since[1], &messages[1]));
    let outlook = format!("by itself; renewal fails since {}, the stored token holds until {expiry}", since[0].0);
    assert!(messages[0].ends_with(&outlook), "{} is not about {outlook}", messages[0]);
    let over = |status: &VerteilTokenStatus| status.tokens_issued == Some(2);
    let status = world.status("flight", "a renewal", over).await;
    assert_eq!(condition(&status, "RenewalFailing").unwrap().status, "False");
    event(&world, "flight", "Recovered").await;
    let told: Vec<String> = events(&world).await.into_iter().filter_map(|event| event.reason).collect();
    for reason in ["IssuerUnavailable", "Recovered"] {
        assert_eq!(told.iter().filter(|told| *told == reason).count(), 1, "{told:?}");
    }
    world.stays_at(4).await;
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_costs_nothing_and_is_found_again() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.go_down().unwrap();
    world.create_token("flight", json!({})).await;
    let status = world.condition("flight", "Ready", "False", "IssuerUnreachable").await;
    assert_eq!(condition(&status, "Stalled").unwrap().status, "False");
    let said = &condition(&status, "Ready").unwrap().message;
    assert!(said.contains("the issuer cannot be reached") && said.contains("refused"), "{said}");
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    world.issuer.come_back().unwrap();
    world.ready("flight").await;
    world.stays_at(1).await;
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(0.0));
}

#[tokio::test]
async fn of_an_endless_answer_no_more_is_read_than_a_token_needs() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("before", json!({})).await;
    world.ready("before").await;
    let memory = || resident(operator.process().pid());
    let before = memory();
    world.issuer.enqueue_for("endless", Answer::endless(1 << 40));
    world.create_token("endless", json!({"timeout": "15s"})).await;
    world.condition("endless", "Ready", "False", "AnswerUnusable").await;
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 * MEGABYTE, "{grown} bytes more");
    world.stays_at(2).await;
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib * 1024)
}
