//! Which version of which Secret or ConfigMap exists, as far as the watch has told: enough to know that nothing needs to be
//! read, and whom a change concerns. Only those that some resource names are kept, so that other people's cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use kube::core::ObjectMeta;
use tokio::sync::watch;

use super::calls::version;
use crate::api::{CaBundleKind, ObjectVersion, VerteilToken};
use crate::memory::Key;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: read it.
    Unknown,
    /// It did not exist when the watch last spoke of it.
    Absent,
    /// It existed in this version.
    Version(ObjectVersion),
}

/// Versions of the objects of one kind that resources name.
pub struct Versions {
    inner: Mutex<Inner>,
    unlisted: watch::Sender<usize>,
    /// Whether anything is named; what nobody names is not watched.
    needed: watch::Sender<bool>,
    names: fn(&VerteilToken) -> Vec<String>,
}

#[derive(Default)]
struct Inner {
    /// Object to what is known of it; one without an entry is unknown.
    seen: HashMap<Key, Option<ObjectVersion>>,
    /// Object to the names of the resources that name it.
    named_by: HashMap<Key, Vec<String>>,
    /// Resource to the objects that it names.
    names: HashMap<Key, Vec<String>>,
}

// === impl Seen ===

impl Seen {
    /// Whether it was this version.
    #[must_use]
    pub fn is(&self, version: &ObjectVersion) -> bool {
        matches!(self, Self::Version(seen) if seen == version)
    }
}

// === impl Versions ===

impl Versions {
    /// Of Secrets nothing is known; `watches` have yet to list.
    #[must_use]
    pub fn new(watches: usize) -> Self {
        // Every resource names two: there is no point in waiting for the first.
        Self::of(watches, true, secrets_of)
    }

    /// The same of ConfigMaps.
    #[must_use]
    pub fn of_config_maps(watches: usize) -> Self {
        Self::of(watches, false, config_maps_of)
    }

    fn of(watches: usize, needed: bool, names: fn(&VerteilToken) -> Vec<String>) -> Self {
        Self {
            inner: Mutex::default(),
            unlisted: watch::Sender::new(watches),
            needed: watch::Sender::new(needed),
            names,
        }
    }

    /// Resolves once a watch is worth its cost.
    pub async fn needed(&self) {
        // The sender lives in self, so that this cannot fail.
        drop(self.needed.subscribe().wait_for(|needed| *needed).await);
    }

    /// Whether a watch is worth its cost.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        *self.needed.borrow()
    }

    /// Resolves once every watch has listed its objects.
    pub async fn listed(&self) {
        // The sender lives in self, so that this cannot fail.
        drop(self.unlisted.subscribe().wait_for(|unlisted| *unlisted == 0).await);
    }

    /// Waits no more for watches that have not listed: what they would have told is read instead.
    pub fn give_up(&self) {
        self.unlisted.send_replace(0);
    }

    /// Remembers which objects `token` names.
    pub fn add(&self, token: &VerteilToken) {
        let key = Key::of(token);
        let mut names = (self.names)(token);
        // A resource may name one object for two purposes. To look for it among thousands that name the object is not needed then.
        names.sort();
        names.dedup();
        let mut inner = self.lock();
        if inner.names.get(&key).map(Vec::as_slice).unwrap_or_default() == names {
            return;
        }
        inner.remove(&key);
        if names.is_empty() {
            return;
        }
        for name in &names {
            // Most are named once: a vector that grows by itself begins with room for four.
            let named_by = inner.named_by.entry(key.beside(name)).or_insert_with(|| Vec::with_capacity(1));
            named_by.push(key.name.clone());
        }
        inner.names.insert(key, names);
        drop(inner);
        self.needed.send_if_modified(|needed| !std::mem::replace(needed, true));
    }

    /// Forgets a resource, and the objects that no other one names.
    pub fn remove(&self, token: &Key) {
        self.lock().remove(token);
    }

    /// Whether some resource names `secret`.
    #[must_use]
    pub fn is_named(&self, secret: &Key) -> bool {
        self.lock().named_by.contains_key(secret)
    }

    /// What is known of `secret`.
    #[must_use]
    pub fn get(&self, secret: &Key) -> Seen {
        match self.lock().seen.get(secret) {
            None => Seen::Unknown,
            Some(None) => Seen::Absent,
            Some(Some(version)) => Seen::Version(version.clone()),
        }
    }

    /// A read or a write returned this. The watch will say the same in a while, and may first say what came before.
    pub fn note(&self, secret: &Key, meta: Option<&ObjectMeta>) {
        let mut inner = self.lock();
        if !inner.named_by.contains_key(secret) {
            return;
        }
        match meta.and_then(version) {
            Some(version) => inner.keep_newer(secret, version),
            None => {
                inner.seen.entry(secret.clone()).or_insert(None);
            }
        }
    }

    /// The watch says that `meta` exists. Returns the resources that it concerns, if that is news.
    pub fn applied(&self, meta: &ObjectMeta) -> Vec<Key> {
        let Some((secret, version)) = key_of(meta).zip(version(meta)) else { return Vec::new() };
        let mut inner = self.lock();
        if !inner.named_by.contains_key(&secret) {
            return Vec::new();
        }
        if inner.seen.get(&secret) == Some(&Some(version.clone())) {
            return Vec::new();
        }
        inner.keep_newer(&secret, version);
        inner.concerned(&secret)
    }

    /// The watch says that `meta` is gone. Returns the resources that it concerns.
    pub fn deleted(&self, meta: &ObjectMeta) -> Vec<Key> {
        let Some(secret) = key_of(meta) else { return Vec::new() };
        let mut inner = self.lock();
        let newer =
            inner.seen.get(&secret).and_then(Option::as_ref).is_some_and(|kept| Some(&kept.uid) != meta.uid.as_ref());
        if !inner.named_by.contains_key(&secret) || newer {
            return Vec::new();
        }
        inner.seen.insert(secret.clone(), None);
        inner.concerned(&secret)
    }

    /// A watch of `namespace` (all, if none) has listed: named objects that were not in the list do not exist.
    pub fn relisted(&self, namespace: Option<&str>, listed: &HashSet<Key>, first: bool) -> Vec<Key> {
        let mut inner = self.lock();
        let gone: Vec<Key> = inner
            .named_by
            .keys()
            .filter(|key| namespace.is_none_or(|n| n == key.namespace) && !listed.contains(key))
            .filter(|key| inner.seen.get(*key) != Some(&None))
            .cloned()
            .collect();
        let mut concerned = Vec::new();
        for secret in gone {
            // What was noted from a write may be younger than the list: unknown, rather than absent.
            if inner.seen.remove(&secret).is_some() {
                concerned.extend(inner.concerned(&secret));
            } else if first {
                inner.seen.insert(secret, None);
            }
        }
        drop(inner);
        if first {
            self.skip_list();
        }
        concerned
    }

    /// One watch has listed, or there is nothing yet that it would have to list.
    pub fn skip_list(&self) {
        self.unlisted.send_modify(|unlisted| *unlisted = unlisted.saturating_sub(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn remove(&mut self, token: &Key) {
        for name in self.names.remove(token).into_iter().flatten() {
            let secret = token.beside(&name);
            if let Some(named_by) = self.named_by.get_mut(&secret) {
                if let Some(place) = named_by.iter().position(|name| *name == token.name) {
                    named_by.swap_remove(place);
                }
                if named_by.is_empty() {
                    self.named_by.remove(&secret);
                    self.seen.remove(&secret);
                }
            }
        }
    }

    fn concerned(&self, secret: &Key) -> Vec<Key> {
        let names = self.named_by.get(secret).into_iter().flatten();
        names.map(|name| secret.beside(name)).collect()
    }

    /// Resource versions of one object grow (API concepts, "Resource versions"); where they cannot be compared the last word
    /// counts, and a wrong one costs no more than a read.
    fn keep_newer(&mut self, secret: &Key, version: ObjectVersion) {
        let number = |version: &ObjectVersion| version.resource_version.parse::<u64>().ok();
        let kept = self.seen.get(secret).and_then(Option::as_ref);
        let older = kept.is_some_and(|kept| kept.uid == version.uid && number(kept) > number(&version));
        if !older {
            self.seen.insert(secret.clone(), Some(version));
        }
    }
}

fn secrets_of(token: &VerteilToken) -> Vec<String> {
    let names = [token.secret_name(), &token.spec.credentials_secret_ref.name];
    names.into_iter().chain(ca_of(token, CaBundleKind::Secret)).map(str::to_owned).collect()
}

fn config_maps_of(token: &VerteilToken) -> Vec<String> {
    ca_of(token, CaBundleKind::ConfigMap).map(str::to_owned).into_iter().collect()
}

fn ca_of(token: &VerteilToken, kind: CaBundleKind) -> Option<&str> {
    token.spec.ca_bundle_ref.as_ref().filter(|source| source.kind == kind).map(|source| source.name.as_str())
}

fn key_of(meta: &ObjectMeta) -> Option<Key> {
    Some(Key { namespace: meta.namespace.clone()?, name: meta.name.clone()? })
}

/// The version of an object as a number, which grows (API concepts, "Resource versions"); none if it cannot be compared.
#[must_use]
pub fn number(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}
