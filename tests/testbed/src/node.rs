//! A real node beside a control plane: kubelet, containerd, scheduler, service proxy and name server, without an image
//! registry, a system service or anything installed.
//!
//! All of it, the control plane included, runs in mount, process, network, IPC and UTS namespaces of its own, with its own
//! `/var` and `/run`. What the machine sees of it: the processes, one control group in each hierarchy, the folder of
//! temporary files, and two ports on 127.0.0.1. The [guard](crate::process) takes all of that away however this process
//! ends; if the guard was killed as well, the next start does.

mod borrowed;
mod cgroups;
mod cluster;
mod components;
mod images;
mod leftovers;
mod namespaces;
mod shared;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;

pub use borrowed::{Borrowed, LABEL};
pub use cluster::Cluster;
pub use images::{CONSUMER, OPERATOR};
pub use namespaces::Namespaces;
pub use shared::{cluster, skipped};

use crate::binaries::{Binaries, Machine};
use crate::control_plane::ControlPlane;
use crate::process::{Child, ScratchDir};
use components::SYNC;

/// The Node's name.
const NAME: &str = "node";
/// The node's address, which is in its own network only.
pub(crate) const ADDRESS: &str = "172.30.0.1";
/// For each part to become ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A control plane with one node.
#[derive(Debug)]
pub struct Node {
    // In the order of their ends: the node's own parts, what they talk to, the namespaces, the files.
    parts: Mutex<Vec<Child>>,
    control_plane: ControlPlane,
    namespaces: Arc<Namespaces>,
    setup: Setup,
}

/// What stays the same when the node is started again.
#[derive(Debug)]
struct Setup {
    binaries: Binaries,
    machine: Machine,
    kubeconfigs: components::Kubeconfigs,
    dir: Arc<ScratchDir>,
}

// === impl Node ===

impl Node {
    /// Starts a control plane and a node, and waits until the node is Ready.
    pub async fn start() -> anyhow::Result<Self> {
        // Perhaps builds of minutes: not on the runtime's thread.
        let (binaries, machine) =
            tokio::task::spawn_blocking(|| anyhow::Ok((Binaries::find_with_node()?, Machine::find()?))).await??;
        leftovers::remove()?;
        let dir = Arc::new(ScratchDir::new()?);
        let namespaces = Arc::new(Namespaces::start(&machine, dir.clone())?);
        let options = components::control_plane(&namespaces);
        let control_plane = ControlPlane::start(options).await?;
        let kubeconfigs = components::Kubeconfigs::of(&control_plane)?;
        let setup = Setup { binaries, machine, kubeconfigs, dir };
        let node = Self { parts: Mutex::default(), control_plane, namespaces, setup };
        node.setup.write_files()?;
        node.start_parts().await?;
        node.load(&node.setup.write_pause()?).await?;
        Ok(node)
    }

    /// The control plane, whose components run in the node's namespaces.
    #[must_use]
    pub const fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.setup.dir.path()
    }

    /// Lets pods reach a port of this machine's 127.0.0.1 at the node's address and the same port.
    pub fn admit(&self, port: u16) -> anyhow::Result<()> {
        self.namespaces.admit(port)
    }

    /// Stops kubelet and containerd and starts them again: containers run on meanwhile.
    pub async fn restart_kubelet_and_containerd(&self) -> anyhow::Result<()> {
        self.stop(&["kubelet", "containerd"]).await?;
        self.start_containerd().await?;
        self.add(self.setup.spawn_kubelet(&self.namespaces, SYNC)?);
        self.wait_until_ready().await
    }

    /// Stops the kubelet and starts it again with another `syncFrequency`, until it is started next.
    pub async fn restart_kubelet(&self, sync: &str) -> anyhow::Result<()> {
        self.stop(&["kubelet"]).await?;
        self.add(self.setup.spawn_kubelet(&self.namespaces, sync)?);
        self.wait_until_ready().await
    }

    /// Cuts the power: every process in the node's namespaces ends at once, and all are started again from what is on disk.
    pub async fn reboot(&self) -> anyhow::Result<()> {
        self.lock().clear();
        self.namespaces.restart(&self.setup.machine)?;
        self.control_plane.start_components().await?;
        self.start_parts().await
    }

    /// The last lines that each part has logged, for the message of a test that failed.
    #[must_use]
    pub fn logs(&self) -> String {
        let parts = self.lock();
        let tails = parts.iter().map(|part| format!("--- {}\n{}\n", part.name(), part.log_tail(15)));
        tails.collect::<Vec<_>>().concat()
    }

    async fn start_parts(&self) -> anyhow::Result<()> {
        self.start_containerd().await?;
        let (setup, namespaces) = (&self.setup, &self.namespaces);
        self.add(setup.spawn_kubelet(namespaces, SYNC)?);
        self.add(setup.spawn_scheduler(namespaces)?);
        self.add(setup.spawn_proxy(namespaces)?);
        self.add(setup.spawn_dns(namespaces)?);
        self.wait_until_ready().await
    }

    async fn start_containerd(&self) -> anyhow::Result<()> {
        self.add(self.setup.spawn_containerd(&self.namespaces)?);
        self.wait("containerd", async || self.ctr(&["version"]).await).await
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.control_plane.client());
        // A kubelet that was stopped is Ready in the apiserver's memory for a while: it has to have said so since.
        let since = Timestamp::now();
        self.wait("the node", async || {
            let status = nodes.get(NAME).await?.status.context("it has no status")?;
            let conditions = status.conditions.unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            let said = ready.context("no condition Ready")?;
            let heard = said.last_heartbeat_time.as_ref().is_some_and(|time| time.0.as_second() >= since.as_second());
            ensure!(said.status == "True" && heard, "{said:?}");
            Ok(())
        })
        .await
    }

    async fn wait(&self, what: &str, mut check: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match check().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if let Some(ended) = self.lock().iter().find(|part| !part.is_running()) {
                        bail!("{} has ended:\n{}", ended.name(), ended.log_tail(15));
                    }
                    if start.elapsed() > PATIENCE {
                        return Err(error.context(format!("{what} is not ready\n{}", self.logs())));
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn add(&self, part: Child) {
        self.lock().push(part);
    }

    /// Ends parts, and waits until nothing is left of them that could hold a port or a socket.
    async fn stop(&self, names: &[&str]) -> anyhow::Result<()> {
        let (stopped, others): (Vec<Child>, Vec<Child>) =
            std::mem::take(&mut *self.lock()).into_iter().partition(|part| names.contains(&part.name()));
        *self.lock() = others;
        let pids: Vec<u32> = stopped.iter().map(Child::pid).collect();
        drop(stopped);
        let start = Instant::now();
        while let Some(pid) = pids.iter().find(|pid| group_exists(**pid)) {
            ensure!(start.elapsed() < PATIENCE, "the processes of {pid} do not end");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a process in the group that this one has led.
fn group_exists(leader: u32) -> bool {
    let group = rustix::process::Pid::from_raw(leader.cast_signed());
    group.is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
}

/// Whether this process may make namespaces; why not, otherwise.
pub(crate) fn refusal() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs root".to_owned());
    }
    let probe = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "true"];
    let output = match std::process::Command::new("unshare").args(probe).output() {
        Ok(output) => output,
        Err(error) => return Some(format!("a node needs unshare and nsenter, of util-linux: {error}")),
    };
    (!output.status.success())
        .then(|| format!("a node needs leave to make namespaces: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
