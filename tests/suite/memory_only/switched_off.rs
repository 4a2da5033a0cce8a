//! Back to Secrets: what is in memory is saved, and none is requested.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::world::{Operator, PATIENCE, merge};
use testbed::{Signal, World, eventually, plain_http};

use super::{FLAG, given, start};
use crate::OPERATOR;
use crate::token_api::client::{self, TokenApi};

const NAMES: [&str; 3] = ["flight", "kept", "adopted"];

/// Three resources: one whose Secret goes with it, one whose Secret stays, and one whose Secret is its user's.
async fn create_all(world: &World) {
    world.create_token("flight", json!({})).await;
    world.create_token("kept", json!({"secret": {"deletionPolicy": "Retain"}})).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"theirs": "x"},
        "metadata": {"name": "adopted", "annotations": {"verteil.dev/adopt": "adopted"}},
    });
    world.kubectl_apply(&secret.to_string()).await;
    world.create_token("adopted", json!({})).await;
    for name in NAMES {
        world.ready(name).await;
    }
}

async fn put(operator: &Operator, body: &str) -> (u16, Value) {
    let url = format!("http://{}/api/debug/token-persistence", operator.debug());
    let answer = plain_http::exchange("PUT", &url, &[], body).await.unwrap();
    (answer.status, answer.json().unwrap())
}

async fn all_stored(world: &World) {
    for name in NAMES {
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        world.status(name, "its Secret", |s| s.secret_name.as_deref() == Some(name) && s.in_memory.is_none()).await;
        world.ready(name).await;
    }
    assert_eq!(world.secret_key("adopted", "theirs").await, "x");
}

#[tokio::test]
async fn at_run_time_what_is_in_memory_is_saved() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    create_all(&world).await;
    assert_eq!(operator.terminate().await, Some(0));
    // Taken over from Secrets, or issued since.
    let (operator, api) = start(&world, &[]).await;
    let bearer = client::caller(&world, "reader", "*").await;
    for name in NAMES {
        given(&world, &api, &bearer, name).await;
        world.status(name, "its place", |status| status.in_memory == Some(true)).await;
    }
    world.change("kept", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.issuer.wait_for_count(4, PATIENCE).await;
    world.status("kept", "the renewal", |status| status.claim.is_none() && status.tokens_issued == Some(2)).await;
    assert_eq!(put(&operator, "disabled").await.0, 409);
    assert_eq!(put(&operator, "rubbish").await.0, 400);
    assert_eq!(world.secret_key("flight", "access_token").await, "");
    assert_eq!(put(&operator, "enabled").await, (200, json!({"status": "success", "token_persistence": "enabled"})));
    all_stored(&world).await;
    for name in NAMES {
        assert_eq!(given(&world, &api, &bearer, name).await, world.issuer.last_token(name).unwrap());
    }
    operator.kill();
    let _operator = world.operator(OPERATOR, &[]).await;
    world.stays_at(4).await;
    all_stored(&world).await;
}

#[tokio::test]
async fn a_deployment_that_no_longer_asks_for_it_has_them_saved_at_the_end() {
    let world = World::new().await;
    let deployment = Deployment::new(&world, &switch("true")).await;
    let (operator, _) = deployment.start().await;
    create_all(&world).await;
    // As it is, it is lost.
    assert_eq!(operator.terminate().await, Some(0));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    let (operator, _) = deployment.start().await;
    says(&operator, "the Deployment asks for tokens in memory only").await;
    for name in NAMES {
        world.status(name, "another token", |status| status.tokens_issued == Some(2)).await;
        world.ready(name).await;
    }
    deployment.apply(&switch("false")).await;
    let log = operator.process().log_file().to_owned();
    assert_eq!(operator.terminate().await, Some(0));
    for name in NAMES {
        assert_eq!(world.secret_key(name, "access_token").await, world.issuer.last_token(name).unwrap(), "{name}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("saving what is in memory") && !log.contains("could not be saved"), "{log}");
    let _operator = world.operator(OPERATOR, &[]).await;
    all_stored(&world).await;
    world.stays_at(6).await;
    deployment.remove().await;
}

#[tokio::test]
async fn a_switch_that_a_deployment_does_not_show_is_not_taken_for_off() {
    let world = World::new().await;
    // In a script, of which nothing is known at the end either.
    let script = json!({"command": ["sh", "-c", "exec verteil-token-operator $FLAGS"]});
    let deployment = Deployment::new(&world, &script).await;
    let (operator, _) = deployment.start().await;
    says(&operator, "does not say --disable-token-persistence or DISABLE_TOKEN_PERSISTENCE=true literally").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert_eq!(operator.terminate().await, Some(0));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    // Moved to where it does not show.
    deployment.apply(&switch("true")).await;
    let (operator, _) = deployment.start().await;
    says(&operator, "the Deployment asks for tokens in memory only").await;
    world.status("flight", "another token", |status| status.tokens_issued == Some(2)).await;
    world.ready("flight").await;
    deployment.apply(&json!({"envFrom": [{"configMapRef": {"name": "settings"}}]})).await;
    assert_eq!(operator.terminate().await, Some(0));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    deployment.remove().await;
}

#[tokio::test]
async fn the_end_comes_in_time_though_the_apiserver_is_gone() {
    let world = World::new().await;
    let deployment = Deployment::new(&world, &switch("true")).await;
    let (proxy, flag) = (world.proxy(), deployment.flag());
    let (operator, _) = TokenApi::start_behind(&world, &proxy, &[FLAG, &flag]).await;
    says(&operator, "the Deployment asks for tokens in memory only").await;
    // The pass that asks ends late, and no call of the end is answered.
    world.issuer.set_latency(Duration::from_secs(8));
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_for_count(1, PATIENCE).await;
    proxy.cut();
    operator.process().signal(Signal::TERM).unwrap();
    let end = operator.process().wait(GRACE).await;
    assert_eq!(end.and_then(|status| status.code()), Some(0), "{}", operator.log());
    let log = operator.log();
    assert!(log.contains("cannot see in time") && log.contains("saving what is still in memory"), "{log}");
    proxy.mend();
    deployment.remove().await;
}

// --- what the tests are made of

/// A pod's, after which it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// A Deployment that an operator takes for its own, in the namespace of the kubeconfig's context.
struct Deployment<'a> {
    world: &'a World,
    name: String,
}

fn switch(value: &str) -> Value {
    json!({"env": [{"name": "DISABLE_TOKEN_PERSISTENCE", "value": value}]})
}

async fn says(operator: &Operator, words: &str) {
    eventually(&format!("a line of the log: {words}"), PATIENCE, async || {
        let log = operator.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

impl<'a> Deployment<'a> {
    /// With the right to look at it. `container` is merged into its only one.
    async fn new(world: &'a World, container: &Value) -> Self {
        let deployment = Self { world, name: format!("operator-of-{}", world.namespace) };
        let name = &deployment.name;
        let subject = format!("--serviceaccount={}:verteil-token-operator", world.namespace);
        let (role, named) = (format!("--role={name}"), format!("--resource-name={name}"));
        let resource = "--resource=deployments.apps";
        deployment.kubectl(&["create", "role", name, "--verb=get", resource, &named], None).await;
        deployment.kubectl(&["create", "rolebinding", name, &role, &subject], None).await;
        deployment.apply(container).await;
        deployment
    }

    async fn apply(&self, container: &Value) {
        let name = &self.name;
        let mut whole = json!({"name": "operator", "image": "registry.example/operator"});
        merge(&mut whole, container.clone());
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [whole]}},
            },
        });
        self.kubectl(&["apply", "-f", "-"], Some(&deployment.to_string())).await;
    }

    fn flag(&self) -> String {
        format!("--deployment-name={}", self.name)
    }

    async fn start(&self) -> (Operator, TokenApi) {
        start(self.world, &[&self.flag()]).await
    }

    async fn remove(self) {
        let args = ["delete", "deployment,role,rolebinding", &self.name, "--ignore-not-found"];
        self.kubectl(&args, None).await;
    }

    async fn kubectl(&self, args: &[&str], stdin: Option<&str>) {
        self.world.cluster.kubectl(args, stdin).await.unwrap().succeeded();
    }
}
