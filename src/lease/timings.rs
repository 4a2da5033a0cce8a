//! How long a Lease lasts, and how often it is renewed.

use std::time::Duration;

/// Longest lease that can be set, and the longest that a Lease written by others is believed.
const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// How long a Lease lasts, and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    lease: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Why timings do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingsError {
    /// Others would take over while the leader still considers itself one.
    #[error("--lease-duration must be longer than --lease-renew-deadline")]
    LeaseTooShort,
    /// One lost answer would end the leadership.
    #[error("--lease-renew-deadline must be longer than 1.2 times --lease-retry-period")]
    DeadlineTooShort,
    /// It would be tried without pause.
    #[error("--lease-retry-period must be 1s or longer")]
    RetryTooShort,
    /// A crash would leave nobody in charge for that long.
    #[error("--lease-duration must be 10m or shorter")]
    LeaseTooLong,
}

// === impl Timings ===

impl Timings {
    /// Timings that fit together: `lease` > `renew_deadline` > 1.2 × `retry`.
    pub fn new(lease: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, TimingsError> {
        if retry < Duration::from_secs(1) {
            return Err(TimingsError::RetryTooShort);
        }
        if lease > LONGEST_LEASE {
            return Err(TimingsError::LeaseTooLong);
        }
        if lease <= renew_deadline {
            return Err(TimingsError::LeaseTooShort);
        }
        if renew_deadline <= longest_pause(retry) {
            return Err(TimingsError::DeadlineTooShort);
        }
        Ok(Self { lease, renew_deadline, retry })
    }

    /// How long others wait after a renewal that they have seen.
    #[must_use]
    pub const fn lease(self) -> Duration {
        self.lease
    }

    /// The same as a Lease names it, in seconds.
    #[must_use]
    pub fn lease_seconds(self) -> i32 {
        i32::try_from(self.lease.as_secs()).unwrap_or(i32::MAX)
    }

    /// How long a leader leads after its last renewal.
    #[must_use]
    pub const fn renew_deadline(self) -> Duration {
        self.renew_deadline
    }

    /// The pause between two looks or renewals, lengthened by up to a fifth by `spread`, so that candidates do not move in step.
    #[must_use]
    pub fn pause(self, spread: u32) -> Duration {
        self.retry.saturating_add(self.retry / 5 * (spread % 256) / 255)
    }

    /// How long a holder is waited for whose Lease names `seconds`: never less than one with our own flags would need.
    #[must_use]
    pub fn wait_for(self, seconds: Option<i32>) -> Duration {
        let named = Duration::from_secs(u64::try_from(seconds.unwrap_or_default()).unwrap_or_default());
        named.clamp(self.lease, LONGEST_LEASE)
    }
}

/// The pause with all its jitter.
fn longest_pause(retry: Duration) -> Duration {
    retry.saturating_add(retry / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(lease: u64, deadline: u64, retry: u64) -> Result<Timings, TimingsError> {
        Timings::new(Duration::from_secs(lease), Duration::from_secs(deadline), Duration::from_secs(retry))
    }

    #[test]
    fn timings_that_would_not_work_are_refused() {
        assert!(timings(15, 10, 2).is_ok());
        assert!(timings(4, 3, 1).is_ok());
        for (given, error) in [
            ((10, 10, 2), TimingsError::LeaseTooShort),
            ((15, 2, 2), TimingsError::DeadlineTooShort),
            ((15, 6, 5), TimingsError::DeadlineTooShort),
            ((15, 10, 0), TimingsError::RetryTooShort),
            ((601, 10, 2), TimingsError::LeaseTooLong),
        ] {
            assert_eq!(timings(given.0, given.1, given.2), Err(error), "{given:?}");
        }
    }

    #[test]
    fn whatever_a_lease_names_is_waited_for_within_bounds() {
        let waits = [None, Some(i32::MIN), Some(0), Some(1), Some(60), Some(i32::MAX)]
            .map(|seconds| timings(15, 10, 2).map(|t| t.wait_for(seconds).as_secs()));
        assert_eq!(waits, [15, 15, 15, 15, 60, 600].map(Ok));
    }

    #[test]
    fn jitter_lengthens_by_a_fifth_at_most() {
        let pauses = [0, 255, u32::MAX].map(|spread| timings(15, 10, 2).map(|t| t.pause(spread).as_millis()));
        assert_eq!(pauses, [2000, 2400, 2400].map(Ok));
    }
}
