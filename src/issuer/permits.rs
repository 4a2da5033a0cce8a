//! How many requests may be in flight to one host. Who finds none free is told when one is, and holds nothing meanwhile.
//!
//! A host that was never asked gets one request at first: what it answers may hold for all that would have followed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Hosts of which a permit has come back. As many as token URLs have ever named.
    known: Mutex<HashSet<String>>,
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
    /// Rung for: each has a permit kept for it until it comes or withdraws.
    reserved: HashSet<Key>,
    /// The line, and where each stands in it.
    waiting: BTreeMap<(Priority, u64), Key>,
    places: HashMap<Key, (Priority, u64)>,
    arrivals: u64,
}

// === impl Permits ===

impl Permits {
    /// `per_host` permits for each host. `bell` rings for a resource that may try again.
    #[must_use]
    pub fn new(per_host: usize, bell: UnboundedSender<Key>) -> Arc<Self> {
        Arc::new(Self { per_host: per_host.max(1), hosts: Mutex::default(), known: Mutex::default(), bell })
    }

    /// Keeps a permit for `key`, to be [obtained](Self::obtain) or [withdrawn](Self::withdraw); else a place in the line, and
    /// false: `key` is rung for when one is kept.
    pub fn reserve(&self, host: &str, key: &Key, priority: Priority) -> bool {
        let mut hosts = self.lock();
        let entry = hosts.entry(host.to_owned()).or_default();
        if entry.reserved.contains(key) {
            return true;
        }
        let free = entry.taken() < self.most(host);
        if free {
            entry.leave(key);
            entry.reserved.insert(key.clone());
        } else {
            entry.stand(key, priority);
        }
        free
    }

    /// A permit for `host`, or a place in its line. Who has a place must come when it is rung for, or [withdraw](Self::withdraw).
    pub fn obtain(self: &Arc<Self>, host: &str, key: &Key, priority: Priority) -> Option<Permit> {
        if !self.reserve(host, key, priority) {
            return None;
        }
        let mut hosts = self.lock();
        let entry = hosts.get_mut(host)?;
        // Another thread may have withdrawn it in between.
        entry.reserved.remove(key).then(|| {
            entry.in_flight += 1;
            Permit { permits: Arc::clone(self), host: host.to_owned() }
        })
    }

    /// `key` wants no permit any more: its place, or the permit kept for it, goes to the next.
    pub fn withdraw(&self, key: &Key) {
        self.lock().retain(|name, host| {
            host.leave(key);
            if host.reserved.remove(key) {
                self.ring(name, host);
            }
            !host.is_idle()
        });
    }

    /// Rings for those whose turn it is.
    fn ring(&self, name: &str, host: &mut Host) {
        while host.taken() < self.most(name) {
            let Some((_, next)) = host.waiting.pop_first() else { return };
            host.places.remove(&next);
            host.reserved.insert(next.clone());
            // Nobody listens any more only when the process ends.
            drop(self.bell.send(next));
        }
    }

    /// How many permits `host` has.
    fn most(&self, host: &str) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        if known { self.per_host } else { 1 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Host ===

impl Host {
    fn stand(&mut self, key: &Key, priority: Priority) {
        // Who stands already keeps the place, unless it has become more urgent.
        if self.places.get(key).is_some_and(|(stands, _)| *stands <= priority) {
            return;
        }
        self.leave(key);
        self.arrivals += 1;
        self.waiting.insert((priority, self.arrivals), key.clone());
        self.places.insert(key.clone(), (priority, self.arrivals));
    }

    fn leave(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.waiting.remove(&place);
        }
    }

    /// Permits in use or kept for somebody.
    fn taken(&self) -> usize {
        self.in_flight + self.reserved.len()
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.reserved.is_empty() && self.waiting.is_empty()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut hosts = self.permits.lock();
        let Some(entry) = hosts.get_mut(&self.host) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        self.permits.known.lock().unwrap_or_else(PoisonError::into_inner).insert(self.host.clone());
        self.permits.ring(&self.host, entry);
        if entry.is_idle() {
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

    #[test]
    fn who_is_rung_for_and_does_not_come_passes_the_permit_on() {
        let (bell, mut rings) = tokio::sync::mpsc::unbounded_channel();
        let permits = Permits::new(1, bell);
        let held = permits.obtain("h", &key("a"), Priority::Renewal);
        for name in ["b", "c"] {
            assert!(permits.obtain("h", &key(name), Priority::Renewal).is_none());
        }
        drop(held);
        // The permit is kept for b: nobody else takes it.
        assert_eq!(rings.try_recv().ok(), Some(key("b")));
        assert!(permits.obtain("h", &key("d"), Priority::Urgent).is_none());
        permits.withdraw(&key("b"));
        assert_eq!(rings.try_recv().ok(), Some(key("d")));
        permits.withdraw(&key("c"));
        drop(permits.obtain("h", &key("d"), Priority::Urgent));
        assert!(rings.try_recv().is_err());
        assert!(permits.lock().is_empty());
    }
    #[test]
    fn a_host_that_was_never_asked_gets_one_request_at_first() {
        let (bell, mut rings) = tokio::sync::mpsc::unbounded_channel();
        let permits = Permits::new(3, bell);
        assert!(permits.reserve("h", &key("a"), Priority::Urgent) && permits.reserve("h", &key("a"), Priority::Urgent));
        let first = permits.obtain("h", &key("a"), Priority::Urgent);
        for name in ["b", "c", "d", "e"] {
            assert!(!permits.reserve("h", &key(name), Priority::Urgent));
        }
        assert!(first.is_some() && rings.try_recv().is_err());
        drop(first);
        // From then on as many as may be.
        for name in ["b", "c", "d"] {
            assert_eq!(rings.try_recv().ok(), Some(key(name)));
            assert!(permits.reserve("h", &key(name), Priority::Urgent));
        }
        assert!(rings.try_recv().is_err());
        // One that needs none after all leaves it to the next.
        permits.withdraw(&key("c"));
        assert_eq!(rings.try_recv().ok(), Some(key("e")));
    }
}
