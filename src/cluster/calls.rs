//! The calls. Answers are reduced to what is needed, so that a token is not carried where nobody asked for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{GetParams, PostParams};
use kube::core::{ObjectMeta, Request};
use kube::{Client, Resource, ResourceExt};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::bell::BellMeta;
use super::decode::Object;
use super::{ApiError, Reads};
use crate::api::{MANAGER, ObjectVersion, VerteilToken, VerteilTokenSpec, VerteilTokenStatus};
use crate::memory::Key;
use crate::secret::confidential;

/// Every call ends after this long, whatever the connection does.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers to writes of Secrets carry no data (API concepts, "Metadata-only fetches").
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The apiserver.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    data: Arc<Reads<Read<Secret>>>,
    config_maps: Arc<Reads<Read<ConfigMap>>>,
}

/// What was read by many: the object, none if there is no such, or why that is not known.
type Read<T> = Result<Option<Arc<T>>, ApiError>;

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

/// Of a Secret that is only read: its data, and which version holds it.
#[derive(Deserialize)]
struct DataOnly {
    metadata: BellMeta,
    data: Option<BTreeMap<String, ByteString>>,
}

/// A VerteilToken as its status is written: no more of it than the apiserver looks at, and no copy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusWrite<'a> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: WrittenVersion<'a>,
    spec: &'a VerteilTokenSpec,
    status: &'a VerteilTokenStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenVersion<'a> {
    name: &'a Option<String>,
    namespace: &'a Option<String>,
    uid: &'a Option<String>,
    resource_version: &'a Option<String>,
}

// === impl Cluster ===

impl Cluster {
    /// The apiserver that `client` speaks to. Its own retries must be off.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, data: Arc::new(Reads::unlimited()), config_maps: Arc::new(Reads::unlimited()) }
    }

    /// Reads a Secret, live.
    pub async fn secret(&self, key: &Key) -> Result<Option<Secret>, ApiError> {
        let call = "get Secret";
        let request = resource::<Secret>(&key.namespace).get(&key.name, &GetParams::default());
        absent_as_none(self.send(call, request).await)
    }

    /// Reads a Secret of which only the data is of interest, live: without labels, annotations and who wrote what.
    ///
    /// Many resources may name the same credentials: who asks while a read is under way shares the next one with all who do.
    pub async fn data(&self, key: &Key) -> Result<Option<Arc<Secret>>, ApiError> {
        let read = async {
            let request = resource::<Secret>(&key.namespace).get(&key.name, &GetParams::default());
            let read = self.send::<DataOnly>("get Secret", request).await;
            let secret =
                |DataOnly { metadata, data }| Secret { metadata: metadata.into(), data, ..Secret::default() }.into();
            absent_as_none(read.map(secret))
        };
        Result::clone(&*self.data.share(key, read).await)
    }

    /// Reads a ConfigMap, live; shared in the same way.
    pub async fn config_map(&self, key: &Key) -> Result<Option<Arc<ConfigMap>>, ApiError> {
        let read = async {
            let request = resource::<ConfigMap>(&key.namespace).get(&key.name, &GetParams::default());
            absent_as_none(self.send("get ConfigMap", request).await.map(Arc::new))
        };
        Result::clone(&*self.config_maps.share(key, read).await)
    }

    /// Reads a VerteilToken, live.
    pub async fn token(&self, key: &Key) -> Result<Option<VerteilToken>, ApiError> {
        let call = "get VerteilToken";
        let request = resource::<VerteilToken>(&key.namespace).get(&key.name, &GetParams::default());
        absent_as_none(self.send::<Object>(call, request).await.map(VerteilToken::from))
    }

    /// Writes a Secret: creates it, or replaces the version that it carries. Returns it with the metadata that it has now.
    ///
    /// Guarantees: somebody else's change since the read is a `Conflict`, never overwritten. A dry run gives no metadata.
    pub async fn write_secret(&self, mut secret: Secret, dry_run: bool) -> Result<Secret, ApiError> {
        // Left out, the apiserver keeps its own.
        secret.metadata.managed_fields = None;
        let params = PostParams { dry_run, field_manager: Some(MANAGER.into()) };
        let requests = resource::<Secret>(&secret.namespace().unwrap_or_default());
        let body = serde_json::to_vec(&secret).unwrap_or_default();
        let (call, request) = match (secret.metadata.resource_version.is_some(), dry_run) {
            (false, true) => ("dry-run create Secret", requests.create(&params, body)),
            (false, false) => ("create Secret", requests.create(&params, body)),
            (true, true) => ("dry-run update Secret", requests.replace(&secret.name_any(), &params, body)),
            (true, false) => ("update Secret", requests.replace(&secret.name_any(), &params, body)),
        };
        let request = request.map(|mut request| {
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA_ONLY));
            request
        });
        // Who wrote what, and all else of it, is of interest once it is written.
        let written = if dry_run {
            self.send::<IgnoredAny>(call, request).await.map(|_| ObjectMeta::default())
        } else {
            self.send::<MetadataOnly>(call, request).await.map(|object| object.metadata)
        };
        match written {
            Ok(metadata) => Ok(Secret { metadata, ..secret }),
            // An admission policy may quote what it refuses.
            Err(error) => Err(error.hiding(confidential(&secret))),
        }
    }

    /// Replaces the status of the version of `token` that was read. Returns what the apiserver holds now.
    pub async fn write_status(
        &self,
        token: &VerteilToken,
        status: &VerteilTokenStatus,
    ) -> Result<VerteilToken, ApiError> {
        let ObjectMeta { name, namespace, uid, resource_version, .. } = &token.metadata;
        let object = StatusWrite {
            api_version: VerteilToken::api_version(&()),
            kind: VerteilToken::kind(&()),
            metadata: WrittenVersion { name, namespace, uid, resource_version },
            spec: &token.spec,
            status,
        };
        let params = PostParams { dry_run: false, field_manager: Some(MANAGER.into()) };
        let body = serde_json::to_vec(&object).unwrap_or_default();
        let request = resource::<VerteilToken>(&token.namespace().unwrap_or_default()).replace_subresource(
            "status",
            &token.name_any(),
            &params,
            body,
        );
        self.send::<Object>("update VerteilToken status", request).await.map(VerteilToken::from)
    }

    /// Posts an event.
    pub async fn post_event(&self, event: &Event) -> Result<(), ApiError> {
        let body = serde_json::to_vec(event).unwrap_or_default();
        let request = resource::<Event>(&event.namespace().unwrap_or_default()).create(&PostParams::default(), body);
        self.send::<IgnoredAny>("create Event", request).await.map(drop)
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        call: &'static str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApiError> {
        let mut request = request.map_err(|error| ApiError::Refused { call, message: error.to_string() })?;
        // Its name, for layers of the client: the model test knows calls by it.
        request.extensions_mut().insert(call);
        // request_text, since Client::request logs an answer that it cannot decode: here that may be a Secret.
        let unavailable = |message: String| ApiError::Unavailable { call, message };
        let text = tokio::time::timeout(CALL_TIMEOUT, self.client.request_text(request))
            .await
            .map_err(|_| unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))?
            .map_err(|error| ApiError::of(call, &error))?;
        serde_json::from_str(&text).map_err(|_| unavailable("the answer is not of the expected form".into()))
    }
}

/// The version of an object that a read or a write returned.
pub(crate) fn version(meta: &ObjectMeta) -> Option<ObjectVersion> {
    Some(ObjectVersion { uid: meta.uid.clone()?, resource_version: meta.resource_version.clone()? })
}

/// The bytes of a ConfigMap's key, which is text or not.
pub(crate) fn config_map_key<'a>(map: &'a ConfigMap, name: &str) -> Option<&'a [u8]> {
    let text = map.data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
    text.or_else(|| Some(map.binary_data.as_ref()?.get(name)?.0.as_slice()))
}

pub(super) fn resource<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
    namespace: &str,
) -> Request {
    Request::new(K::url_path(&(), Some(namespace)))
}

pub(super) fn absent_as_none<T>(result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use futures::future::join_all;
    use http::{Request, Response};
    use kube::client::Body;
    use tokio::sync::mpsc;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn credentials_that_many_ask_for_at_once_are_read_once_for_each_that_came_too_late() {
        let (calls, mut called) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let calls = calls.clone();
            async move {
                let (answer, answered) = oneshot::channel::<&str>();
                calls.send((request.uri().path().to_owned(), answer)).unwrap();
                Ok::<_, std::io::Error>(Response::new(Body::from(answered.await.unwrap().as_bytes().to_vec())))
            }
        });
        let cluster = Cluster::new(Client::new(service, "search"));
        let key = Key::new("search", "credentials");
        let ask = || {
            let (cluster, key) = (cluster.clone(), key.clone());
            tokio::spawn(async move {
                let secret = cluster.data(&key).await.unwrap().unwrap();
                (secret.resource_version().unwrap(), secret.data.clone().unwrap().len())
            })
        };
        let early = ask();
        let (path, answer) = called.recv().await.unwrap();
        assert_eq!(path, "/api/v1/namespaces/search/secrets/credentials");
        let late: Vec<_> = (0..20).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        answer.send(r#"{"metadata":{"uid":"u","resourceVersion":"7"},"data":{}}"#).unwrap();
        assert_eq!(early.await.unwrap(), ("7".to_owned(), 0));
        let (_, answer) = called.recv().await.unwrap();
        answer.send(r#"{"metadata":{"uid":"u","resourceVersion":"8"},"data":{"username":"dQ=="}}"#).unwrap();
        // What was changed meanwhile is what they get: the first read began before they asked.
        for told in join_all(late).await {
            assert_eq!(told.unwrap(), ("8".to_owned(), 1));
        }
        assert!(called.try_recv().is_err(), "two reads, and no more");
    }
}
