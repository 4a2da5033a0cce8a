//! Are the values of the chart described, bounded, and all that the operator can be told?

use std::collections::{BTreeMap, BTreeSet};

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};
use testbed::World;
use testbed::world::CHART;
use verteil_token_operator::args::Cli;
use verteil_token_operator::issuer::AllowedHost;

use super::{RELEASE, the};

const VALUES: &str = include_str!("../../../charts/verteil-token-operator/values.yaml");
const SCHEMA: &str = include_str!("../../../charts/verteil-token-operator/values.schema.json");

/// Where Kubernetes' own fields are let through: the apiserver knows them better.
const OPEN: [&str; 13] = [
    "affinity.nodeAffinity",
    "affinity.podAffinity",
    "affinity.podAntiAffinity",
    "extraEnv[].valueFrom",
    "extraVolumeMounts[]",
    "extraVolumes[]",
    "metrics.serviceMonitor.metricRelabelings[]",
    "networkPolicy.extraEgress[]",
    "networkPolicy.ingressFrom[]",
    "networkPolicy.tokenApiFrom[]",
    "podSecurityContext.appArmorProfile",
    "podSecurityContext.seLinuxOptions",
    "topologySpreadConstraints[]",
];
/// What Helm itself hands to a subchart, or a parent chart to switch it on.
const OF_HELM: [&str; 2] = ["enabled", "global"];
/// Flags that have no value: whoever needs one writes it into extraArgs.
const WITHOUT_VALUE: [(&str, &str); 4] = [
    ("allow-http", "sends passwords in the clear: for tests and demos"),
    ("debug-listen", "loopback only, where kubectl port-forward finds it at its default"),
    ("token-api-cert", "where the chart mounts the certificate is its default"),
    ("token-api-key", "the same"),
];

pub fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// The defaults.
pub fn values() -> Value {
    serde_saphyr::from_str(VALUES).unwrap()
}

/// Every schema below `at` with its path: `[]` for an item of a list, `{}` for any key of a map.
fn each<'a>(at: &str, schema: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(at, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        each(&path, inner, visit);
    }
    if schema["items"].is_object() {
        each(&format!("{at}[]"), &schema["items"], visit);
    }
}

/// Every value of values.yaml, as deep as the schema divides it.
pub fn leaves(at: &str, value: &Value, schema: &Value, found: &mut BTreeMap<String, Value>) {
    match (value.as_object(), schema.get("default")) {
        (Some(members), None) => {
            for (name, member) in members {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                leaves(&path, member, &schema["properties"][name], found);
            }
        }
        _ => drop(found.insert(at.to_owned(), value.clone())),
    }
}

#[test]
fn values_and_schema_name_the_same_keys_with_the_same_defaults() {
    let (values, schema) = (values(), schema());
    let (mut written, mut described) = (BTreeMap::new(), BTreeMap::new());
    leaves("", &values, &schema, &mut written);
    each("", &schema, &mut |path, schema| {
        if let Some(default) = schema.get("default") {
            described.insert(path.to_owned(), default.clone());
        }
    });
    assert_eq!(written, described);
    assert!(written.len() > 60, "{}", written.len());
}

#[test]
fn every_value_is_described_and_no_unknown_one_is_let_through() {
    let schema = schema();
    let mut open = BTreeSet::new();
    each("", &schema, &mut |path, schema| {
        let described = schema["description"].as_str().is_some_and(|text| text.len() > 4);
        assert!(path.is_empty() || described, "{path} has no description");
        let (object, more) = (schema["type"] == "object", schema.get("additionalProperties"));
        assert!(!object || more.is_some(), "{path} says nothing about more keys");
        if more == Some(&json!(true)) {
            open.insert(path.to_owned());
        }
        let leaf = !path.is_empty() && !path.contains("[]") && !schema["properties"].is_object();
        assert!(!leaf || schema.get("default").is_some() || path.contains('.') || OF_HELM.contains(&path), "{path}");
    });
    let expected: BTreeSet<String> = OPEN.into_iter().chain(["global"]).map(str::to_owned).collect();
    assert_eq!(open, expected);
}

#[test]
fn the_comment_of_a_value_is_its_description() {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let comments: String =
        VALUES.lines().map(|line| line.trim().trim_start_matches("# ")).collect::<Vec<_>>().join(" ");
    let comments = words(&comments);
    each("", &schema(), &mut |path, schema| {
        if !schema["properties"].is_object() && !path.contains("[]") && schema.get("default").is_some() {
            let description = words(schema["description"].as_str().unwrap());
            assert!(comments.contains(&description), "{path}: {description}");
        }
    });
}

#[tokio::test]
async fn an_unknown_or_wrong_value_is_refused_by_name() {
    let world = World::new().await;
    let api = |certificate: &str| json!({"enabled": true, "certificateSecretName": certificate});
    for (values, at) in [
        (json!({"replica": 3}), "replica"),
        (json!({"crds": {"install": false}}), "install"),
        (json!({"image": {"digest": "sha256:abc"}}), "/image/digest"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"replicas": "two"}), "/replicas"),
        (json!({"leaderElection": {"leaseDuration": 15}}), "/leaderElection/leaseDuration"),
        (json!({"leaderElection": {"leaseDuration": "15 s"}}), "/leaderElection/leaseDuration"),
        (json!({"allowedIssuerHosts": []}), "/allowedIssuerHosts"),
        (json!({"allowedIssuerHosts": ["https://api.verteil.com"]}), "/allowedIssuerHosts/0"),
        (json!({"allowedIssuerHosts": "*.verteil.com"}), "/allowedIssuerHosts"),
        (json!({"namespaces": ["Team_A"]}), "/namespaces/0"),
        (json!({"concurrency": 0}), "/concurrency"),
        (json!({"log": {"format": "xml"}}), "/log/format"),
        (json!({"httpListen": ":8080"}), "/httpListen"),
        (json!({"terminationGracePeriodSeconds": 5}), "/terminationGracePeriodSeconds"),
        (json!({"tolerations": [{"keys": "a"}]}), "/tolerations/0"),
        (json!({"extraEnv": [{"value": "a"}]}), "/extraEnv/0"),
        (json!({"extraArgs": ["allow-http"]}), "/extraArgs/0"),
        (json!({"podSecurityContext": {"runAsUser": 0}}), "/podSecurityContext/runAsUser"),
        (json!({"podSecurityContext": {"runAsNonRoot": false}}), "runAsNonRoot"),
        (json!({"proxy": {"https": "proxy.corp:3128"}}), "/proxy/https"),
        (json!({"tokenApi": {"enabled": true}}), "tokenApi.certificateSecretName"),
        (json!({"tokenApi": api("c"), "service": {"enabled": false}}), "service.enabled"),
        (json!({"tokenApi": {"enabled": true, "certificateSecretName": "c", "port": 8080}}), "tokenApi.port"),
        (json!({"tokenApi": api("Not_A_Name")}), "/tokenApi/certificateSecretName"),
        (json!({"disableTokenPersistence": true, "replicas": 1}), "tokenApi.enabled"),
        (json!({"disableTokenPersistence": true, "tokenApi": api("c")}), "replicas: 1"),
        (
            json!({"disableTokenPersistence": true, "tokenApi": api("c"), "replicas": 1, "strategy": {"type": "RollingUpdate"}}),
            "Recreate",
        ),
        (
            json!({"disableTokenPersistence": true, "tokenApi": api("c"), "replicas": 1, "leaderElection": {"enabled": false}}),
            "leaderElection.enabled",
        ),
        (json!({"disableTokenPersistence": "maybe"}), "/disableTokenPersistence"),
        (json!({"metrics": {"serviceMonitor": {"enabled": true}}, "service": {"enabled": false}}), "service.enabled"),
        (json!({"leaderElection": {"enabled": false}}), "leaderElection.enabled"),
        (json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}), "strategy.rollingUpdate"),
        (json!({"extraEnv": [{"name": "DISABLE_TOKEN_PERSISTENCE", "value": "true"}]}), "set disableTokenPersistence"),
        (json!({"extraArgs": ["--disable-token-persistence=true"]}), "set disableTokenPersistence"),
        (json!({"podDisruptionBudget": {"maxUnavailable": "0%"}}), "/podDisruptionBudget/maxUnavailable"),
        (json!({"podDisruptionBudget": {"maxUnavailable": "101%"}}), "/podDisruptionBudget/maxUnavailable"),
        (json!({"allowedIssuerHosts": ["a.example:65536"]}), "/allowedIssuerHosts/0"),
        (json!({"httpListen": "[::]:65536"}), "/httpListen"),
        (json!({"podSecurityContext": {"fsGroupChangePolicy": "Never"}}), "/podSecurityContext/fsGroupChangePolicy"),
    ] {
        let said = world.render(CHART, RELEASE, &values).await.expect_err(&values.to_string());
        assert!(said.contains(at), "{values}: {said}");
    }
    // What Helm adds where this is a subchart.
    world.render(CHART, RELEASE, &json!({"global": {"region": "eu"}, "enabled": true})).await.unwrap();
}

#[tokio::test]
async fn the_schema_takes_the_hosts_that_the_flag_takes() {
    let world = World::new().await;
    for host in [
        "api.verteil.com",
        "*.verteil.com",
        "*",
        "*:8443",
        "localhost",
        "127.0.0.1:80",
        "[::1]:8443",
        "a.b:1",
        "a.b:65535",
    ] {
        assert!(host.parse::<AllowedHost>().is_ok(), "{host}");
        world.render(CHART, RELEASE, &json!({"allowedIssuerHosts": [host]})).await.expect(host);
    }
    for host in ["", "https://a", "a/b", "a.*", "*a", "a:b", "a b", "a:65536"] {
        assert!(host.parse::<AllowedHost>().is_err(), "{host}");
        world.render(CHART, RELEASE, &json!({"allowedIssuerHosts": [host]})).await.expect_err(host);
    }
}

#[tokio::test]
async fn every_flag_has_a_value_or_a_reason() {
    let world = World::new().await;
    let api = json!({"enabled": true, "certificateSecretName": "token-api"});
    let values = json!({
        "namespaces": ["a", "b"], "rolloutRestart": true, "tokenApi": api, "disableTokenPersistence": true, "replicas": 1,
    });
    let objects = world.render(CHART, RELEASE, &values).await.unwrap();
    let args = &the(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    let args: Vec<&str> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    Cli::try_parse_from(["operator"].into_iter().chain(args.iter().copied())).unwrap();
    let set: BTreeSet<&str> =
        args.iter().filter_map(|arg| arg.strip_prefix("--")).map(|arg| arg.split('=').next().unwrap()).collect();
    let command = Cli::command();
    let known = command.get_arguments().filter_map(|flag| flag.get_long());
    let left: Vec<&str> = known.filter(|flag| !["help", "version"].contains(flag) && !set.contains(flag)).collect();
    assert_eq!(left, WITHOUT_VALUE.map(|(flag, _)| flag));
}

#[tokio::test]
async fn the_defaults_of_the_chart_are_those_of_the_flags() {
    let world = World::new().await;
    let objects = world.render(CHART, RELEASE, &json!({})).await.unwrap();
    let args = &the(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    let command = Cli::command();
    for arg in args.as_array().unwrap().iter().filter_map(|arg| arg.as_str()?.strip_prefix("--")) {
        let (name, value) = arg.split_once('=').unwrap_or((arg, "true"));
        let flag = command.get_arguments().find(|flag| flag.get_long() == Some(name)).unwrap();
        let default: Vec<_> = flag.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        // On purpose: a cluster's log is read by programs, and a rollout has two pods for a moment.
        if !["leader-election", "lease-namespace", "log-format"].contains(&name) {
            assert_eq!(default.join(","), value, "--{name}");
        }
    }
}
