//! The CustomResourceDefinition, from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

use super::VerteilToken;

/// The CustomResourceDefinition of `VerteilToken`.
///
/// Guarantees: a new resource has `status.observedGeneration: -1`, so that tools which wait by kstatus wait for an operator.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = VerteilToken::crd();
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(properties) = root.and_then(|r| r.properties.as_mut()) else { continue };
        if let Some(status) = properties.get_mut("status") {
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
            // One program writes it, as a whole: who wrote which field of it need not be stored, sent and read with every change.
            status.x_kubernetes_map_type = Some("atomic".into());
        }
    }
    crd
}

/// The CustomResourceDefinition as YAML, as `crd` prints it and `crds/` holds it.
pub fn to_yaml(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(crd)?)
}
