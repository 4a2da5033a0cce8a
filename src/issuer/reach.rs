//! Who could not reach a host. An answer to anybody shows that it is back, and wakes two of them; each of those wakes two more.
//! So all are back soon, and a host that has just come up is not met by all of them at once.
//!
//! A host is meant with those whom it has to convince: who trusts other authorities may not reach it all the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::memory::Key;

/// How many of them one answer wakes.
const WOKEN: usize = 2;

/// By host and trusted authorities, those whose last request could not be sent, in the order of their attempts.
pub struct Reach {
    lost: Mutex<HashMap<String, VecDeque<Key>>>,
    bell: UnboundedSender<Key>,
}

// === impl Reach ===

impl Reach {
    /// Every host is reachable. `bell` rings for a resource that is to try again.
    #[must_use]
    pub fn new(bell: UnboundedSender<Key>) -> Self {
        Self { lost: Mutex::default(), bell }
    }

    /// `key` could not reach `host`.
    pub fn lost(&self, host: &str, key: &Key) {
        let mut lost = self.lock();
        let waiting = lost.entry(host.to_owned()).or_default();
        if !waiting.contains(key) {
            waiting.push_back(key.clone());
        }
    }

    /// `key` has reached `host`. Returns who is to try next.
    #[must_use]
    pub fn found(&self, host: &str, key: &Key) -> Vec<Key> {
        let mut lost = self.lock();
        let Some(waiting) = lost.get_mut(host) else { return Vec::new() };
        waiting.retain(|other| other != key);
        let woken = waiting.drain(..WOKEN.min(waiting.len())).collect();
        if waiting.is_empty() {
            lost.remove(host);
        }
        woken
    }

    /// Rings for `key`.
    pub fn ring(&self, key: Key) {
        // Nobody listens any more only when the process ends.
        drop(self.bell.send(key));
    }

    /// `key` is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().retain(|_, waiting| {
            waiting.retain(|other| other != key);
            !waiting.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Key>>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new("n", number.to_string())
    }

    #[test]
    fn each_answer_wakes_two_until_all_are_back() {
        let reach = Reach::new(tokio::sync::mpsc::unbounded_channel().0);
        for number in (0..100).chain(0..100) {
            reach.lost("h", &key(number));
        }
        reach.lost("other", &key(7));
        let mut awake: VecDeque<Key> = [key(5)].into();
        let (mut all, mut most) = (0, 0);
        while let Some(next) = awake.pop_front() {
            all += 1;
            let woken = reach.found("h", &next);
            most = most.max(woken.len());
            awake.extend(woken);
        }
        assert_eq!((all, most), (100, WOKEN));
        reach.forget(&key(7));
        assert!(reach.lock().is_empty());
    }
}
