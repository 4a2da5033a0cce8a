//! The issuer's clock, as its answers show it, against ours. Nothing is decided by it: lifetimes are counted by our clock from
//! the request. But a program that looks at a token's own times goes by the issuer's clock, and certificates by ours.

use jiff::{SignedDuration, Timestamp};

use super::report::Conditions;
use crate::api::VerteilTokenStatus;

/// The type of the condition, which is there only while it is True.
pub const CLOCK_SKEW: &str = "ClockSkew";
/// Its reasons.
pub const CLOCK_SKEW_REASONS: [&str; 2] = ["IssuerClockAhead", "IssuerClockBehind"];
/// From this difference on it is told, and below the other it is over: between them nothing changes, so that it does not flap.
const TOLD: SignedDuration = SignedDuration::from_secs(60);
const OVER: SignedDuration = SignedDuration::from_secs(30);

/// How far the issuer's clock is ahead of ours, at least, by an answer with `date` to a request that was sent and answered at
/// these times by our clock: zero if it may as well have been right.
#[must_use]
pub fn clock_offset(date: Timestamp, sent: Timestamp, received: Timestamp) -> SignedDuration {
    // The header has whole seconds, cut off.
    let latest = date.saturating_add(SignedDuration::from_secs(1)).unwrap_or(date);
    let (first, last) = (sent.min(received), sent.max(received));
    if date > last {
        date.duration_since(last)
    } else if latest < first {
        latest.duration_since(first)
    } else {
        SignedDuration::ZERO
    }
}

/// Tells `offset` in `status`, or that it is over. What is told stays as it is while the same clock is ahead: an offset that
/// changes a little with each answer is no news.
pub fn tell_clock_skew(status: &mut VerteilTokenStatus, offset: SignedDuration, generation: i64, now: Timestamp) {
    let far = offset.abs();
    let [ahead, behind] = CLOCK_SKEW_REASONS;
    let reason = if offset.is_negative() { behind } else { ahead };
    let told = status.conditions.iter().find(|c| c.type_ == CLOCK_SKEW);
    if told.is_some() && far < OVER {
        status.conditions.retain(|c| c.type_ != CLOCK_SKEW);
        return;
    }
    if far < TOLD || told.is_some_and(|c| c.reason == reason) {
        return;
    }
    let message = format!(
        "at {} the issuer's clock (header Date) was {:#} {} the operator's: look at the time service of the cluster's nodes, then of the issuer; nothing is refused for it, and times in status and Secret are by the operator's clock",
        Timestamp::from_second(now.as_second()).unwrap_or(now),
        SignedDuration::from_secs(far.as_secs()),
        if offset.is_negative() { "behind" } else { "ahead of" },
    );
    let old = status.clone();
    let mut conditions = Conditions { old: &old, generation, now, list: std::mem::take(&mut status.conditions) };
    conditions.set(CLOCK_SKEW, true, reason, &message);
    status.conditions = conditions.list;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn only_what_neither_rounding_nor_a_slow_answer_explains_is_an_offset() {
        let offset = |date, sent, received| clock_offset(at(date), at(sent), at(received)).as_secs();
        assert_eq!([offset(0, 0, 0), offset(5, 0, 10), offset(-1, 0, 0), offset(10, 0, 10)], [0; 4]);
        assert_eq!([offset(3600, 0, 10), offset(-3600, 0, 10)], [3590, -3599]);
        // Our clock was set back between the two.
        assert_eq!(offset(0, 3, -3600), 0);
    }

    #[test]
    fn an_offset_is_told_once_until_it_is_over_or_turns() {
        let mut status = VerteilTokenStatus::default();
        let mut tell = |seconds, now| {
            tell_clock_skew(&mut status, SignedDuration::from_secs(seconds), 1, at(now));
            status.conditions.first().map(|c| (c.reason.clone(), c.message.clone()))
        };
        assert_eq!([tell(59, 0), tell(-59, 5)], [None, None]);
        let told = tell(3600, 10).unwrap();
        assert!(told.0 == "IssuerClockAhead" && told.1.contains("was 1h ahead of the operator's"), "{told:?}");
        for (seconds, now) in [(3590, 20), (61, 30), (59, 40), (30, 50)] {
            assert_eq!(tell(seconds, now), Some(told.clone()), "{seconds}");
        }
        assert_eq!(tell(-90, 60).unwrap().0, "IssuerClockBehind");
        assert_eq!(tell(-29, 70), None);
        assert_eq!(tell(59, 80), None);
        assert_eq!(tell(60, 90).unwrap().0, "IssuerClockAhead");
    }
}
