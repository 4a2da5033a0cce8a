//! Where tokens are kept: in Secrets; or, with `--disable-token-persistence`, in the memory of this process and nowhere else.
//!
//! What is kept in memory has the form of the Secret that it stands for: so it is judged, repaired and renewed in the same way.
//! Each resource has a place of its own, whatever Secret it names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use tokio::sync::mpsc::UnboundedSender;

use crate::api::{ObjectVersion, VerteilToken};
use crate::cluster::{ApiError, Seen, version};
use crate::decide::Trouble;
use crate::memory::Key;

/// Where tokens are kept.
pub struct Store {
    in_memory: AtomicBool,
    kept: Mutex<HashMap<Key, Kept>>,
    /// Writes so far: each has a version of its own.
    writes: AtomicU64,
    /// Tells this process's versions from those of another.
    identity: Arc<str>,
    bell: UnboundedSender<Key>,
}

/// What is kept of one resource. No `Debug`: it holds the token.
struct Kept {
    /// metadata.uid of the resource: one that is made again begins anew.
    owner: Option<String>,
    secret: Secret,
    /// Secrets of the cluster that the token was taken from, and that hold it still.
    leftovers: Vec<String>,
    refused: Option<Refused>,
}

/// A leftover could not be emptied.
#[derive(Clone)]
pub struct Refused {
    /// Why.
    pub trouble: Trouble,
    /// So often in a row.
    pub count: u32,
    /// When to try again.
    pub until: Duration,
}

// === impl Store ===

impl Store {
    /// Nothing is kept yet. `bell` rings for resources whose tokens are to be saved.
    #[must_use]
    pub fn new(in_memory: bool, identity: Arc<str>, bell: UnboundedSender<Key>) -> Self {
        Self { in_memory: in_memory.into(), kept: Mutex::default(), writes: AtomicU64::new(0), identity, bell }
    }

    /// Whether nothing is written to Secrets.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.in_memory.load(Ordering::SeqCst)
    }

    /// From now on tokens are kept in Secrets; those that are in memory are written there. True if that is new.
    pub fn persist(&self) -> bool {
        let new = self.in_memory.swap(false, Ordering::SeqCst);
        if new {
            for key in self.keys() {
                // Nobody listens any more only at the end.
                drop(self.bell.send(key));
            }
        }
        new
    }

    /// What memory holds for `token`.
    #[must_use]
    pub fn kept(&self, token: &VerteilToken) -> Option<Secret> {
        self.peek(token, |kept| kept.secret.clone())
    }

    /// Which version of it, as [`crate::cluster::Versions::get`] tells of a Secret; unknown while there is more to do.
    #[must_use]
    pub fn seen(&self, token: &VerteilToken) -> Seen {
        let settled = self.peek(token, |kept| version(&kept.secret.metadata).filter(|_| kept.leftovers.is_empty()));
        settled.flatten().map_or(Seen::Unknown, Seen::Version)
    }

    /// Takes `secret` into memory, from Secrets named `leftovers`.
    pub fn take(&self, token: &VerteilToken, secret: Secret, leftovers: Vec<String>) {
        let secret = self.versioned(secret, None);
        self.lock().insert(Key::of(token), Kept { owner: token.uid(), secret, leftovers, refused: None });
    }

    /// Keeps `secret` in place of the version of it that was read.
    pub fn write(&self, token: &VerteilToken, secret: Secret) -> Result<Secret, ApiError> {
        let mut all = self.lock();
        let key = Key::of(token);
        let before = all.remove(&key).filter(|kept| kept.owner == token.uid());
        let known = before.as_ref().and_then(|kept| version(&kept.secret.metadata));
        let stale = known.as_ref().map(|known| &known.resource_version) != secret.metadata.resource_version.as_ref();
        if stale {
            all.extend(before.map(|kept| (key, kept)));
            return Err(ApiError::Conflict { call: "keep in memory" });
        }
        let secret = self.versioned(secret, known);
        let written = secret.clone();
        let (leftovers, refused) = before.map(|kept| (kept.leftovers, kept.refused)).unwrap_or_default();
        all.insert(key, Kept { owner: token.uid(), secret, leftovers, refused });
        Ok(written)
    }

    /// Secrets that are yet to be emptied.
    #[must_use]
    pub fn leftovers(&self, token: &VerteilToken) -> Vec<String> {
        self.peek(token, |kept| kept.leftovers.clone()).unwrap_or_default()
    }

    /// One of them is.
    pub fn emptied(&self, token: &VerteilToken, name: &str) {
        if let Some(kept) = self.lock().get_mut(&Key::of(token)) {
            kept.leftovers.retain(|leftover| leftover != name);
            kept.refused = None;
        }
    }

    /// Why one of them could not be, at the last try.
    #[must_use]
    pub fn refused(&self, token: &VerteilToken) -> Option<Refused> {
        self.peek(token, |kept| kept.refused.clone()).flatten()
    }

    /// One of them could not be.
    pub fn refuse(&self, token: &VerteilToken, refused: Refused) {
        if let Some(kept) = self.lock().get_mut(&Key::of(token)) {
            kept.refused = Some(refused);
        }
    }

    /// The resource is gone, or its token is saved: nothing is kept of it.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Whether something is kept of the resource.
    #[must_use]
    pub fn keeps(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    /// The resources of which something is kept.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// `secret` with a version that no other process and no apiserver gives.
    fn versioned(&self, mut secret: Secret, known: Option<ObjectVersion>) -> Secret {
        let number = self.writes.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let uid = known.map_or_else(|| format!("memory-{}-{number}", self.identity), |known| known.uid);
        (secret.metadata.uid, secret.metadata.resource_version) = (Some(uid), Some(number.to_string()));
        secret
    }

    fn peek<T>(&self, token: &VerteilToken, f: impl FnOnce(&Kept) -> T) -> Option<T> {
        let all = self.lock();
        // With Secrets nothing is kept here.
        let key = (!all.is_empty()).then(|| Key::of(token))?;
        all.get(&key).filter(|kept| kept.owner == token.uid()).map(f)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;

    fn token(uid: &str) -> VerteilToken {
        serde_json::from_value(json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
            "metadata": {"name": "flight", "namespace": "a", "uid": uid},
            "spec": {"tokenURL": "https://a.b/token", "credentialsSecretRef": {"name": "c"}},
        }))
        .unwrap()
    }

    fn secret() -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "flight", "namespace": "a"}})).unwrap()
    }

    #[test]
    fn a_write_replaces_the_version_that_was_read_and_no_other() {
        let (bell, _rings) = mpsc::unbounded_channel();
        let (store, token) = (Store::new(true, "one".into(), bell), token("u"));
        assert_eq!(store.seen(&token), Seen::Unknown);
        let first = store.write(&token, secret()).unwrap();
        assert_eq!(store.seen(&token), Seen::Version(version(&first.metadata).unwrap()));
        assert!(matches!(store.write(&token, secret()), Err(ApiError::Conflict { .. })), "it exists");
        let read = store.kept(&token).unwrap();
        let second = store.write(&token, read.clone()).unwrap();
        assert_eq!(second.uid(), first.uid());
        assert_ne!(second.resource_version(), first.resource_version());
        assert!(matches!(store.write(&token, read), Err(ApiError::Conflict { .. })), "it has changed");
        assert_eq!(store.kept(&token).unwrap(), second);
    }

    #[test]
    fn a_resource_that_is_made_again_begins_anew() {
        let (bell, _rings) = mpsc::unbounded_channel();
        let store = Store::new(true, "one".into(), bell);
        store.write(&token("u"), secret()).unwrap();
        assert!(store.kept(&token("v")).is_none());
        store.write(&token("v"), secret()).unwrap();
        assert!(store.kept(&token("u")).is_none() && store.kept(&token("v")).is_some());
        store.forget(&Key::of(&token("v")));
        assert!(store.keys().is_empty() && !store.keeps(&Key::of(&token("v"))));
    }

    #[test]
    fn while_a_secret_is_to_be_emptied_nothing_is_settled() {
        let (bell, mut rings) = mpsc::unbounded_channel();
        let (store, token) = (Store::new(true, "one".into(), bell), token("u"));
        store.take(&token, secret(), vec!["flight".into(), "former".into()]);
        assert_eq!(store.seen(&token), Seen::Unknown);
        let read = store.kept(&token).unwrap();
        store.write(&token, read).unwrap();
        store.emptied(&token, "flight");
        assert_eq!(store.leftovers(&token), ["former"]);
        store.emptied(&token, "former");
        assert!(matches!(store.seen(&token), Seen::Version(_)));
        assert!(store.persist() && !store.persist() && !store.is_in_memory());
        assert_eq!(rings.try_recv().unwrap(), Key::of(&token));
        assert!(rings.try_recv().is_err(), "once");
    }
}
