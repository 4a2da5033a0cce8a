//! Does an apiserver take what the chart renders, at the Pod Security level `restricted`, and does each switch do its work?

use std::collections::BTreeSet;

use clap::Parser as _;
use serde_json::{Value, json};
use testbed::World;
use testbed::world::CHART;
use verteil_token_operator::api::crd;
use verteil_token_operator::args::{Cli, Command};

use super::{RELEASE, kind, the};
use crate::prometheus::promtool;

const ALERTS: &str = include_str!("../../../charts/verteil-token-operator/files/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../charts/verteil-token-operator/files/dashboard.json");
const DRY_RUN: [&str; 7] =
    ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
/// Of the Prometheus operator, whose definitions are not here.
const OF_PROMETHEUS: [&str; 2] = ["ServiceMonitor", "PrometheusRule"];
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Everything that can be switched on, and every list filled. `other` is a second namespace.
fn everything(world: &World, other: &str) -> Value {
    json!({
        "fullnameOverride": "tokens",
        "image": {"repository": "registry.example:5000/team/operator", "tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "crds": {"annotations": {"example.com/owner": "platform"}},
        "namespaces": [world.namespace, other],
        "allowedIssuerHosts": ["api.verteil.com", "*.verteil.com:8443"],
        "rolloutRestart": true,
        "tokenApi": {"enabled": true, "port": 9443, "audience": "tokens", "certificateSecretName": "token-api"},
        "proxy": {"https": "http://proxy.corp.example:3128", "http": "http://proxy.corp.example:3128", "noProxy": ["10.0.0.0/8", ".corp.example"]},
        "metrics": {
            "serviceMonitor": {"enabled": true, "interval": "30s", "scrapeTimeout": "10s", "labels": {"release": "monitoring"},
                "metricRelabelings": [{"action": "labeldrop", "regex": "pod"}]},
            "prometheusRule": {"enabled": true, "labels": {"release": "monitoring"}},
            "dashboard": {"enabled": true, "namespace": other, "annotations": {"grafana_folder": "Tokens"}},
        },
        "service": {"annotations": {"example.com/scrape": "true"}},
        "serviceAccount": {"name": "tokens-account", "annotations": {"example.com/role": "none"}},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "networkPolicy": {"enabled": true, "ingressFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
            "tokenApiFrom": [{"namespaceSelector": {}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 9000}]}]},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "podAnnotations": {"example.com/note": "x"},
        "podLabels": {"team": "platform", "app.kubernetes.io/name": "not-this"},
        "podSecurityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001, "fsGroupChangePolicy": "OnRootMismatch",
            "supplementalGroups": [10002], "supplementalGroupsPolicy": "Strict", "seLinuxOptions": {"level": "s0:c1,c2"}},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "platform", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"team": "platform"}}}],
        "extraArgs": ["--debug-listen=127.0.0.1:9091"],
        "extraEnv": [{"name": "HTTPS_PROXY_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "password"}}}, {"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "corp-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/corp", "readOnly": true}],
    })
}

/// Everything that can be switched off.
fn nothing() -> Value {
    json!({
        "crds": {"enabled": false},
        "leaderElection": {"enabled": false},
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "service": {"enabled": false},
        "serviceAccount": {"create": false},
        "rbac": {"create": false, "aggregate": false},
        "podDisruptionBudget": {"enabled": false},
        "topologySpreadConstraints": [],
        "resources": null,
    })
}

/// A world whose namespace admits restricted pods alone, and a second namespace.
async fn restricted() -> (World, String) {
    let world = World::new().await;
    let level = format!("pod-security.kubernetes.io/enforce={}", "restricted");
    world.kubectl(&["label", "namespace", &world.namespace, &level], None).await.succeeded();
    // Pods are refused until the namespace's own account is there.
    world.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"], None).await.succeeded();
    let other = format!("{}-other", world.namespace);
    world.kubectl(&["create", "namespace", &other], None).await.succeeded();
    (world, other)
}

/// The pod that a Deployment makes.
fn pod_of(deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!("of-deployment");
    pod["metadata"]["namespace"] = deployment["metadata"]["namespace"].clone();
    pod
}

async fn dry_run(world: &World, objects: &[Value]) -> testbed::control_plane::Output {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    // Each names its namespace, and there are two.
    world.cluster.kubectl(&DRY_RUN, Some(&list.to_string())).await.unwrap()
}

#[tokio::test]
async fn an_apiserver_takes_what_is_rendered_at_the_level_restricted() {
    let (world, other) = restricted().await;
    let both = [world.namespace.as_str(), &other];
    for (what, values) in [
        ("defaults", json!({})),
        ("everything", everything(&world, &other)),
        ("nothing", nothing()),
        ("namespaces", json!({"namespaces": both})),
        ("a cluster-wide operator that restarts", json!({"rolloutRestart": true, "replicas": 3})),
        ("tokens in memory only", super::with_token_api(json!({"disableTokenPersistence": true, "replicas": 1}))),
        ("any issuer", json!({"allowedIssuerHosts": ["*"], "networkPolicy": {"enabled": true, "dnsPorts": []}})),
        ("no IPv6", json!({"httpListen": "0.0.0.0:9090", "networkPolicy": {"enabled": true}})),
        (
            "an account of one's own",
            json!({"serviceAccount": {"create": false, "name": "default"}, "crds": {"keep": false}}),
        ),
        ("no roles for users", json!({"rbac": {"aggregate": false}, "namespaces": both, "crds": {"enabled": false}})),
        (
            "monitoring",
            json!({"metrics": {"perResource": false, "dashboard": {"enabled": true}}, "log": {"format": "text", "filter": "info,kube=debug"}}),
        ),
    ] {
        let linted = world.lint(CHART, &values).await;
        assert!(linted.status.success(), "{what}: {}{}", linted.stdout, linted.stderr);
        let mut objects = world.render(CHART, RELEASE, &values).await.unwrap_or_else(|said| panic!("{what}: {said}"));
        objects.retain(|object| !OF_PROMETHEUS.contains(&kind(object)));
        if let Some(account) = objects.iter().find(|object| kind(object) == "ServiceAccount") {
            // A pod is admitted only where its account is.
            let args = ["apply", "--server-side", "-f", "-"];
            world.kubectl(&args, Some(&account.to_string())).await.succeeded();
        }
        objects.push(pod_of(the(&objects, "Deployment")));
        let outcome = dry_run(&world, &objects).await;
        assert_eq!(outcome.stderr, "", "{what}");
        let said = outcome.succeeded();
        assert_eq!(said.lines().count(), objects.len(), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_name_that_yaml_would_take_for_something_else_stays_a_name() {
    let (world, _) = restricted().await;
    let values =
        json!({"fullnameOverride": "true", "namespaces": [world.namespace], "networkPolicy": {"enabled": true}});
    let objects = world.render(CHART, "123", &values).await.unwrap();
    dry_run(&world, &objects).await.succeeded();
    assert_eq!(the(&objects, "Deployment")["metadata"]["name"], json!("true"));
}

#[tokio::test]
async fn a_pod_that_may_do_more_is_not_admitted_here() {
    let (world, _) = restricted().await;
    let objects = world.render(CHART, RELEASE, &json!({"serviceAccount": {"create": false}})).await.unwrap();
    let pod = pod_of(the(&objects, "Deployment"));
    dry_run(&world, std::slice::from_ref(&pod)).await.succeeded();
    for (at, value) in [
        ("/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/securityContext/seccompProfile", json!(null)),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/containers/0/securityContext/capabilities", json!({})),
    ] {
        let mut pod = pod.clone();
        *pod.pointer_mut(at).unwrap() = value;
        let refused = dry_run(&world, &[pod]).await;
        assert!(refused.stderr.contains("violates PodSecurity \"restricted"), "{at}: {refused:?}");
    }
}

#[tokio::test]
async fn each_switch_brings_its_object_and_no_other() {
    let world = World::new().await;
    let kinds = async |values: Value| -> BTreeSet<String> {
        let objects = world.render(CHART, RELEASE, &values).await.unwrap();
        objects
            .iter()
            .map(|object| format!("{} {}", kind(object), object["metadata"]["name"].as_str().unwrap()))
            .collect()
    };
    let none = kinds(nothing()).await;
    assert_eq!(none, BTreeSet::from([format!("Deployment {RELEASE}")]));
    for (values, brings) in [
        (json!({"crds": {"enabled": true}}), vec!["CustomResourceDefinition verteiltokens.verteil.dev".to_owned()]),
        (json!({"service": {"enabled": true}}), vec![format!("Pod {RELEASE}-ready"), format!("Service {RELEASE}")]),
        (json!({"serviceAccount": {"create": true}}), vec![format!("ServiceAccount {RELEASE}")]),
        (json!({"podDisruptionBudget": {"enabled": true}}), vec![format!("PodDisruptionBudget {RELEASE}")]),
        (json!({"networkPolicy": {"enabled": true}}), vec![format!("NetworkPolicy {RELEASE}")]),
        (json!({"metrics": {"prometheusRule": {"enabled": true}}}), vec![format!("PrometheusRule {RELEASE}")]),
        (json!({"metrics": {"dashboard": {"enabled": true}}}), vec![format!("ConfigMap {RELEASE}-dashboard")]),
    ] {
        let mut all = nothing();
        testbed::world::merge(&mut all, values.clone());
        let found = kinds(all).await;
        let more: Vec<String> = found.difference(&none).cloned().collect();
        assert_eq!(more, brings, "{values}");
    }
}

#[tokio::test]
async fn the_definition_is_the_operators_own_and_is_kept() {
    let world = World::new().await;
    let own = serde_json::to_value(crd()).unwrap();
    for (keep, policy) in [(true, json!("keep")), (false, json!(null))] {
        let objects = world.render(CHART, RELEASE, &json!({"crds": {"keep": keep}})).await.unwrap();
        let rendered = the(&objects, "CustomResourceDefinition");
        assert_eq!(numbers_as_floats(&rendered["spec"]), numbers_as_floats(&own["spec"]));
        assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], policy);
    }
}

/// Helm reads every number as a float.
fn numbers_as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(numbers_as_floats).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), numbers_as_floats(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

#[tokio::test]
async fn whoever_selects_pods_selects_the_operators_and_never_those_of_a_test() {
    let (world, other) = restricted().await;
    for values in [
        json!({"networkPolicy": {"enabled": true}, "metrics": {"serviceMonitor": {"enabled": true}}}),
        everything(&world, &other),
    ] {
        let objects = world.render(CHART, RELEASE, &values).await.unwrap();
        let deployment = the(&objects, "Deployment");
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let of_test = &the(&objects, "Pod")["metadata"]["labels"];
        let service = the(&objects, "Service");
        let picks = |selector: &Value, labels: &Value| {
            let wanted = selector.as_object().unwrap();
            assert!(!wanted.is_empty());
            wanted.iter().all(|(key, value)| &labels[key] == value)
        };
        for selector in [
            &deployment["spec"]["selector"]["matchLabels"],
            &service["spec"]["selector"],
            &the(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            &the(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ] {
            assert!(picks(selector, labels) && !picks(selector, of_test), "{selector}");
        }
        let monitor = the(&objects, "ServiceMonitor");
        assert!(picks(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!((&endpoint["port"], &endpoint["honorLabels"]), (&service["spec"]["ports"][0]["name"], &json!(true)));
        let port = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0];
        assert_eq!((&service["spec"]["ports"][0]["targetPort"], &port["containerPort"]), (&port["name"], &json!(8080)));
        // What helm test asks.
        let args = the(&objects, "Pod")["spec"]["containers"][0]["args"].as_array().unwrap().clone();
        let args = ["operator"].into_iter().chain(args.iter().map(|arg| arg.as_str().unwrap()));
        let Some(Command::Ready(asks)) = Cli::try_parse_from(args).unwrap().command else { panic!("another command") };
        let host = format!("{}.{}.svc", service["metadata"]["name"].as_str().unwrap(), world.namespace);
        assert_eq!((asks.url.host_str(), asks.url.port()), (Some(host.as_str()), Some(8080)));
        assert_eq!(
            asks.url.path(),
            deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
        );
    }
}

#[tokio::test]
async fn rules_and_dashboard_come_as_they_are() {
    let world = World::new().await;
    let values = json!({"metrics": {"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}}});
    let objects = world.render(CHART, RELEASE, &values).await.unwrap();
    let spec = &the(&objects, "PrometheusRule")["spec"];
    let alerts: Value = serde_saphyr::from_str(ALERTS).unwrap();
    assert_eq!(spec, &alerts);
    let file = world.file("rules.yaml", &spec.to_string());
    let said = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(said.contains("SUCCESS: 10 rules found"), "{said}");
    let shown = the(&objects, "ConfigMap")["data"]["verteil-token-operator.json"].as_str().unwrap();
    let (shown, own): (Value, Value) = (serde_json::from_str(shown).unwrap(), serde_json::from_str(DASHBOARD).unwrap());
    assert_eq!(shown, own);
}

#[tokio::test]
async fn an_image_is_named_by_tag_and_digest_and_runs_as_no_fixed_user() {
    let world = World::new().await;
    let version = env!("CARGO_PKG_VERSION");
    for (image, expected) in [
        (json!({}), format!("verteil-token-operator:{version}")),
        (json!({"repository": "r.example:5000/o", "tag": "next"}), "r.example:5000/o:next".to_owned()),
        (json!({"digest": DIGEST}), format!("verteil-token-operator:{version}@{DIGEST}")),
    ] {
        let objects = world.render(CHART, RELEASE, &json!({"image": image})).await.unwrap();
        for pod in [&the(&objects, "Deployment")["spec"]["template"]["spec"], &the(&objects, "Pod")["spec"]] {
            assert_eq!(pod["containers"][0]["image"], json!(expected));
            let context = &pod["securityContext"];
            assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&json!(true), &json!(null)));
            assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], json!(true));
        }
        assert_eq!(the(&objects, "Pod")["spec"]["automountServiceAccountToken"], json!(false));
    }
}
