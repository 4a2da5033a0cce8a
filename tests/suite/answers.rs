//! What does each answer that an issuer may give cost in a day, what is said of it, and does it ever make a Secret worse?
//!
//! Every row has an account of its own. The issuer's `Date` goes by the operator's clock, which jumps.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use testbed::day::{DAY, Day};
use testbed::world::{PASSWORD, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::clock::Clock as _;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;

const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: i64 = 43_199;

/// The answer to the request of this number, from 1, by the issuer's clock.
type Answering = fn(&TestClock, usize) -> Answer;

/// An answer that brings no token.
struct Failing {
    name: &'static str,
    answer: Answering,
    reason: &'static str,
    message: &'static str,
    /// Requests in a day.
    a_day: RangeInclusive<usize>,
}

/// An answer that brings one.
struct Lasting {
    name: &'static str,
    answer: Answering,
    /// Seconds that the first token lives.
    lifetime: i64,
    /// Requests in a day, and different tokens.
    a_day: RangeInclusive<usize>,
    tokens: RangeInclusive<usize>,
}

fn token(number: usize) -> Answer {
    Answer::token(&format!("fake-{number}"))
}

/// Header and trailer of gzip around a stored block.
fn gzip(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    [&head, length.to_le_bytes().as_slice(), (!length).to_le_bytes().as_slice(), text.as_bytes(), &[0; 8]].concat()
}

fn jwt(issued: i64, expires: i64) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(&json!({"iat": issued, "exp": expires})))
}

/// RFC 9110: always GMT.
fn http_date(clock: &TestClock, ahead: SignedDuration) -> String {
    (clock.now() + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn failing() -> Vec<Failing> {
    let row = |name, reason, message, a_day, answer| Failing { name, answer, reason, message, a_day };
    let (unusable, refused) = ("AnswerUnusable", "RequestRefused");
    // 1, 4, 16, 64, 256 minutes, then 6 h; 3 min, 1 h, then 8 h.
    let (seldom, hardly) = (7..=9, 4..=5);
    vec![
        row("refused", refused, "401, Unauthorized", hardly.clone(), |_, _| Answer::unauthorized("/oauth2/token")),
        row("scope", refused, "400, invalid_scope", hardly.clone(), |_, _| Answer::oauth_error(400, "invalid_scope")),
        row("forbidden", refused, "403, access_denied", hardly.clone(), |_, _| {
            Answer::oauth_error(403, "access_denied")
        }),
        row("leaky", refused, "an error that cannot be shown", hardly, |_, _| {
            let error = format!("wrong%20password%20{}", PASSWORD.replace('-', "%2D"));
            Answer::status(400).json(json!({"error": error, "error_description": "Y2FuYXJ5LXVzZXJuYW1lLTQ3MTE"}))
        }),
        row("quota", "RateLimited", "answered 429", 20..=25, |_, _| Answer::status(429).header("retry-after", "3600")),
        row("limited", "RateLimited", "answered 429", 75..=110, |_, _| Answer::status(429)),
        row("absurd", "RateLimited", "answered 429", 20..=25, |_, _| {
            Answer::status(429).header("retry-after", "99999999999")
        }),
        row("busy", "IssuerUnavailable", "answered 503", 40..=52, |clock, _| {
            let date = http_date(clock, SignedDuration::from_mins(30));
            Answer::status(503).header("retry-after", &date)
        }),
        row("broken", "IssuerUnavailable", "answered 500", 75..=110, |_, _| Answer::status(500).text("<html>")),
        row("closed", "IssuerTimeout", "broke after the request", 75..=110, |_, _| Answer::close()),
        row("not-found", unusable, "404 without an OAuth error", seldom.clone(), |_, _| Answer::status(404).text("x")),
        row("redirect", unusable, "302, a redirect", seldom.clone(), |_, _| {
            Answer::status(302).header("location", "https://elsewhere.example/")
        }),
        row("empty", unusable, "200, but its body is empty", seldom.clone(), |_, _| Answer::status(200)),
        row("no-content", unusable, "204, but its body is empty", seldom.clone(), |_, _| Answer::status(204)),
        row("html", unusable, "not a JSON object", seldom.clone(), |_, _| {
            Answer::status(200).header("content-type", "text/html").text("<html>maintenance</html>")
        }),
        row("gzip", unusable, "its body is compressed", seldom.clone(), |_, number| {
            let body = json!({"access_token": format!("fake-{number}"), "expires_in": LIFETIME}).to_string();
            Answer::status(200).header("content-encoding", "gzip").bytes(gzip(&body))
        }),
        row("huge-headers", unusable, "cannot be read as HTTP", seldom.clone(), |_, number| {
            (0..50).fold(token(number), |answer, n| answer.header(&format!("x-{n}"), &"x".repeat(16 * 1024)))
        }),
        row("gigabyte", unusable, "larger than 64 KiB", seldom.clone(), |_, _| Answer::endless(1 << 30)),
        row("chunked-html", unusable, "not a JSON object", seldom.clone(), |_, _| {
            Answer::status(200).text("<html>maintenance</html>").chunked()
        }),
        row("soon", unusable, "expires_in is not a number", seldom.clone(), |_, number| {
            token(number).field("expires_in", "soon")
        }),
        row("not-printable", unusable, "not printable ASCII", seldom, |_, _| Answer::token("fake\nvalue")),
        // Asked again at once three times, each time: it may be the last second of a token that the issuer repeats.
        row("lifeless", unusable, "no life left", 7..=40, |_, number| token(number).expires_in(0)),
        row("negative", unusable, "no life left", 7..=40, |_, number| token(number).expires_in(-43_199)),
    ]
}

fn lasting() -> Vec<Lasting> {
    let row = |name, lifetime, a_day: RangeInclusive<usize>, answer| Lasting {
        name,
        answer,
        lifetime,
        tokens: a_day.clone(),
        a_day,
    };
    let usual = 3..=3;
    vec![
        row("plain", LIFETIME, usual.clone(), |_, number| token(number)),
        row("created", LIFETIME, usual.clone(), |_, number| token(number).with_status(201)),
        row("chunked", LIFETIME, usual.clone(), |_, number| token(number).chunked()),
        row("mac", LIFETIME, usual.clone(), |_, number| token(number).field("token_type", "mac")),
        row("string", LIFETIME, usual.clone(), |_, number| token(number).field("expires_in", "43199")),
        row("missing", 3600, 25..=31, |_, number| token(number).without("expires_in")),
        row("absurdly-long", 315_360_000, 1..=1, |_, number| token(number).field("expires_in", 1e300)),
        // Its claims are an hour in the past, and shorter than what is said beside them.
        row("jwt", 6 * 3600, 5..=5, |clock, number| {
            let now = clock.now().as_second() - 3600 + i64::try_from(number).unwrap();
            Answer::token(&jwt(now, now + 6 * 3600)).expires_in(LIFETIME)
        }),
        row("clock-ahead", LIFETIME, usual.clone(), |clock, number| {
            token(number).header("date", &http_date(clock, SignedDuration::from_hours(1)))
        }),
        row("clock-behind", LIFETIME, usual, |clock, number| {
            token(number).header("date", &http_date(clock, SignedDuration::from_hours(-1)))
        }),
        // One renewal before its end gains nothing; from then on one request for each, after the end.
        Lasting {
            name: "repeating",
            lifetime: 6 * 3600,
            a_day: 5..=6,
            tokens: 4..=5,
            answer: |clock, _| {
                let life = 6 * 3600;
                let start = START.get_or_init(|| clock.now().as_second());
                let since = clock.now().as_second() - start;
                Answer::token(&format!("fake-{}", since / life)).expires_in(life - since % life)
            },
        },
    ]
}

/// When the repeating issuer gave its first token.
static START: std::sync::OnceLock<i64> = std::sync::OnceLock::new();

/// Answers each tag by its rule, with the date of the operator's clock where the rule sets none.
fn answer_all(world: &World, clock: &TestClock, rules: Vec<(&'static str, Answering)>) {
    let (clock, rules) = (clock.clone(), rules.into_iter().collect::<HashMap<_, _>>());
    let mut counts: HashMap<String, usize> = HashMap::new();
    world.issuer.rule(move |request| {
        let number = counts.entry(request.tag.clone()).or_default();
        *number += 1;
        let answer = rules.get(request.tag.as_str())?(&clock, *number);
        Some(answer.or_header("date", &http_date(&clock, SignedDuration::ZERO)))
    });
}

async fn create(world: &World, name: &str) {
    let credentials = format!("{name}-credentials");
    world.set_credentials(&credentials, &format!("{USERNAME}-{name}"), PASSWORD).await;
    world.create_token(name, json!({"credentialsSecretRef": {"name": credentials}})).await;
}

async fn stored(world: &World, name: &str) -> Secret {
    world.secrets().get(name).await.expect("a token Secret")
}

#[tokio::test]
async fn no_answer_without_a_token_costs_more_than_its_class_or_touches_what_is_stored() {
    let world = World::new().await;
    let (clock, rows) = (TestClock::default(), failing());
    let names: Vec<String> = rows.iter().map(|row| row.name.to_owned()).collect();
    for name in &names {
        create(&world, name).await;
    }
    // A good token first, which is due after some 11 h 50.
    let mut day = Day::begin(&world, clock.clone(), names.clone()).await;
    day.pass(HOUR).await;
    let mut before = HashMap::new();
    for name in &names {
        world.ready(name).await;
        before.insert(name.clone(), stored(&world, name).await);
    }
    assert_eq!(world.issuer.count(), rows.len());
    answer_all(&world, &clock, rows.iter().map(|row| (row.name, row.answer)).collect());
    // It is due 540 to 600 s before its end.
    day.pass(Duration::from_secs(42_900 - 3600)).await;
    for Failing { name, reason, message, .. } in &rows {
        let status = world.condition(name, "RenewalFailing", "True", reason).await;
        assert_eq!(condition(&status, "Ready").unwrap().status, "True", "{name}: while the token holds");
        let said = &condition(&status, "RenewalFailing").unwrap().message;
        let expiry = status.expires_at.clone().unwrap().0;
        assert!(
            said.contains(message) && said.ends_with(&format!("the stored token holds until {expiry}")),
            "{name}: {said}"
        );
    }
    // A day from the first failure on.
    day.pass(DAY.saturating_sub(Duration::from_secs(270))).await;
    for Failing { name, reason, message, a_day, .. } in &rows {
        let requests = world.issuer.count_for(name) - 1;
        assert!(a_day.contains(&requests), "{name}: {requests} requests in a day instead of {a_day:?}");
        let status = world.condition(name, "Ready", "False", "TokenExpired").await;
        let failing = condition(&status, "RenewalFailing").unwrap();
        assert_eq!(failing.reason, *reason, "{name}");
        let expiry = status.expires_at.clone().unwrap().0;
        let outlook = format!("the stored token expired at {expiry}");
        assert!(
            failing.message.contains(message) && failing.message.ends_with(&outlook),
            "{name}: {}",
            failing.message
        );
        let stalled = condition(&status, "Stalled").unwrap().status == "True";
        assert_eq!(stalled, *reason == "RequestRefused", "{name}");
        assert!(condition(&status, "ClockSkew").is_none(), "{name}");
        assert_eq!(stored(&world, name).await, before[*name], "{name}: the Secret was touched");
    }
    let statuses = world.kubectl(&["get", "vt", "-o", "yaml"], None).await.succeeded().to_lowercase();
    for canary in ["canary", "y2fuyxj5"] {
        assert!(!statuses.lines().any(|line| line.contains(canary) && line.contains("message")), "{canary}");
    }
}

#[tokio::test]
async fn every_answer_with_a_token_is_stored_and_renewed_when_it_should_be() {
    let world = World::new().await;
    let (clock, rows) = (TestClock::default(), lasting());
    answer_all(&world, &clock, rows.iter().map(|row| (row.name, row.answer)).collect());
    let names: Vec<String> = rows.iter().map(|row| row.name.to_owned()).collect();
    for name in &names {
        create(&world, name).await;
    }
    let mut day = Day::begin(&world, clock.clone(), names.clone()).await;
    let mut seen: HashMap<String, HashSet<String>> = HashMap::new();
    day.pass(Duration::from_secs(60)).await;
    for Lasting { name, lifetime, .. } in &rows {
        let status = world.ready(name).await;
        let life = status.expires_at.unwrap().0.as_second() - status.issued_at.unwrap().0.as_second();
        assert_eq!(life, *lifetime, "{name}");
    }
    assert_eq!(world.secret_key("mac", "token_type").await, "mac");
    for (name, reason) in [("clock-ahead", "IssuerClockAhead"), ("clock-behind", "IssuerClockBehind")] {
        let status = world.condition(name, "ClockSkew", "True", reason).await;
        let said = &condition(&status, "ClockSkew").unwrap().message;
        assert!(said.contains("look at the time service"), "{said}");
    }
    assert!(condition(&world.ready("plain").await, "ClockSkew").is_none());
    for _ in 0..24 * 4 {
        for name in &names {
            seen.entry(name.clone()).or_default().insert(world.secret_key(name, "access_token").await);
        }
        day.pass(Duration::from_secs(900)).await;
    }
    for Lasting { name, a_day, tokens, .. } in &rows {
        let requests = world.issuer.count_for(name);
        assert!(a_day.contains(&requests), "{name}: {requests} requests in a day instead of {a_day:?}");
        let stored = seen[*name].len();
        assert!(tokens.contains(&stored), "{name}: {stored} tokens in a day instead of {tokens:?}");
        assert_eq!(world.ready(name).await.failed_attempts, None, "{name}");
    }
    // A clock that is right again is no news beyond the end of the old.
    world.issuer.clear_script();
    answer_all(&world, &clock, vec![("clock-ahead", rows[0].answer)]);
    day.pass(Duration::from_secs(13 * 3600)).await;
    assert!(condition(&world.ready("clock-ahead").await, "ClockSkew").is_none());
}

#[tokio::test]
async fn the_metric_tells_how_far_the_clock_of_the_last_answer_was_ahead() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    for (name, hours, expected) in [("ahead", 1, 3540..=3600), ("behind", -1, -3660..=-3599), ("right", 0, -60..=0)] {
        let date = http_date(&TestClock::default(), SignedDuration::from_hours(hours));
        world.issuer.enqueue_for(name, token(1).header("date", &date));
        world.create_token(name, json!({})).await;
        world.ready(name).await;
        let told = operator.metric("verteil_token_clock_skew_seconds").await.unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds, and few")]
        let seconds = told as i64;
        assert!(expected.contains(&seconds), "{name}: {told}");
    }
}
