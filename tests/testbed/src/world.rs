//! One test's world: a namespace of its own in the shared control plane, an issuer, and operators under test.

mod explain;
mod in_process;
mod operator;
mod release;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use verteil_token_operator::api::{VerteilToken, VerteilTokenStatus, crd};
use verteil_token_operator::decide::condition;

pub use explain::print_explained;
pub use in_process::{InProcess, TestClock};
pub use operator::{Operator, OperatorFlags, kubeconfig, role};
pub use release::CHART;

use crate::{ControlPlane, Issuer, eventually};

/// Long enough for a busy machine; no test learns anything by failing earlier.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a test watches that nothing more happens.
pub const QUIET: Duration = Duration::from_secs(3);
/// User name of every world's credentials. A canary: it may be seen nowhere but in its Secret.
pub const USERNAME: &str = "canary-username-4711";
/// Password of every world's credentials.
pub const PASSWORD: &str = "canary-password-0815";

static WORLDS: AtomicUsize = AtomicUsize::new(0);

/// A namespace, an issuer, and the means to look at them.
pub struct World {
    /// The apiserver and its neighbours.
    pub cluster: &'static ControlPlane,
    /// The administrator.
    pub client: Client,
    /// This test's own.
    pub namespace: String,
    /// The token endpoint.
    pub issuer: Issuer,
    /// Folder of the logs and files.
    dir: tempfile::TempDir,
}

// === impl World ===

impl World {
    /// A world with the CRD installed, the operator's role bound, and a Secret `credentials`.
    pub async fn new() -> Self {
        Self::in_cluster(ControlPlane::shared().await).await
    }

    /// The same in a control plane of the test's own.
    pub async fn in_cluster(cluster: &'static ControlPlane) -> Self {
        let world = Self::without_role(cluster).await;
        world.kubectl_apply(&role(&world.namespace)).await;
        world
    }

    /// The same without the role: a chart brings it.
    pub async fn without_role(cluster: &'static ControlPlane) -> Self {
        install_crd(cluster, &cluster.client()).await;
        Self::bare(cluster).await
    }

    /// The same without the CRD and the role: a chart brings both.
    pub async fn bare(cluster: &'static ControlPlane) -> Self {
        let client = cluster.client();
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("world-{}-{number}", std::process::id());
        let object = Namespace {
            metadata: kube::core::ObjectMeta { name: Some(namespace.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.expect("a namespace");
        let world = Self {
            cluster,
            client,
            namespace,
            issuer: Issuer::start().expect("an issuer"),
            dir: tempfile::tempdir().expect("a folder"),
        };
        world.set_credentials("credentials", USERNAME, PASSWORD).await;
        world
    }

    /// A file with this content, which goes with the world.
    #[must_use]
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// `kubectl apply -f -` in this namespace; fails the test if it fails.
    pub async fn kubectl_apply(&self, manifest: &str) -> String {
        self.kubectl(&["apply", "-f", "-"], Some(manifest)).await.succeeded()
    }

    /// kubectl in this namespace.
    pub async fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> crate::control_plane::Output {
        let args: Vec<&str> = ["--namespace", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.cluster.kubectl(&args, stdin).await.expect("kubectl runs")
    }

    /// Helm in this namespace.
    pub async fn helm(&self, args: &[&str]) -> crate::control_plane::Output {
        let args: Vec<&str> = ["--namespace", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.cluster.helm(&args).await.expect("Helm runs")
    }

    /// Writes a credentials Secret, new or not.
    pub async fn set_credentials(&self, name: &str, username: &str, password: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"username": username, "password": password},
        });
        let params = PatchParams::apply("test").force();
        self.secrets().patch(name, &params, &Patch::Apply(&secret)).await.expect("credentials");
    }

    /// A minimal resource: its own token URL, the Secret `credentials`. `spec` is merged into it.
    #[must_use]
    pub fn token(&self, name: &str, spec: Value) -> Value {
        let mut token = json!({
            "apiVersion": "verteil.dev/v1alpha1",
            "kind": "VerteilToken",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"tokenURL": self.issuer.url_for(name), "credentialsSecretRef": {"name": "credentials"}},
        });
        merge(&mut token["spec"], spec);
        token
    }

    /// Creates a resource.
    pub async fn create(&self, token: &Value) -> VerteilToken {
        let token = serde_json::from_value(token.clone()).expect("a VerteilToken");
        self.tokens().create(&PostParams::default(), &token).await.expect("admitted")
    }

    /// Creates a minimal resource with `spec` merged into it.
    pub async fn create_token(&self, name: &str, spec: Value) -> VerteilToken {
        self.create(&self.token(name, spec)).await
    }

    /// Merges `change` into a resource.
    pub async fn change(&self, name: &str, change: Value) -> VerteilToken {
        self.tokens().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("changed")
    }

    /// Merges `change` into a Secret.
    pub async fn change_secret(&self, name: &str, change: Value) {
        self.secrets().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("changed");
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, name: &str) {
        self.secrets().delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    /// The resources of this namespace.
    #[must_use]
    pub fn tokens(&self) -> Api<VerteilToken> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Secrets of this namespace.
    #[must_use]
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a resource is Ready for its present generation, and returns its status.
    pub async fn ready(&self, name: &str) -> VerteilTokenStatus {
        self.condition(name, "Ready", "True", "").await
    }

    /// Waits until a condition has this status and, unless empty, this reason.
    pub async fn condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> VerteilTokenStatus {
        let what = format!("{type_}={status} {reason} of {}/{name}", self.namespace);
        eventually(&what, PATIENCE, async || {
            let token = self.tokens().get(name).await.map_err(|e| e.to_string())?;
            let now = token.status.unwrap_or_default();
            let current = now.observed_generation == token.metadata.generation;
            match condition(&now, type_) {
                Some(c) if current && c.status == status && (reason.is_empty() || c.reason == reason) => Ok(now),
                found => Err(format!("{found:?}, generation current: {current}")),
            }
        })
        .await
    }

    /// Waits until the status satisfies `check`, which says what it misses.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&VerteilTokenStatus) -> bool,
    ) -> VerteilTokenStatus {
        eventually(&format!("{what} in the status of {}/{name}", self.namespace), PATIENCE, async || {
            let token = self.tokens().get(name).await.map_err(|e| e.to_string())?;
            let status = token.status.unwrap_or_default();
            if check(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// A key of a Secret, as text; empty if there is none.
    pub async fn secret_key(&self, secret: &str, key: &str) -> String {
        let secret = self.secrets().get_opt(secret).await.expect("readable");
        let bytes = secret.and_then(|s| s.data?.get(key).cloned()).map(|b| b.0).unwrap_or_default();
        String::from_utf8(bytes).expect("text")
    }

    /// Waits until the Secret's token is `token`.
    pub async fn stores(&self, secret: &str, token: &str) {
        eventually(&format!("Secret {secret} with the token last issued"), PATIENCE, async || {
            let stored = self.secret_key(secret, "access_token").await;
            if stored == token { Ok(()) } else { Err(format!("it holds {stored}")) }
        })
        .await;
    }

    /// Asserts that the issuer has `count` requests, and gets no more while the world stays as it is.
    pub async fn stays_at(&self, count: usize) {
        crate::never("another token request", QUIET, async || match self.issuer.count() {
            now if now == count => Ok(()),
            now => Err(format!("{now} requests instead of {count}:\n{}", self.issuer.log())),
        })
        .await;
    }
}

/// Merges `change` into `value`, objects deeply.
pub fn merge(value: &mut Value, change: Value) {
    match (value, change) {
        (Value::Object(value), Value::Object(change)) => {
            for (key, change) in change {
                merge(value.entry(key).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change,
    }
}

async fn install_crd(cluster: &ControlPlane, client: &Client) {
    // The shared control plane gets it once; one of a test's own is another matter, and applying twice does no harm.
    static INSTALLED: OnceCell<String> = OnceCell::const_new();
    if INSTALLED.get().is_some_and(|url| *url == cluster.url()) {
        return;
    }
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let crd = crd();
    let name = crd.metadata.name.clone().expect("a name");
    let params = PatchParams::apply("testbed").force();
    api.patch(&name, &params, &Patch::Apply(&crd)).await.expect("the CRD is accepted");
    let established = await_condition(api, &name, conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.expect("in time").expect("the CRD is established");
    INSTALLED.set(cluster.url()).ok();
}
