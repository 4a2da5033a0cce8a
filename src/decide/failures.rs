//! How often a token request has failed, by what it failed with.
//!
//! Each class's waits grow with its own failures alone: an issuer behind which one server refuses and another one is down costs
//! what the two cost together, and no more, whichever answers.

use std::collections::BTreeMap;

use super::{FailureClass, Reason, Trouble};
use crate::api::VerteilTokenStatus;

/// Failed attempts since the last token, by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(BTreeMap<FailureClass, u32>);

// === impl Failures ===

impl Failures {
    /// Those that a status tells of.
    #[must_use]
    pub fn told_by(status: &VerteilTokenStatus) -> Self {
        let count = |n: i64| u32::try_from(n).ok().filter(|n| *n > 0);
        if let Some(told) = &status.failures_by_reason {
            let class = |name: &str| FailureClass::ALL.into_iter().find(|c| Reason::from(*c).as_str() == name);
            return Self(told.iter().filter_map(|(name, n)| class(name).zip(count(*n))).collect());
        }
        // An operator or a definition from before they were told apart: all are of the class that it gives.
        let told = Trouble::told_by(status).map(|trouble| trouble.reason);
        let class = FailureClass::ALL.into_iter().find(|class| told == Some(Reason::from(*class)));
        Self(class.zip(status.failed_attempts.and_then(count)).into_iter().collect())
    }

    /// Those of `class`.
    #[must_use]
    pub fn of(&self, class: FailureClass) -> u32 {
        self.0.get(&class).copied().unwrap_or_default()
    }

    /// One more of `class`, of which others with the same account have met `of_account`. Returns how many that makes.
    pub fn add(&mut self, class: FailureClass, of_account: u32) -> u32 {
        let count = self.of(class).max(of_account).saturating_add(1);
        self.0.insert(class, count);
        count
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.0.values().map(|count| i64::from(*count)).sum()
    }

    /// Has `status` tell them.
    pub fn enter(&self, status: &mut VerteilTokenStatus) {
        let told = self.0.iter().map(|(class, count)| (Reason::from(*class).as_str().to_owned(), i64::from(*count)));
        status.failed_attempts = Some(self.total());
        status.failures_by_reason = Some(told.collect());
    }

    /// Has `status` tell of none, nor of a wait: a token has come.
    pub fn forget(status: &mut VerteilTokenStatus) {
        (status.failed_attempts, status.failures_by_reason) = (None, None);
        (status.last_failure_time, status.next_attempt_time, status.attempted) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::decide::{Report, Standing, next_status};

    /// A status that tells of a failure with `reason`.
    fn troubled(reason: Reason) -> VerteilTokenStatus {
        let standing = Standing::Troubled(Trouble::new(reason, "it fails"));
        let report = Report {
            generation: 1,
            secret_name: "s",
            place: crate::decide::Place::Secret,
            held: None,
            standing,
            rivals: Vec::new(),
        };
        next_status(&VerteilTokenStatus::default(), &report, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_status_of_before_counts_for_the_reason_that_it_gives() {
        let mut status = troubled(Reason::RequestRefused);
        status.failed_attempts = Some(4);
        let told = Failures::told_by(&status);
        assert_eq!((told.of(FailureClass::Refused), told.of(FailureClass::Answer), told.total()), (4, 0, 4));
        status.failures_by_reason = Some([("IssuerUnavailable".to_owned(), 2), ("OfLater".to_owned(), 9)].into());
        let told = Failures::told_by(&status);
        assert_eq!((told.of(FailureClass::Refused), told.of(FailureClass::Unavailable), told.total()), (0, 2, 2));
        assert_eq!(Failures::told_by(&VerteilTokenStatus::default()), Failures::default());
    }

    #[test]
    fn an_account_counts_for_the_class_that_it_was_told() {
        let mut failures = Failures::default();
        assert_eq!([failures.add(FailureClass::Answer, 0), failures.add(FailureClass::RateLimited, 6)], [1, 7]);
        assert_eq!([failures.add(FailureClass::RateLimited, 3), failures.add(FailureClass::Answer, 0)], [8, 2]);
    }

    proptest! {
        /// However the classes follow each other, each costs at most what it costs alone.
        #[test]
        fn no_class_begins_anew_for_another(order in proptest::collection::vec(0usize..6, 1..400)) {
            let (mut status, mut elapsed) = (troubled(Reason::Issuing), 0);
            let mut times: BTreeMap<FailureClass, Vec<i64>> = BTreeMap::new();
            for class in order.into_iter().filter_map(|n| FailureClass::ALL.get(n).copied()) {
                times.entry(class).or_default().push(elapsed);
                let mut failures = Failures::told_by(&status);
                elapsed += class.wait(failures.add(class, 0), None).as_secs();
                failures.enter(&mut status);
            }
            for (class, times) in times {
                let alone = (1..).scan(0, |at, n| Some(std::mem::replace(at, *at + class.wait(n, None).as_secs())));
                prop_assert!(times.iter().zip(alone).all(|(at, alone)| *at >= alone), "{class:?}: {times:?}");
            }
        }
    }
}
