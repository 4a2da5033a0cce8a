//! Do the alerts fire when they should, and does the dashboard show what is scraped?

use std::path::Path;

use serde_json::{Value, json};
use testbed::{Answer, World};

use crate::OPERATOR;
use crate::prometheus::{Prometheus, promtool};

const RULES: &str = "charts/verteil-token-operator/files/alerts.yaml";
const TESTS: &str = "tests/alerts/alerts.test.yaml";
const DASHBOARD: &str = include_str!("../../charts/verteil-token-operator/files/dashboard.json");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of all alerts.
fn alerts() -> Vec<String> {
    let names: Vec<String> =
        read(RULES).lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    names
}

#[test]
fn the_rules_are_in_order() {
    promtool(&["check", "rules", RULES], "");
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    promtool(&["test", "rules", TESTS], "");
    let tests = read(TESTS);
    for alert in alerts() {
        let about = tests.split("alertname: ").skip(1).filter(|test| test.lines().next() == Some(&alert));
        let (firing, quiet): (Vec<&str>, Vec<&str>) =
            about.partition(|test| test.lines().nth(1).is_some_and(|line| line.contains("exp_alerts")));
        assert!(!firing.is_empty() && !quiet.is_empty(), "{alert} is to be tested firing and not firing");
    }
}

#[test]
fn each_alert_names_its_section_of_the_runbook() {
    let (rules, runbook) = (read(RULES), read("docs/runbook.md"));
    for alert in alerts() {
        let link = format!("runbook: docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(
            rules.split("- alert: ").any(|rule| rule.starts_with(&alert) && rule.contains(&link)),
            "{alert}: {link}"
        );
        let section = runbook.split_once(&format!("\n## {alert}\n")).unwrap_or_else(|| panic!("no section {alert}")).1;
        let section = section.split("\n## ").next().unwrap();
        for part in ["What it means: ", "Look at: ", "Do: "] {
            assert!(section.contains(part), "{alert} without {part:?}");
        }
    }
}

/// Every query of the dashboard, with its variables replaced.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$namespace", ".*");
            assert!(!query.contains('$'), "{query}");
            (title.clone(), query)
        })
    };
    panels.iter().flat_map(of_panel).collect()
}

/// The names of metrics in a query.
fn metrics_in(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !(c.is_ascii_lowercase() || "_:".contains(c)));
    words.filter(|word| word.starts_with("verteil_token_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_speak_of_what_is_really_scraped() {
    let world = World::new().await;
    let lease = format!("--lease-namespace={}", world.namespace);
    let flags = ["--leader-election", lease.as_str()];
    let one = world.operator(OPERATOR, &flags).await;
    let two = world.operator(OPERATOR, &flags).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let server = Prometheus::start(&[one.http(), two.http()], &Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).await;
    let series = server.has_data("verteil_token_expiry_timestamp_seconds").await;
    assert_eq!(series.len(), 1, "the leader's alone");
    let labels = &series[0]["metric"];
    assert_eq!((&labels["namespace"], &labels["name"]), (&json!(world.namespace), &json!("flight")));

    world.issuer.rule(|_| Some(Answer::status(503)));
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.condition("flight", "RenewalFailing", "True", "IssuerUnavailable").await;
    for (panel, query) in dashboard_queries() {
        println!("{panel}: {query}");
        server.has_data(&query).await;
    }
    let rules = server.rules().await;
    assert_eq!(rules.len(), alerts().len() + 2);
    for rule in rules {
        println!("{rule}");
        // As it stands it has to be understood; whether it fires is tested elsewhere.
        server.query(&rule).await.unwrap();
        for metric in metrics_in(&rule) {
            server.has_data(&metric).await;
        }
    }
}
