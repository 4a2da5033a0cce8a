//! What is decoded of a resource: what is looked at, and nothing else. `managedFields` and what kubectl applied last may be larger
//! than the rest together; with labels and others' annotations they are skipped as they come in, neither parsed nor kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::ObjectMeta;
use kube::core::error_boundary::InvalidObject;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::{VerteilToken, VerteilTokenSpec, VerteilTokenStatus};

/// Annotations that mean something to the operator. Others are not kept.
const OWN_ANNOTATIONS: &str = "verteil.dev/";

/// A resource that may not be readable: one bad object must not hide the others.
///
/// Unlike [`kube::core::DeserializeGuard`] it builds no tree of each object first. It reads spec and status from their text, which
/// only serde_json can give: so it is decoded by that alone, and in a watch event `type` has to come before `object`, as the
/// apiserver writes it.
///
/// A clone is the same object: kube's reflector keeps one of each that passes.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Result<VerteilToken, InvalidObject>>);

/// A VerteilToken as it comes, of which only what is looked at is decoded.
#[derive(Deserialize)]
pub(super) struct Object {
    #[serde(default)]
    metadata: TokenMeta,
    spec: VerteilTokenSpec,
    status: Option<VerteilTokenStatus>,
}

/// The same, with what may be unreadable as text.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(default)]
    metadata: TokenMeta,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

/// Of a resource's metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TokenMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(deserialize_with = "own_annotations")]
    annotations: Option<BTreeMap<String, String>>,
}

// === impl Object ===

impl From<Object> for VerteilToken {
    fn from(Object { metadata, spec, status }: Object) -> Self {
        Self { metadata: metadata.into(), spec, status }
    }
}

// === impl Tokens ===

impl Tokens {
    /// A resource that can be read.
    #[must_use]
    pub fn of(token: VerteilToken) -> Self {
        Self(Arc::new(Ok(token)))
    }

    /// The resource, or what is known of one that cannot be read.
    pub fn get(&self) -> Result<&VerteilToken, &InvalidObject> {
        self.0.as_ref().as_ref()
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
        let metadata = metadata.into();
        Ok(Self(Arc::new(match read(spec, status) {
            Ok((spec, status)) => Ok(VerteilToken { metadata, spec, status }),
            Err(error) => Err(InvalidObject { error: without_place(&error), metadata }),
        })))
    }
}

impl Resource for Tokens {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        VerteilToken::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        VerteilToken::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        VerteilToken::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        VerteilToken::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.get().map_or_else(|invalid| &invalid.metadata, VerteilToken::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.0).as_mut().map_or_else(|invalid| &mut invalid.metadata, VerteilToken::meta_mut)
    }
}

// === impl TokenMeta ===

impl From<TokenMeta> for ObjectMeta {
    fn from(meta: TokenMeta) -> Self {
        let TokenMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            annotations,
        } = meta;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            annotations,
            ..Self::default()
        }
    }
}

fn own_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Own;

    impl<'de> Visitor<'de> for Own {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut own = BTreeMap::new();
            while let Some(name) = all.next_key::<Cow<'_, str>>()? {
                if name.starts_with(OWN_ANNOTATIONS) {
                    own.insert(name.into_owned(), all.next_value()?);
                } else {
                    all.next_value::<IgnoredAny>()?;
                }
            }
            Ok((!own.is_empty()).then_some(own))
        }
    }

    deserializer.deserialize_any(Own)
}

fn read(
    spec: Option<&RawValue>,
    status: Option<&RawValue>,
) -> serde_json::Result<(VerteilTokenSpec, Option<VerteilTokenStatus>)> {
    let spec = spec.ok_or_else(|| serde_json::Error::missing_field("spec"))?;
    let status = status.map(|status| serde_json::from_str(status.get())).transpose()?;
    Ok((serde_json::from_str(spec.get())?, status))
}

/// Line and column in a text that nobody sees say nothing.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a failed test")]

    use kube::ResourceExt as _;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
            "metadata": {
                "name": name, "namespace": "search", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-11-24T08:00:00Z", "labels": {"app": "search"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "verteil.dev/renew": "now"},
                "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": spec,
            "status": {"tokensIssued": 3},
        })
    }

    fn good() -> Value {
        json!({"tokenURL": "https://issuer.example/", "credentialsSecretRef": {"name": "c"}})
    }

    /// As kube decodes a page of a list.
    fn list(objects: &[Value]) -> Vec<Tokens> {
        let page = json!({"apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilTokenList",
            "metadata": {"resourceVersion": "9", "continue": ""}, "items": objects});
        serde_json::from_str::<ObjectList<Tokens>>(&page.to_string()).unwrap().items
    }

    #[test]
    fn a_resource_has_what_is_looked_at_and_nothing_else() {
        let [token] = &list(&[object("flight", &good())])[..] else { unreachable!("one") };
        let whole: VerteilToken = serde_json::from_value(object("flight", &good())).unwrap();
        let mut wanted = whole.clone();
        wanted.metadata.managed_fields = None;
        wanted.metadata.labels = None;
        wanted.annotations_mut().retain(|name, _| name == "verteil.dev/renew");
        assert_ne!(whole, wanted);
        assert_eq!(token.get().unwrap(), &wanted);
    }

    #[test]
    fn one_that_cannot_be_read_has_its_name_and_hides_no_other() {
        let bad = [
            ("negative", json!({"tokenURL": "https://i", "credentialsSecretRef": {"name": "c"}, "timeout": "-5m"})),
            ("hollow", json!({"tokenURL": "https://i"})),
            ("none", Value::Null),
        ];
        let mut objects: Vec<Value> = bad.iter().map(|(name, spec)| object(name, spec)).collect();
        objects.insert(1, object("flight", &good()));
        let tokens = list(&objects);
        let names: Vec<String> = tokens.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["negative", "flight", "hollow", "none"]);
        assert!(tokens[1].get().is_ok());
        for token in [&tokens[0], &tokens[2], &tokens[3]] {
            let invalid = token.get().unwrap_err();
            assert_eq!(
                (invalid.metadata.namespace.as_deref(), invalid.metadata.uid.as_deref()),
                (Some("search"), Some("u"))
            );
            assert!(!invalid.error.contains(" at line "), "{}", invalid.error);
        }
        assert!(tokens[0].get().unwrap_err().error.contains("write whole numbers with the units h, m or s"));
        assert_eq!(tokens[2].get().unwrap_err().error, "missing field `credentialsSecretRef`");
    }

    #[test]
    fn a_change_is_read_as_the_apiserver_writes_it() {
        for (what, object) in [("good", object("flight", &good())), ("bad", object("flight", &json!({})))] {
            let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
            let WatchEvent::Modified(token) = serde_json::from_str::<WatchEvent<Tokens>>(&line).unwrap() else {
                unreachable!("modified")
            };
            assert_eq!((token.get().is_ok(), token.name_any().as_str()), (what == "good", "flight"));
        }
        let error = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}"#;
        let WatchEvent::Error(status) = serde_json::from_str::<WatchEvent<Tokens>>(error).unwrap() else {
            unreachable!("an error")
        };
        assert_eq!(status.code, 410);
    }
}
