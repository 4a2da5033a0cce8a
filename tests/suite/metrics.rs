//! Do the metrics say what is so, in a form that others understand?

use std::time::Duration;

use serde_json::json;
use testbed::world::{Operator, PATIENCE};
use testbed::{World, eventually, plain_http};

use crate::OPERATOR;
use crate::prometheus::promtool;

const GOLDEN: &str = include_str!("metrics.golden.txt");
const README: &str = include_str!("../../README.md");
const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

async fn scrape(operator: &Operator, headers: &[&str]) -> plain_http::Answered {
    let answer =
        plain_http::exchange("GET", &format!("http://{}/metrics", operator.http()), headers, "").await.unwrap();
    assert_eq!(answer.status, 200);
    answer
}

/// The lines about one resource, without the prefix.
async fn about(operator: &Operator, name: &str) -> Vec<String> {
    let text = scrape(operator, &[]).await.body;
    let lines = text.lines().filter(|line| line.contains(&format!("name=\"{name}\"")));
    lines.map(|line| line.trim_start_matches("verteil_token_").to_owned()).collect()
}

/// Waits until the lines about a resource satisfy `check`.
async fn told(operator: &Operator, name: &str, what: &str, check: impl Fn(&[String]) -> bool) -> Vec<String> {
    eventually(&format!("{what} in the metrics of {name}"), PATIENCE, async || {
        let lines = about(operator, name).await;
        if check(&lines) { Ok(lines) } else { Err(format!("{lines:#?}")) }
    })
    .await
}

#[tokio::test]
async fn names_types_and_help_are_those_of_the_golden_file_and_promtool_likes_them() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    told(&operator, "flight", "the renewal", |lines| lines.len() == 8).await;

    let plain = scrape(&operator, &[]).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    promtool(&["check", "metrics"], &plain.body);

    let answer = scrape(&operator, &[OPENMETRICS]).await;
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.body.ends_with("\n# EOF\n"));
    let described: Vec<&str> = answer.body.lines().filter(|line| line.starts_with("# ") && *line != "# EOF").collect();
    let described = described.join("\n") + "\n";
    assert!(described == GOLDEN, "tests/suite/metrics.golden.txt is to be:\n{described}");
    // The samples are the same in both forms; times apart.
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples(&plain.body), samples(&answer.body));
}

#[test]
fn every_metric_has_a_row_in_the_readme() {
    for line in GOLDEN.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(README.contains(&format!("\n| `{name}{suffix}")), "no row for {name}{suffix}");
    }
}

#[tokio::test]
async fn gauges_follow_the_resource_and_go_with_it() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let status = world.ready("flight").await;
    let lines =
        told(&operator, "flight", "a valid token", |lines| lines.iter().any(|l| l.contains("TokenValid"))).await;
    let labels = format!("{{namespace=\"{}\",name=\"flight\"}}", world.namespace);
    let second =
        |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().unwrap().0.as_second();
    for line in [
        format!("expiry_timestamp_seconds{labels} {}", second(&status.expires_at)),
        format!("renewal_timestamp_seconds{labels} {}", second(&status.renewal_time)),
        format!("issue_timestamp_seconds{labels} {}", second(&status.issued_at)),
        format!("issued_total{labels} 1"),
        format!("ready{labels} 1"),
        format!("renewal_failing{labels} 0"),
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    world.issuer.enqueue_for("refused", testbed::Answer::status(401).text("{}"));
    world.create_token("refused", json!({})).await;
    told(&operator, "refused", "the reason", |lines| {
        lines.iter().any(|line| {
            line.starts_with("state{") && line.contains("reason=\"RequestRefused\"") && line.ends_with(" 1")
        }) && lines.iter().any(|line| line.starts_with("ready{") && line.ends_with(" 0"))
            && !lines.iter().any(|line| line.contains("expiry"))
    })
    .await;
    world.kubectl(&["delete", "vt", "flight", "refused"], None).await.succeeded();
    told(&operator, "flight", "nothing", <[String]>::is_empty).await;
    told(&operator, "refused", "nothing", <[String]>::is_empty).await;
    // What was counted stays counted.
    assert_eq!(operator.metric("verteil_token_generations_total{reason=\"Initial\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_suspended_resource_whose_token_expires_is_told_from_one_in_trouble() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.set_lifetime(Duration::from_secs(8));
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    world.change("flight", json!({"spec": {"suspend": true}})).await;
    world.condition("flight", "Ready", "False", "").await;
    // The alerts leave it out by this.
    told(&operator, "flight", "the suspension", |lines| {
        lines.iter().any(|line| line.starts_with("state{") && line.contains("reason=\"Suspended\""))
    })
    .await;
}

#[tokio::test]
async fn they_can_be_switched_off() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &["--per-resource-metrics=false"]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(about(&operator, "flight").await, Vec::<String>::new());
    assert!(!scrape(&operator, &[OPENMETRICS]).await.body.contains("expiry_timestamp"));
    assert_eq!(operator.metric("verteil_token_generations_total{reason=\"Initial\"}").await, Some(1.0));
}

#[tokio::test]
async fn the_leader_alone_has_them_and_its_successor_counts_on() {
    let world = World::new().await;
    let lease = format!("--lease-namespace={}", world.namespace);
    let flags = [
        "--leader-election",
        lease.as_str(),
        "--lease-duration=12s",
        "--lease-renew-deadline=9s",
        "--lease-retry-period=2s",
    ];
    let one = world.operator(OPERATOR, &flags).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    told(&one, "flight", "a valid token", |lines| lines.iter().any(|line| line.contains("TokenValid"))).await;
    let two = world.operator(OPERATOR, &flags).await;
    assert_eq!(about(&two, "flight").await, Vec::<String>::new());
    one.kill();
    let lines = told(&two, "flight", "the leader's gauges", |lines| !lines.is_empty()).await;
    assert!(lines.iter().any(|line| line.starts_with("issued_total{") && line.ends_with(" 1")), "{lines:#?}");
    assert_eq!(two.metric("verteil_token_generations_total{reason=\"Initial\"}").await, Some(0.0));
}
