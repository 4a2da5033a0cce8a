//! Every resource as the watches last saw it: what metrics and the debug endpoint look at. No call is made for them.

use std::sync::{Arc, OnceLock};

use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::VerteilTokenStatus;
use crate::cluster::{Listed, Tokens};
use crate::decide::{Reason, Trouble, condition};
use crate::memory::Key;

/// The watched resources. Objects are shared with the watches, never copied.
#[derive(Default)]
pub struct Resources {
    watches: OnceLock<Vec<Watched>>,
}

/// What one watch keeps.
#[derive(Clone)]
pub struct Watched {
    /// The namespace; none means all.
    pub namespace: Option<String>,
    /// The objects.
    pub store: Store<Tokens>,
    /// Whether they are all there.
    pub listed: Listed,
}

// === impl Resources ===

impl Resources {
    /// Makes `watches` known, once.
    pub fn set(&self, watches: Vec<Watched>) {
        // A process wires its watches once.
        drop(self.watches.set(watches));
    }

    /// Whether those of `namespace` are listed, if they are watched; or any at all: a namespace that may not be looked into hides no
    /// other.
    #[must_use]
    pub fn are_listed(&self, namespace: Option<&str>) -> bool {
        let Some(watches) = self.watches.get() else { return false };
        let listed = |watched: &Watched| *watched.listed.borrow();
        namespace.map_or_else(
            || watches.iter().any(listed),
            |namespace| watches.iter().filter(|watched| watched.is_of(namespace)).all(listed),
        )
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Arc<Tokens>> + '_ {
        self.watches.get().into_iter().flatten().flat_map(|watched| watched.store.state())
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Tokens>> {
        let name = ObjectRef::new(&key.name).within(&key.namespace);
        self.watches.get().into_iter().flatten().find_map(|watched| watched.store.get(&name))
    }
}

// === impl Watched ===

impl Watched {
    fn is_of(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|watched| *watched == *namespace)
    }
}

/// The one reason that a status gives: what is in the way if anything is, else that of Ready.
#[must_use]
pub fn reason(status: &VerteilTokenStatus) -> Option<Reason> {
    let ready = || condition(status, "Ready").and_then(|condition| Reason::parse(&condition.reason));
    Trouble::told_by(status).map(|trouble| trouble.reason).or_else(ready)
}

/// Whether a condition has the status True.
#[must_use]
pub fn is_true(status: &VerteilTokenStatus, type_: &str) -> bool {
    condition(status, type_).is_some_and(|condition| condition.status == "True")
}
