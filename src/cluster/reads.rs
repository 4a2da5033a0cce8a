//! Many who ask for the same thing at the same time share a read; and no answer is older than its question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::{Mutex, Semaphore};

use crate::memory::Key;

/// Reads in flight. What was read is kept only for those who are waiting for it.
pub struct Reads<T> {
    slots: StdMutex<HashMap<Key, Arc<Slot<T>>>>,
    in_flight: Semaphore,
}

struct Slot<T> {
    /// So many reads were begun.
    begun: AtomicU64,
    /// The last one that ended, with its number. Whoever holds the lock reads.
    last: Mutex<Option<(u64, Arc<T>)>>,
}

/// Somebody's place at a slot, which goes with the last of them.
struct Place<'a, T> {
    reads: &'a Reads<T>,
    key: &'a Key,
    slot: Arc<Slot<T>>,
}

// === impl Reads ===

impl<T> Reads<T> {
    /// At most so many at a time.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        Self { slots: StdMutex::default(), in_flight: Semaphore::new(in_flight) }
    }

    /// As many at a time as are asked for.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }

    /// What `read` tells of `key`; or what somebody else's read told that was begun after this call.
    pub async fn share(&self, key: &Key, read: impl Future<Output = T>) -> Arc<T> {
        let place = self.place(key);
        let before = place.slot.begun.load(Ordering::SeqCst);
        let mut last = place.slot.last.lock().await;
        if let Some((number, found)) = &*last
            && *number > before
        {
            return Arc::clone(found);
        }
        *last = None;
        // The semaphore is never closed.
        let _permit = self.in_flight.acquire().await;
        let number = place.slot.begun.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let found = Arc::new(read.await);
        *last = Some((number, Arc::clone(&found)));
        found
    }

    fn place<'a>(&'a self, key: &'a Key) -> Place<'a, T> {
        let new = || Arc::new(Slot { begun: AtomicU64::new(0), last: Mutex::new(None) });
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(slots.entry(key.clone()).or_insert_with(new));
        Place { reads: self, key, slot }
    }
}

// === impl Place ===

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut slots = self.reads.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.slot) <= 2 {
            slots.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_read_is_under_way_shares_the_next_one() {
        let reads = Arc::new(Reads::new(4));
        let key = Key::new("a", "b");
        let (begun, go) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (reads, key, begun, go) = (Arc::clone(&reads), key.clone(), Arc::clone(&begun), Arc::clone(&go));
            tokio::spawn(async move {
                let read = async {
                    let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    go.notified().await;
                    number
                };
                *reads.share(&key, read).await
            })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..100).map(|_| ask()).collect();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        go.notify_one();
        assert_eq!(first.await.unwrap(), 1);
        go.notify_one();
        let told: Vec<u64> = join_all(later).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(told, vec![2; 100]);
        assert!(reads.slots.lock().unwrap().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_read_to_the_next() {
        let reads = Reads::new(1);
        let key = Key::new("a", "b");
        let gave_up =
            tokio::time::timeout(std::time::Duration::from_millis(1), reads.share(&key, std::future::pending::<u64>()));
        assert!(gave_up.await.is_err());
        assert_eq!(*reads.share(&key, async { 7 }).await, 7);
        assert!(reads.slots.lock().unwrap().is_empty());
    }
}
