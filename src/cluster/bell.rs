//! What is decoded of an object that is only a bell: which version of what it is.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::Deserializer;

/// An object of kind `K` of which only the version matters: its name, uid and resource version.
pub struct Bell<K> {
    metadata: ObjectMeta,
    kind: PhantomData<fn() -> K>,
}

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: BellMeta,
}

/// Of the metadata of an object that is only a bell.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BellMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

// === impl Bell ===

impl<'de, K> Deserialize<'de> for Bell<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let metadata = MetadataOnly::deserialize(deserializer)?.metadata.into();
        Ok(Self { metadata, kind: PhantomData })
    }
}

impl<K> Clone for Bell<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), kind: PhantomData }
    }
}

impl<K> fmt::Debug for Bell<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("name", &self.metadata.name).finish_non_exhaustive()
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Bell<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    /// Without this the data of every Secret would come along.
    fn metadata_api() -> bool {
        true
    }

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl BellMeta ===

impl From<BellMeta> for ObjectMeta {
    fn from(BellMeta { name, namespace, uid, resource_version }: BellMeta) -> Self {
        Self { name, namespace, uid, resource_version, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a failed test")]

    use k8s_openapi::api::core::v1::Secret;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_secret_only_the_version_is_kept() {
        let meta = json!({"name": "s", "namespace": "search", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}]});
        let page = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
            "items": [{"metadata": meta}]});
        let list: ObjectList<Bell<Secret>> = serde_json::from_str(&page.to_string()).unwrap();
        let kept = ObjectMeta {
            name: Some("s".into()),
            namespace: Some("search".into()),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            ..ObjectMeta::default()
        };
        assert_eq!(list.items[0].meta(), &kept);
        assert!(Bell::<Secret>::metadata_api());
    }
}
