//! Where the demo happens: control plane, issuer, operator.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use verteil_token_operator::api::{VerteilToken, VerteilTokenStatus};

use super::say;
use crate::process::ScratchDir;
use crate::world::{Operator, kubeconfig, role};
use crate::{ControlPlane, Issuer, Options};

/// Where the resources are. Kubectl's own default, so that commands need no flag.
pub(super) const NAMESPACE: &str = "default";
/// Long enough for a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long the issuer is watched for a request that must not come.
const QUIET: Duration = Duration::from_secs(1);
const CRD: &str = "crds/verteiltokens.verteil.dev.yaml";
pub(super) const USERNAME: &str = "flight-search";
pub(super) const PASSWORD: &str = "correct horse battery staple";

/// How an operator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
}

/// All that runs.
pub(super) struct Stage {
    // In the order of their ends.
    pub(super) operator: Option<Operator>,
    pub(super) issuer: Issuer,
    pub(super) cluster: ControlPlane,
    /// How often an operator was started after another one had ended.
    pub(super) restarts: usize,
    program: PathBuf,
    /// The operator's.
    kubeconfig: PathBuf,
    dir: ScratchDir,
}

// === impl Stage ===

impl Stage {
    /// A control plane with the CRD and the operator's role, and an issuer. No operator yet.
    pub(super) async fn build(program: PathBuf) -> anyhow::Result<Self> {
        say::step("Start etcd, kube-apiserver and kube-controller-manager on loopback ports");
        let start = Instant::now();
        let cluster = ControlPlane::start(Options::default()).await?;
        say::note(&format!("ready after {:.1} s at {}", start.elapsed().as_secs_f64(), cluster.url()));

        say::step("Start a token issuer that counts its requests; its tokens live for 43199 s");
        let issuer = Issuer::start()?;
        issuer.require(USERNAME, PASSWORD);
        say::note(&format!("POST {}", issuer.url_for("flight")));

        let kubeconfig = kubeconfig(&cluster, NAMESPACE)?;
        let stage = Self { operator: None, issuer, cluster, restarts: 0, program, kubeconfig, dir: ScratchDir::new()? };
        say::step("Install the CustomResourceDefinition, and the chart's rules as the operator's Role");
        let path = format!("{}/../../{CRD}", env!("CARGO_MANIFEST_DIR"));
        say::command(&format!("kubectl apply -f {CRD}"));
        say::output(&stage.run(&["apply", "-f", &path], None).await?);
        let role = format!("{}---\n{}", account(), role(NAMESPACE));
        say::output(&stage.run(&["--namespace", NAMESPACE, "apply", "-f", "-"], Some(&role)).await?);
        stage.kubectl("wait --for=condition=Established crd/verteiltokens.verteil.dev --timeout=60s").await?;
        Ok(stage)
    }

    /// Shows a command, runs it, shows what it prints.
    pub(super) async fn kubectl(&self, words: &str) -> anyhow::Result<()> {
        say::command(&format!("kubectl {words}"));
        say::output(&self.quietly(words).await?);
        Ok(())
    }

    /// Runs kubectl and returns what it prints.
    pub(super) async fn quietly(&self, words: &str) -> anyhow::Result<String> {
        self.run(&words.split_whitespace().collect::<Vec<_>>(), None).await
    }

    /// Shows a manifest and applies it.
    pub(super) async fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        say::command("kubectl apply -f - <<EOF");
        say::output(&format!("{}\nEOF", manifest.trim_end()));
        say::output(&self.run(&["apply", "-f", "-"], Some(manifest)).await?);
        Ok(())
    }

    async fn run(&self, args: &[&str], stdin: Option<&str>) -> anyhow::Result<String> {
        let output = self.cluster.kubectl(args, stdin).await?;
        ensure!(output.status.success(), "kubectl {}: {}{}", args.join(" "), output.stderr, output.stdout);
        Ok(output.stdout)
    }

    /// Starts the operator and waits until it is ready; how long that took.
    pub(super) async fn start_operator(&mut self) -> anyhow::Result<Duration> {
        ensure!(self.operator.is_none(), "an operator runs already");
        let start = Instant::now();
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let operator = Operator::start(&self.kubeconfig, &self.program, NAMESPACE, &flags, &self.log_file())?;
        let operator = self.operator.insert(operator);
        let lives = say::wait("the operator to be ready", PATIENCE, async || match operator.get("/readyz").await {
            Ok((200, _)) => Ok(true),
            _ if !operator.process().is_running() => Ok(false),
            Ok((code, body)) => Err(format!("{code} {body}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await?;
        ensure!(lives, "the operator ended at its start");
        Ok(start.elapsed())
    }

    /// The flags that the demo gives, beside namespace and addresses.
    pub(super) fn flags(&self) -> [String; 2] {
        let host = self.issuer.base_url().replace("http://", "");
        ["--allow-http".to_owned(), format!("--allowed-issuer-hosts={host}")]
    }

    /// Ends the operator.
    pub(super) async fn stop_operator(&mut self, end: End) -> anyhow::Result<()> {
        let operator = self.operator.take().context("no operator runs")?;
        match end {
            End::Kill => operator.kill(),
            End::Terminate => match operator.terminate().await {
                Some(0) => {}
                other => bail!("after SIGTERM the operator's exit code is {other:?}, not 0"),
            },
        }
        self.restarts += 1;
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("operator.log")
    }

    /// The last lines that operators have logged.
    pub(super) fn operator_log(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The operators' log file, for those who want to follow it.
    pub(super) fn log_path(&self) -> String {
        self.log_file().display().to_string()
    }

    pub(super) async fn status(&self, name: &str) -> anyhow::Result<VerteilTokenStatus> {
        let tokens: Api<VerteilToken> = Api::namespaced(self.cluster.client(), NAMESPACE);
        Ok(tokens.get(name).await?.status.unwrap_or_default())
    }

    pub(super) async fn secret(&self, name: &str) -> anyhow::Result<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), NAMESPACE);
        Ok(secrets.get(name).await?)
    }

    /// Waits until the resource is Ready and its status speaks of the Secret as it is now: the operator has looked.
    pub(super) async fn seen(&self, name: &str) -> anyhow::Result<VerteilTokenStatus> {
        say::wait(&format!("the operator to look at {name}"), PATIENCE, async || {
            let told = |error: anyhow::Error| format!("{error:#}");
            let (status, secret) = (self.status(name).await.map_err(told)?, self.secret(name).await.map_err(told)?);
            let verified = status.verified.as_ref().map(|verified| verified.secret.resource_version.clone());
            if verified.is_some() && verified == secret.metadata.resource_version && status.claim.is_none() {
                Ok(status)
            } else {
                Err("the status speaks of another version of the Secret".to_owned())
            }
        })
        .await
    }

    /// Fails if the issuer has not `count` requests of `name`, or gets another one in a while, or if the Secret holds
    /// another token than the last one issued.
    pub(super) async fn holds_at(&self, name: &str, count: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < QUIET {
            let now = self.issuer.count_for(name);
            ensure!(now == count, "{now} token requests for {name} instead of {count}:\n{}", self.issuer.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let secret = self.secret(name).await?;
        let stored = secret.data.as_ref().and_then(|data| data.get("access_token")).map(|bytes| bytes.0.clone());
        let issued = self.issuer.last_token(name).map(String::into_bytes);
        ensure!(stored.is_some() && stored == issued, "Secret {name} does not hold the token that was issued last");
        Ok(())
    }
}

/// The ServiceAccount that the Role is bound to.
fn account() -> String {
    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: verteil-token-operator}\n".to_owned()
}
