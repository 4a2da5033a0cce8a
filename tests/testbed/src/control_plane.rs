//! A real control plane without nodes: etcd, kube-apiserver and kube-controller-manager on loopback ports.

mod access;
mod components;
mod evidence;
mod faults;
mod pki;
mod shared;

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

pub use access::Output;
pub(crate) use access::run;

use crate::binaries::Binaries;
use crate::node::Namespaces;
use crate::plain_http;
use crate::ports::free_port;
use crate::process::{Child, ScratchDir};
use crate::random;
use pki::Pki;

/// For each component to become ready. Far above what it takes, as nothing else is learnt by failing early on a busy
/// machine.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two looks at a component that is not ready.
const READY_LOOK: Duration = Duration::from_millis(50);
/// How many times a start is tried when another process has taken a port in the meantime.
const STARTS: usize = 3;
/// What a component's log has when its port was taken.
const PORT_TAKEN: &str = "address already in use";
/// How much of a component's log goes into an error.
const LOG_LINES: usize = 15;

/// What a control plane may be given beside its defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More flags of kube-apiserver, such as `--feature-gates=WatchList=false`.
    pub apiserver_args: Vec<String>,
    /// More flags of kube-controller-manager.
    pub controller_manager_args: Vec<String>,
    /// The namespaces of a node, in which the components run then; this process reaches them by doors.
    pub inside: Option<Arc<Namespaces>>,
}

/// A running control plane.
///
/// # Guarantees
/// - Its processes and its temporary folder are gone when it is dropped or when this process ends in any way.
/// - It belongs to no async runtime: every method works from any, and [`ControlPlane::client`] makes a new client each
///   time, which is bound to the runtime it is made in.
/// - Any number of them can run at once.
///
/// # Caveats
/// There are no nodes and no scheduler: Deployments get pods, and these stay pending. [`Node`](crate::node::Node) adds
/// both.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order of their ends: a component goes before what it talks to, the folder with their files last.
    controller_manager: Mutex<Option<Child>>,
    apiserver: Mutex<Option<Child>>,
    etcd: Mutex<Option<Child>>,
    setup: Setup,
}

/// What stays the same when a component is restarted.
#[derive(Debug)]
struct Setup {
    binaries: Binaries,
    options: Options,
    /// Tells this etcd from another that might have taken its port.
    name: String,
    etcd_port: u16,
    etcd_peer_port: u16,
    apiserver_port: u16,
    pki: Pki,
    admin_token: String,
    kubeconfig: PathBuf,
    kubeconfigs: AtomicUsize,
    dir: ScratchDir,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts a control plane and waits until it serves requests and its controllers work.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        // Perhaps a build of minutes: not on the runtime's thread.
        let binaries = tokio::task::spawn_blocking(Binaries::find).await??;
        let mut start = 1;
        loop {
            let attempt = Self {
                controller_manager: Mutex::default(),
                apiserver: Mutex::default(),
                etcd: Mutex::default(),
                setup: Setup::new(binaries.clone(), options.clone())?,
            };
            match attempt.start_all().await {
                Ok(()) => return Ok(attempt),
                Err(error) if start < STARTS && format!("{error:#}").contains(PORT_TAKEN) => {
                    start += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_all(&self) -> anyhow::Result<()> {
        self.setup.write_files()?;
        self.start_components().await
    }

    /// Starts all components anew, after the namespaces that they were in have ended.
    pub(crate) async fn start_components(&self) -> anyhow::Result<()> {
        for slot in [&self.controller_manager, &self.apiserver, &self.etcd] {
            *locked(slot) = None;
        }
        if let Some(namespaces) = &self.setup.options.inside {
            namespaces.open(self.setup.etcd_port)?;
            namespaces.open(self.setup.apiserver_port)?;
        }
        self.start_etcd().await?;
        self.start_apiserver().await?;
        self.start_controller_manager().await
    }

    async fn start_etcd(&self) -> anyhow::Result<()> {
        set(&self.etcd, self.setup.spawn_etcd()?);
        let url = self.etcd_url("/v3/cluster/member/list");
        wait_until_ready(&self.etcd, || async {
            let members = plain_http::post(&url, &[], "{}").await?.json()?;
            match members.pointer("/members/0/name").and_then(|name| name.as_str()) {
                Some(name) if name == self.setup.name => Ok(()),
                other => bail!("its member is {other:?}, not {}", self.setup.name),
            }
        })
        .await
    }

    /// Starts kube-apiserver on its port and waits until it is ready. No effect if it runs.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        if is_running(&self.apiserver) {
            return Ok(());
        }
        set(&self.apiserver, self.setup.spawn_apiserver()?);
        let client = self.client();
        wait_until_ready(&self.apiserver, || async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            Ok(())
        })
        .await
    }

    async fn start_controller_manager(&self) -> anyhow::Result<()> {
        set(&self.controller_manager, self.setup.spawn_controller_manager()?);
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client());
        // Made by one controller, which is as good a sign of life as any.
        wait_until_ready(&self.controller_manager, || async {
            accounts.get("default").await?;
            Ok(())
        })
        .await
    }

    /// Ends everything, which dropping it does as well, and says if the temporary folder could not be removed.
    pub fn shutdown(self) -> anyhow::Result<()> {
        let path = self.setup.dir.path().to_owned();
        drop(self);
        anyhow::ensure!(!path.exists(), "{} is still there", path.display());
        Ok(())
    }

    /// The last lines each component has logged, for the message of a test that failed.
    #[must_use]
    pub fn logs(&self) -> String {
        [&self.etcd, &self.apiserver, &self.controller_manager]
            .into_iter()
            .filter_map(|slot| {
                locked(slot).as_ref().map(|child| format!("--- {}\n{}\n", child.name(), child.log_tail(LOG_LINES)))
            })
            .collect()
    }

    fn etcd_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.setup.etcd_port)
    }
}

// === impl Setup ===

impl Setup {
    fn new(binaries: Binaries, options: Options) -> anyhow::Result<Self> {
        let dir = ScratchDir::new()?;
        Ok(Self {
            binaries,
            options,
            name: format!("testbed-{}", random::suffix()),
            etcd_port: free_port()?,
            etcd_peer_port: free_port()?,
            apiserver_port: free_port()?,
            pki: Pki::generate()?,
            admin_token: format!("admin-{:016x}", random::number()),
            kubeconfig: dir.path().join("kubeconfig"),
            kubeconfigs: AtomicUsize::new(0),
            dir,
        })
    }
}

fn locked(slot: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a component in its place; the one that was there ends.
fn set(slot: &Mutex<Option<Child>>, child: Child) {
    *locked(slot) = Some(child);
}

fn is_running(slot: &Mutex<Option<Child>>) -> bool {
    locked(slot).as_ref().is_some_and(Child::is_running)
}

/// Repeats `check` until it succeeds; an error with the component's log if it has ended or takes too long.
///
/// Not an `AsyncFnMut`, for which the compiler cannot prove that starting a control plane may be spawned as a task.
async fn wait_until_ready<F: Future<Output = anyhow::Result<()>>>(
    slot: &Mutex<Option<Child>>,
    mut check: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let outcome = tokio::time::timeout(READY_TIMEOUT, check()).await.context("no answer").flatten();
        {
            // After the check: one that succeeded on another server's port must not hide that ours has ended.
            let slot = locked(slot);
            let child = slot.as_ref().context("it was stopped while it started")?;
            let tail = || child.log_tail(LOG_LINES);
            if let Some(status) = child.exit_status() {
                bail!("{} ended at its start, {status}:\n{}", child.name(), tail());
            }
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > READY_TIMEOUT => {
                    bail!("{} is not ready after {READY_TIMEOUT:?}: {error:#}\n{}", child.name(), tail())
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(READY_LOOK).await;
    }
}
