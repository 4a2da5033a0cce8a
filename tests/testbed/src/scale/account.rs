//! The operator's ServiceAccount in a namespace, with the rights of the chart's Role.

use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Config};
use verteil_token_operator::client;

use crate::ControlPlane;
use crate::world::role;

const NAME: &str = "verteil-token-operator";
/// Longer than any run takes.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// Somebody who shows a token of a ServiceAccount, as the operator does in a pod.
pub(super) struct Account {
    config: Config,
    /// For a process.
    pub(super) kubeconfig: PathBuf,
}

// === impl Account ===

impl Account {
    /// Makes it in a namespace that is there.
    pub(super) async fn new(cluster: &ControlPlane, namespace: &str) -> anyhow::Result<Self> {
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), namespace);
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..Default::default() };
        accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..Default::default() }).await?;
        let applied = cluster.kubectl(&["apply", "--namespace", namespace, "-f", "-"], Some(&role(namespace))).await?;
        anyhow::ensure!(applied.status.success(), "{}", applied.stderr);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = accounts.create_token_request(NAME, &PostParams::default(), &request).await?;
        let token = answer.status.context("no token")?.token;
        let kubeconfig = cluster.kubeconfig_with_token(&token, namespace)?;
        let mut config = cluster.client_config();
        config.auth_info.token = Some(token.into());
        Ok(Self { config, kubeconfig })
    }

    /// Its name for the apiserver, in `namespace`.
    pub(super) fn user(namespace: &str) -> String {
        format!("system:serviceaccount:{namespace}:{NAME}")
    }

    /// A client like the operator's own.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        client::client(self.config.clone())
    }
}
