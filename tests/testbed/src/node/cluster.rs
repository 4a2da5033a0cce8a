//! A cluster with nodes for tests: one of their own, or any that a kubeconfig leads to.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{ADDRESS, Borrowed, Node, images};
use crate::binaries::{Binaries, Component, app, helm, say};
use crate::control_plane::{Output, run};
use crate::process::ScratchDir;
use crate::{Issuer, ServerCertificate};

/// `off` skips the tests that need a node; `on` fails them where they would be skipped.
pub(super) const SWITCH: &str = "E2E";
/// A kubeconfig of the cluster to use.
pub(super) const KUBECONFIG: &str = "E2E_KUBECONFIG";
/// A command that loads an image's archive into that cluster, whose path is added, such as `kind load image-archive`.
const LOAD: &str = "E2E_LOAD";
/// An address of this machine that that cluster's pods can reach.
const ISSUER_ADDRESS: &str = "E2E_ISSUER_ADDRESS";

/// The release's name where the cluster is this process's own, and the namespace it is in.
const RELEASE: &str = "verteil-token-operator";

/// A cluster that runs pods, with the images of the tests.
#[derive(Debug)]
pub struct Cluster {
    /// Ends before the files that it needs.
    borrowed: Option<Borrowed>,
    kubeconfig: PathBuf,
    binaries: Binaries,
    /// Where the issuers of tests listen, and where pods find them.
    listen: IpAddr,
    reach: IpAddr,
    node: Option<Node>,
    dir: ScratchDir,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster that the environment names, or a node of this process's own.
    pub(super) async fn start() -> anyhow::Result<Self> {
        // Builds of minutes, perhaps: not on the runtime's thread, and before anything is waited for.
        let prepared = tokio::task::spawn_blocking(|| {
            let dir = ScratchDir::new()?;
            let images = [images::write_operator(dir.path())?, images::write_consumer(&app()?, dir.path())?];
            anyhow::Ok((dir, images, helm()?, Binaries::find()?))
        });
        let (dir, images, helm, binaries) = prepared.await??;
        let Some(kubeconfig) = variable(KUBECONFIG).map(PathBuf::from) else {
            let node = Node::start().await?;
            for image in &images {
                node.load(image).await?;
            }
            let kubeconfig = node.control_plane().kubeconfig().to_owned();
            let (listen, reach) = (Ipv4Addr::LOCALHOST.into(), ADDRESS.parse()?);
            return Ok(Self { borrowed: None, kubeconfig, binaries, listen, reach, node: Some(node), dir });
        };
        let command = variable(LOAD).with_context(|| format!("{KUBECONFIG} needs {LOAD}"))?;
        let address = variable(ISSUER_ADDRESS).with_context(|| format!("{KUBECONFIG} needs {ISSUER_ADDRESS}"))?;
        let address = address.parse().with_context(|| format!("{ISSUER_ADDRESS} is not an address"))?;
        let kubectl = binaries.tool(Component::Kubectl)?;
        let borrowed = Borrowed::of(client(&kubeconfig).await?, &kubeconfig, &helm, &kubectl).await?;
        say(&format!(
            "the tests use the release {} in the cluster of {KUBECONFIG}; all goes at their end",
            borrowed.release()
        ));
        for image in &images {
            load(&command, image).await?;
        }
        Ok(Self { borrowed: Some(borrowed), kubeconfig, binaries, listen: address, reach: address, node: None, dir })
    }

    /// The name of the release that the tests share, which is also that of its namespace and of its objects.
    #[must_use]
    pub fn release(&self) -> &str {
        self.borrowed.as_ref().map_or(RELEASE, Borrowed::release)
    }

    /// The node, if it is of this process's own.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// A new client of the administrator, for the runtime it is made in.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        client(&self.kubeconfig).await
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> anyhow::Result<Output> {
        let tool = self.binaries.tool(Component::Kubectl)?;
        run(&tool.program, &tool.args(args.iter().copied()), &self.kubeconfig, self.dir.path(), stdin).await
    }

    /// Runs Helm as the administrator.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<Output> {
        run(&tokio::task::spawn_blocking(helm).await??, args, &self.kubeconfig, self.dir.path(), None).await
    }

    /// An issuer, and the address at which pods reach its port.
    pub fn issuer(&self, certificate: &ServerCertificate) -> anyhow::Result<(Issuer, IpAddr)> {
        let issuer = Issuer::start_tls(self.listen, certificate)?;
        if let Some(node) = &self.node {
            node.admit(issuer.port())?;
        }
        Ok((issuer, self.reach))
    }
}

async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

async fn load(command: &str, archive: &Path) -> anyhow::Result<()> {
    let output = tokio::process::Command::new("sh")
        .args(["-c", &format!("{command} \"$0\"")])
        .arg(archive)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{command} {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
