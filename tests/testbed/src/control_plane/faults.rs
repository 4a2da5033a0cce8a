//! What a cluster can do to its clients.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::{ControlPlane, locked};
use crate::plain_http;
use crate::process::{Child, Signal};

/// What etcd says where nothing was written since the last compaction.
const COMPACTED: &str = "has been compacted";

// === impl ControlPlane ===

/// Disruptive ones are for a control plane of the test's own: the [shared](ControlPlane::shared) one serves others too.
impl ControlPlane {
    /// Kills kube-apiserver and starts it again, on the same port and with the same data, and waits until it is ready.
    pub async fn restart_apiserver(&self) -> anyhow::Result<()> {
        self.stop_apiserver();
        self.start_apiserver().await
    }

    /// Kills kube-apiserver: connections break, new ones are refused.
    pub fn stop_apiserver(&self) {
        locked(&self.apiserver).take();
    }

    /// Freezes kube-apiserver: connections are accepted by the kernel and never answered.
    pub fn freeze_apiserver(&self) -> anyhow::Result<()> {
        self.signal_apiserver(Signal::STOP)
    }

    /// Lets a frozen kube-apiserver go on; it answers what has queued up meanwhile.
    pub fn thaw_apiserver(&self) -> anyhow::Result<()> {
        self.signal_apiserver(Signal::CONT)
    }

    fn signal_apiserver(&self, signal: Signal) -> anyhow::Result<()> {
        locked(&self.apiserver).as_ref().context("kube-apiserver was stopped")?.signal(signal)
    }

    /// Restarts kube-controller-manager. It learns of a new CRD within 30 s, until when it collects no garbage of that
    /// kind; a restart makes it know at once.
    pub async fn restart_controller_manager(&self) -> anyhow::Result<()> {
        self.stop_controller_manager();
        // The sign of life is there from the last start: the next one is to make it anew.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client());
        accounts.delete("default", &DeleteParams::default()).await.context("the default ServiceAccount")?;
        self.start_controller_manager().await
    }

    /// Kills kube-controller-manager: no garbage collection, no end of namespaces, no new quota.
    pub fn stop_controller_manager(&self) {
        locked(&self.controller_manager).take();
    }

    /// Drops all history of etcd before now, and returns the revision of now.
    ///
    /// A running kube-apiserver goes on serving lists and watches of some minutes past from its own memory: what makes
    /// it answer 410 is [`ControlPlane::forget_history`].
    pub async fn compact_etcd(&self) -> anyhow::Result<i64> {
        let key = BASE64_STANDARD.encode("/");
        let range = self.etcd("/v3/kv/range", &json!({"key": key, "limit": 1})).await?;
        let revision: i64 = range
            .pointer("/header/revision")
            .and_then(|revision| revision.as_str())
            .context("etcd tells no revision")?
            .parse()?;
        match self.etcd("/v3/kv/compaction", &json!({"revision": revision, "physical": true})).await {
            Err(error) if !error.to_string().contains(COMPACTED) => Err(error),
            _ => Ok(revision),
        }
    }

    /// Compacts etcd and restarts kube-apiserver, whose memory of past changes is gone with that: a watch from any
    /// resource version before now gets 410 Gone.
    pub async fn forget_history(&self) -> anyhow::Result<i64> {
        let revision = self.compact_etcd().await?;
        self.restart_apiserver().await?;
        Ok(revision)
    }

    async fn etcd(&self, path: &str, request: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
        let answer = plain_http::post(&self.etcd_url(path), &[], &request.to_string()).await?;
        ensure!(answer.status == 200, "etcd refuses {path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    /// The process id of kube-apiserver, if it runs.
    #[must_use]
    pub fn apiserver_pid(&self) -> Option<u32> {
        locked(&self.apiserver).as_ref().map(Child::pid)
    }

    /// The process ids of everything that runs now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        [&self.etcd, &self.apiserver, &self.controller_manager]
            .into_iter()
            .filter_map(|slot| locked(slot).as_ref().map(Child::pid))
            .collect()
    }
}
