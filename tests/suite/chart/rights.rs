//! Are the rights of the chart's role all that the operator uses, and all used? The apiserver's audit log knows.

use std::collections::BTreeSet;
use std::path::Path;

use futures::future::join_all;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use testbed::world::{CHART, Operator, PATIENCE};
use testbed::{Authority, Issuer, World, eventually};

use super::{RELEASE, certificate, control_plane, for_tests, kind, with_token_api};
use crate::OPERATOR;
use crate::token_api::client::{self, TokenApi};

/// Who, what and whether, of every call of a service account.
const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;
/// The renewal that a test waits for comes after this long.
const SHORT: std::time::Duration = std::time::Duration::from_secs(8);
const LONG: std::time::Duration = std::time::Duration::from_secs(43_199);

/// Group, resource with its subresource, verb, and the name if it is the only one.
type Right = (String, String, String, String);

/// The rights in the rules of a role.
fn rights(role: &Value) -> impl Iterator<Item = Right> {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    role["rules"].as_array().unwrap().iter().flat_map(move |rule| {
        let keys: BTreeSet<&str> = rule.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.is_subset(&BTreeSet::from(["apiGroups", "resources", "resourceNames", "verbs"])), "{keys:?}");
        let names = if keys.contains("resourceNames") { texts(rule, "resourceNames") } else { vec![String::new()] };
        let mut found = Vec::new();
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    found
                        .extend(names.iter().map(|name| (group.clone(), resource.clone(), verb.clone(), name.clone())));
                }
            }
        }
        found
    })
}

/// The roles that the chart binds to the operator's account: kind, name, namespace if it has one, and the role.
fn bound(objects: &[Value]) -> Vec<&Value> {
    let bindings: Vec<&Value> = objects.iter().filter(|object| kind(object).ends_with("RoleBinding")).collect();
    let names = |role: &Value| {
        bindings.iter().any(|binding| {
            let named = &binding["roleRef"];
            (&named["kind"], &named["name"]) == (&role["kind"], &role["metadata"]["name"])
                && binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        })
    };
    objects.iter().filter(|object| ["Role", "ClusterRole"].contains(&kind(object)) && names(object)).collect()
}

#[tokio::test]
async fn no_role_can_delete_a_secret_or_patch_a_workload_unasked() {
    let world = World::new().await;
    for (values, count) in [
        (json!({}), 2),
        (json!({"namespaces": ["a", "b"]}), 3),
        (json!({"leaderElection": {"enabled": false}, "replicas": 1}), 1),
        // The two reviews, and the operator's own Deployment.
        (with_token_api(json!({})), 4),
        (with_token_api(json!({"namespaces": ["a", "b"]})), 5),
    ] {
        for restarts in [false, true] {
            let mut values = values.clone();
            testbed::world::merge(&mut values, json!({"rolloutRestart": restarts}));
            let objects = world.render(CHART, RELEASE, &values).await.unwrap();
            let roles = bound(&objects);
            assert_eq!(roles.len(), count, "{values}");
            let cluster_wide = roles.iter().filter(|role| kind(role) == "ClusterRole").count();
            let (everywhere, reviews) = (values.get("namespaces").is_none(), values.get("tokenApi").is_some());
            assert_eq!(cluster_wide, usize::from(everywhere) + usize::from(reviews), "{values}");
            let all: BTreeSet<Right> = roles.into_iter().flat_map(rights).collect();
            for (group, resource, verb, _) in &all {
                assert!(![group, resource, verb].iter().any(|text| text.contains('*')), "{group} {resource} {verb}");
                assert!(!verb.starts_with("delete"), "{group} {resource} {verb}");
                assert!(verb != "patch" || (restarts && group == "apps"), "{group} {resource} {verb}");
            }
            // Without a name: any workload.
            assert_eq!(all.iter().any(|(group, _, _, name)| group == "apps" && name.is_empty()), restarts);
        }
    }
}

/// One call of the operator's account, as the audit log has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    right: Right,
    allowed: bool,
    code: u64,
}

/// The calls of `account` so far.
fn calls(log: &Path, account: &str) -> BTreeSet<Call> {
    let text = std::fs::read_to_string(log).unwrap();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_account = entries.filter(|entry| entry["user"]["username"] == account);
    let call = |entry: Value| {
        let (object, word) = (&entry["objectRef"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let resource = match object["subresource"].as_str() {
            Some(subresource) => format!("{}/{subresource}", word(&object["resource"])),
            None => word(&object["resource"]),
        };
        // Outside of all groups and resources, such as /version.
        let resource = if resource.is_empty() { word(&entry["requestURI"]) } else { resource };
        Call {
            right: (word(&object["apiGroup"]), resource, word(&entry["verb"]), word(&object["name"])),
            allowed: entry["annotations"]["authorization.k8s.io/decision"] == "allow",
            code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
        }
    };
    of_account.map(call).collect()
}

/// A workload of each kind, listed in the resource `flight`.
async fn create_workloads(world: &World) -> Value {
    let mut listed = Vec::new();
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let name = kind.to_lowercase();
        let labels = json!({"app": name});
        let mut workload = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none.invalid/c"}]}}}});
        if kind == "StatefulSet" {
            workload["spec"]["serviceName"] = json!(name);
        }
        world.kubectl_apply(&workload.to_string()).await;
        listed.push(json!({"kind": kind, "name": name}));
    }
    json!(listed)
}

/// The main paths of the operator's life; the operator that leads at the end.
async fn live(world: &World) -> Operator {
    let ca = Authority::new("corp");
    let private = Issuer::start_tls(std::net::Ipv4Addr::LOCALHOST, &ca.server(&["127.0.0.1"])).unwrap();
    let first = world.operator_of(RELEASE, OPERATOR).await;
    let second = world.operator_of(RELEASE, OPERATOR).await;

    // A first token, its restart of workloads, a template, a token that is renewed at its end.
    let workloads = create_workloads(world).await;
    let template = json!({"HEADER": "Bearer {{ access_token }}"});
    world.create_token("flight", json!({"rolloutRestart": workloads, "secret": {"template": template}})).await;
    world.ready("flight").await;
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "one"}}})).await;
    world.condition("flight", "WorkloadsRestarted", "True", "Restarted").await;
    world.issuer.set_lifetime(SHORT);
    world.create_token("short", json!({"renewBefore": "0s"})).await;
    world.ready("short").await;
    world.issuer.set_lifetime(LONG);

    // A CA in a ConfigMap and in a Secret.
    for kind in ["ConfigMap", "Secret"] {
        let name = format!("ca-{}", kind.to_lowercase());
        crate::trust::put(world, kind, &name, &ca.pem()).await;
        let resource = format!("with-{name}");
        let mut token = world.token(&resource, json!({"caBundleRef": {"kind": kind, "name": name}}));
        token["spec"]["tokenURL"] = json!(private.url_for(&resource));
        world.create(&token).await;
        world.ready(&resource).await;
    }

    // A Secret that is handed over, one that is renamed, one that is kept, one that is deleted, a wiped status.
    let theirs = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "adopted", "annotations": {"verteil.dev/adopt": "adopted"}}, "stringData": {"theirs": "kept"}});
    world.kubectl_apply(&theirs.to_string()).await;
    world.create_token("adopted", json!({})).await;
    world.ready("adopted").await;
    world.create_token("renamed", json!({})).await;
    world.ready("renamed").await;
    world.change("renamed", json!({"spec": {"secret": {"name": "renamed-later"}}})).await;
    world.status("renamed", "the new name", |status| status.secret_name.as_deref() == Some("renamed-later")).await;
    world.create_token("kept", json!({"secret": {"deletionPolicy": "Retain"}})).await;
    world.ready("kept").await;
    world.delete_secret("kept").await;
    world.issuer.wait_for_count_of("kept", 2, PATIENCE).await;
    let wipe =
        ["patch", "vt", "kept", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
    world.ready("kept").await;
    world.issuer.wait_for_count_of("short", 2, PATIENCE).await;

    // One that does not ask for a token, and says why.
    world.create_token("missing", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("missing", "Reconciling", "True", "CredentialsMissing").await;

    // Deletion, and the leader's end.
    for name in ["flight", "renamed", "kept"] {
        world.tokens().delete(name, &DeleteParams::default()).await.unwrap();
    }
    eventually("the Secrets of the deleted resources to go", 2 * PATIENCE, async || {
        let gone = join_all(
            ["flight", "renamed", "renamed-later"]
                .map(|name| async move { world.secrets().get_opt(name).await.map_err(|e| e.to_string()) }),
        );
        match gone.await.into_iter().collect::<Result<Vec<_>, _>>()?.iter().flatten().count() {
            0 => Ok(()),
            left => Err(format!("{left} are there")),
        }
    })
    .await;
    world.secrets().get("kept").await.unwrap();
    let (leader, standby) = match first.metric("verteil_token_leader").await {
        Some(1.0) => (first, second),
        _ => (second, first),
    };
    assert_eq!(leader.terminate().await, Some(0));
    world.create_token("last", json!({})).await;
    world.ready("last").await;
    standby
}

/// The token of `last`, as the API gives it.
async fn is_given(world: &World, api: &TokenApi, bearer: &str, operator: &Operator) {
    let api = api.at(operator.token_api().expect("a token API"));
    eventually("the token from the API", PATIENCE, async || {
        let answer = api.get(&world.namespace, "last", bearer).await;
        let token = (answer.status == 200).then(|| answer.json()["access_token"].clone());
        if token == world.issuer.last_token("last").map(Value::from) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// To memory only and back, and what callers of the API get there; the operator that leads at the end.
async fn live_in_memory(world: &World, api: &TokenApi, values: &Value, operator: Operator) -> Operator {
    let bearer = client::caller(world, "reader", "last").await;
    is_given(world, api, &bearer, &operator).await;
    let mut memory_only = values.clone();
    testbed::world::merge(&mut memory_only, json!({"disableTokenPersistence": true, "replicas": 1}));
    world.install(CHART, RELEASE, &memory_only).await.succeeded();
    assert_eq!(operator.terminate().await, Some(0));
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.status("last", "its place", |status| status.in_memory == Some(true)).await;
    is_given(world, api, &bearer, &operator).await;
    world.install(CHART, RELEASE, values).await.succeeded();
    assert_eq!(operator.terminate().await, Some(0));
    world.stores("last", &world.issuer.last_token("last").unwrap()).await;
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.status("last", "its place", |status| status.in_memory.is_none()).await;
    world.ready("last").await;
    assert_eq!(world.issuer.count_for("last"), 1);
    operator
}

/// Each call as the right that it needs: of those for one name, that one, else the one for all.
fn used(calls: BTreeSet<Call>, given: &BTreeSet<Right>) -> BTreeSet<Right> {
    let right = |call: Call| {
        let (group, resource, verb, _) = &call.right;
        let of_all = (group.clone(), resource.clone(), verb.clone(), String::new());
        if given.contains(&call.right) { call.right } else { of_all }
    };
    calls.into_iter().map(right).collect()
}

#[tokio::test]
async fn every_right_is_used_and_no_call_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let flags = [("policy-file", &policy), ("log-path", &log)];
    let mut args: Vec<String> = flags.iter().map(|(flag, path)| format!("--audit-{flag}={}", path.display())).collect();
    // As OpenShift has it: an owner may be named only by who may delete what it owns, or creates it.
    args.push("--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into());
    let cluster = control_plane(args).await;
    for in_all_namespaces in [false, true] {
        let world = World::bare(cluster).await;
        let mut values = for_tests(with_token_api(json!({"rolloutRestart": true})));
        if !in_all_namespaces {
            values["namespaces"] = json!([world.namespace]);
        }
        let api = certificate(&world).await;
        world.install(CHART, RELEASE, &values).await.succeeded();
        // Otherwise it collects the Secrets of deleted resources only when it has learnt of the new definition.
        cluster.restart_controller_manager().await.unwrap();
        let operator = live(&world).await;
        let operator = live_in_memory(&world, &api, &values, operator).await;
        let account = format!("system:serviceaccount:{}:{RELEASE}", world.namespace);
        let calls = calls(&log, &account);
        let refused: Vec<&Call> = calls.iter().filter(|call| !call.allowed || call.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let objects = world.render(CHART, RELEASE, &values).await.unwrap();
        let given: BTreeSet<Right> = bound(&objects).into_iter().flat_map(rights).collect();
        assert_eq!(given, used(calls, &given));
        // What it costs there that it may delete nothing: the owner of a Secret that is there already stays as it is.
        for (policy, failing, reason) in [("Retain", "True", "WriteRefused"), ("Delete", "False", "")] {
            world.change("last", json!({"spec": {"secret": {"deletionPolicy": policy}}})).await;
            world.condition("last", "RenewalFailing", failing, reason).await;
        }
        operator.terminate().await;
        world.kubectl(&["delete", "vt", "--all"], None).await.succeeded();
        world.helm(&["uninstall", RELEASE]).await.succeeded();
        // The definition goes to the next release, which is in another namespace.
        world.kubectl(&["delete", "crd", "verteiltokens.verteil.dev"], None).await.succeeded();
    }
}
