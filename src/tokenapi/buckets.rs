//! Rate limits: one bucket for each caller, of which only so many are kept.

use std::convert::Infallible;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
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

/// Whom an address stands for: a machine with IPv6 has a whole network to itself.
pub(super) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
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
    fn a_machine_is_one_whichever_of_its_addresses_it_calls_from() {
        let of = |text: &str| peer(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
