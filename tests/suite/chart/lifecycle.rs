//! What do an upgrade of the chart, a rollback, an uninstall and a second release cost? No token.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::world::{CHART, Operator, PATIENCE};
use testbed::{ControlPlane, World, eventually};
use verteil_token_operator::issuer::AllowedHosts;

use super::{RELEASE, control_plane, for_tests, with_token_api};
use crate::OPERATOR;

/// The chart as it was at version 0.1.0.
const FORMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chart-0.1.0");
const CRD: &str = "verteiltokens.verteil.dev";

/// What both charts know.
fn values() -> Value {
    json!({"allowedIssuerHosts": ["*"], "extraEnv": [{"name": "VERTEIL_ALLOW_HTTP", "value": "true"}]})
}

async fn secret(world: &World) -> Secret {
    world.secrets().get("flight").await.unwrap()
}

/// Starts the operator of the release as it now is, which finds the token and neither asks nor writes.
async fn finds_the_token(world: &World, before: &Secret) -> Operator {
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    eventually("the stored token to be taken over", PATIENCE, async || {
        match operator.metric("verteil_token_reused_total").await {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.ready("flight").await;
    world.stays_at(1).await;
    assert_eq!(secret(world).await.resource_version(), before.resource_version());
    operator
}

/// Everything of a release that is left in the cluster.
async fn left_over(world: &World) -> String {
    let kinds = "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments,\
                 poddisruptionbudgets,networkpolicies,configmaps";
    let selector = format!("--selector=app.kubernetes.io/instance={RELEASE}");
    world.kubectl(&["get", kinds, "--all-namespaces", "-o", "name", &selector], None).await.succeeded()
}

#[tokio::test]
async fn upgrade_rollback_uninstall_and_another_install_cost_no_token() {
    let world = World::bare(control_plane(Vec::new()).await).await;
    world.install(FORMER, RELEASE, &values()).await.succeeded();
    let operator = world.operator_of(RELEASE, OPERATOR).await;
    world.create_token("flight", json!({"secret": {"deletionPolicy": "Delete"}})).await;
    world.ready("flight").await;
    let before = secret(&world).await;
    assert_eq!(operator.terminate().await, Some(0));

    // The former chart's defaults are no values of this one: Helm says so before it changes anything.
    let kept = world.helm(&["upgrade", RELEASE, CHART, "--reuse-values"]).await;
    assert!(!kept.status.success() && kept.stderr.contains("'install' not allowed"), "{kept:?}");
    world.helm(&["upgrade", RELEASE, CHART, "--reset-then-reuse-values"]).await.succeeded();
    finds_the_token(&world, &before).await.terminate().await;
    let crd = world.kubectl(&["get", "crd", CRD, "-o", "jsonpath={.metadata.labels}"], None).await.succeeded();
    assert!(crd.contains(&format!("verteil-token-operator-{}", env!("CARGO_PKG_VERSION"))), "{crd}");

    world.helm(&["rollback", RELEASE, "1"]).await.succeeded();
    finds_the_token(&world, &before).await.terminate().await;
    world.install(CHART, RELEASE, &values()).await.succeeded();
    let operator = finds_the_token(&world, &before).await;

    // While it runs, as it does in a cluster.
    world.helm(&["uninstall", RELEASE]).await.succeeded();
    assert_eq!(left_over(&world).await, "");
    operator.terminate().await;
    world.kubectl(&["get", "crd", CRD], None).await.succeeded();
    world.kubectl(&["get", "vt", "flight"], None).await.succeeded();
    assert_eq!(secret(&world).await.resource_version(), before.resource_version());

    world.install(CHART, RELEASE, &values()).await.succeeded();
    finds_the_token(&world, &before).await.terminate().await;

    // A release of another name has to be told that the definition is to be its own.
    world.helm(&["uninstall", RELEASE]).await.succeeded();
    let other = json!({"fullnameOverride": RELEASE});
    let mut all = values();
    testbed::world::merge(&mut all, other);
    let refused = world.install(CHART, "tokens", &all).await;
    assert!(refused.stderr.contains("invalid ownership metadata"), "{refused:?}");
    let file = world.file("other.yaml", &all.to_string());
    let args = ["upgrade", "--install", "tokens", CHART, "--take-ownership", "--values", file.to_str().unwrap()];
    world.helm(&args).await.succeeded();
    let operator = finds_the_token(&world, &before).await;

    // Without keep the definition goes, and with it what is not to be retained.
    world.create_token("kept", json!({"secret": {"deletionPolicy": "Retain"}})).await;
    world.ready("kept").await;
    operator.terminate().await;
    world.helm(&["upgrade", "tokens", CHART, "--reuse-values", "--set=crds.keep=false"]).await.succeeded();
    world.helm(&["uninstall", "tokens"]).await.succeeded();
    world.kubectl(&["wait", "--for=delete", "crd", CRD, "--timeout=60s"], None).await.succeeded();
    // It learns of changed definitions only now and then.
    world.cluster.restart_controller_manager().await.unwrap();
    world.kubectl(&["wait", "--for=delete", "secret/flight", "--timeout=60s"], None).await.succeeded();
    world.secrets().get("kept").await.unwrap();
    world.stays_at(2).await;
}

#[tokio::test]
async fn the_notes_say_what_comes_next_in_commands_that_work_as_they_stand() {
    let world = World::new().await;
    let values = json!({"crds": {"enabled": false}, "namespaces": [world.namespace]});
    let said = world.install(CHART, RELEASE, &values).await.succeeded();
    assert!(said.contains(&format!("Next, in the namespace {}:", world.namespace)), "{said}");
    let commands = said.split_once(":\n\nkubectl create").expect("commands").1.split_once("\n\n").expect("their end").0;
    let (written, wait) = commands.rsplit_once("\nkubectl wait").unwrap();
    let kubectl = format!("{} --namespace {}", world.cluster.kubectl_words().unwrap(), world.namespace);
    let script = format!("kubectl() {{ {kubectl} \"$@\"; }}\nkubectl create{written}\n");
    let run = tokio::process::Command::new("sh")
        .args(["-euc", &script])
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .output()
        .await
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let token = wait.rsplit_once(' ').unwrap().1;
    world.kubectl(&["get", token], None).await.succeeded();
    let test = format!("helm test {RELEASE} --namespace {}", world.namespace);
    assert!(said.contains(&test), "{said}");
    world.stays_at(0).await;
}

#[tokio::test]
async fn the_notes_fit_the_values() {
    let world = World::new().await;
    let said = async |more: Value| {
        let mut values = json!({"crds": {"enabled": false}, "namespaces": [world.namespace]});
        testbed::world::merge(&mut values, more);
        world.install(CHART, RELEASE, &values).await.succeeded()
    };
    // A host that the operator may ask.
    for (hosts, host) in [
        (json!(["*.verteil.com"]), "api.stage.verteil.com"),
        (json!(["*"]), "api.stage.verteil.com"),
        (json!(["*.corp.example:8443", "*"]), "api.corp.example:8443"),
        (json!(["*:8443"]), "api.stage.verteil.com:8443"),
        (json!(["tokens.example"]), "tokens.example"),
    ] {
        let notes = said(json!({"allowedIssuerHosts": hosts})).await;
        let url = format!("https://{host}/oauth2/token");
        assert!(notes.contains(&format!("  tokenURL: {url}\n")), "{hosts}: {notes}");
        let allowed = serde_json::from_value::<Vec<String>>(hosts).unwrap();
        let allowed = AllowedHosts::new(allowed.iter().map(|host| host.parse().unwrap()).collect());
        assert!(allowed.allow(&url.parse().unwrap()), "{url}");
        assert!(!notes.contains("token API") && !notes.contains("memory"), "{notes}");
    }
    // Where a token is to be had where no Secret holds it, and by whom.
    let notes = said(with_token_api(json!({}))).await;
    let url = format!("https://{RELEASE}.{}.svc:8443/api/token/NAMESPACE/verteil-token\n", world.namespace);
    let role = format!("--clusterrole={RELEASE}:{}:token\n", world.namespace);
    assert!(notes.contains(&url) && notes.contains(&role) && notes.contains("mounts its Secret"), "{notes}");
    let notes = said(with_token_api(json!({"disableTokenPersistence": true, "replicas": 1}))).await;
    assert!(notes.contains(&url) && notes.contains("memory only") && !notes.contains("its Secret"), "{notes}");
}

#[tokio::test]
async fn a_second_release_of_the_same_name_has_its_own_namespace_roles_and_lease() {
    let cluster = ControlPlane::shared().await;
    let (one, two) = (World::without_role(cluster).await, World::without_role(cluster).await);
    let mut operators = Vec::new();
    for world in [&one, &two] {
        let values = for_tests(json!({"crds": {"enabled": false}, "namespaces": [world.namespace]}));
        world.install(CHART, RELEASE, &values).await.succeeded();
        operators.push(world.operator_of(RELEASE, OPERATOR).await);
    }
    for world in [&one, &two] {
        world.create_token("flight", json!({})).await;
        world.ready("flight").await;
        let lease = world.kubectl(&["get", "lease", RELEASE, "-o", "jsonpath={.spec.holderIdentity}"], None).await;
        assert_ne!(lease.succeeded(), "");
    }
    for (world, operator) in [(&one, &operators[0]), (&two, &operators[1])] {
        world.stays_at(1).await;
        assert_eq!(operator.metric("verteil_token_requests_total{outcome=\"Issued\"}").await, Some(1.0));
    }
    // For all namespaces: names of the whole cluster, which have to differ as well. Nothing runs with these.
    for world in [&one, &two] {
        world.install(CHART, RELEASE, &json!({"crds": {"enabled": false}})).await.succeeded();
    }
    let account = |world: &World| format!("system:serviceaccount:{}:{RELEASE}", world.namespace);
    let may = async |world: &World| {
        let asked = ["auth", "can-i", "list", "secrets", "--all-namespaces", "--as", &account(world)];
        world.kubectl(&asked, None).await.stdout.trim() == "yes"
    };
    assert!(may(&one).await && may(&two).await);
    two.helm(&["uninstall", RELEASE]).await.succeeded();
    eventually("the rights of the second to go", PATIENCE, async || {
        if may(&two).await { Err("it has them".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(may(&one).await, "the first keeps its own");
    one.helm(&["uninstall", RELEASE]).await.succeeded();
}
