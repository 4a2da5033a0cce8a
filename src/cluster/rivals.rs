//! Which resources name the same token Secret, as far as the watch has told; and which one is at work on a first token for it.
//! Who has to wait, or is to be told of another one, is rung for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::mpsc::UnboundedSender;

use crate::api::VerteilToken;
use crate::memory::Key;
use crate::secret::{Labelled, Neighbours};

/// The resources by the token Secret that they name.
pub struct Rivals {
    inner: Mutex<Inner>,
    bell: UnboundedSender<Key>,
}

#[derive(Default)]
struct Inner {
    /// Secret to the resources that name it, the oldest first.
    named_by: HashMap<Key, Vec<Rival>>,
    /// Resource to the Secret that it names.
    names: HashMap<Key, Arc<str>>,
    /// Secret to the resource that is at work on it.
    writing: HashMap<Key, Arc<str>>,
}

/// By age; of two made in the same second by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rival {
    created: Option<Timestamp>,
    name: Arc<str>,
}

// === impl Rivals ===

impl Rivals {
    /// `bell` rings for a resource whose neighbours have changed.
    #[must_use]
    pub fn new(bell: UnboundedSender<Key>) -> Self {
        Self { inner: Mutex::default(), bell }
    }

    /// Remembers which Secret `token` names, whose key is `key`.
    pub fn add(&self, key: &Key, token: &VerteilToken) {
        let name = token.secret_name();
        let mut inner = self.lock();
        if inner.names.get(key).is_some_and(|known| **known == *name) {
            return;
        }
        let mut concerned = inner.remove(key);
        let secret = key.beside(name);
        let created = token.creation_timestamp().map(|time| time.0);
        // Nearly always it is the only one: a vector that grows by itself begins with room for four.
        let rivals = inner.named_by.entry(secret.clone()).or_insert_with(|| Vec::with_capacity(1));
        concerned.extend(rivals.iter().map(|rival| secret.beside(Arc::clone(&rival.name))));
        let rival = Rival { created, name: Arc::clone(&key.name) };
        let place = rivals.partition_point(|other| *other < rival);
        rivals.insert(place, rival);
        inner.names.insert(key.clone(), secret.name);
        drop(inner);
        self.ring(concerned);
    }

    /// Forgets a resource. Those that waited for it are rung for.
    pub fn remove(&self, token: &Key) {
        let concerned = self.lock().remove(token);
        self.ring(concerned);
    }

    /// Who else concerns the Secret `secret_name` that the resource `key` names, and whose label names `label`.
    #[must_use]
    pub fn neighbours(&self, key: &Key, secret_name: &str, label: Option<&str>) -> Neighbours {
        let inner = self.lock();
        let secret = key.beside(secret_name);
        let named_by = inner.named_by.get(&secret).map(Vec::as_slice).unwrap_or_default();
        let labelled = match label.filter(|label| **label != *key.name) {
            Some(label) if named_by.iter().any(|rival| *rival.name == *label) => Labelled::Rival,
            Some(label) if inner.names.contains_key(&key.beside(label)) => Labelled::Elsewhere,
            Some(_) | None => Labelled::Gone,
        };
        // Who is at work goes before all others, this one too.
        let first = inner.writing.get(&secret).or_else(|| named_by.first().map(|rival| &rival.name));
        Neighbours { labelled, first: first.filter(|name| **name != key.name).map(ToString::to_string) }
    }

    /// The resources of `namespace`, or all.
    #[must_use]
    pub fn known(&self, namespace: Option<&str>) -> Vec<Key> {
        let inner = self.lock();
        inner.names.keys().filter(|key| key.is_in(namespace)).cloned().collect()
    }

    /// The resources but `key` that name the Secret `secret_name`.
    #[must_use]
    pub fn of(&self, key: &Key, secret_name: &str) -> Vec<String> {
        let inner = self.lock();
        let named_by = inner.named_by.get(&key.beside(secret_name));
        let names = named_by.into_iter().flatten().map(|rival| &rival.name);
        names.filter(|name| **name != key.name).map(ToString::to_string).collect()
    }

    /// `token` goes to work on a first token for `secret`, and keeps the others from it. False if another one does.
    pub fn begin(&self, token: &Key, secret: &str) -> bool {
        let mut inner = self.lock();
        *inner.writing.entry(token.beside(secret)).or_insert_with(|| Arc::clone(&token.name)) == token.name
    }

    /// `token` is no longer at work on any Secret.
    pub fn end(&self, token: &Key) {
        let mut inner = self.lock();
        if inner.writing.is_empty() {
            return;
        }
        let concerned = inner.end(token);
        drop(inner);
        self.ring(concerned);
    }

    fn ring(&self, concerned: Vec<Key>) {
        for key in concerned {
            // Nobody listens any more only at the end.
            drop(self.bell.send(key));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// Forgets `token`. Returns whom that concerns.
    fn remove(&mut self, token: &Key) -> Vec<Key> {
        let mut concerned = self.end(token);
        let Some(secret) = self.names.remove(token).map(|name| token.beside(name)) else { return concerned };
        if let Some(rivals) = self.named_by.get_mut(&secret) {
            rivals.retain(|rival| rival.name != token.name);
            concerned.extend(rivals.iter().map(|rival| secret.beside(Arc::clone(&rival.name))));
            if rivals.is_empty() {
                self.named_by.remove(&secret);
            }
        }
        concerned
    }

    fn end(&mut self, token: &Key) -> Vec<Key> {
        let held =
            self.writing.iter().filter(|(secret, name)| secret.namespace == token.namespace && **name == token.name);
        let held: Vec<Key> = held.map(|(secret, _)| secret.clone()).collect();
        let mut concerned = Vec::new();
        for secret in held {
            self.writing.remove(&secret);
            let rivals = self.named_by.get(&secret).into_iter().flatten();
            concerned.extend(
                rivals.filter(|rival| rival.name != token.name).map(|rival| secret.beside(Arc::clone(&rival.name))),
            );
        }
        concerned
    }
}
