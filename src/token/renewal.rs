//! When a stored token is due for renewal.

use jiff::{SignedDuration, Timestamp};

use super::RecordSeal;

/// How long after its token's expiry an issuer that repeats tokens is asked: it answers with the old one until then.
pub const REPEATED_TOKEN_DELAY: SignedDuration = SignedDuration::from_secs(2);
/// The margin before expiry is at most this part of the lifetime.
const LARGEST_MARGIN: i64 = 5;
/// The jitter is at most this part of the margin.
const LARGEST_JITTER: i64 = 10;

/// When a token was asked for and when it expires, both in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Just before the request.
    pub issued_at: Timestamp,
    /// Counted from `issued_at`, so that it errs early.
    pub expires_at: Timestamp,
}

// === impl Validity ===

impl Validity {
    /// Whether the token may still be used at `now`.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Seconds from the request to the expiry; never negative.
    #[must_use]
    pub fn lifetime_secs(&self) -> i64 {
        self.expires_at.as_second().saturating_sub(self.issued_at.as_second()).max(0)
    }
}

/// The moment from which on a new token is requested.
///
/// Guarantees: never before the last fifth of the lifetime, at the latest two seconds after expiry, in whole seconds, and
/// the same for the same record: after a restart, a restore or an adoption.
#[must_use]
pub fn renewal_point(
    validity: Validity,
    renew_before: SignedDuration,
    seal: &RecordSeal,
    issuer_repeats: bool,
) -> Timestamp {
    let after_expiry = |delay: SignedDuration| validity.expires_at.saturating_add(delay).unwrap_or(Timestamp::MAX);
    if issuer_repeats {
        return after_expiry(REPEATED_TOKEN_DELAY);
    }
    let margin = renew_before.as_secs().clamp(0, validity.lifetime_secs() / LARGEST_MARGIN);
    if margin == 0 {
        // Strictly after: expiry is counted in whole seconds.
        return after_expiry(SignedDuration::from_secs(1));
    }
    let jitter = i64::from(seal.spread()) % (margin / LARGEST_JITTER + 1);
    after_expiry(SignedDuration::from_secs(jitter - margin))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use proptest::prelude::*;

    use super::*;
    use crate::token::Record;

    fn record(lifetime: i64) -> Record {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Record::new("t".to_owned().into(), "Bearer".into(), lifetime, now, now).unwrap()
    }

    fn before_expiry(lifetime: i64, renew_before: i64) -> i64 {
        let record = record(lifetime);
        let point =
            renewal_point(record.validity(), SignedDuration::from_secs(renew_before), &RecordSeal::of(&record), false);
        record.token_expiry() - point.as_second()
    }

    #[test]
    fn a_twelve_hour_token_is_renewed_about_ten_minutes_before_its_end() {
        assert!((540..=600).contains(&before_expiry(43199, 600)));
    }

    #[test]
    fn the_margin_is_at_most_a_fifth_of_the_lifetime() {
        assert!((9..=10).contains(&before_expiry(50, 600)));
        assert_eq!(before_expiry(10, 600), 2);
        assert_eq!(before_expiry(4, 600), -1);
    }

    #[test]
    fn zero_means_strictly_after_expiry() {
        assert_eq!(before_expiry(43199, 0), -1);
    }

    #[test]
    fn a_repeating_issuer_is_asked_two_seconds_after_expiry() {
        let record = record(43199);
        let point = renewal_point(record.validity(), SignedDuration::from_secs(600), &RecordSeal::of(&record), true);
        assert_eq!(point.as_second(), record.token_expiry() + 2);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(issued in any::<i64>(), expires in any::<i64>(), before in any::<i64>(), repeats: bool) {
            let (Ok(issued_at), Ok(expires_at)) = (Timestamp::from_second(issued / 1000), Timestamp::from_second(expires / 1000)) else {
                return Ok(());
            };
            let validity = Validity { issued_at, expires_at };
            let point = renewal_point(validity, SignedDuration::from_secs(before), &RecordSeal::of(&record(60)), repeats);
            prop_assert_eq!(point.subsec_nanosecond(), 0);
            prop_assert!(point.as_second() <= expires_at.as_second() + 2);
            let earliest = expires_at.as_second() - validity.lifetime_secs() / LARGEST_MARGIN;
            prop_assert!(point.as_second() >= earliest);
        }
    }
}
