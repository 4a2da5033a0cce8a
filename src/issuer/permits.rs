//! How many requests may be in flight to one host. Who finds none free is told when one is, and holds nothing meanwhile.

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
        Arc::new(Self { per_host: per_host.max(1), hosts: Mutex::default(), bell })
    }

    /// A permit for `host`, or a place in its line. Who has a place must come when it is rung for, or [withdraw](Self::withdraw).
    pub fn obtain(self: &Arc<Self>, host: &str, key: &Key, priority: Priority) -> Option<Permit> {
        let mut hosts = self.lock();
        let entry = hosts.entry(host.to_owned()).or_default();
        if entry.reserved.remove(key) || entry.in_flight + entry.reserved.len() < self.per_host {
            entry.leave(key);
            entry.in_flight += 1;
            return Some(Permit { permits: Arc::clone(self), host: host.to_owned() });
        }
        entry.stand(key, priority);
        None
    }

    /// `key` wants no permit any more: its place, or the permit kept for it, goes to the next.
    pub fn withdraw(&self, key: &Key) {
        self.lock().retain(|_, host| {
            host.leave(key);
            if host.reserved.remove(key) {
                self.ring(host);
            }
            !host.is_idle()
        });
    }

    /// Rings for those whose turn it is.
    fn ring(&self, host: &mut Host) {
        while host.in_flight + host.reserved.len() < self.per_host {
            let Some((_, next)) = host.waiting.pop_first() else { return };
            host.places.remove(&next);
            host.reserved.insert(next.clone());
            // Nobody listens any more only when the process ends.
            drop(self.bell.send(next));
        }
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

    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.reserved.is_empty() && self.waiting.is_empty()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut hosts = self.permits.lock();
        let Some(entry) = hosts.get_mut(&self.host) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        self.permits.ring(entry);
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
}
