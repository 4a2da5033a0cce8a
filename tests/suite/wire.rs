//! What goes over the wire to the issuer, and what becomes of each answer that can come back?

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::SignedDuration;
use serde_json::{Value, json};
use testbed::world::{Operator, PASSWORD, PATIENCE, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::clock::{Clock as _, SystemClock};
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::{event, events};

const AMBIGUOUS: &str = "verteil_token_ambiguous_generations_total";
const MEGABYTE: u64 = 1 << 20;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// An unsigned JWT with these claims.
fn jwt(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "RS256"})), part(claims))
}

/// Seconds from the request to the expiry, as the status has it.
fn lifetime(status: &VerteilTokenStatus) -> i64 {
    let (issued, expires) = (status.issued_at.as_ref().unwrap(), status.expires_at.as_ref().unwrap());
    expires.0.as_second() - issued.0.as_second()
}

#[tokio::test]
async fn a_request_carries_what_rfc_6749_asks_for_and_nothing_else() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("plain", json!({})).await;
    world.ready("plain").await;
    let requests = world.issuer.requests_for("plain");
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.query.as_deref()), ("POST", None));
    assert_eq!(request.body, "grant_type=client_credentials");
    let headers: BTreeMap<_, _> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{USERNAME}:{PASSWORD}")));
    let host = world.issuer.base_url().replace("http://", "");
    assert_eq!(
        headers,
        BTreeMap::from([
            ("accept", "application/json"),
            ("authorization", basic.as_str()),
            ("content-length", "29"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", host.as_str()),
            ("user-agent", concat!("verteil-token-operator/", env!("CARGO_PKG_VERSION"))),
        ])
    );
    world.stays_at(1).await;
}

#[tokio::test]
async fn parameters_and_credentials_go_where_the_spec_says() {
    let world = World::new().await;
    // What percent-encoding, trimming or another alphabet of base64 would change.
    let (user, password) = ("us er+ä%?>", " p:a&s=s%20w~ö?>\u{10348} ");
    world.set_credentials("odd", user, password).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let odd = json!({
        "credentialsSecretRef": {"name": "odd"},
        "scopes": ["write", "api", "write"],
        "parameters": {"audience": "x&y=z ü", "Resource": ""},
    });
    let with = |more: Value| {
        let mut spec = odd.clone();
        testbed::world::merge(&mut spec, more);
        spec
    };
    let query = format!("{}?tenant=a%20b", world.issuer.url_for("query"));
    world.create_token("body", with(json!({}))).await;
    world.create_token("query", with(json!({"tokenURL": query, "parametersIn": "Query"}))).await;
    world.create_token("secret-in-body", with(json!({"clientAuthentication": "Body"}))).await;
    for name in ["body", "query", "secret-in-body"] {
        world.ready(name).await;
    }
    world.stays_at(3).await;

    let sent = pairs(&[
        ("grant_type", "client_credentials"),
        ("scope", "api write"),
        ("Resource", ""),
        ("audience", "x&y=z ü"),
    ]);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let body = &world.issuer.requests_for("body")[0];
    assert_eq!(body.header("authorization"), Some(basic.as_str()));
    assert_eq!((body.query.as_deref(), body.body_parameters()), (None, sent.clone()));

    let query = &world.issuer.requests_for("query")[0];
    assert_eq!(query.header("authorization"), Some(basic.as_str()));
    assert_eq!((query.body.as_str(), query.header("content-length")), ("", Some("0")));
    assert_eq!(query.query_parameters(), [pairs(&[("tenant", "a b")]), sent.clone()].concat());

    let secret = &world.issuer.requests_for("secret-in-body")[0];
    assert_eq!((secret.header("authorization"), secret.query.as_deref()), (None, None));
    let credentials = pairs(&[("client_id", user), ("client_secret", password)]);
    assert_eq!(secret.body_parameters(), [sent, credentials].concat());
}

#[tokio::test]
async fn a_lifetime_is_found_wherever_the_issuer_says_it() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let now = SystemClock.now().as_second();
    let day = 24 * 3600;
    let claims = |iat: i64, life: i64| jwt(&json!({"sub": "x", "iat": iat, "exp": iat + life}));
    let bare = |token: &str| Answer::token(token).without("expires_in");
    let answers = [
        ("number", Answer::token("t-number").expires_in(1234), 1234),
        ("numeric-string", Answer::token("t-string").field("expires_in", "1234"), 1234),
        ("fraction", Answer::token("t-fraction").field("expires_in", 1234.9), 1234),
        ("absent", bare("t-absent"), 3600),
        ("null", Answer::token("t-null").field("expires_in", Value::Null), 3600),
        ("jwt-longer", Answer::token(&claims(now, 7200)).expires_in(1234), 1234),
        ("jwt-shorter", Answer::token(&claims(now, 600)).expires_in(1234), 600),
        // A clock of the issuer that is days off, either way, says nothing about the span.
        ("jwt-slow-clock", Answer::token(&claims(now - 10 * day, 600)).expires_in(1234), 600),
        ("jwt-fast-clock", Answer::token(&claims(now + 10 * day, 600)).expires_in(1234), 600),
        ("jwt-slow-clock-alone", bare(&claims(now - 10 * day, 600)), 600),
        ("jwt-fast-clock-alone", bare(&claims(now + 10 * day, 600)), 600),
        ("not-a-jwt", Answer::token("a.b.c").without("expires_in"), 3600),
    ];
    for (name, answer, _) in &answers {
        world.issuer.enqueue_for(name, answer.clone());
        world.create_token(name, json!({})).await;
    }
    world.issuer.enqueue_for("jwt-exp", bare(&jwt(&json!({"exp": now + 1800}))));
    world.create_token("jwt-exp", json!({})).await;

    for (name, _, expected) in &answers {
        assert_eq!(lifetime(&world.ready(name).await), *expected, "{name}");
        assert_eq!(world.secret_key(name, "expires_in").await, expected.to_string(), "{name}");
    }
    // Without `iat` only the moment of expiry is known.
    assert_eq!(world.ready("jwt-exp").await.expires_at.unwrap().0.as_second(), now + 1800);
    for name in ["absent", "null", "not-a-jwt"] {
        let (kind, note) = event(&world, name, "LifetimeAssumed").await;
        assert_eq!(kind, "Warning");
        assert!(note.contains("an hour is assumed"), "{note}");
    }
    world.stays_at(answers.len() + 1).await;
    let assumed = events(&world).await.into_iter().filter(|event| event.reason.as_deref() == Some("LifetimeAssumed"));
    assert_eq!(assumed.count(), 3, "only where nothing was said");
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(0.0));
}

#[tokio::test]
async fn the_token_type_is_stored_as_the_issuer_writes_it() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.issuer.enqueue_for("lower", Answer::token("t-lower").field("token_type", "bearer"));
    world.issuer.enqueue_for("none", Answer::token("t-none").without("token_type"));
    for (name, kind) in [("lower", "bearer"), ("none", "Bearer")] {
        world.create_token(name, json!({})).await;
        world.ready(name).await;
        assert_eq!(world.secret_key(name, "token_type").await, kind);
        let record: Value = serde_json::from_str(&world.secret_key(name, "verteil_token.json").await).unwrap();
        assert_eq!(record["token_data"]["token_type"], kind);
    }
    world.stays_at(2).await;
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
        world.create_token(name, json!({"timeout": timeout})).await;
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
        world.create_token(name, json!({})).await;
        let status = world.status(name, "a failure", |status| status.next_attempt_time.is_some()).await;
        let wait = status.next_attempt_time.unwrap().0.as_second() - status.last_failure_time.unwrap().0.as_second();
        assert!((least..=most).contains(&wait), "{name}: {wait} s");
    }
}

#[tokio::test]
async fn an_unavailable_issuer_is_asked_again_after_five_seconds() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.issuer.enqueue_for("flight", Answer::status(503));
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
    world.stays_at(2).await;
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
        world.issuer.enqueue_for("flight", Answer::status(503));
    }
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    let failures = |n| move |status: &VerteilTokenStatus| status.failed_attempts == Some(n);
    let mut since = Vec::new();
    for attempt in 1..=2 {
        let status = world.status("flight", "a failed renewal", failures(attempt)).await;
        let failing = condition(&status, "RenewalFailing").unwrap();
        assert_eq!((failing.status.as_str(), failing.reason.as_str()), ("True", "IssuerUnavailable"));
        assert_eq!(condition(&status, "Ready").unwrap().status, "True");
        since.push(failing.last_transition_time.clone());
        world.stores("flight", &token).await;
    }
    assert_eq!(since[0], since[1]);
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

/// A connection that is kept open must not make the next request fail.
#[tokio::test]
async fn a_connection_that_the_issuer_has_dropped_is_not_used_again() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("first", json!({})).await;
    world.ready("first").await;
    world.issuer.go_down().unwrap();
    world.issuer.come_back().unwrap();
    world.create_token("second", json!({})).await;
    let status = world.ready("second").await;
    assert_eq!(status.failed_attempts, None);
    world.stays_at(2).await;
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
