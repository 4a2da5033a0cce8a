//! Shares of what there is only so much of: nobody takes more than theirs, and of who has given all back nothing is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// What each holder has taken.
pub(super) struct Shares<K> {
    taken: Mutex<HashMap<K, usize>>,
    most: usize,
}

/// One piece of a share; dropped, it is given back.
pub(super) struct Piece<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    holder: K,
}

// === impl Shares ===

impl<K: Eq + Hash + Clone> Shares<K> {
    /// `most` pieces for each holder.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), most })
    }

    /// A piece for `holder`, unless that has taken its share.
    pub(super) fn take(self: &Arc<Self>, holder: &K) -> Option<Piece<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(holder.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Piece { shares: Arc::clone(self), holder: holder.clone() })
    }
}

// === impl Piece ===

impl<K: Eq + Hash> Drop for Piece<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share_and_who_gives_it_back_is_forgotten() {
        let shares = Shares::new(3);
        let taken: Vec<_> = (0..10).filter_map(|_| shares.take(&"greedy")).collect();
        assert_eq!(taken.len(), 3);
        assert!(shares.take(&"other").is_some());
        drop(taken);
        assert!(shares.take(&"greedy").is_some());
        assert!(shares.taken.lock().is_ok_and(|taken| taken.is_empty()), "nobody is remembered");
    }
}
