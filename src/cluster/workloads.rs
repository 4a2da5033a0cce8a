//! Restarting a workload, by its pod template.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::api::{GetParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::json;

use super::calls::{absent_as_none, resource};
use super::{ApiError, Cluster};
use crate::api::{MANAGER, Workload, WorkloadKind};
use crate::memory::Key;

/// What of a patched workload tells whether its pods are replaced now.
#[derive(Deserialize)]
struct Patched {
    #[serde(default)]
    spec: PatchedSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PatchedSpec {
    paused: bool,
    update_strategy: UpdateStrategy,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UpdateStrategy {
    #[serde(rename = "type")]
    type_: String,
}

// === impl Cluster ===

impl Cluster {
    /// Reads a Deployment, live.
    pub async fn deployment(&self, key: &Key) -> Result<Option<Deployment>, ApiError> {
        let request = resource::<Deployment>(&key.namespace).get(&key.name, &GetParams::default());
        absent_as_none(self.send("get Deployment", request).await)
    }

    /// Sets an annotation of the pod template, which rolls the workload out as `kubectl rollout restart` does. Returns what
    /// still has to happen before its pods are replaced, if anything.
    ///
    /// Guarantees: a second time with the same value changes nothing, and restarts nothing.
    pub async fn annotate_template(
        &self,
        namespace: &str,
        workload: &Workload,
        annotation: &str,
        value: &str,
    ) -> Result<Option<&'static str>, ApiError> {
        let (call, requests) = match workload.kind {
            WorkloadKind::Deployment => ("patch Deployment", resource::<Deployment>(namespace)),
            WorkloadKind::StatefulSet => ("patch StatefulSet", resource::<StatefulSet>(namespace)),
            WorkloadKind::DaemonSet => ("patch DaemonSet", resource::<DaemonSet>(namespace)),
        };
        let change = json!({"spec": {"template": {"metadata": {"annotations": {annotation: value}}}}});
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patched: Patched = self.send(call, requests.patch(&workload.name, &params, &Patch::Merge(change))).await?;
        Ok(if patched.spec.paused {
            Some("paused: its pods are replaced when it is resumed")
        } else if patched.spec.update_strategy.type_ == "OnDelete" {
            Some("OnDelete: its pods are replaced as they are deleted")
        } else {
            None
        })
    }
}
