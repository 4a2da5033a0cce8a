//! Since when renewal fails, and what is said of it, from one look to the next.

#![allow(clippy::unwrap_used, reason = "a failed test")]

use super::*;
use crate::token::Record;

const RENEWAL: i64 = 1000;
const EXPIRY: i64 = 2000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn held() -> HeldFacts {
    let record = Record::new("fake".to_owned().into(), "Bearer".into(), EXPIRY, at(0), at(0)).unwrap();
    let (validity, seal) = (record.validity(), RecordSeal::of(&record));
    HeldFacts { validity, seal, renewal: at(RENEWAL), current: true, in_place: true }
}

/// Takes a look at `now` after that which `status` tells of. Returns RenewalFailing: its status, transition time and message.
fn look(
    status: &mut VerteilTokenStatus,
    held: HeldFacts,
    standing: Standing,
    now: Timestamp,
) -> (bool, Timestamp, String) {
    let report = Report {
        generation: 1,
        secret_name: "flight",
        place: Place::Secret,
        held: Some(held),
        standing,
        rivals: Vec::new(),
    };
    *status = next_status(status, &report, now);
    assert!(next_status(status, &report, now) == *status, "a second look changes what the first has told");
    let failing = condition(status, "RenewalFailing").unwrap();
    (failing.status == "True", failing.last_transition_time.0, failing.message.clone())
}

fn trouble(reason: Reason) -> Standing {
    Standing::Troubled(Trouble::new(reason, "no luck"))
}

#[test]
fn renewal_fails_since_the_first_failure_until_a_token_comes() {
    let mut status = VerteilTokenStatus::default();
    let mut look = |standing, now| look(&mut status, held(), standing, now);
    let half = SignedDuration::from_millis(500);
    assert_eq!(look(Standing::Settled, at(10) + half), (false, at(10), String::new()));
    let since = |second| format!("no luck; renewal fails since {}", at(second));
    let holds = format!(", the stored token holds until {}", at(EXPIRY));
    assert_eq!(look(trouble(Reason::IssuerUnavailable), at(1100) + half), (true, at(1100), since(1100) + &holds));
    // Another failure of another kind, which does not begin anew.
    assert_eq!(look(trouble(Reason::RateLimited), at(1300)), (true, at(1100), since(1100) + &holds));
    let expired = format!(", the stored token expired at {}", at(EXPIRY));
    assert_eq!(look(trouble(Reason::IssuerTimeout), at(EXPIRY)), (true, at(1100), since(1100) + &expired));
    assert_eq!(look(Standing::Settled, at(1500)), (false, at(1500), String::new()));
    assert_eq!(look(trouble(Reason::IssuerUnavailable), at(1600)), (true, at(1600), since(1600) + &holds));
}

#[test]
fn what_keeps_the_operator_from_trying_counts_from_the_renewal_point() {
    let mut status = VerteilTokenStatus::default();
    let missing = || trouble(Reason::CredentialsMissing);
    assert_eq!(look(&mut status, held(), missing(), at(300)), (true, at(300), "no luck".into()));
    let since =
        |second| format!("no luck; renewal fails since {}, the stored token holds until {}", at(second), at(EXPIRY));
    assert_eq!(look(&mut status, held(), missing(), at(RENEWAL)), (true, at(300), since(RENEWAL)));
    assert_eq!(look(&mut status, held(), missing(), at(1500)), (true, at(300), since(RENEWAL)));
    // A request out of turn that failed is tried again, and fails from then on.
    let mut renewed = VerteilTokenStatus::default();
    assert_eq!(look(&mut renewed, held(), trouble(Reason::RateLimited), at(500)), (true, at(500), since(500)));
    let mut late = VerteilTokenStatus::default();
    assert_eq!(look(&mut late, held(), missing(), at(1200)), (true, at(1200), since(1200)));
}

#[test]
fn a_token_for_other_inputs_is_not_said_to_hold() {
    let other = HeldFacts { current: false, ..held() };
    let (_, _, message) = look(&mut VerteilTokenStatus::default(), other, trouble(Reason::RequestRefused), at(1100));
    assert_eq!(
        message,
        format!("no luck; renewal fails since {}, the stored token was issued for other inputs", at(1100))
    );
}

#[test]
fn the_trouble_that_a_status_tells_of_is_the_one_that_it_was_made_from() {
    for reason in [Reason::IssuerUnavailable, Reason::CredentialsMissing, Reason::RequestRefused] {
        for now in [300, 1100, EXPIRY] {
            let mut status = VerteilTokenStatus::default();
            look(&mut status, held(), trouble(reason), at(now));
            assert_eq!(Trouble::told_by(&status), Some(Trouble::new(reason, "no luck")), "{reason:?} at {now}");
        }
    }
    let mut status = VerteilTokenStatus::default();
    look(&mut status, held(), Standing::Settled, at(10));
    assert_eq!(Trouble::told_by(&status), None);
}
