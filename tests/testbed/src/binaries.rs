//! Where the programs of the control plane come from.
//!
//! 1. `KUBEBUILDER_ASSETS`, if set: a folder with `etcd`, `kube-apiserver`, `kubectl` and perhaps
//!    `kube-controller-manager`, as `setup-envtest` provides. What is not there comes from 2.
//! 2. One binary with all components, built by Go from `controlplane/` beside this crate and kept in
//!    `target/testbed/bin` under a name that changes with its sources.
//!
//! [`helm`] is found in the same way, and built from `helm/` by the first test that runs it. [`Machine`] is built from
//! `node/` by the first that starts a node; two of its programs are C and come from the distribution.

mod build;
mod debian;

pub use build::say;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// The variable that names a folder of ready binaries.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A program of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// The node agent.
    Kubelet,
    /// `kube-proxy`.
    Proxy,
    /// The command line.
    Kubectl,
}

/// How to run a [`Component`]: a program and the arguments that come before the component's own.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The file to execute.
    pub program: PathBuf,
    /// What picks the component, empty for a program of its own.
    pub first_args: Vec<String>,
}

/// The programs found.
#[derive(Clone, Debug)]
pub struct Binaries {
    assets: Option<PathBuf>,
    multi_call: Option<PathBuf>,
}

// === impl Component ===

impl Component {
    /// What a control plane without nodes consists of.
    const CONTROL_PLANE: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Kubectl];
    /// What a node needs beside it.
    const NODE: [Self; 3] = [Self::Scheduler, Self::Kubelet, Self::Proxy];

    /// The name of the program, which is also what `controlplane/main.go` takes as its first argument.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Kubectl => "kubectl",
        }
    }
}

// === impl Tool ===

impl Tool {
    /// All arguments of a run: those that pick the component, then `args`.
    pub fn args<'a>(&'a self, args: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        self.first_args.iter().map(String::as_str).chain(args).collect()
    }
}

// === impl Binaries ===

impl Binaries {
    /// Finds the programs of a control plane, building them first if that has never been done.
    ///
    /// # Caveats
    /// Blocks, for some minutes when it builds; it reports on stderr then.
    pub fn find() -> anyhow::Result<Self> {
        Self::find_all(&Component::CONTROL_PLANE)
    }

    /// The same with those of a node, which `KUBEBUILDER_ASSETS` seldom has.
    pub fn find_with_node() -> anyhow::Result<Self> {
        Self::find_all(&[&Component::CONTROL_PLANE[..], &Component::NODE].concat())
    }

    fn find_all(needed: &[Component]) -> anyhow::Result<Self> {
        let mut binaries = Self { assets: assets()?, multi_call: None };
        if binaries.lack(needed) {
            binaries.multi_call = Some(build::KUBERNETES.find()?);
        }
        Ok(binaries)
    }

    /// Whether one of these has to be built.
    fn lack(&self, needed: &[Component]) -> bool {
        needed.iter().any(|component| self.asset(*component).is_none())
    }

    /// How to run `component`.
    pub fn tool(&self, component: Component) -> anyhow::Result<Tool> {
        if let Some(program) = self.asset(component) {
            return Ok(Tool { program, first_args: Vec::new() });
        }
        let program = self.multi_call.clone().with_context(|| format!("{ASSETS} has no {}", component.name()))?;
        Ok(Tool { program, first_args: vec![component.name().to_owned()] })
    }

    fn asset(&self, component: Component) -> Option<PathBuf> {
        let program = self.assets.as_ref()?.join(component.name());
        program.is_file().then_some(program)
    }
}

/// What a node needs beside Kubernetes.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Folder of containerd, its shim and client, and the plugins of the pods' network.
    pub runtime: PathBuf,
    /// CoreDNS.
    pub dns: PathBuf,
    /// The process that does nothing, for PID 1 and for pods; what tests run in pods.
    pub app: PathBuf,
    /// Copies connections from one address to another.
    pub forward: PathBuf,
    /// Where programs of the distribution were unpacked that are not installed.
    pub unpacked: PathBuf,
}

// === impl Machine ===

impl Machine {
    /// Finds the programs, building or unpacking them first if that has never been done.
    ///
    /// # Caveats
    /// Blocks, for some minutes when it builds; it reports on stderr then.
    pub fn find() -> anyhow::Result<Self> {
        Ok(Self {
            runtime: build::RUNTIME.find()?,
            dns: build::DNS.find()?,
            app: app()?,
            forward: build::SMALL.find()?.join("forward"),
            unpacked: debian::find()?,
        })
    }
}

/// The program that runs in the pods of tests, built first if that has never been done.
///
/// # Caveats
/// Blocks when it builds; it reports on stderr then.
pub fn app() -> anyhow::Result<PathBuf> {
    Ok(build::SMALL.find()?.join("app"))
}

/// Helm's command line, of version 4, built first if that has never been done.
///
/// # Caveats
/// Blocks, for some minutes when it builds; it reports on stderr then.
pub fn helm() -> anyhow::Result<PathBuf> {
    match assets()?.map(|folder| folder.join("helm")).filter(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => build::HELM.find(),
    }
}

fn assets() -> anyhow::Result<Option<PathBuf>> {
    let assets = std::env::var_os(ASSETS).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = &assets {
        ensure!(folder.is_dir(), "{ASSETS} is {}, which is not a folder", folder.display());
    }
    Ok(assets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn what_a_node_needs_is_built_also_where_a_control_plane_is_at_hand() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries { assets: Some(folder.path().to_owned()), multi_call: None };
        assert!(binaries.lack(&Component::CONTROL_PLANE));
        for component in Component::CONTROL_PLANE {
            std::fs::write(folder.path().join(component.name()), "").unwrap();
        }
        assert!(!binaries.lack(&Component::CONTROL_PLANE) && binaries.lack(&Component::NODE));
        for component in Component::NODE {
            std::fs::write(folder.path().join(component.name()), "").unwrap();
        }
        assert!(!binaries.lack(&Component::NODE));
    }
}
