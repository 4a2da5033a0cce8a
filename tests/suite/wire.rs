//! What goes over the wire to the issuer, and what is read from an answer that brings a token?

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use testbed::world::{PASSWORD, USERNAME};
use testbed::{Answer, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::clock::{Clock as _, SystemClock};

use crate::OPERATOR;
use crate::events::{event, events};

const AMBIGUOUS: &str = "verteil_token_ambiguous_generations_total";

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
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.enqueue_for("lower", Answer::token("t-lower").field("token_type", "bearer"));
    world.issuer.enqueue_for("none", Answer::token("t-none").without("token_type"));
    world.issuer.enqueue_for("other", Answer::token("t-other").field("token_type", "mac"));
    for (name, kind) in [("lower", "bearer"), ("none", "Bearer"), ("other", "mac")] {
        world.create_token(name, json!({})).await;
        world.ready(name).await;
        assert_eq!(world.secret_key(name, "token_type").await, kind);
        let record: Value = serde_json::from_str(&world.secret_key(name, "verteil_token.json").await).unwrap();
        assert_eq!(record["token_data"]["token_type"], kind);
    }
    world.stays_at(3).await;
    let noted: Vec<String> =
        operator.log().lines().filter(|line| line.contains("another type")).map(str::to_owned).collect();
    assert!(matches!(noted.as_slice(), [line] if line.contains("name=\"other\"")), "{noted:?}");
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
