//! Answers of an issuer that quote what was sent, or what it gave.

use serde_json::{Value, json};
use testbed::world::{PASSWORD, USERNAME};
use testbed::{Answer, Recorded, World};

use crate::events::event;

/// Credentials that every encoding changes.
const ODD_USER: &str = "canary us/er+ü";
const ODD_PASSWORD: &str = "canary p@ss&w=rd \"ö\"?";
/// Told to wait: an account of its own for each, since all of an account wait.
const LIMITED: [&str; 2] = ["echo-503", "echo-retry-after"];
const GIGABYTE: u64 = 1 << 30;

/// Resources whose first request fails, and with which reason.
const FAILING: [(&str, &str); 23] = [
    ("echo-password", "RequestRefused"),
    ("echo-header", "RequestRefused"),
    ("echo-body", "RequestRefused"),
    ("echo-upper", "RequestRefused"),
    ("echo-in-error", "RequestRefused"),
    ("echo-html", "AnswerUnusable"),
    ("echo-html-401", "RequestRefused"),
    ("echo-503", "IssuerUnavailable"),
    ("echo-retry-after", "RateLimited"),
    ("token-in-error", "AnswerUnusable"),
    ("truncated", "IssuerTimeout"),
    ("dripping", "IssuerTimeout"),
    ("closed", "IssuerTimeout"),
    ("redirect-path", "AnswerUnusable"),
    ("redirect-token", "AnswerUnusable"),
    ("redirect-user", "AnswerUnusable"),
    ("redirect-query", "AnswerUnusable"),
    ("gigabyte", "AnswerUnusable"),
    ("odd-types", "AnswerUnusable"),
    ("odd-token", "AnswerUnusable"),
    ("no-token", "AnswerUnusable"),
    ("list", "AnswerUnusable"),
    ("lifeless", "AnswerUnusable"),
];

/// What the issuer answers to `request`, where it is not the ordinary.
fn answer(request: &Recorded) -> Option<Answer> {
    let header = request.header("authorization").unwrap_or_default().to_owned();
    let said =
        |code, text: String| Answer::status(code).json(json!({"error": "invalid_client", "error_description": text}));
    let html = format!("<html>Authorization: {header} {PASSWORD} {}</html>", request.body);
    let redirect = |to: String| Answer::status(302).header("location", &to);
    Some(match request.tag.as_str() {
        "echo-password" => said(401, format!("{PASSWORD} is wrong for {USERNAME}")),
        "echo-header" => said(401, format!("Authorization: {header}")),
        "echo-body" => said(400, request.body.clone()),
        "echo-upper" => said(401, PASSWORD.to_uppercase()),
        "echo-in-error" => Answer::status(400).json(json!({"error": header.trim_start_matches("Basic ")})),
        "echo-html" => Answer::status(200).text(&html),
        "echo-html-401" => Answer::status(401).text(&html).header("www-authenticate", &header),
        "echo-503" => Answer::status(503).text(&html).header("retry-after", "3000"),
        "echo-retry-after" => Answer::status(429).header("retry-after", PASSWORD),
        "token-in-error" => said(200, format!("you have eyJhbGciOiJSUzI1NiJ9.canary-token-{}", "x".repeat(90))),
        "truncated" => Answer::token("canary-token-cut").truncated_after(40),
        "dripping" => Answer::token("canary-token-slow").dripping(1, std::time::Duration::from_millis(200)),
        "closed" => Answer::close(),
        "redirect-path" => redirect(format!("https://login.example/{PASSWORD}/next")),
        "redirect-token" => {
            redirect(format!("https://login.example/take/eyJhbGciOiJSUzI1NiJ9.canary-{}", "x".repeat(20)))
        }
        "redirect-user" => redirect(format!("https://someone:{PASSWORD}@login.example/")),
        "redirect-query" => redirect(format!("https://login.example/?token=canary-token&p={PASSWORD}#canary")),
        "gigabyte" => Answer::endless(GIGABYTE),
        "odd-types" => Answer::token("canary-token-types").field("expires_in", "canary-token"),
        "odd-token" => Answer::token("canary-tökén"),
        "no-token" => Answer::status(200).json(json!({"id_token": "canary-token-id", "password": PASSWORD})),
        "list" => Answer::status(200).json(json!(["canary-token-listed", PASSWORD])),
        "lifeless" => Answer::token(&format!("canary-token-{}", request.number)).field("expires_in", -5),
        "assumed" => Answer::token("canary-token-of-no-end").without("expires_in").field("token_type", "mac"),
        _ => return None,
    })
}

/// Creates the resources.
pub async fn begin(world: &World) {
    world.issuer.rule(answer);
    world.set_credentials("odd", ODD_USER, ODD_PASSWORD).await;
    let odd = |more: Value| {
        let mut spec =
            json!({"credentialsSecretRef": {"name": "odd"}, "scopes": ["api"], "parameters": {"audience": "x"}});
        testbed::world::merge(&mut spec, more);
        spec
    };
    let template = json!({
        "AUTHORIZATION": "{{ token_type }} {{ access_token }}",
        "ENCODED": "{{ access_token | b64encode }}",
    });
    for (name, spec) in [
        ("basic", json!({"secret": {"template": template}})),
        ("query", odd(json!({"parametersIn": "Query"}))),
        ("body", odd(json!({"clientAuthentication": "Body"}))),
        ("assumed", json!({})),
        ("stored", json!({})),
    ] {
        world.create_token(name, spec).await;
    }
    for name in LIMITED {
        world.set_credentials(&format!("{name}-c"), &format!("canary-{name}"), PASSWORD).await;
    }
    for (name, _) in FAILING {
        let spec = match name {
            limited if LIMITED.contains(&limited) => json!({"credentialsSecretRef": {"name": format!("{limited}-c")}}),
            "echo-body" => odd(json!({"clientAuthentication": "Body"})),
            "dripping" => json!({"timeout": "2s"}),
            _ => json!({"timeout": "15s"}),
        };
        world.create_token(name, spec).await;
    }
}

/// Waits until each has come to its end.
pub async fn end(world: &World) {
    for name in ["basic", "query", "body", "assumed", "stored"] {
        world.ready(name).await;
    }
    // The stored token, quoted by a renewal that fails.
    let token = world.issuer.last_token("stored").unwrap();
    let refused = json!({"error": "invalid_request", "error_description": format!("{token} is still valid")});
    world.issuer.enqueue_for("stored", Answer::status(400).json(refused));
    world.change("stored", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.condition("stored", "RenewalFailing", "True", "RequestRefused").await;
    for (name, reason) in FAILING {
        world.condition(name, "Ready", "False", reason).await;
        event(world, name, reason).await;
    }
}
