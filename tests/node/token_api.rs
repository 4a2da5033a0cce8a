//! Pods that mount no Secret, and ask the token API.

use serde_json::{Value, json};
use testbed::node::{CONSUMER, Cluster};
use testbed::{Authority, eventually};

use crate::stage::{PATIENCE, Stage, helm_upgrade};

/// The certificate of the API.
const CERTIFICATE: &str = "token-api-tls";
/// Where a pod has its own token for the API, and the CA.
const FOLDER: &str = "/var/run/token-api";
/// The API's name in the cluster: that of the release's Service.
fn host(cluster: &Cluster) -> String {
    format!("{0}.{0}.svc", cluster.release())
}

/// Switches the API on, with a certificate of `ca` for the release's Service.
async fn switch_on(cluster: &Cluster, ca: &Authority) {
    let certificate = ca.server(&[&host(cluster)]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": CERTIFICATE, "namespace": cluster.release()},
        "stringData": {"tls.crt": certificate.chain_pem(), "tls.key": certificate.key_pem()},
    });
    cluster.kubectl(&["apply", "-f", "-"], Some(&secret.to_string())).await.unwrap().succeeded();
    let named = format!("tokenApi.certificateSecretName={CERTIFICATE}");
    helm_upgrade(cluster, &["--set", "tokenApi.enabled=true", "--set", &named]).await;
}

async fn switch_off(cluster: &Cluster) {
    helm_upgrade(cluster, &[]).await;
    let delete = ["delete", "secret", CERTIFICATE, "--namespace", cluster.release()];
    cluster.kubectl(&delete, None).await.unwrap().succeeded();
}

/// A pod under an account of its own name, which asks for the token of `flight`.
fn asker(stage: &Stage, name: &str) -> [Value; 2] {
    let url = format!("https://{}:8443/api/token/{}/flight", host(stage.cluster), stage.namespace);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "app",
                "image": CONSUMER,
                "env": [
                    {"name": "TOKEN_API", "value": FOLDER},
                    {"name": "TOKEN_API_URL", "value": url},
                ],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "token-api", "mountPath": FOLDER, "readOnly": true}],
            }],
            "volumes": [{"name": "token-api", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "verteil-token-operator"}},
                {"configMap": {"name": "token-api-ca"}},
            ]}}],
        },
    });
    [account, pod]
}

/// What the API answers to a pod: status code and body.
async fn answer(stage: &Stage, name: &str) -> (u64, Value) {
    let ready = format!("pod/{name}");
    stage.kubectl(&["wait", "--for=condition=Ready", &ready, "--timeout=110s"]).await;
    let pod = stage.pods(name).await.remove(0);
    eventually(&format!("an answer of the token API to {name}"), PATIENCE, async || {
        let answer: Value = serde_json::from_str(&stage.ask(&pod, "api").await?).map_err(|error| error.to_string())?;
        let status = answer["status"].as_u64().unwrap_or_default();
        let body = answer["body"].as_str().unwrap_or_default();
        Ok((status, serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?))
    })
    .await
}

#[tokio::test]
async fn a_pod_that_may_gets_the_token_of_the_secret_and_another_gets_nothing() {
    let Some(stage) = Stage::alone("token-api").await else { return };
    let ca = Authority::new("token-api");
    switch_on(stage.cluster, &ca).await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "token-api-ca"}, "data": {"ca.crt": ca.pem()}});
    // The chart's role for those who may get tokens.
    let role = format!("{0}:{0}:token", stage.cluster.release());
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "tokens"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "may", "namespace": stage.namespace}],
    });
    stage.apply(&[config, binding]).await;
    stage.create(&stage.token("flight", json!({}))).await;
    stage.ready("flight").await;
    let pods = ["may", "may-not"].map(|name| asker(&stage, name));
    stage.apply(pods.as_flattened()).await;

    let (status, body) = answer(&stage, "may").await;
    assert_eq!((status, body["access_token"].as_str()), (200, Some(stage.stored("flight").await.as_str())), "{body}");
    assert!((1..=43199).contains(&body["expires_in"].as_i64().unwrap()), "{body}");
    let (status, body) = answer(&stage, "may-not").await;
    assert_eq!((status, body["status"].as_u64(), body.get("access_token")), (403, Some(403), None), "{body}");

    stage.stays_at(1).await;
    switch_off(stage.cluster).await;
    stage.stays_at(1).await;
    stage.close().await;
}
