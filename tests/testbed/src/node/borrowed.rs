//! What the tests put into a cluster that is not of this process, and how it goes again.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

use super::cluster::KUBECONFIG;
use crate::binaries::Tool;
use crate::random;

/// The label of every namespace that the tests make there: its value is the release's name.
pub const LABEL: &str = "verteil.dev/e2e";
/// The definition that the release brings. There can be one in a cluster.
const DEFINITION: &str = "verteiltokens.verteil.dev";

/// Ends with the pipe, as the [guard](crate::process) of processes does, however this process ends. What it deletes bears the
/// release's name in a label: nothing of anybody else's does. Twice, as what was just begun may still come. `$0` is the
/// release, `$1` Helm, and the rest the words of kubectl.
const CLEANUP: &str = r#"
trap '' HUP INT TERM
helm=$1
shift
read -r _
HOME=$(mktemp -d)
export HOME
for time in 1 2; do
  "$helm" uninstall "$0" --namespace "$0" --ignore-not-found
  "$@" delete crd,clusterrole,clusterrolebinding --selector="app.kubernetes.io/instance=$0"
  "$@" delete namespace --selector="$LABEL=$0"
done
rm -rf "$HOME"
"#;

/// The tests' part of somebody else's cluster. Dropped, or when this process ends in any way, all of it is deleted, in the
/// background.
#[derive(Debug)]
pub struct Borrowed {
    release: String,
    /// The writing end of its pipe is the only one.
    _cleanup: Child,
}

// === impl Borrowed ===

impl Borrowed {
    /// A part of the cluster of `kubeconfig`, to which `client` leads; refused where somebody uses the operator.
    pub async fn of(client: Client, kubeconfig: &Path, helm: &Path, kubectl: &Tool) -> anyhow::Result<Self> {
        let definitions: Api<CustomResourceDefinition> = Api::all(client);
        let present = definitions.get_opt(DEFINITION).await.with_context(|| format!("the cluster of {KUBECONFIG}"))?;
        ensure!(
            present.is_none(),
            "the cluster of {KUBECONFIG} has the definition {DEFINITION} already. These tests bring it, and take it away with \
             every VerteilToken: name a cluster in which nobody uses the operator. What an earlier run may have left goes with \
             `kubectl delete crd {DEFINITION}` and `kubectl delete namespace --selector={LABEL}`"
        );
        let kubeconfig = kubeconfig.canonicalize().with_context(|| format!("{}", kubeconfig.display()))?;
        // With the chart's name in it, it is the name of all its objects.
        let release = format!("verteil-token-operator-e2e-{}", random::suffix());
        let cleanup = Command::new("sh")
            .args(["-c", CLEANUP, &release])
            .arg(helm)
            .arg(&kubectl.program)
            .args(&kubectl.first_args)
            .envs([("KUBECONFIG", kubeconfig.as_os_str()), ("LABEL", LABEL.as_ref())])
            .current_dir("/")
            .stdin(Stdio::piped())
            // Nothing of the terminal or of a pipe behind `cargo test` is kept open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh, which cleans up at the end")?;
        Ok(Self { release, _cleanup: cleanup })
    }

    /// The release and its namespace, like none that is there.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }
}
