//! Pods that use a token, in the three ways there are.

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::eventually;
use testbed::node::CONSUMER;

use crate::stage::{PATIENCE, Stage};

/// Where the file-based original looks.
const FOLDER: &str = "/tmp/flight_app_tokens";

/// How a pod gets the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The Secret as a volume.
    Volume,
    /// The Secret in a projected volume.
    Projected,
    /// One key in a variable.
    Variable,
}

/// A content that a pod's file has had.
#[derive(Debug, Deserialize)]
pub struct Sight {
    /// When it was first seen, in unix milliseconds.
    pub at: i64,
    /// The file.
    pub content: String,
}

// === impl By ===

impl By {
    pub const ALL: [Self; 3] = [Self::Volume, Self::Projected, Self::Variable];

    /// The name of its Deployment.
    pub const fn app(self) -> &'static str {
        match self {
            Self::Volume => "by-volume",
            Self::Projected => "by-projected-volume",
            Self::Variable => "by-variable",
        }
    }

    /// A Deployment whose pods use the Secret's token.
    pub fn deployment(self, secret: &str, replicas: usize) -> Value {
        let (file, key) = (format!("{FOLDER}/verteil_token.json"), json!({"name": secret, "key": "access_token"}));
        let mut container = json!({
            "name": "app",
            "image": CONSUMER,
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        // What belongs to root is read through the group.
        let volume = match self {
            Self::Volume => json!({"secret": {"secretName": secret, "defaultMode": 0o400}}),
            Self::Projected => json!({"projected": {"defaultMode": 0o400, "sources": [{"secret": {"name": secret}}]}}),
            Self::Variable => Value::Null,
        };
        let mut volumes = json!([]);
        if volume.is_null() {
            container["env"] = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": key}}]);
        } else {
            container["env"] = json!([{"name": "TOKEN_FILE", "value": file}]);
            container["volumeMounts"] = json!([{"name": "token", "mountPath": FOLDER, "readOnly": true}]);
            volumes = json!([volume]);
            volumes[0]["name"] = "token".into();
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.app()},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": self.app()}},
                "template": {
                    "metadata": {"labels": {"app": self.app()}},
                    "spec": {
                        "terminationGracePeriodSeconds": 5,
                        "automountServiceAccountToken": false,
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [container],
                        "volumes": volumes,
                    },
                },
            },
        })
    }
}

// === impl Stage ===

impl Stage {
    /// Deployments of all three ways, `replicas` pods each.
    pub async fn deploy(&self, secret: &str, replicas: usize) {
        self.apply(&By::ALL.map(|by| by.deployment(secret, replicas))).await;
    }

    /// Waits until a Deployment's rollout is complete, and returns its pods.
    pub async fn rolled_out(&self, by: By) -> Vec<Pod> {
        self.kubectl(&["rollout", "status", &format!("deployment/{}", by.app()), "--timeout=110s"]).await;
        self.pods(by.app()).await
    }

    /// Waits until every pod of all three Deployments, `replicas` each, is Ready and uses `token`.
    pub async fn all_use(&self, token: &str, replicas: usize) {
        for by in By::ALL {
            let what = format!("{replicas} pods {} with the token", by.app());
            eventually(&what, PATIENCE, async || {
                let pods = self.rolled_out(by).await;
                if pods.len() != replicas {
                    return Err(format!("{} pods", pods.len()));
                }
                for pod in &pods {
                    let used = self.used(by, pod).await?;
                    if used != token {
                        return Err(format!("{} uses {used}", pod.name_any()));
                    }
                }
                Ok(())
            })
            .await;
        }
    }

    /// The token that a pod uses now.
    pub async fn used(&self, by: By, pod: &Pod) -> Result<String, String> {
        match by {
            By::Variable => self.ask(pod, "env").await,
            By::Volume | By::Projected => self.ask(pod, "file").await.map(|file| token_in(&file)),
        }
    }

    /// What a pod's file has been, from the first.
    pub async fn seen(&self, pod: &Pod) -> Result<Vec<Sight>, String> {
        serde_json::from_str(&self.ask(pod, "seen").await?).map_err(|error| error.to_string())
    }

    /// GET at a pod, by way of the apiserver.
    pub async fn ask(&self, pod: &Pod, path: &str) -> Result<String, String> {
        let (namespace, name) = (&self.namespace, pod.name_any());
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/{path}");
        let request = Request::get(uri).body(Vec::new()).expect("a request");
        self.client.request_text(request).await.map_err(|error| error.to_string())
    }
}

/// The token in `verteil_token.json`.
pub fn token_in(file: &str) -> String {
    let record: Value = serde_json::from_str(file).expect("JSON");
    record["access_token"].as_str().expect("a token").to_owned()
}
