//! Rate limits: one bucket for each caller, of which only so many are kept.

use std::convert::Infallible;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use quick_cache::sync::Cache;

/// So many callers are told apart. Who is forgotten for others begins anew with a full bucket.
const MOST_BUCKETS: usize = 4096;

/// A bucket for each `K`.
pub(super) struct Buckets<K> {
    kept: Cache<K, Arc<DefaultDirectRateLimiter>>,
    quota: Quota,
    clock: DefaultClock,
}

// === impl Buckets ===

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// `a_second` calls on average, and `burst` at once.
    pub(super) fn new(a_second: u32, burst: u32) -> Self {
        let positive = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(a_second)).allow_burst(positive(burst));
        Self { kept: Cache::new(MOST_BUCKETS), quota, clock: DefaultClock::default() }
    }

    /// Takes one call out of the bucket of `key`; if it is empty, the seconds until there is one in it.
    pub(super) fn take(&self, key: &K) -> Result<(), u64> {
        let new = || Ok::<_, Infallible>(Arc::new(DefaultDirectRateLimiter::direct(self.quota)));
        let Ok(bucket) = self.kept.get_or_insert_with(key, new);
        bucket.check().map_err(|not| not.wait_time_from(self.clock.now()).as_secs().saturating_add(1))
    }
}

/// Whom an address stands for: in a cluster a network of IPv6 is a whole node, or all of them, so that each address counts by
/// itself. Who has many gains little: only so many are told apart.
pub(super) const fn peer(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn each_caller_has_a_bucket_and_not_all_of_them_are_kept() {
        let buckets = Buckets::new(1, 3);
        for _ in 0..3 {
            assert_eq!(buckets.take(&0), Ok(()));
        }
        assert!(buckets.take(&0).unwrap_err() >= 1);
        assert_eq!(buckets.take(&1), Ok(()));
        for caller in 0..3 * MOST_BUCKETS {
            buckets.take(&caller).ok();
        }
        assert!(buckets.kept.len() <= MOST_BUCKETS, "{}", buckets.kept.len());
    }

    #[test]
    fn each_address_has_a_bucket_also_in_one_network() {
        let of = |text: &str| peer(text.parse().unwrap());
        let buckets = Buckets::new(1, 1);
        assert_eq!(buckets.take(&of("2001:db8:1:2::1")), Ok(()));
        assert!(buckets.take(&of("2001:db8:1:2::1")).is_err());
        // The next pod of the same node.
        assert_eq!(buckets.take(&of("2001:db8:1:2::2")), Ok(()));
        assert_eq!(buckets.take(&of("10.0.0.1")), Ok(()));
        assert!(buckets.take(&of("::ffff:10.0.0.1")).is_err(), "the same by another name");
    }
}
