//! The apiserver's object semantics, as far as the operator relies on them and no further: optimistic concurrency, uid,
//! generation, the status subresource, dry runs, metadata-only answers. One namespace, one VerteilToken.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::{Value, json};
use verteil_token_operator::api::{VerteilToken, VerteilTokenSpec, VerteilTokenStatus};

pub const NAMESPACE: &str = "ns";
pub const NAME: &str = "t";
/// Marks a Secret that somebody else made: nobody may write it.
pub const FOREIGN: &str = "model/foreign";

/// A call, as it came in.
#[derive(Clone)]
pub struct Call {
    pub name: &'static str,
    pub verb: http::Method,
    pub path: String,
    pub dry_run: bool,
    pub body: Vec<u8>,
}

pub type Answer = (u16, Value);

#[derive(Default)]
pub struct Apiserver {
    /// Every version of the VerteilToken: what a stale cache may still hold.
    pub history: Vec<Option<VerteilToken>>,
    pub secrets: BTreeMap<String, Secret>,
    /// What a watch of Secrets tells, in order: it exists, or it is gone.
    pub secret_events: Vec<(bool, ObjectMeta)>,
    /// Writes that changed something.
    pub writes: u64,
    /// A write of somebody else's Secret.
    pub trespass: Option<String>,
    version: u64,
    uids: u64,
}

impl Apiserver {
    pub fn token(&self) -> Option<&VerteilToken> {
        self.history.last().and_then(Option::as_ref)
    }

    /// Moves with every change of any object.
    pub const fn version(&self) -> u64 {
        self.version
    }

    pub fn create_token(&mut self, spec: VerteilTokenSpec) {
        let mut token = VerteilToken::new(NAME, spec);
        token.metadata.namespace = Some(NAMESPACE.into());
        token.metadata.uid = Some(self.new_uid());
        token.metadata.generation = Some(1);
        token.metadata.resource_version = Some(self.bump());
        token.status = Some(blank());
        self.history.push(Some(token));
    }

    pub fn delete_token(&mut self) {
        self.bump();
        self.history.push(None);
    }

    /// An edit by hand.
    pub fn edit_token(&mut self, edit: impl FnOnce(&mut VerteilToken)) {
        let Some(old) = self.token().cloned() else { return };
        let mut new = old.clone();
        edit(&mut new);
        if new == old {
            return;
        }
        if new.spec != old.spec {
            new.metadata.generation = old.metadata.generation.map(|n| n + 1);
        }
        new.metadata.resource_version = Some(self.bump());
        self.history.push(Some(new));
    }

    pub fn wipe_status(&mut self) {
        self.edit_token(|token| token.status = Some(blank()));
    }

    pub fn put_secret(&mut self, mut secret: Secret) {
        let name = secret.name_any();
        secret.metadata.namespace = Some(NAMESPACE.into());
        match self.secrets.get(&name) {
            Some(old) if *old == secret => return,
            Some(_) => {}
            None => secret.metadata.uid = Some(self.new_uid()),
        }
        secret.metadata.resource_version = Some(self.bump());
        self.secret_events.push((true, secret.metadata.clone()));
        self.secrets.insert(name, secret);
    }

    pub fn edit_secret(&mut self, name: &str, edit: impl FnOnce(&mut Secret)) {
        if let Some(mut secret) = self.secrets.get(name).cloned() {
            edit(&mut secret);
            self.put_secret(secret);
        }
    }

    pub fn delete_secret(&mut self, name: &str) -> bool {
        let Some(gone) = self.secrets.remove(name) else { return false };
        self.bump();
        self.secret_events.push((false, gone.metadata));
        true
    }

    /// The garbage collector's pass: Secrets none of whose owners exist. True if one went.
    pub fn collect(&mut self) -> bool {
        let live = self.token().and_then(ResourceExt::uid);
        let orphaned = |secret: &Secret| {
            let owners = secret.owner_references();
            !owners.is_empty() && owners.iter().all(|owner| Some(&owner.uid) != live.as_ref())
        };
        let gone: Vec<String> = self.secrets.iter().filter(|(_, s)| orphaned(s)).map(|(n, _)| n.clone()).collect();
        gone.iter().filter(|name| self.delete_secret(name)).count() > 0
    }

    /// A call takes effect.
    pub fn handle(&mut self, call: &Call) -> Answer {
        let parts: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
        match (call.verb.as_str(), parts.as_slice()) {
            ("GET", ["api", "v1", "namespaces", NAMESPACE, "secrets", name]) => match self.secrets.get(*name) {
                Some(secret) => (200, serde_json::to_value(secret).unwrap()),
                None => failure(404, "NotFound"),
            },
            ("POST", ["api", "v1", "namespaces", NAMESPACE, "secrets"]) => self.create_secret(call),
            ("PUT", ["api", "v1", "namespaces", NAMESPACE, "secrets", name]) => self.replace_secret(call, name),
            ("GET", ["apis", "verteil.dev", "v1alpha1", "namespaces", NAMESPACE, "verteiltokens", NAME]) => {
                self.token().map_or_else(|| failure(404, "NotFound"), |t| (200, serde_json::to_value(t).unwrap()))
            }
            ("PUT", ["apis", "verteil.dev", "v1alpha1", "namespaces", NAMESPACE, "verteiltokens", NAME, "status"]) => {
                self.replace_status(call)
            }
            other => panic!("the model knows no such call: {other:?}"),
        }
    }

    fn create_secret(&mut self, call: &Call) -> Answer {
        let mut secret: Secret = serde_json::from_slice(&call.body).unwrap();
        let name = secret.name_any();
        if self.secrets.contains_key(&name) {
            return failure(409, "AlreadyExists");
        }
        assert!(secret.metadata.resource_version.is_none(), "a create carries no resourceVersion");
        if call.dry_run {
            secret.metadata.uid = Some("dry-run".into());
            return metadata_only(&secret);
        }
        self.writes += 1;
        self.put_secret(secret);
        metadata_only(&self.secrets[&name])
    }

    fn replace_secret(&mut self, call: &Call, name: &str) -> Answer {
        let secret: Secret = serde_json::from_slice(&call.body).unwrap();
        let Some(old) = self.secrets.get(name) else { return failure(404, "NotFound") };
        if secret.metadata.resource_version != old.metadata.resource_version || secret.metadata.uid != old.metadata.uid
        {
            return failure(409, "Conflict");
        }
        if call.dry_run {
            return metadata_only(old);
        }
        if old.annotations().contains_key(FOREIGN) {
            self.trespass = Some(format!("{} of a Secret that is somebody else's", call.name));
        }
        let before = self.version;
        self.put_secret(secret);
        self.writes += u64::from(self.version != before);
        metadata_only(&self.secrets[name])
    }

    fn replace_status(&mut self, call: &Call) -> Answer {
        let new: VerteilToken = serde_json::from_slice(&call.body).unwrap();
        let Some(old) = self.token() else { return failure(404, "NotFound") };
        if new.metadata.resource_version != old.metadata.resource_version || new.metadata.uid != old.metadata.uid {
            return failure(409, "Conflict");
        }
        let before = self.version;
        // Spec and metadata stay what they are.
        self.edit_token(|token| token.status = new.status);
        self.writes += u64::from(self.version != before);
        (200, serde_json::to_value(self.token()).unwrap())
    }

    fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }
}

/// What the CRD's default makes of a status that is absent.
fn blank() -> VerteilTokenStatus {
    VerteilTokenStatus { observed_generation: Some(-1), ..VerteilTokenStatus::default() }
}

fn metadata_only(secret: &Secret) -> Answer {
    (200, json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": secret.metadata}))
}

pub fn failure(code: u16, reason: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "by the model", "reason": reason, "code": code,
    });
    (code, status)
}
