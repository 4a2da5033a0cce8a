//! How many requests may be in flight to one host. Who finds none free is told when one is, and holds nothing meanwhile.
//!
//! A host that was never asked gets one request at first: what it answers may hold for all that would have followed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::memory::Key;

/// Hosts of which it is remembered that a permit has come back. Beyond them all begin anew, each with one request.
const MOST_KNOWN: usize = 4096;

/// Who goes first when a permit becomes free; of equals whoever came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The stored token is about to expire, at this time.
    Expiring(Timestamp),
    /// There is no token that still holds.
    Unserved,
    /// The stored token holds for a while yet, until this time.
    Renewal(Timestamp),
}

/// Permits by host.
pub struct Permits {
    lines: Mutex<Lines>,
}

/// The right to send one request to one host; dropping it wakes the next in line.
pub struct Permit {
    permits: Arc<Permits>,
    host: Arc<str>,
}

struct Lines {
    per_host: usize,
    hosts: HashMap<Arc<str>, Host>,
    /// Where each resource stands: at one host at most.
    stands: HashMap<Key, (Arc<str>, Stand)>,
    /// Hosts of which a permit has come back.
    known: HashSet<Arc<str>>,
    arrivals: u64,
    bell: UnboundedSender<Key>,
}

#[derive(Default)]
struct Host {
    in_flight: usize,
    /// How many permits are kept, each for one who was rung for, until it comes or withdraws.
    reserved: usize,
    line: BTreeMap<Place, Key>,
}

#[derive(Clone, Copy)]
enum Stand {
    Reserved,
    Waiting(Place),
}

/// The number is that of the arrival.
type Place = (Priority, u64);

// === impl Permits ===

impl Permits {
    /// `per_host` permits for each host. `bell` rings for a resource that may try again.
    #[must_use]
    pub fn new(per_host: usize, bell: UnboundedSender<Key>) -> Arc<Self> {
        let lines = Lines {
            per_host: per_host.max(1),
            hosts: HashMap::new(),
            stands: HashMap::new(),
            known: HashSet::new(),
            arrivals: 0,
            bell,
        };
        Arc::new(Self { lines: Mutex::new(lines) })
    }

    /// Keeps a permit for `key`, to be [obtained](Self::obtain) or [withdrawn](Self::withdraw); else a place in the line, and
    /// false: `key` is rung for when one is kept. Who had a place at another host leaves it.
    pub fn reserve(&self, host: &str, key: &Key, priority: Priority) -> bool {
        self.lock().reserve(host, key, priority)
    }

    /// A permit for `host`, or a place in its line. Who has a place must come when it is rung for, or [withdraw](Self::withdraw).
    pub fn obtain(self: &Arc<Self>, host: &str, key: &Key, priority: Priority) -> Option<Permit> {
        let mut lines = self.lock();
        if !lines.reserve(host, key, priority) {
            return None;
        }
        let (host, _) = lines.stands.remove(key)?;
        let entry = lines.hosts.get_mut(&host)?;
        entry.reserved = entry.reserved.saturating_sub(1);
        entry.in_flight += 1;
        Some(Permit { permits: Arc::clone(self), host })
    }

    /// `key` wants no permit any more: its place, or the permit kept for it, goes to the next.
    pub fn withdraw(&self, key: &Key) {
        self.lock().leave(key);
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lines ===

impl Lines {
    fn reserve(&mut self, host: &str, key: &Key, priority: Priority) -> bool {
        match self.stands.get(key).filter(|(at, _)| **at == *host) {
            Some((_, Stand::Reserved)) => return true,
            // Who stands already keeps the place, unless it has become more urgent. Nobody stands while a permit is free.
            Some((_, Stand::Waiting((stands, _)))) if *stands <= priority => return false,
            Some((_, Stand::Waiting(_))) | None => {}
        }
        self.leave(key);
        let (host, most): (Arc<str>, _) = (host.into(), self.most(host));
        let entry = self.hosts.entry(Arc::clone(&host)).or_default();
        let free = entry.taken() < most;
        let stand = if free {
            entry.reserved += 1;
            Stand::Reserved
        } else {
            self.arrivals += 1;
            let place = (priority, self.arrivals);
            entry.line.insert(place, key.clone());
            Stand::Waiting(place)
        };
        self.stands.insert(key.clone(), (host, stand));
        free
    }

    fn leave(&mut self, key: &Key) {
        let Some((host, stand)) = self.stands.remove(key) else { return };
        if let Some(entry) = self.hosts.get_mut(&host) {
            match stand {
                Stand::Reserved => entry.reserved = entry.reserved.saturating_sub(1),
                Stand::Waiting(place) => drop(entry.line.remove(&place)),
            }
        }
        self.ring(&host);
    }

    fn come_back(&mut self, host: &Arc<str>) {
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(Arc::clone(host));
        self.ring(host);
    }

    /// Rings for those whose turn it is.
    fn ring(&mut self, host: &Arc<str>) {
        let most = self.most(host);
        let Some(entry) = self.hosts.get_mut(host) else { return };
        while entry.taken() < most {
            let Some((_, next)) = entry.line.pop_first() else { break };
            entry.reserved += 1;
            self.stands.insert(next.clone(), (Arc::clone(host), Stand::Reserved));
            // Nobody listens any more only when the process ends.
            drop(self.bell.send(next));
        }
        if entry.is_idle() {
            self.hosts.remove(host);
        }
    }

    /// How many permits `host` has.
    fn most(&self, host: &str) -> usize {
        if self.known.contains(host) { self.per_host } else { 1 }
    }
}

// === impl Host ===

impl Host {
    /// Permits in use or kept for somebody.
    const fn taken(&self) -> usize {
        self.in_flight + self.reserved
    }

    fn is_idle(&self) -> bool {
        self.taken() == 0 && self.line.is_empty()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.lock().come_back(&self.host);
    }
}

#[cfg(test)]
mod tests;
