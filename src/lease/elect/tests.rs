//! The state machine, step by step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test")]

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn elector(identity: &str) -> Elector {
    Elector::new(identity, Timings::new(SECOND * 15, SECOND * 10, SECOND * 2).unwrap())
}

fn lease(holder: &str, seconds: i32, version: &str) -> Observed {
    let record = Record { holder: holder.into(), seconds: Some(seconds), ..Record::default() };
    Observed { record, version: version.into() }
}

fn written(version: &str) -> Outcome {
    Outcome::Written { version: version.into() }
}

/// A leader since second 1, with version 1.
fn leader() -> Elector {
    let mut elector = elector("a");
    assert_eq!(elector.next(SECOND, Timestamp::UNIX_EPOCH), Action::Look);
    elector.observed(None, SECOND);
    assert!(matches!(elector.next(SECOND, Timestamp::UNIX_EPOCH), Action::Create(_)));
    elector.wrote(written("1"), SECOND * 2);
    assert!(elector.leads(SECOND * 2));
    elector
}

fn looks_at(elector: &mut Elector, found: Option<Observed>, elapsed: Duration) -> Action {
    assert_eq!(elector.next(elapsed, Timestamp::UNIX_EPOCH), Action::Look, "at {elapsed:?}");
    elector.observed(found, elapsed);
    elector.next(elapsed, Timestamp::UNIX_EPOCH)
}

fn waits(action: &Action) -> bool {
    matches!(action, Action::Wait { .. })
}

#[test]
fn a_leader_leads_from_before_its_write_until_the_deadline() {
    let mut elector = leader();
    assert!(elector.leads(SECOND * 10) && !elector.leads(SECOND * 11));
    // The next write goes out without a look, but for one that was not answered.
    let renewal = elector.next(SECOND * 4, Timestamp::UNIX_EPOCH);
    assert!(matches!(renewal, Action::Replace(_, version) if version == "1"));
    elector.wrote(Outcome::Unknown, SECOND * 9);
    assert_eq!(elector.next(SECOND * 9, Timestamp::UNIX_EPOCH), Action::Wait { until: SECOND * 11 });
    assert_eq!(elector.next(SECOND * 13, Timestamp::UNIX_EPOCH), Action::Look);
    assert!(!elector.leads(SECOND * 13));
}

#[test]
fn a_leader_stops_when_somebody_else_holds_the_lease() {
    let mut elector = leader();
    elector.next(SECOND * 4, Timestamp::UNIX_EPOCH);
    elector.wrote(Outcome::Conflict, SECOND * 4);
    assert!(waits(&looks_at(&mut elector, Some(lease("b", 15, "2")), SECOND * 4)));
    assert!(!elector.leads(SECOND * 4));
}

#[test]
fn a_leader_takes_back_a_lease_that_was_deleted_or_edited() {
    for found in [None, Some(lease("a", -7, "2")), Some(lease("", 15, "2"))] {
        let mut elector = leader();
        elector.next(SECOND * 4, Timestamp::UNIX_EPOCH);
        elector.wrote(Outcome::Conflict, SECOND * 4);
        assert!(waits(&looks_at(&mut elector, found.clone(), SECOND * 4)));
        assert!(elector.leads(SECOND * 4), "{found:?}");
        let next = elector.next(SECOND * 7, Timestamp::UNIX_EPOCH);
        assert!(matches!(next, Action::Create(_) | Action::Replace(..)), "{next:?}");
    }
}

#[test]
fn a_held_lease_is_waited_for_by_the_own_clock() {
    let mut elector = elector("b");
    for second in [3, 6, 9, 12, 15] {
        assert!(waits(&looks_at(&mut elector, Some(lease("a", 15, "1")), SECOND * second)), "{second}");
    }
    assert!(matches!(looks_at(&mut elector, Some(lease("a", 15, "1")), SECOND * 18), Action::Replace(..)));
}

#[test]
fn a_leader_that_was_seen_is_waited_for_even_if_its_lease_is_gone() {
    for gone in [None, Some(lease("", 15, "2")), Some(lease("b", 15, "2"))] {
        let mut elector = elector("b");
        assert!(waits(&looks_at(&mut elector, Some(lease("a", 15, "1")), SECOND * 3)));
        assert!(waits(&looks_at(&mut elector, gone.clone(), SECOND * 6)), "{gone:?}");
        assert!(!waits(&looks_at(&mut elector, gone, SECOND * 21)));
    }
}

#[test]
fn a_released_lease_is_taken_at_once_and_one_that_was_emptied_by_hand_is_not() {
    let mut elector = elector("b");
    assert!(waits(&looks_at(&mut elector, Some(lease("a", 15, "1")), SECOND * 3)));
    assert!(matches!(looks_at(&mut elector, Some(lease("", 1, "2")), SECOND * 6), Action::Replace(..)));
    // Even at the first look: whoever led until then may not know it yet.
    let mut late = self::elector("c");
    assert!(waits(&looks_at(&mut late, Some(lease("", 0, "2")), SECOND)));
    assert!(!waits(&looks_at(&mut late, Some(lease("", 0, "2")), SECOND * 17)));
}

#[test]
fn a_leader_lets_go_and_leads_no_more() {
    let mut elector = leader();
    let action = elector.release(SECOND * 3, Timestamp::UNIX_EPOCH);
    assert!(matches!(action, Some(Action::Replace(record, version)) if record.is_released() && version == "1"));
    assert!(!elector.leads(SECOND * 3));
    elector.wrote(written("2"), SECOND * 3);
    assert!(!elector.leads(SECOND * 3));
    assert_eq!(elector.release(SECOND * 3, Timestamp::UNIX_EPOCH), None);
    assert_eq!(self::elector("b").release(SECOND, Timestamp::UNIX_EPOCH), None);
}

proptest! {
    #[test]
    fn no_lease_whatever_makes_it_panic_or_lead_beside_a_leader_it_has_seen(
        holder in "[ab]?", seconds in prop::option::of(any::<i32>()), transitions in prop::option::of(any::<i32>()),
        (at, later) in (0u64..=u64::MAX - 99, 3u64..15), now in any::<i64>(),
    ) {
        let now = Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX);
        let record = Record { holder, seconds, transitions, acquired: Some(now), renewed: Some(Timestamp::MIN) };
        let mut elector = elector("b");
        let at = Duration::from_secs(at);
        let foreign = Record { holder: "a".into(), ..record.clone() };
        elector.observed(Some(Observed { record: foreign, version: "1".into() }), at);
        elector.next(at, now);
        let later = at.saturating_add(Duration::from_secs(later));
        let next = looks_at(&mut elector, Some(Observed { record: record.clone(), version: "2".into() }), later);
        prop_assert_eq!(waits(&next), !record.is_released());
        // At the end of all time nothing overflows either.
        let last = elector.next(Duration::MAX, now);
        elector.wrote(Outcome::Unknown, Duration::MAX);
        prop_assert!(!elector.leads(Duration::MAX), "{last:?}");
        elector.release(Duration::MAX, now);
    }
}
