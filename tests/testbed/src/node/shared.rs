//! One cluster with nodes for all tests of a process.

use std::sync::OnceLock;

use super::cluster::{Cluster, KUBECONFIG, SWITCH, variable};
use super::refusal;
use crate::binaries::say;

/// Never dropped: its processes end with this one.
static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
static SKIPPED: OnceLock<Option<String>> = OnceLock::new();

/// The cluster that the tests of this process share, started by the first that asks; none where there can be none, which
/// is then said on stderr, once.
pub async fn cluster() -> Option<&'static Cluster> {
    // Switched off means off, whatever cluster is named.
    if (variable(KUBECONFIG).is_none() || variable(SWITCH).as_deref() == Some("off")) && skipped().is_some() {
        return None;
    }
    let started = tokio::task::spawn_blocking(|| SHARED.get_or_init(start)).await;
    match started.expect("the start does not panic") {
        Ok(cluster) => Some(cluster),
        Err(error) => panic!("no cluster with a node: {error}"),
    }
}

/// Why there can be no node of this process's own, unless one is insisted on. Said on stderr as well, once.
pub fn skipped() -> Option<&'static str> {
    let skipped = SKIPPED.get_or_init(|| {
        let reason = match variable(SWITCH).as_deref() {
            Some("off") => Some(format!("{SWITCH}=off")),
            Some("on") => None,
            _ => refusal().map(|reason| format!("{reason}. {KUBECONFIG} may name a cluster instead, see the README")),
        };
        if let Some(reason) = &reason {
            say(&format!("the tests on a real node are skipped: {reason}"));
        }
        reason
    });
    skipped.as_deref()
}

/// On a thread of its own, as a runtime may not be started within another.
fn start() -> Result<Cluster, String> {
    let starter = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Cluster::start())
    });
    match starter.join() {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err("its start panicked".to_owned()),
    }
}
