//! What does an issuer cost that does not let go of a token, and is that token ever said to live on?

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testbed::day::{DAY, Day};
use testbed::world::{PASSWORD, TestClock, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::clock::Clock as _;
use verteil_token_operator::decide::condition;

const LIFETIME: i64 = 3600;
const HOUR: Duration = Duration::from_secs(3600);

/// The answer at so many seconds after the first one.
type Answering = fn(i64, &str) -> Answer;

/// A JWT that was issued at `start`.
fn jwt(start: i64) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iat": start, "exp": start + LIFETIME});
    format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(&claims))
}

fn rows() -> Vec<(&'static str, Answering)> {
    vec![
        // A store that never drops what has ended, in three ways to say so.
        ("ended", |since, _| Answer::token("fake-0").expires_in((LIFETIME - since).max(0))),
        ("negative", |since, _| Answer::token("fake-0").expires_in(LIFETIME - since)),
        ("last-second", |since, _| Answer::token("fake-0").expires_in((LIFETIME - since).max(1))),
        // A cache that gives the same answer for ever, of a token that tells its end by itself.
        ("jwt", |_, jwt| Answer::token(jwt).without("expires_in")),
        ("cached-jwt", |_, jwt| Answer::token(jwt).expires_in(LIFETIME)),
    ]
}

/// Answers each tag by its row, and those without one in their own way.
fn answer_all(world: &World, clock: &TestClock) {
    let (clock, rows) = (clock.clone(), rows().into_iter().collect::<HashMap<_, _>>());
    let mut starts = HashMap::<String, i64>::new();
    world.issuer.rule(move |request| {
        let answer = rows.get(request.tag.as_str())?;
        let now = clock.now().as_second();
        let start = *starts.entry(request.tag.clone()).or_insert(now);
        Some(answer(now - start, &jwt(start)))
    });
}

#[tokio::test]
async fn a_token_that_has_ended_is_not_asked_about_for_ever() {
    let world = World::new().await;
    let (clock, names) = (TestClock::default(), rows().into_iter().map(|(name, _)| name.to_owned()));
    answer_all(&world, &clock);
    let names: Vec<String> = names.collect();
    for name in &names {
        let credentials = format!("{name}-credentials");
        world.set_credentials(&credentials, &format!("{USERNAME}-{name}"), PASSWORD).await;
        world.create_token(name, json!({"credentialsSecretRef": {"name": credentials}})).await;
    }
    let mut day = Day::begin(&world, clock.clone(), names.clone()).await;
    day.pass(Duration::from_secs(60)).await;
    let mut ends = HashMap::new();
    for name in &names {
        ends.insert(name.clone(), world.ready(name).await.expires_at.unwrap().0);
    }
    day.pass(DAY / 2).await;
    // A new process does not give it another minute.
    day.restart().await;
    day.pass(DAY / 2).await;
    for name in &names {
        let requests = world.issuer.count_for(name);
        // The first, one before its end, a minute's worth at it, and then 1, 4, 16, 64, 256 minutes and 6 h.
        assert!((15..=24).contains(&requests), "{name}: {requests} requests in a day");
        let status = world.condition(name, "Ready", "False", "TokenExpired").await;
        let failing = condition(&status, "RenewalFailing").unwrap();
        assert_eq!(failing.reason, "AnswerUnusable", "{name}");
        assert!(failing.message.contains("keeps answering with the stored token"), "{name}: {}", failing.message);
        // It never lives on, but for the seconds that its issuer says.
        let later = status.expires_at.unwrap().0.duration_since(ends[name]).as_secs();
        assert!((0..=120).contains(&later), "{name}: {later} s later");
        assert_eq!(status.tokens_issued, Some(1), "{name}");
    }
    assert_eq!(day.metric("verteil_token_ambiguous_generations_total").unwrap_or_default().to_bits(), 0);
    // Another token ends it.
    world.issuer.clear_script();
    day.pass(8 * HOUR).await;
    for name in &names {
        assert_eq!(world.ready(name).await.failed_attempts, None, "{name}");
        let others = world.issuer.issued().into_iter().filter(|issued| issued.tag == *name).count();
        assert!(others >= 1, "{name}");
    }
}
