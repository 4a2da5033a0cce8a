//! One test's stage: a namespace with an issuer in it, beside the release of the operator that all tests share.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::node::{Cluster, LABEL, OPERATOR, cluster};
use testbed::world::{PASSWORD, QUIET, USERNAME, merge, print_explained};
use testbed::{Authority, Issuer, eventually};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};
use verteil_token_operator::api::{VerteilToken, VerteilTokenStatus};
use verteil_token_operator::decide::condition;

/// Pods on a busy machine are slow to start.
pub const PATIENCE: Duration = Duration::from_secs(110);
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/verteil-token-operator");

/// Held for writing by a test that restarts what all share.
static TURN: RwLock<()> = RwLock::const_new(());
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// A namespace with an issuer.
pub struct Stage {
    pub cluster: &'static Cluster,
    pub client: Client,
    pub namespace: String,
    pub issuer: Issuer,
    _turn: Turn,
}

#[expect(dead_code, reason = "held, not read")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

// === impl Stage ===

impl Stage {
    /// A stage beside those of other tests; none without a cluster.
    pub async fn beside_others(name: &str) -> Option<Self> {
        let cluster = cluster().await?;
        Some(Self::open(cluster, name, Turn::Shared(TURN.read().await)).await)
    }

    /// A stage for a test that restarts what others use.
    pub async fn alone(name: &str) -> Option<Self> {
        let cluster = cluster().await?;
        Some(Self::open(cluster, name, Turn::Alone(TURN.write().await)).await)
    }

    async fn open(cluster: &'static Cluster, name: &str, turn: Turn) -> Self {
        INSTALLED.get_or_init(|| install(cluster)).await;
        // Another one in each run, for a cluster that outlives it.
        let namespace = format!("verteil-e2e-{name}-{}", std::process::id());
        restricted(cluster, &namespace).await;
        let (host, ca) = (host(&namespace), Authority::new("corp"));
        let (issuer, address) = cluster.issuer(&ca.server(&[&host])).expect("an issuer");
        let client = cluster.client().await.expect("a client");
        let stage = Self { cluster, client, namespace, issuer, _turn: turn };
        let ca = ca.pem();
        stage
            .apply(&[
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "issuer"},
                    "spec": {"ports": [{"port": 443, "name": "https"}]}}),
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": "issuer", "labels": {"kubernetes.io/service-name": "issuer"}},
                    "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
                    "ports": [{"port": stage.issuer.port(), "name": "https"}]}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca.crt": ca}}),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"},
                    "stringData": {"username": USERNAME, "password": PASSWORD}}),
            ])
            .await;
        stage
    }

    /// Removes the namespace, at the end of a test that has passed. That of one that fails is looked at first.
    pub async fn close(self) {
        let args = ["delete", "namespace", &self.namespace, "--wait=false"];
        self.cluster.kubectl(&args, None).await.expect("kubectl runs").succeeded();
    }

    /// `kubectl apply` in this namespace.
    pub async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let list = list.to_string();
        let args = ["apply", "-n", &self.namespace, "-f", "-"];
        let applied = self.cluster.kubectl(&args, Some(&list)).await.expect("kubectl runs");
        // Pod Security only warns of what no pod is made of yet.
        assert_eq!(applied.stderr, "");
        applied.succeeded();
    }

    /// kubectl in this namespace; fails the test if it fails.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["--namespace", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.cluster.kubectl(&args, None).await.expect("kubectl runs").succeeded()
    }

    /// A VerteilToken with `spec` merged into it.
    pub fn token(&self, name: &str, spec: Value) -> Value {
        let mut token = json!({
            "apiVersion": "verteil.dev/v1alpha1",
            "kind": "VerteilToken",
            "metadata": {"name": name},
            "spec": {
                "tokenURL": format!("https://{}/t/{name}/oauth2/token", host(&self.namespace)),
                "credentialsSecretRef": {"name": "credentials"},
                "caBundleRef": {"kind": "ConfigMap", "name": "corp-ca"},
            },
        });
        merge(&mut token["spec"], spec);
        token
    }

    /// Waits until a VerteilToken is Ready.
    pub async fn ready(&self, name: &str) -> VerteilTokenStatus {
        let tokens: Api<VerteilToken> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually(&format!("Ready of {name}"), PATIENCE, async || {
            let token = tokens.get(name).await.map_err(|error| error.to_string())?;
            let status = token.status.unwrap_or_default();
            match condition(&status, "Ready") {
                Some(ready) if ready.status == "True" => Ok(status),
                found => Err(format!("{found:?}")),
            }
        })
        .await
    }

    /// The pods of an app that are not on their way out.
    pub async fn pods(&self, app: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let list = pods.list(&ListParams::default().labels(&format!("app={app}"))).await.expect("pods");
        list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// What a Secret holds now under `access_token`.
    pub async fn stored(&self, secret: &str) -> String {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let data = secrets.get(secret).await.expect("a Secret").data.unwrap_or_default();
        String::from_utf8(data["access_token"].0.clone()).expect("text")
    }

    /// Creates a VerteilToken.
    pub async fn create(&self, token: &Value) {
        let tokens: Api<VerteilToken> = Api::namespaced(self.client.clone(), &self.namespace);
        let token = serde_json::from_value(token.clone()).expect("a VerteilToken");
        tokens.create(&PostParams::default(), &token).await.expect("admitted");
    }

    /// Asserts that the issuer has `count` requests, and gets no more.
    pub async fn stays_at(&self, count: usize) {
        testbed::never("another token request", QUIET, async || match self.issuer.count() {
            now if now == count => Ok(()),
            now => Err(format!("{now} requests instead of {count}:\n{}", self.issuer.log())),
        })
        .await;
    }

    async fn explain(&self) -> String {
        let (mut parts, release) = (Vec::new(), self.cluster.release());
        let selector = format!("app.kubernetes.io/instance={release}");
        for args in [
            &["get", "verteiltokens", "-o", "yaml", "-n", &self.namespace][..],
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["logs", "-n", release, "-l", &selector, "--prefix", "--tail=50"],
        ] {
            let output = self.cluster.kubectl(args, None).await.expect("kubectl runs");
            parts.push(format!("--- kubectl {}\n{}{}", args.join(" "), output.stdout, output.stderr));
        }
        parts.push(format!("--- issuer\n{}", self.issuer.log()));
        parts.extend(self.cluster.node().map(testbed::node::Node::logs));
        parts.join("\n\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_explained(&format!("stage {}", self.namespace), || self.explain());
        }
    }
}

/// `helm upgrade --install` of the chart in this repository with the image of this repository, waiting until its pods
/// are Ready.
pub async fn helm_upgrade(cluster: &Cluster, more: &[&str]) {
    let (repository, tag) = OPERATOR.rsplit_once(':').expect("name and tag");
    let (repository, tag) = (format!("image.repository={repository}"), format!("image.tag={tag}"));
    let release = cluster.release();
    let mut args = vec!["upgrade", "--install", release, CHART, "--namespace", release, "--wait", "--timeout=110s"];
    args.extend(["--set", &repository, "--set", &tag, "--set", "allowedIssuerHosts={*.svc}"]);
    args.extend(["--set", "rolloutRestart=true", "--set", "replicas=2"]);
    args.extend(more);
    cluster.helm(&args).await.expect("Helm runs").succeeded();
}

async fn install(cluster: &'static Cluster) {
    restricted(cluster, cluster.release()).await;
    helm_upgrade(cluster, &[]).await;
}

/// A namespace in which only pods run that the Pod Security level `restricted` lets in.
async fn restricted(cluster: &Cluster, name: &str) {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
        LABEL: cluster.release(),
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let applied = cluster.kubectl(&["apply", "-f", "-"], Some(&namespace.to_string())).await.expect("kubectl runs");
    applied.succeeded();
    let account = ["wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=60s"];
    cluster.kubectl(&account, None).await.expect("kubectl runs").succeeded();
}

/// The issuer's name in pods of the whole cluster, which is completed by their search list.
fn host(namespace: &str) -> String {
    format!("issuer.{namespace}.svc")
}
