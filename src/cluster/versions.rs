//! Which version of which Secret or ConfigMap exists, as far as the watch has told: enough to know that nothing needs to be
//! read, and whom a change concerns. Only those that some resource names are kept, so that other people's cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The namespaces whose watches have yet to list; none is the watch of all.
    unlisted: watch::Sender<Vec<Option<String>>>,
    /// Whether anything is named; what nobody names is not watched.
    needed: watch::Sender<bool>,
    names: fn(&VerteilToken) -> Vec<&str>,
}

#[derive(Default)]
struct Inner {
    named: HashMap<Key, Named>,
    /// Resource to the objects that it names.
    names: HashMap<Key, Vec<Arc<str>>>,
}

/// An object that some resource names.
struct Named {
    seen: Seen,
    /// The names of those resources.
    by: Vec<Arc<str>>,
}

// === impl Seen ===

impl Seen {
    /// Whether it was this version.
    #[must_use]
    pub fn is(&self, version: &ObjectVersion) -> bool {
        self.version() == Some(version)
    }

    const fn version(&self) -> Option<&ObjectVersion> {
        match self {
            Self::Version(version) => Some(version),
            Self::Unknown | Self::Absent => None,
        }
    }
}

// === impl Versions ===

impl Versions {
    /// Of Secrets nothing is known; the watches of `scopes` (a namespace each, or all, if none) have yet to list.
    #[must_use]
    pub fn new(scopes: Vec<Option<String>>) -> Self {
        // Every resource names two: there is no point in waiting for the first.
        Self::of(scopes, true, secrets_of)
    }

    /// The same of ConfigMaps.
    #[must_use]
    pub fn of_config_maps(scopes: Vec<Option<String>>) -> Self {
        Self::of(scopes, false, config_maps_of)
    }

    fn of(scopes: Vec<Option<String>>, needed: bool, names: fn(&VerteilToken) -> Vec<&str>) -> Self {
        Self {
            inner: Mutex::default(),
            unlisted: watch::Sender::new(scopes),
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

    /// Resolves once the watch of `namespace` (all, if none) has listed its objects: a namespace that may not be looked into holds
    /// up no other.
    pub async fn listed(&self, namespace: Option<&str>) {
        // The sender lives in self, so that this cannot fail.
        drop(self.unlisted.subscribe().wait_for(|unlisted| !covers(unlisted, namespace)).await);
    }

    /// Whether it has.
    #[must_use]
    pub fn are_listed(&self, namespace: Option<&str>) -> bool {
        !covers(&self.unlisted.borrow(), namespace)
    }

    /// Remembers which objects `token` names, whose key is `key`.
    pub fn add(&self, key: &Key, token: &VerteilToken) {
        let mut names = (self.names)(token);
        // A resource may name one object for two purposes. To look for it among thousands that name the object is not needed then.
        names.sort_unstable();
        names.dedup();
        let mut inner = self.lock();
        let known = inner.names.get(key).map(Vec::as_slice).unwrap_or_default();
        if known.iter().map(AsRef::as_ref).eq(names.iter().copied()) {
            return;
        }
        inner.remove(key);
        if names.is_empty() {
            return;
        }
        let names = names.into_iter().map(|name| inner.add(key, name)).collect();
        inner.names.insert(key.clone(), names);
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
        self.lock().named.contains_key(secret)
    }

    /// What is known of `secret`.
    #[must_use]
    pub fn get(&self, secret: &Key) -> Seen {
        self.lock().named.get(secret).map_or(Seen::Unknown, |named| named.seen.clone())
    }

    /// Whether `secret` was last seen in `version`: as [`get`](Self::get) tells, without a copy.
    #[must_use]
    pub fn is(&self, secret: &Key, version: &ObjectVersion) -> bool {
        self.lock().named.get(secret).is_some_and(|named| named.seen.is(version))
    }

    /// A read or a write returned this. The watch will say the same in a while, and may first say what came before.
    pub fn note(&self, secret: &Key, meta: Option<&ObjectMeta>) {
        let mut inner = self.lock();
        let Some(named) = inner.named.get_mut(secret) else { return };
        match meta.and_then(version) {
            Some(version) => named.keep_newer(version),
            None if named.seen == Seen::Unknown => named.seen = Seen::Absent,
            None => {}
        }
    }

    /// The watch says that `secret` exists, with `meta`. Returns the resources that it concerns, if that is news.
    pub fn applied(&self, secret: &Key, meta: &ObjectMeta) -> Vec<Key> {
        let Some(version) = version(meta) else { return Vec::new() };
        let mut inner = self.lock();
        let Some(named) = inner.named.get_mut(secret).filter(|named| !named.seen.is(&version)) else {
            return Vec::new();
        };
        named.keep_newer(version);
        named.concerned(secret).collect()
    }

    /// The watch says that `secret` is gone, which had `meta`. Returns the resources that it concerns.
    pub fn deleted(&self, secret: &Key, meta: &ObjectMeta) -> Vec<Key> {
        let mut inner = self.lock();
        let newer = |named: &Named| named.seen.version().is_some_and(|kept| Some(&kept.uid) != meta.uid.as_ref());
        let Some(named) = inner.named.get_mut(secret).filter(|named| !newer(named)) else { return Vec::new() };
        named.seen = Seen::Absent;
        named.concerned(secret).collect()
    }

    /// A watch of `namespace` (all, if none) has listed: named objects that were not in the list do not exist.
    pub fn relisted(&self, namespace: Option<&str>, listed: &HashSet<Key>, first: bool) -> Vec<Key> {
        let mut inner = self.lock();
        let gone = inner.named.iter_mut().filter(|(key, _)| key.is_in(namespace) && !listed.contains(*key));
        let mut concerned = Vec::new();
        for (secret, named) in gone {
            match named.seen {
                // What was noted from a write may be younger than the list: unknown, rather than absent.
                Seen::Version(_) => {
                    named.seen = Seen::Unknown;
                    concerned.extend(named.concerned(secret));
                }
                Seen::Unknown if first => named.seen = Seen::Absent,
                Seen::Unknown | Seen::Absent => {}
            }
        }
        drop(inner);
        if first {
            self.end_list(namespace);
        }
        concerned
    }

    /// The watch of `namespace` (all, if none) has listed, has nothing yet to list, or is not waited for any more: what it would have
    /// told is read instead.
    pub fn end_list(&self, namespace: Option<&str>) {
        self.unlisted.send_modify(|unlisted| unlisted.retain(|scope| scope.as_deref() != namespace));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of `scopes` is that of `namespace`, or all.
fn covers(scopes: &[Option<String>], namespace: Option<&str>) -> bool {
    scopes.iter().any(|scope| scope.is_none() || scope.as_deref() == namespace)
}

// === impl Inner ===

impl Inner {
    /// `token` names the object `name`. Returns the text that all tables share.
    fn add(&mut self, token: &Key, name: &str) -> Arc<str> {
        let object = token.beside(name);
        let name = Arc::clone(&object.name);
        // Most are named once: a vector that grows by itself begins with room for four.
        let unknown = || Named { seen: Seen::Unknown, by: Vec::with_capacity(1) };
        self.named.entry(object).or_insert_with(unknown).by.push(Arc::clone(&token.name));
        name
    }

    fn remove(&mut self, token: &Key) {
        for name in self.names.remove(token).into_iter().flatten() {
            let object = token.beside(name);
            if let Some(named) = self.named.get_mut(&object) {
                if let Some(place) = named.by.iter().position(|name| *name == token.name) {
                    named.by.swap_remove(place);
                }
                if named.by.is_empty() {
                    self.named.remove(&object);
                }
            }
        }
    }
}

// === impl Named ===

impl Named {
    /// The resources that `object`, which this is, concerns.
    fn concerned(&self, object: &Key) -> impl Iterator<Item = Key> {
        self.by.iter().map(|name| object.beside(Arc::clone(name)))
    }

    /// Resource versions of one object grow (API concepts, "Resource versions"); where they cannot be compared the last word
    /// counts, and a wrong one costs no more than a read.
    fn keep_newer(&mut self, version: ObjectVersion) {
        let number = |version: &ObjectVersion| version.resource_version.parse::<u64>().ok();
        let older = self.seen.version().is_some_and(|kept| kept.uid == version.uid && number(kept) > number(&version));
        if !older {
            self.seen = Seen::Version(version);
        }
    }
}

fn secrets_of(token: &VerteilToken) -> Vec<&str> {
    let names = [token.secret_name(), &token.spec.credentials_secret_ref.name];
    names.into_iter().chain(ca_of(token, CaBundleKind::Secret)).collect()
}

fn config_maps_of(token: &VerteilToken) -> Vec<&str> {
    ca_of(token, CaBundleKind::ConfigMap).into_iter().collect()
}

fn ca_of(token: &VerteilToken, kind: CaBundleKind) -> Option<&str> {
    token.spec.ca_bundle_ref.as_ref().filter(|source| source.kind == kind).map(|source| source.name.as_str())
}

/// The version of an object as a number, which grows (API concepts, "Resource versions"); none if it cannot be compared.
#[must_use]
pub fn number(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}
