//! Properties of the pure core: for any time, any stored token, any past.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a failed test"
)]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use verteil_token_operator::api::IssueReason;
use verteil_token_operator::decide::{
    Block, ClaimView, Decision, FailureClass, Held, Lost, Order, Pace, Reason, SHORTEST_GAP, Stored, Unsaved, Wanted,
    brake, covers_request, decide, held_until, unscheduled_after, view_claim, wants_saving,
};
use verteil_token_operator::token::{Record, RecordSeal, Validity, renewal_point};

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// Any second of the calendar, often near `NOW`, often at its ends.
fn any_second() -> impl Strategy<Value = i64> {
    let (min, max) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    prop_oneof![4 => (NOW - 100_000)..(NOW + 100_000), 1 => min..=max, 1 => Just(min), 1 => Just(max), 1 => Just(0)]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    any_second().prop_map(at)
}

fn seal(n: i64) -> RecordSeal {
    RecordSeal::of(&Record::new(format!("fake-{n}").into(), "Bearer".into(), 60, at(NOW), at(NOW)).expect("a record"))
}

prop_compose! {
    fn any_validity()(issued in any_second(), expires in any_second(), lifetime in 0i64..100_000, sane: bool) -> Validity {
        let end = if sane { issued.saturating_add(lifetime).min(Timestamp::MAX.as_second()) } else { expires };
        Validity { issued_at: at(issued), expires_at: at(end) }
    }
}

prop_compose! {
    fn any_held()(validity in any_validity(), n in 0i64..4, current: bool, tidy: bool) -> Held {
        Held { validity, seal: seal(n), current, tidy }
    }
}

fn any_stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        1 => prop_oneof![Just(Lost::Nothing), Just(Lost::Secret), Just(Lost::Memory)].prop_map(|lost| Stored::Absent { lost }),
        1 => Just(Stored::Terminating),
        1 => Just(Stored::Foreign),
        1 => Just(Stored::Unusable),
        4 => any_held().prop_map(Stored::Held),
    ]
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::ByTime), Just(Order::Successor), Just(Order::Predecessor)]
}

prop_compose! {
    fn any_unsaved()(validity in any_validity(), current: bool, saved: bool, order in any_order()) -> Unsaved {
        Unsaved { validity, current, saved, order }
    }
}

prop_compose! {
    fn any_wanted()(
        deleting in prop::bool::weighted(0.1), suspended in prop::bool::weighted(0.1),
        renew_before in prop_oneof![0i64..7200, any::<i64>()], issuer_repeats: bool, renew_pending: bool,
        obstacle in prop::option::weighted(0.2, Just(Reason::CredentialsMissing)),
    ) -> Wanted {
        Wanted { deleting, suspended, renew_before: SignedDuration::from_secs(renew_before), issuer_repeats, renew_pending, obstacle }
    }
}

fn any_claim() -> impl Strategy<Value = ClaimView> {
    prop_oneof![
        Just(ClaimView::Free),
        Just(ClaimView::Mine),
        Just(ClaimView::RunOut),
        (1i64..3600).prop_map(|s| ClaimView::Foreign { until: at(NOW + s) }),
    ]
}

prop_compose! {
    fn any_pace()(
        leading in prop::bool::weighted(0.8), not_before in prop::option::of(any_time()),
        own_not_before in prop::option::weighted(0.2, any_time()),
        write_not_before in prop::option::weighted(0.2, any_time()), last_request in prop::option::of(any_time()),
        last_issue in prop::option::of(any_time()),
        unscheduled in prop_oneof![0u32..8, any::<u32>()], claim in any_claim(),
    ) -> Pace {
        Pace { leading, not_before, own_not_before, write_not_before, last_request, last_issue, unscheduled, claim }
    }
}

/// Nothing in the way.
fn free() -> Pace {
    Pace {
        leading: true,
        not_before: None,
        own_not_before: None,
        write_not_before: None,
        last_request: None,
        last_issue: None,
        unscheduled: 0,
        claim: ClaimView::Free,
    }
}

fn renewal(wanted: &Wanted, held: &Held) -> Timestamp {
    renewal_point(held.validity, wanted.renew_before, &held.seal, wanted.issuer_repeats)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        max_global_rejects: 200_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn never_requests_while_a_current_token_is_before_its_renewal_point(
        now in any_time(), wanted in any_wanted(), held in any_held(), unsaved in prop::option::of(any_unsaved()), pace in any_pace(),
    ) {
        prop_assume!(held.current && !wanted.renew_pending && now < renewal(&wanted, &held));
        let decision = decide(now, &wanted, &Stored::Held(held), unsaved.as_ref(), &pace);
        let requests = matches!(decision, Decision::Request { .. });
        prop_assert!(!requests);
    }

    #[test]
    fn saves_rather_than_requests_while_an_unsaved_token_lives(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), unsaved in any_unsaved(), pace in any_pace(),
    ) {
        prop_assume!(wants_saving(now, &stored, &unsaved));
        let decision = decide(now, &wanted, &stored, Some(&unsaved), &pace);
        let requests = matches!(decision, Decision::Request { .. });
        prop_assert!(!requests);
    }

    #[test]
    fn every_wait_lies_ahead(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), unsaved in prop::option::of(any_unsaved()), pace in any_pace(),
    ) {
        match decide(now, &wanted, &stored, unsaved.as_ref(), &pace) {
            Decision::Settled { until } => prop_assert!(until > now),
            Decision::Blocked { until: Some(until), by: Block::Backoff | Block::Gap } => prop_assert!(until > now),
            _ => {}
        }
    }

    #[test]
    fn is_quiet_once_a_token_is_stored(
        now in any_time(), renew_before in 0i64..7200, lifetime in 1i64..1_000_000, n in 0i64..4, pace in any_pace(),
    ) {
        let end = now.as_second().checked_add(lifetime).and_then(|s| Timestamp::from_second(s).ok());
        prop_assume!(end.is_some());
        let validity = Validity { issued_at: at(now.as_second()), expires_at: end.unwrap() };
        let held = Held { validity, seal: seal(n), current: true, tidy: true };
        let wanted = Wanted {
            deleting: false, suspended: false, renew_before: SignedDuration::from_secs(renew_before),
            issuer_repeats: false, renew_pending: false, obstacle: None,
        };
        let until = renewal(&wanted, &held);
        prop_assert_eq!(decide(now, &wanted, &Stored::Held(held), None, &pace), Decision::Settled { until });
    }

    #[test]
    fn once_a_request_is_due_it_stays_due(
        now in any_time(), later in 0i64..1_000_000, wanted in any_wanted(), stored in any_stored(), pace in any_pace(),
    ) {
        let first = decide(now, &wanted, &stored, None, &pace);
        let later = at(now.as_second().saturating_add(later).min(Timestamp::MAX.as_second()));
        prop_assume!(!matches!(pace.claim, ClaimView::Foreign { .. }));
        if matches!(first, Decision::Request { .. }) {
            let second = decide(later, &wanted, &stored, None, &pace);
            let requests = matches!(second, Decision::Request { .. });
            prop_assert!(requests, "{second:?}");
        }
    }

    #[test]
    fn changed_inputs_are_requested_for_at_once_even_if_the_token_holds(
        wanted in any_wanted(), lifetime in 100i64..100_000, n in 0i64..4,
    ) {
        prop_assume!(!wanted.deleting && !wanted.suspended && wanted.obstacle.is_none());
        let validity = Validity { issued_at: at(NOW), expires_at: at(NOW + lifetime) };
        let held = Held { validity, seal: seal(n), current: false, tidy: true };
        let decision = decide(at(NOW + 10), &wanted, &Stored::Held(held), None, &free());
        prop_assert_eq!(decision, Decision::Request { reason: IssueReason::InputsChanged, takeover: false });
    }

    #[test]
    fn nothing_goes_out_before_the_end_of_a_wait(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), pace in any_pace(),
    ) {
        prop_assume!(pace.not_before.max(pace.own_not_before).is_some_and(|end| now < end));
        let decision = decide(now, &wanted, &stored, None, &pace);
        let requests = matches!(decision, Decision::Request { .. });
        prop_assert!(!requests);
    }

    #[test]
    fn two_requests_are_at_least_five_seconds_apart_and_no_wait_is_endless(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), pace in any_pace(),
    ) {
        let decision = decide(now, &wanted, &stored, None, &pace);
        if matches!(decision, Decision::Request { .. }) && let Some(last) = pace.last_request {
            // A clock that was set back may show the last request ahead: then the gap counts from now.
            prop_assert!(now >= held_until(last, SHORTEST_GAP, now));
        }
        if let Decision::Blocked { by: Block::Gap | Block::Reason(Reason::GenerationThrottled), until: Some(until) } = decision {
            prop_assert!(until.duration_since(now) <= SignedDuration::from_secs(3600));
        }
    }

    #[test]
    fn a_secret_that_is_not_ours_is_never_written(
        now in any_time(), wanted in any_wanted(), unsaved in prop::option::of(any_unsaved()), pace in any_pace(),
    ) {
        for stored in [Stored::Foreign, Stored::Terminating] {
            let decision = decide(now, &wanted, &stored, unsaved.as_ref(), &pace);
            let left_alone = matches!(decision, Decision::Leave | Decision::Blocked { until: None, .. });
            prop_assert!(left_alone, "{decision:?}");
        }
    }

    #[test]
    fn a_resource_that_is_deleted_or_suspended_is_left_alone(
        now in any_time(), mut wanted in any_wanted(), stored in any_stored(), unsaved in prop::option::of(any_unsaved()), pace in any_pace(), deleting: bool,
    ) {
        (wanted.deleting, wanted.suspended) = (deleting, !deleting);
        let decision = decide(now, &wanted, &stored, unsaved.as_ref(), &pace);
        let left_alone = matches!(decision, Decision::Leave | Decision::Blocked { by: Block::Reason(Reason::Suspended), until: None });
        prop_assert!(left_alone, "{decision:?}");
    }

    #[test]
    fn a_standby_saves_what_it_holds_and_does_nothing_else(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), unsaved in prop::option::of(any_unsaved()), mut pace in any_pace(),
    ) {
        pace.leading = false;
        let decision = decide(now, &wanted, &stored, unsaved.as_ref(), &pace);
        let spends = matches!(decision, Decision::Request { .. } | Decision::Repair);
        prop_assert!(!spends, "{decision:?}");
    }

    #[test]
    fn a_claim_that_runs_is_respected_and_one_that_ran_out_is_taken_over(
        now in any_time(), wanted in any_wanted(), stored in any_stored(), mut pace in any_pace(), seconds in any::<i64>(), seen in 0u64..10_000,
    ) {
        pace.claim = view_claim(now, seconds, Duration::from_secs(seen));
        match (pace.claim, decide(now, &wanted, &stored, None, &pace)) {
            (ClaimView::Foreign { .. }, decision) => {
                let requests = matches!(decision, Decision::Request { .. });
                prop_assert!(!requests);
                prop_assert!(i64::try_from(seen).unwrap() < seconds.min(3600));
            }
            (ClaimView::RunOut, Decision::Request { takeover, .. }) => prop_assert!(takeover),
            (_, Decision::Request { takeover, .. }) => prop_assert!(!takeover),
            _ => {}
        }
    }

    #[test]
    fn a_claim_covers_a_request_and_its_save(timeout in 1i64..=15, left in 0u64..60) {
        let covered = covers_request(Duration::from_secs(left), SignedDuration::from_secs(timeout));
        prop_assert_eq!(covered, left >= u64::try_from(timeout).unwrap() + 10);
    }

    #[test]
    fn a_token_that_was_superseded_or_is_not_wanted_is_not_saved(
        now in any_time(), held in any_held(), unsaved in any_unsaved(),
    ) {
        let later = match unsaved.order {
            Order::ByTime => held.validity.issued_at >= unsaved.validity.issued_at,
            Order::Successor => false,
            Order::Predecessor => true,
        };
        let later = later && held.current && now < held.validity.expires_at;
        let dead = now >= unsaved.validity.expires_at;
        let saves = wants_saving(now, &Stored::Held(held), &unsaved);
        prop_assert_eq!(saves, unsaved.current && !unsaved.saved && !dead && !later);
    }

    /// Any order of events: whoever deletes the Secret, alters the record or changes the password as fast as he can, for a day,
    /// costs no more tokens than the brake allows.
    #[test]
    fn the_brake_bounds_what_a_day_of_interference_costs(seed in prop::collection::vec(0u8..4, 600)) {
        let reasons = [IssueReason::MemoryLost, IssueReason::SecretDeleted, IssueReason::RecordInvalid, IssueReason::Manual, IssueReason::InputsChanged];
        let (mut now, mut unscheduled, mut issued) = (NOW, 0, 0);
        for step in seed.iter().cycle() {
            let reason = reasons[usize::from(*step)];
            now += brake(reason, unscheduled).as_secs();
            if now > NOW + 86_400 {
                break;
            }
            issued += 1;
            unscheduled = unscheduled_after(reason, unscheduled);
        }
        // 5 s, 1 min, 5 min, 15 min, then one each 15 minutes at the most.
        prop_assert!(issued <= 4 + 86_400 / 900, "{issued}");
    }
}

/// A request that failed has its own wait, which a brake of up to an hour would hide.
#[test]
fn a_request_that_failed_does_not_start_the_brake() {
    let wanted = Wanted {
        deleting: false,
        suspended: false,
        renew_before: SignedDuration::ZERO,
        issuer_repeats: false,
        renew_pending: false,
        obstacle: None,
    };
    let stored = Stored::Unusable;
    let pace = Pace { last_request: Some(at(NOW - 10)), last_issue: None, unscheduled: 8, ..free() };
    let request = Decision::Request { reason: IssueReason::RecordInvalid, takeover: false };
    assert_eq!(decide(at(NOW), &wanted, &stored, None, &pace), request);
    let pace = Pace { last_issue: Some(at(NOW - 10)), ..pace };
    let throttled = Block::Reason(Reason::GenerationThrottled);
    let until = Some(at(NOW - 10 + 3600));
    assert_eq!(decide(at(NOW), &wanted, &stored, None, &pace), Decision::Blocked { by: throttled, until });
}

#[test]
fn every_class_of_failure_has_a_reason_of_its_own() {
    let reasons: std::collections::BTreeSet<_> = FailureClass::ALL.into_iter().map(Reason::from).collect();
    assert_eq!(reasons.len(), FailureClass::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(reason));
    }
}
