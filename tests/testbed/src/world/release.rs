//! The chart: what it renders, and its operator as a process where there is no node for its pods.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use kube::Api;
use serde_json::Value;

use super::operator::OPERATORS;
use super::{Operator, World};
use crate::control_plane::Output;
use crate::ports::free_port;

/// The chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/verteil-token-operator");
/// Flags that name a place in a pod: on this machine other operators listen as well.
const PLACES: [&str; 2] = ["--http-listen=", "--token-api-listen="];
/// The oldest apiserver that the chart is for. A Helm that Go has built knows of none, and takes 1.20.
const KUBE_VERSION: &str = "--kube-version=1.33.0";

// === impl World ===

impl World {
    /// What `chart` renders with `values`, hooks included; what Helm says if it refuses.
    pub async fn render(&self, chart: &str, release: &str, values: &Value) -> Result<Vec<Value>, String> {
        let values = self.values(release, values);
        let output = self.helm(&["template", release, chart, KUBE_VERSION, &values]).await;
        if !output.status.success() {
            return Err(output.stderr);
        }
        let objects: Vec<Value> = serde_saphyr::from_multiple(&output.stdout).map_err(|error| error.to_string())?;
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// `helm lint --strict`.
    pub async fn lint(&self, chart: &str, values: &Value) -> Output {
        let values = self.values("lint", values);
        self.helm(&["lint", "--strict", chart, KUBE_VERSION, &values]).await
    }

    /// `helm upgrade --install` in this namespace, without waiting for pods: no node would run them.
    pub async fn install(&self, chart: &str, release: &str, values: &Value) -> Output {
        let values = self.values(release, values);
        self.helm(&["upgrade", "--install", release, chart, &values]).await
    }

    /// Starts `program` as the Deployment of this name would: its arguments and variables, and the token of its account.
    pub async fn operator_of(&self, deployment: &str, program: impl AsRef<Path>) -> Operator {
        let operator = self.start_operator_of(deployment, program).await;
        operator.wait_until_ready().await;
        operator
    }

    /// The same, and does not wait.
    pub async fn start_operator_of(&self, deployment: &str, program: impl AsRef<Path>) -> Operator {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = deployments.get(deployment).await.expect("a Deployment").spec.expect("a spec");
        let pod = spec.template.spec.expect("a pod");
        let account = pod.service_account_name.as_deref().expect("an account");
        let token = self.kubectl(&["create", "token", account, "--duration=1h"], None).await.succeeded();
        let kubeconfig = self.cluster.kubeconfig_with_token(token.trim(), &self.namespace).expect("a kubeconfig");
        let container = &pod.containers[0];
        let variables = container.env.iter().flatten();
        let mut env: Vec<(&str, &str)> =
            variables.map(|v| (v.name.as_str(), v.value.as_deref().expect("a plain value"))).collect();
        if !env.iter().any(|(name, _)| *name == "NO_PROXY") {
            env.push(("NO_PROXY", "127.0.0.1"));
        }
        let addresses = [0; 2].map(|_| format!("127.0.0.1:{}", free_port().expect("a port")));
        let is_place = |arg: &&String| PLACES.iter().any(|flag| arg.starts_with(flag));
        let told = container.args.iter().flatten();
        let mut args: Vec<String> = told.clone().filter(|arg| !is_place(arg)).cloned().collect();
        args.push(format!("{}{}", PLACES[0], addresses[0]));
        args.push(format!("--debug-listen={}", addresses[1]));
        let token_api = told.clone().any(|arg| arg.starts_with(PLACES[1])).then(|| {
            let address = format!("127.0.0.1:{}", free_port().expect("a port"));
            args.push(format!("{}{address}", PLACES[1]));
            address
        });
        let number = OPERATORS.fetch_add(1, Ordering::Relaxed);
        if token_api.is_some() {
            let folder = self.mounted(&pod, number).await;
            for (flag, file) in [("cert", "tls.crt"), ("key", "tls.key")] {
                args.push(format!("--token-api-{flag}={}", folder.join(file).display()));
            }
        }
        let log = self.dir.path().join(format!("operator-{number}.log"));
        Operator::start_as_told(&kubeconfig, program.as_ref(), &args, &env, (addresses, token_api), &log)
            .expect("the operator starts")
    }

    /// A folder with what the Secret holds that the pod mounts first, as a kubelet would make it.
    async fn mounted(&self, pod: &PodSpec, number: usize) -> PathBuf {
        let volume = pod.volumes.iter().flatten().find_map(|volume| volume.secret.as_ref()).expect("a Secret");
        let name = volume.secret_name.as_deref().expect("its name");
        let folder = self.dir.path().join(format!("mounted-{number}"));
        std::fs::create_dir(&folder).expect("a folder");
        for (file, content) in self.secrets().get(name).await.expect("the Secret").data.expect("its content") {
            std::fs::write(folder.join(file), content.0).expect("a file");
        }
        folder
    }

    fn values(&self, release: &str, values: &Value) -> String {
        static FILES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        // JSON is YAML.
        let path = self.file(&format!("values-{release}-{number}.yaml"), &values.to_string());
        format!("--values={}", path.display())
    }
}
