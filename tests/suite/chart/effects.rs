//! Does every value of the chart do something, and what it says?

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testbed::World;
use testbed::world::{CHART, merge};

use super::values::{leaves, schema, values};
use super::{RELEASE, the, with_token_api};

/// Values with which everything that has values of its own is there.
fn base() -> Value {
    with_token_api(json!({
        "replicas": 1,
        "networkPolicy": {"enabled": true},
        "metrics": {
            "serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true},
        },
    }))
}

/// What a value is changed to where another of its type would not do.
fn other(path: &str) -> Option<Value> {
    let label = json!({"example.com/other": "there"});
    Some(match path {
        "image.digest" => json!("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        "image.pullPolicy" => json!("Always"),
        "imagePullSecrets" => json!([{"name": "other"}]),
        "leaderElection.renewDeadline" => json!("11s"),
        "leaderElection.retryPeriod" => json!("3s"),
        "namespaces" => json!(["other"]),
        "allowedIssuerHosts" => json!(["other.example:8444"]),
        "proxy.https" | "proxy.http" => json!("http://other.example:3128"),
        "proxy.noProxy" => json!([".other.example"]),
        "httpListen" => json!("0.0.0.0:9090"),
        "log.format" => json!("text"),
        "leaderElection.leaseDuration" | "metrics.serviceMonitor.interval" | "metrics.serviceMonitor.scrapeTimeout" => {
            json!("21s")
        }
        "metrics.serviceMonitor.metricRelabelings" => json!([{"action": "labeldrop", "regex": "other"}]),
        "podDisruptionBudget.maxUnavailable" => json!("51%"),
        "networkPolicy.dnsPorts" | "networkPolicy.apiserverPorts" => json!([5454]),
        "networkPolicy.tokenApiFrom" | "networkPolicy.ingressFrom" => json!([{"podSelector": {"matchLabels": label}}]),
        "networkPolicy.extraEgress" => json!([{"ports": [{"port": 5454}]}]),
        "strategy" => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 0}}),
        "podSecurityContext" => json!({"runAsUser": 10001, "supplementalGroupsPolicy": "Strict"}),
        "resources" => json!({"requests": {"cpu": "11m"}, "limits": {"memory": "129Mi"}}),
        "tolerations" => json!([{"key": "other", "operator": "Exists"}]),
        "affinity" => json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}),
        "topologySpreadConstraints" => {
            json!([{"maxSkew": 2, "topologyKey": "example.com/other", "whenUnsatisfiable": "DoNotSchedule"}])
        }
        "extraArgs" => json!(["--debug-listen=127.0.0.1:9091"]),
        "extraEnv" => json!([{"name": "OTHER", "value": "there"}]),
        "extraVolumes" => json!([{"name": "other", "emptyDir": {}}]),
        "extraVolumeMounts" => json!([{"name": "other", "mountPath": "/other"}]),
        _ if path.to_lowercase().ends_with("labels")
            || path.to_lowercase().ends_with("annotations")
            || path == "nodeSelector" =>
        {
            label
        }
        _ => return None,
    })
}

/// What else has to change with a value, so that Helm does not refuse it.
fn with(path: &str) -> Value {
    match path {
        "service.enabled" => json!({"tokenApi": {"enabled": false}, "metrics": {"serviceMonitor": {"enabled": false}}}),
        _ => json!({}),
    }
}

/// Another value of the same type.
fn changed(path: &str, value: &Value) -> Value {
    if let Some(other) = other(path) {
        return other;
    }
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(_) => json!("other"),
        Value::Null | Value::Array(_) | Value::Object(_) => panic!("{path}: name another value for it in this test"),
    }
}

/// `value` at this place of an object: `a.b` is `{"a": {"b": value}}`.
fn at(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, name| json!({ name: inner }))
}

/// Whether `wanted` stands somewhere in `rendered`: a text or number also within a text, each item of a list, and a map with
/// perhaps more beside it.
fn stands_in(rendered: &Value, wanted: &Value) -> bool {
    if let Value::Array(items) = wanted
        && !items.is_empty()
    {
        return items.iter().all(|item| stands_in(rendered, item));
    }
    covers(rendered, wanted)
        || match rendered {
            Value::Array(items) => items.iter().any(|item| stands_in(item, wanted)),
            Value::Object(members) => members.values().any(|member| stands_in(member, wanted)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}

fn covers(rendered: &Value, wanted: &Value) -> bool {
    match (rendered, wanted) {
        (Value::Object(rendered), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| rendered.get(name).is_some_and(|found| covers(found, wanted)))
        }
        (Value::Array(rendered), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| rendered.iter().any(|found| covers(found, wanted)))
        }
        (Value::String(rendered), Value::String(wanted)) => rendered.contains(wanted),
        (Value::String(rendered), Value::Number(wanted)) => rendered.contains(&wanted.to_string()),
        (rendered, wanted) => rendered == wanted,
    }
}

#[tokio::test]
async fn every_value_changes_what_is_rendered_to_what_it_says() {
    let world = World::new().await;
    let mut all = BTreeMap::new();
    leaves("", &values(), &schema(), &mut all);
    for (path, default) in all {
        let mut before = base();
        merge(&mut before, with(&path));
        let standing = before.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&default);
        let wanted = changed(&path, standing);
        let mut after = before.clone();
        merge(&mut after, at(&path, wanted.clone()));
        let before =
            world.render(CHART, RELEASE, &before).await.unwrap_or_else(|said| panic!("without {path}: {said}"));
        let after = world.render(CHART, RELEASE, &after).await.unwrap_or_else(|said| panic!("{path}: {said}"));
        assert_ne!(before, after, "{path} changes nothing");
        let new = json!(after.iter().filter(|object| !before.contains(object)).collect::<Vec<_>>());
        assert!(wanted.is_boolean() || stands_in(&new, &wanted), "{path}: {wanted} is not in {new}");
    }
}

#[tokio::test]
async fn the_budget_and_the_monitor_say_all_that_they_are_for() {
    let world = World::new().await;
    let objects = world.render(CHART, RELEASE, &base()).await.unwrap();
    let budget = &the(&objects, "PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], json!(1));
    assert_eq!(budget["unhealthyPodEvictionPolicy"], json!("AlwaysAllow"));
    let endpoints = &the(&objects, "ServiceMonitor")["spec"]["endpoints"];
    assert_eq!(endpoints, &json!([{"port": "http", "path": "/metrics", "honorLabels": true}]));
    let mut values = base();
    merge(&mut values, json!({"metrics": {"serviceMonitor": {"interval": "30s", "scrapeTimeout": "10s"}}}));
    let objects = world.render(CHART, RELEASE, &values).await.unwrap();
    let endpoint = &the(&objects, "ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"]), (&json!("30s"), &json!("10s")));
}
