//! How fast requests may follow each other: the backoff after failures and the brake on successes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::IssueReason;

/// At most one request per resource in this time, whatever happens.
pub const SHORTEST_GAP: SignedDuration = SignedDuration::from_secs(5);
/// How long an issuer is left alone that answers with the stored token in its last second.
pub const LAST_SECOND_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// Gaps after a token that was issued outside the schedule, by how many of them came before.
const BRAKE: [i64; 5] = [5, 60, 300, 900, 3600];
/// Longest gap before a token for changed inputs: a changed password must not wait for an hour.
const BRAKE_INPUTS: i64 = 900;

/// A failed token request, by who must act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// DNS, connection or TLS: no request was sent.
    Unreached,
    /// 5xx.
    Unavailable,
    /// 429.
    RateLimited,
    /// Sent, but not answered in time: it may have cost a token.
    Unanswered,
    /// An answer without a usable token.
    Answer,
    /// 401, 400 or 403 with an error in the body, or another 4xx with one of RFC 6749.
    Refused,
}

// === impl FailureClass ===

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Unreached, Self::Unavailable, Self::RateLimited, Self::Unanswered, Self::Answer, Self::Refused];

    /// The wait after the `failures`-th failure in a row (from 1), before jitter.
    ///
    /// Guarantees: never shrinks as failures grow, bounded by [`Self::longest_wait`].
    #[must_use]
    pub fn wait(self, failures: u32, retry_after: Option<SignedDuration>) -> SignedDuration {
        let steps = failures.saturating_sub(1).min(30);
        let doubled = |first: i64, last: i64| (first << steps.min(20)).min(last);
        let seconds = match self {
            Self::Unreached => doubled(5, 5 * 60),
            Self::Unavailable | Self::RateLimited => doubled(5, 15 * 60),
            // 1, 2, 4, 8, then every 15 minutes.
            Self::Unanswered if steps < 4 => 60 << steps,
            Self::Unanswered => 15 * 60,
            // 1, 4, 16, 64 minutes … 6 hours.
            Self::Answer => (60_i64 << (2 * steps.min(10))).min(6 * 3600),
            Self::Refused => match steps {
                0 => 3 * 60,
                1 => 3600,
                _ => 8 * 3600,
            },
        };
        let asked = retry_after.map_or(0, |wait| wait.as_secs().clamp(1, 3600));
        SignedDuration::from_secs(seconds.max(asked).min(self.longest_wait().as_secs()))
    }

    /// The longest wait of this class, before jitter: a time read from status is never believed beyond it.
    #[must_use]
    pub const fn longest_wait(self) -> SignedDuration {
        SignedDuration::from_secs(match self {
            Self::Unreached => 5 * 60,
            // Retry-After may ask for up to an hour.
            Self::Unavailable | Self::RateLimited => 3600,
            Self::Unanswered => 15 * 60,
            Self::Answer => 6 * 3600,
            Self::Refused => 8 * 3600,
        })
    }

    /// Whether the request may have cost a token that nobody holds.
    #[must_use]
    pub const fn is_ambiguous(self) -> bool {
        matches!(self, Self::Unanswered)
    }
}

/// Lengthens `wait` by up to a fifth, by `spread`: jitter never shortens.
#[must_use]
pub fn jittered(wait: SignedDuration, spread: u32) -> SignedDuration {
    let most = wait.as_secs() / 5;
    SignedDuration::from_secs(wait.as_secs().saturating_add(i64::from(spread) % (most + 1)))
}

/// The gap that the brake keeps after the last request, for a request with `reason` after `unscheduled` such requests.
#[must_use]
pub fn brake(reason: IssueReason, unscheduled: u32) -> SignedDuration {
    let step = usize::try_from(unscheduled).unwrap_or(usize::MAX).min(BRAKE.len() - 1);
    let gap = BRAKE.get(step).copied().unwrap_or(3600);
    SignedDuration::from_secs(match reason {
        IssueReason::Initial | IssueReason::Expired => 0,
        IssueReason::InputsChanged => gap.min(BRAKE_INPUTS),
        IssueReason::SecretDeleted | IssueReason::RecordInvalid | IssueReason::Manual | IssueReason::MemoryLost => gap,
    })
}

/// How often requests outside the schedule have followed each other once one with `reason` has succeeded.
#[must_use]
pub fn unscheduled_after(reason: IssueReason, unscheduled: u32) -> u32 {
    match reason {
        IssueReason::Expired => 0,
        IssueReason::Initial => unscheduled,
        IssueReason::InputsChanged
        | IssueReason::SecretDeleted
        | IssueReason::RecordInvalid
        | IssueReason::Manual
        | IssueReason::MemoryLost => unscheduled.saturating_add(1),
    }
}

/// `at`, but no later than `latest` was when `at` was first seen: what lies further ahead was written before the clock was set
/// back. `latest` moves on with the clock, so that without the memory of that moment a wait would end only when the clock has
/// caught up.
pub fn since_first_sight(
    ahead: &mut Option<Box<(Timestamp, Duration)>>,
    at: Timestamp,
    latest: Timestamp,
    elapsed: Duration,
) -> Timestamp {
    if at <= latest {
        *ahead = None;
        return at;
    }
    let since = ahead.as_deref().filter(|(seen, _)| *seen == at).map_or(elapsed, |(_, since)| *since);
    *ahead = Some((at, since).into());
    let gone = SignedDuration::try_from(elapsed.saturating_sub(since)).unwrap_or(SignedDuration::MAX);
    latest.saturating_sub(gone).unwrap_or(Timestamp::MIN)
}

/// `start` plus `wait`, but at most `wait` from `now`: a clock that was set back must not stall anything for longer.
#[must_use]
pub fn held_until(start: Timestamp, wait: SignedDuration, now: Timestamp) -> Timestamp {
    start.min(now).saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(class: FailureClass) -> Vec<i64> {
        (1..=7).map(|n| class.wait(n, None).as_secs()).collect()
    }

    #[test]
    fn each_class_waits_as_documented() {
        assert_eq!(waits(FailureClass::Unreached), [5, 10, 20, 40, 80, 160, 300]);
        assert_eq!(waits(FailureClass::Unavailable), [5, 10, 20, 40, 80, 160, 320]);
        assert_eq!(waits(FailureClass::Unanswered), [60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(waits(FailureClass::Answer), [60, 240, 960, 3840, 15360, 21600, 21600]);
        assert_eq!(waits(FailureClass::Refused), [180, 3600, 28800, 28800, 28800, 28800, 28800]);
    }

    #[test]
    fn retry_after_is_obeyed_between_a_second_and_an_hour() {
        let wait = |seconds| FailureClass::RateLimited.wait(1, Some(SignedDuration::from_secs(seconds))).as_secs();
        assert_eq!([wait(-5), wait(7), wait(60), wait(i64::MAX)], [5, 7, 60, 3600]);
    }

    #[test]
    fn the_brake_grows_with_requests_outside_the_schedule_only() {
        let gaps = |reason| (0..6).map(|n| brake(reason, n).as_secs()).collect::<Vec<_>>();
        assert_eq!(gaps(IssueReason::SecretDeleted), [5, 60, 300, 900, 3600, 3600]);
        assert_eq!(gaps(IssueReason::InputsChanged), [5, 60, 300, 900, 900, 900]);
        assert_eq!(gaps(IssueReason::Expired), [0; 6]);
        assert_eq!(gaps(IssueReason::Initial), [0; 6]);
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_are_bounded(n in any::<u32>(), after in proptest::option::of(any::<i64>())) {
            for class in FailureClass::ALL {
                let after = after.map(SignedDuration::from_secs);
                let (one, more) = (class.wait(n, after), class.wait(n.saturating_add(1), after));
                prop_assert!(one <= more && more <= class.longest_wait() && one.as_secs() >= 5, "{class:?}");
            }
        }

        #[test]
        fn jitter_only_lengthens_by_a_fifth(seconds in 0i64..100_000, spread in any::<u32>()) {
            let wait = jittered(SignedDuration::from_secs(seconds), spread).as_secs();
            prop_assert!(wait >= seconds && wait <= seconds + seconds / 5);
        }
    }
}
