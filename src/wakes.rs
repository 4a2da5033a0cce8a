//! Bells for those who wait for a token: rung for a resource whenever it, its Secret or its token in memory has changed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::memory::Key;

/// Who waits for news of which resource.
#[derive(Default)]
pub struct Wakes {
    bells: Mutex<HashMap<Key, watch::Sender<()>>>,
}

/// One who waits.
pub struct Listener<'a> {
    wakes: &'a Wakes,
    key: Key,
    bell: watch::Receiver<()>,
}

// === impl Wakes ===

impl Wakes {
    /// Begins to listen. Whoever looks afterwards, and then waits, misses nothing.
    #[must_use]
    pub fn listen(&self, key: &Key) -> Listener<'_> {
        let bell = self.lock().entry(key.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Listener { wakes: self, key: key.clone(), bell }
    }

    /// Something about `key` has changed.
    pub fn ring(&self, key: &Key) {
        if let Some(bell) = self.lock().get(key) {
            bell.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<()>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Listener ===

impl Listener<'_> {
    /// Resolves at the next ring, or at once if it rang since the last one that was heard.
    pub async fn heard(&mut self) {
        // The sender stays for as long as somebody listens.
        drop(self.bell.changed().await);
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut bells = self.wakes.lock();
        // This one is still counted.
        if bells.get(&self.key).is_some_and(|bell| bell.receiver_count() <= 1) {
            bells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("a", name)
    }

    #[tokio::test]
    async fn a_ring_is_heard_by_all_who_listen_to_that_resource_and_nothing_is_kept_of_them() {
        let wakes = Wakes::default();
        let (mut one, mut two, mut other) =
            (wakes.listen(&key("flight")), wakes.listen(&key("flight")), wakes.listen(&key("hotel")));
        wakes.ring(&key("flight"));
        wakes.ring(&key("nobody"));
        assert!(one.heard().now_or_never().is_some() && two.heard().now_or_never().is_some());
        assert!(one.heard().now_or_never().is_none() && other.heard().now_or_never().is_none());
        drop(one);
        wakes.ring(&key("flight"));
        assert!(two.heard().now_or_never().is_some());
        drop((two, other));
        assert!(wakes.lock().is_empty());
    }
}
