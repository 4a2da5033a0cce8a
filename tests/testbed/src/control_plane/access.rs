//! Ways into the cluster: clients, kubeconfigs, kubectl, Helm.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::components::write;
use super::{ControlPlane, Setup};
use crate::binaries::{Component, helm};

/// A server on the same machine accepts at once or not at all; a frozen one does accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without it a call to a frozen server would hang for ever. Above the minute between two bookmarks of a quiet watch.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// For one run of a program, above the timeouts of its own waits in tests.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// What a run of kubectl or Helm has left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

// === impl Output ===

impl Output {
    /// What it printed; fails the test if it failed.
    #[expect(clippy::must_use_candidate, reason = "often all that matters is that it did not fail")]
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.status.success(), "it failed ({}): {}{}", self.status, self.stderr, self.stdout);
        self.stdout
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// `https://127.0.0.1:<port>`, the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.setup.url()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.setup.kubeconfig
    }

    /// A kubeconfig that acts as `user` in `groups` (and `system:authenticated`, which every user is in), by
    /// impersonation. For a service account: `system:serviceaccount:<namespace>:<name>` in `system:serviceaccounts` and
    /// `system:serviceaccounts:<namespace>`.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let number = self.setup.kubeconfigs.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.setup.dir.path().join(format!("kubeconfig-{number}"));
        write(&path, &kubeconfig(&self.setup, &self.setup.admin_token, Some((user, groups))).to_string())?;
        Ok(path)
    }

    /// A kubeconfig with this bearer token, such as one of a ServiceAccount, for `namespace`.
    pub fn kubeconfig_with_token(&self, token: &str, namespace: &str) -> anyhow::Result<PathBuf> {
        let number = self.setup.kubeconfigs.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.setup.dir.path().join(format!("kubeconfig-{number}"));
        let mut config = kubeconfig(&self.setup, token, None);
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
        write(&path, &config.to_string())?;
        Ok(path)
    }

    /// The administrator's client configuration: no retries behind a test's back, and every call ends.
    #[must_use]
    pub fn client_config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.url().parse().expect("a valid URL"));
        config.root_cert = Some(vec![self.setup.pki.ca_der.clone()]);
        config.auth_info.token = Some(self.setup.admin_token.clone().into());
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        config.default_retry = false;
        config
    }

    /// A new client of the administrator, for the runtime it is made in.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::try_from(self.client_config()).expect("a configuration without surprises makes a client")
    }

    /// The words that run this control plane's kubectl in a shell.
    pub fn kubectl_words(&self) -> anyhow::Result<String> {
        let tool = self.setup.binaries.tool(Component::Kubectl)?;
        let program = tool.program.display().to_string();
        Ok(std::iter::once(program).chain(tool.first_args).collect::<Vec<_>>().join(" "))
    }

    /// Runs kubectl as the administrator, with `stdin` if given (for `apply -f -`). `--kubeconfig` among `args` makes
    /// it somebody else.
    pub async fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> anyhow::Result<Output> {
        let tool = self.setup.binaries.tool(Component::Kubectl)?;
        run(&tool.program, &tool.args(args.iter().copied()), self.kubeconfig(), self.setup.dir.path(), stdin).await
    }

    /// Runs Helm as the administrator. The first time it may be built, which takes some minutes.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<Output> {
        let helm = tokio::task::spawn_blocking(helm).await??;
        run(&helm, args, self.kubeconfig(), self.setup.dir.path(), None).await
    }
}

/// Runs a program to its end, with `stdin` if given.
pub(crate) async fn run(
    program: &Path,
    args: &[&str],
    kubeconfig: &Path,
    home: &Path,
    stdin: Option<&str>,
) -> anyhow::Result<Output> {
    let mut process = tokio::process::Command::new(program)
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        // Its cache goes where everything of the cluster is, and no preferences of a person come in.
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut input = process.stdin.take().context("no pipe to the program")?;
    let output = tokio::time::timeout(RUN_TIMEOUT, async {
        let feed = async {
            // It may end without reading; then its own words say why.
            input.write_all(stdin.unwrap_or_default().as_bytes()).await.ok();
            drop(input);
        };
        tokio::join!(feed, process.wait_with_output()).1
    })
    .await
    .with_context(|| format!("{} {args:?} has not ended after {RUN_TIMEOUT:?}", program.display()))??;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

// === impl Setup ===

impl Setup {
    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver_port)
    }
}

/// A kubeconfig in JSON, which is YAML: nothing in it needs quoting rules of our own.
pub(super) fn kubeconfig(setup: &Setup, token: &str, impersonated: Option<(&str, &[&str])>) -> Value {
    let mut user = json!({"token": token});
    if let Some((name, groups)) = impersonated {
        user["as"] = json!(name);
        user["as-groups"] = json!(groups);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {
            "server": setup.url(),
            "certificate-authority-data": BASE64_STANDARD.encode(&setup.pki.ca),
        }}],
        "users": [{"name": "testbed", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
        "current-context": "testbed",
    })
}
