//! The control plane does what a cluster does to objects, and can be disturbed as one can.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota, Secret};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use testbed::{ControlPlane, Options, eventually};

use crate::helper::{self, Helper};

/// For what controllers do by themselves.
const CONTROLLERS: Duration = Duration::from_secs(120);

/// A namespace with a name of its own.
async fn namespace(client: &Client, prefix: &str) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"generateName": format!("{prefix}-")}})).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap().name_any()
}

fn secret(name: &str, owner: Option<&ConfigMap>) -> Secret {
    let owners = owner
        .map(|owner| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid()}]));
    serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}})).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn serves_kubectl_with_its_true_version() {
    let plane = ControlPlane::shared().await;
    let version = plane.kubectl(&["version"], None).await.unwrap().succeeded();
    let server = version.lines().find_map(|line| line.strip_prefix("Server Version: v1.")).expect("a release");
    assert!(server.split('.').next().is_some_and(|minor| minor.parse::<u32>().is_ok()), "{version}");

    let namespace = namespace(&plane.client(), "kubectl").await;
    let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "v"}});
    let args = ["apply", "--namespace", &namespace, "-f", "-"];
    let printed = plane.kubectl(&args, Some(&manifest.to_string())).await.unwrap().succeeded();
    assert_eq!(printed, "secret/a created\n");

    let output = plane.kubectl(&["get", "secret", "none", "--namespace", &namespace], None).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, "Error from server (NotFound): secrets \"none\" not found\n");
}

#[tokio::test]
async fn acts_as_another_user_by_a_kubeconfig() {
    let plane = ControlPlane::shared().await;
    let kubeconfig = plane.kubeconfig_for("anna", &["flyers"]).unwrap();
    let flag = format!("--kubeconfig={}", kubeconfig.display());

    let who = plane.kubectl(&[&flag, "auth", "whoami", "-o", "json"], None).await.unwrap().succeeded();
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "anna");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["flyers", "system:authenticated"]));

    let output = plane.kubectl(&[&flag, "get", "secrets"], None).await.unwrap();
    assert!(output.stderr.contains("User \"anna\" cannot list resource \"secrets\""), "{}", output.stderr);

    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(Client::try_from(config).unwrap());
    let error = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 403), "{error}");
}

#[tokio::test]
async fn service_account_tokens_are_issued_and_accepted() {
    let plane = ControlPlane::shared().await;
    let namespace = namespace(&plane.client(), "account").await;
    let args = ["create", "token", "default", "--namespace", &namespace];
    let token = eventually("a token of the default account", CONTROLLERS, async || {
        let output = plane.kubectl(&args, None).await.unwrap();
        if output.status.success() { Ok(output.stdout.trim().to_owned()) } else { Err(output.stderr) }
    })
    .await;
    let mut config = plane.client_config();
    config.auth_info.token = Some(token.into());
    let configs: Api<ConfigMap> = Api::namespaced(Client::try_from(config).unwrap(), &namespace);
    let error = configs.get("kube-root-ca.crt").await.unwrap_err().to_string();
    assert!(error.contains(&format!("system:serviceaccount:{namespace}:default")), "{error}");

    let configs: Api<ConfigMap> = Api::namespaced(plane.client(), &namespace);
    eventually("the cluster's CA in the namespace", CONTROLLERS, async || {
        configs.get("kube-root-ca.crt").await.map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test]
async fn an_owned_object_goes_with_its_owner() {
    let plane = ControlPlane::shared().await;
    let client = plane.client();
    let namespace = namespace(&client, "garbage").await;
    let (configs, secrets) = (Api::namespaced(client.clone(), &namespace), Api::namespaced(client, &namespace));
    let owner = configs.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    secrets.create(&PostParams::default(), &secret("owned", Some(&owner))).await.unwrap();
    secrets.create(&PostParams::default(), &secret("free", None)).await.unwrap();

    configs.delete("owner", &DeleteParams::background()).await.unwrap();

    eventually("the end of the owned Secret", CONTROLLERS, async || match secrets.get_opt("owned").await.unwrap() {
        None => Ok(()),
        Some(_) => Err(plane.logs()),
    })
    .await;
    assert!(secrets.get_opt("free").await.unwrap().is_some());
}

#[tokio::test]
async fn the_deletion_of_a_namespace_finishes() {
    let plane = ControlPlane::shared().await;
    let client = plane.client();
    let name = namespace(&client, "end").await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &name);
    secrets.create(&PostParams::default(), &secret("inside", None)).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);

    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();

    eventually("the end of the namespace", CONTROLLERS, async || match namespaces.get_opt(&name).await.unwrap() {
        None => Ok(()),
        Some(namespace) => Err(format!("{:?}\n{}", namespace.status, plane.logs())),
    })
    .await;
}

#[tokio::test]
async fn a_quota_is_enforced_and_freed() {
    let plane = ControlPlane::shared().await;
    let client = plane.client();
    let namespace = namespace(&client, "quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), &namespace);
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    eventually("the first count", CONTROLLERS, async || {
        let status = quotas.get("q").await.unwrap().status.unwrap_or_default();
        status.used.ok_or_else(|| plane.logs())
    })
    .await;

    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    secrets.create(&PostParams::default(), &secret("first", None)).await.unwrap();
    let refused = secrets.create(&PostParams::default(), &secret("second", None)).await.unwrap_err().to_string();
    assert!(refused.contains("exceeded quota: q"), "{refused}");

    secrets.delete("first", &DeleteParams::default()).await.unwrap();
    eventually("room for another Secret", CONTROLLERS, async || {
        let created = secrets.create(&PostParams::default(), &secret("second", None)).await;
        created.map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_owns_what_is_made_for_it() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "owners.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced", "names": {"kind": "Owner", "plural": "owners"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    plane.kubectl(&["apply", "-f", "-"], Some(&crd.to_string())).await.unwrap().succeeded();
    let wait = ["wait", "--for=condition=Established", "crd/owners.test.example", "--timeout=110s"];
    plane.kubectl(&wait, None).await.unwrap().succeeded();
    let before = plane.pids();
    plane.restart_controller_manager().await.unwrap();
    assert_ne!(plane.pids(), before);

    let owner = json!({"apiVersion": "test.example/v1", "kind": "Owner", "metadata": {"name": "o"}});
    let args = ["create", "-f", "-", "-o", "jsonpath={.metadata.uid}"];
    let uid = plane.kubectl(&args, Some(&owner.to_string())).await.unwrap().succeeded();
    let mut object = secret("owned", None);
    object.metadata.owner_references = serde_json::from_value(json!([
        {"apiVersion": "test.example/v1", "kind": "Owner", "name": "o", "uid": uid}
    ]))
    .unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(plane.client());
    secrets.create(&PostParams::default(), &object).await.unwrap();
    plane.kubectl(&["delete", "owners.test.example", "o"], None).await.unwrap().succeeded();
    eventually("the end of the owned Secret", CONTROLLERS, async || match secrets.get_opt("owned").await.unwrap() {
        None => Ok(()),
        Some(_) => Err(plane.logs()),
    })
    .await;
}

/// One test for all that disturbs, as each would need a control plane of its own.
#[tokio::test]
async fn can_be_stopped_frozen_and_made_to_forget() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let url = plane.url();
    let configs: Api<ConfigMap> = Api::default_namespaced(plane.client());
    let first = configs.create(&PostParams::default(), &config_map("first")).await.unwrap();

    // Stopped: refused. Started: the same data at the same place, for the same client.
    plane.stop_apiserver();
    assert!(configs.get("first").await.is_err());
    plane.start_apiserver().await.unwrap();
    assert_eq!(plane.url(), url);
    assert_eq!(configs.get("first").await.unwrap().resource_version(), first.resource_version());

    // Frozen: no answer. Thawed: the answer comes.
    plane.freeze_apiserver().unwrap();
    let mut reading = Box::pin(configs.get("first"));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut reading).await.is_err());
    plane.thaw_apiserver().unwrap();
    reading.await.unwrap();

    // Made to forget: an old state can be listed and watched no more. Twice at one revision is no error.
    for number in 0..3 {
        let data = BTreeMap::from([("number".to_owned(), number.to_string())]);
        let mut changed = configs.get("first").await.unwrap();
        changed.data = Some(data);
        configs.replace("first", &PostParams::default(), &changed).await.unwrap();
    }
    let old = first.resource_version().unwrap();
    let exactly = ListParams::default().at(&old).matching(kube::api::VersionMatch::Exact);
    assert!(configs.list(&exactly).await.unwrap().items.iter().any(|item| item.data.is_none()));
    let revision = plane.compact_etcd().await.unwrap();
    assert!(revision > old.parse().unwrap());
    assert!(plane.forget_history().await.unwrap() >= revision);
    let error = configs.list(&exactly).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error}");
    let event = match configs.watch(&WatchParams::default(), &old).await {
        Ok(events) => Box::pin(events).try_next().await.unwrap().expect("one event"),
        Err(kube::Error::Api(status)) => WatchEvent::Error(status),
        Err(error) => panic!("{error}"),
    };
    assert!(matches!(&event, WatchEvent::Error(status) if status.code == 410), "{event:?}");
    plane.shutdown().unwrap();
}

#[tokio::test]
async fn nothing_is_left_when_its_process_is_killed() {
    if let Some(out) = helper::helper_output() {
        let plane = ControlPlane::start(Options::default()).await.unwrap();
        let pids: Vec<String> = plane.pids().iter().map(ToString::to_string).collect();
        let dir = plane.kubeconfig().parent().unwrap().display().to_string();
        helper::tell_and_stay(&out, &format!("{dir}\n{}", pids.join("\n")));
    }
    // The first build takes minutes, which the helper is not given.
    tokio::task::spawn_blocking(testbed::binaries::Binaries::find).await.unwrap().unwrap();
    let helper = Helper::start("control_plane::nothing_is_left_when_its_process_is_killed");
    let told = helper.told().await;
    let (dir, pids) = told.split_once('\n').unwrap();
    let (dir, pids): (PathBuf, Vec<u32>) = (dir.into(), pids.lines().map(|pid| pid.parse().unwrap()).collect());
    assert!(dir.is_dir() && pids.len() == 3 && pids.iter().all(|pid| helper::is_alive(*pid)));

    helper.kill();

    let soon = Duration::from_secs(60);
    eventually("the end of the components", soon, async || helper::gone(&pids)).await;
    eventually("the end of the folder", soon, async || helper::absent(&dir)).await;
}
