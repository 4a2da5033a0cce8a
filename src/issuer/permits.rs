//! How many requests may be in flight to one host. Who finds none free is told when one is, and holds nothing meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::memory::Key;

/// Who goes first when a permit becomes free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody has a token yet, or the stored one is about to expire.
    Urgent,
    /// The stored token still holds for a while.
    Renewal,
}

/// Permits by host.
pub struct Permits {
    per_host: usize,
    hosts: Mutex<HashMap<String, Host>>,
    bell: UnboundedSender<Key>,
}

/// The right to send one request to one host; dropping it wakes the next in line.
pub struct Permit {
    permits: Arc<Permits>,
    host: String,
}

#[derive(Default)]
struct Host {
    in_flight: usize,
    arrivals: u64,
    waiting: BTreeSet<(Priority, u64, Key)>,
}

// === impl Permits ===

impl Permits {
    /// `per_host` permits for each host. `bell` rings for a resource that may try again.
    #[must_use]
    pub fn new(per_host: usize, bell: UnboundedSender<Key>) -> Arc<Self> {
        Arc::new(Self { per_host: per_host.max(1), hosts: Mutex::default(), bell })
    }

    /// A permit for `host`, or a place in its line.
    pub fn obtain(self: &Arc<Self>, host: &str, key: &Key, priority: Priority) -> Option<Permit> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = hosts.entry(host.to_owned()).or_default();
        entry.waiting.retain(|(_, _, waiting)| waiting != key);
        if entry.in_flight < self.per_host {
            entry.in_flight += 1;
            return Some(Permit { permits: Arc::clone(self), host: host.to_owned() });
        }
        entry.arrivals += 1;
        entry.waiting.insert((priority, entry.arrivals, key.clone()));
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut hosts = self.permits.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = hosts.get_mut(&self.host) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if let Some((_, _, next)) = entry.waiting.pop_first() {
            // Nobody listens any more only when the process ends.
            drop(self.permits.bell.send(next));
        } else if entry.in_flight == 0 {
            hosts.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "n".into(), name: name.into() }
    }

    #[test]
    fn the_urgent_go_first_and_others_in_order_of_arrival() {
        let (bell, mut rings) = tokio::sync::mpsc::unbounded_channel();
        let permits = Permits::new(1, bell);
        let held = permits.obtain("h", &key("a"), Priority::Renewal);
        assert!(held.is_some());
        for (name, priority) in [("b", Priority::Renewal), ("c", Priority::Renewal), ("d", Priority::Urgent)] {
            assert!(permits.obtain("h", &key(name), priority).is_none());
        }
        assert!(permits.obtain("other", &key("b"), Priority::Renewal).is_some());
        drop(held);
        for expected in ["d", "b", "c"] {
            let next = rings.try_recv().ok();
            assert_eq!(next.as_ref().map(|k| k.name.as_str()), Some(expected));
            drop(permits.obtain("h", &key(expected), Priority::Renewal));
        }
        assert!(rings.try_recv().is_err());
    }
}
