//! What is said from one look to the next: since when renewal fails, when conditions change, and that they fit together.

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
    // What the metric tells is what the message says.
    let message = condition(status, "RenewalFailing").unwrap().message.clone();
    let since = message.split_once(SINCE).map(|(_, since)| since.split(',').next().unwrap().parse().unwrap());
    assert_eq!(renewal_fails_since(status, now), since, "{message}");
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

fn held_until(end: i64, current: bool) -> HeldFacts {
    let record = Record::new("fake".to_owned().into(), "Bearer".into(), 60, at(0), at(0)).unwrap();
    let (seal, validity) = (RecordSeal::of(&record), Validity { issued_at: at(end - 43200), expires_at: at(end) });
    HeldFacts { validity, seal, renewal: at(end - 600), current, in_place: true }
}

/// Each standing, with each state of the stored token.
fn reports() -> Vec<Report<'static>> {
    let named = Reason::ALL.map(|reason| {
        let trouble = Trouble::new(reason, format!("about {}", reason.as_str()));
        if reason.is_progress() { Standing::Progressing(trouble) } else { Standing::Troubled(trouble) }
    });
    let stored = [None, Some(held_until(40_000, true)), Some(held_until(40_000, false)), Some(held_until(-4000, true))];
    let with = |standing: Standing| {
        let report = move |held| Report {
            generation: 1,
            secret_name: "flight",
            place: Place::Secret,
            held,
            standing: standing.clone(),
            rivals: Vec::new(),
        };
        stored.clone().map(report)
    };
    named.into_iter().chain([Standing::Settled]).flat_map(with).collect()
}

#[test]
fn a_transition_time_moves_with_its_condition_and_what_is_as_it_was_is_not_told_anew() {
    let reports = reports();
    for (first, second) in reports.iter().flat_map(|first| reports.iter().map(move |second| (first, second))) {
        let before = next_status(&VerteilTokenStatus::default(), first, at(0));
        let after = next_status(&before, second, at(60));
        for now in &after.conditions {
            let moved = condition(&before, &now.type_).is_none_or(|before| before.status != now.status);
            let since = if moved { at(60) } else { at(0) };
            assert_eq!(now.last_transition_time.0, since, "{} from {first:?} to {second:?}", now.type_);
        }
        assert_eq!(next_status(&after, second, at(120)), after, "{second:?}");
    }
}

#[test]
fn conditions_contradict_each_other_never_and_a_person_is_told_why() {
    for report in reports() {
        let status = next_status(&VerteilTokenStatus::default(), &report, at(0));
        let is_true = |type_| condition(&status, type_).unwrap().status == "True";
        let ways = ["Ready", "Reconciling", "Stalled"].into_iter().filter(|type_| is_true(type_)).count();
        assert_eq!(ways, 1, "{:?}", status.conditions);
        let told = status.conditions.iter().filter(|c| c.status == "True" || c.type_ == "Ready");
        for condition in told {
            assert!(!condition.message.is_empty() && !condition.reason.is_empty(), "{condition:?}");
        }
        // An outage of the issuer blocks nobody who has a token.
        let serves = report.held.as_ref().is_some_and(|held| held.current && held.validity.holds_at(at(0)));
        assert_eq!(is_true("Ready"), serves, "{report:?}");
    }
}

#[test]
fn that_the_token_has_expired_is_told_once_whatever_the_failure_was_called_before() {
    let mut status = VerteilTokenStatus::default();
    let mut told = |standing, now| {
        let before = status.clone();
        look(&mut status, held(), standing, now);
        told_expiry(Some(&before), &status).map(str::to_owned)
    };
    let unavailable = || trouble(Reason::IssuerUnavailable);
    let progress = || Standing::Progressing(Trouble::new(Reason::Issuing, "soon"));
    assert_eq!(told(unavailable(), at(1100)), None);
    let expired = |why| {
        format!("the token in Secret flight expired at {} and is kept until it can be replaced: {why}", at(EXPIRY))
    };
    assert_eq!(told(unavailable(), at(EXPIRY)), Some(expired("no luck")));
    assert_eq!(told(unavailable(), at(2100)), None);
    assert_eq!(told(trouble(Reason::IssuerTimeout), at(2200)), None);
    assert_eq!(told(Standing::Settled, at(10)), None);
    // An issuer that repeats its token is asked after its end: not a word of it for a minute.
    assert_eq!(told(progress(), at(EXPIRY + 59)), None);
    assert_eq!(told(progress(), at(EXPIRY + 60)), Some(expired("soon")));
    assert_eq!(told(progress(), at(EXPIRY + 70)), None);
    assert!(told_expiry(None, &status).is_some());
}
