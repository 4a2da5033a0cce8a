//! Candidates in a bad world: delays, freezes, lost answers, late writes, outages, crashes, clocks that are wrong, hand edits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test")]

mod world;

use std::time::Duration;

use proptest::prelude::*;

use world::{
    CALL_TIMEOUT, DEADLINE, LEASE, LONGEST_DELAY, LONGEST_FREEZE, LONGEST_LEASE, RETRY, SECOND, Weather, World,
};

/// What is under way when the calm begins: a freeze, a call in it, and a late write.
const LEFTOVERS: u64 = LONGEST_FREEZE + LONGEST_DELAY + CALL_TIMEOUT;
const TAKEOVER: u64 = LEASE + RETRY * 6 / 5 + SECOND;

fn weather(edits: impl Strategy<Value = Option<u64>>) -> impl Strategy<Value = Weather> {
    let odds = || prop_oneof![Just(0), 0u64..100, 0u64..500];
    let crashes = prop_oneof![2 => Just(0), 1 => 0u64..30];
    (any::<u64>(), 2usize..=3, 0..300 * SECOND, odds(), odds(), odds(), crashes, edits).prop_map(
        |(seed, candidates, calm_from, slow, lost, frozen, crashes, edits)| Weather {
            seed,
            candidates,
            calm_from,
            slow,
            lost,
            frozen,
            crashes,
            edits,
            careful: false,
        },
    )
}

/// Runs the world until it has been calm for `patience`, then checks that there is one leader who stays.
fn settles(world: &mut World, patience: u64, mut check: impl FnMut(&World)) {
    let settled = world.weather.calm_from + patience;
    while world.step(settled) {
        check(world);
    }
    let leaders = world.leaders();
    assert_eq!(leaders.len(), 1, "after {patience} ms of calm");
    while world.step(settled + 60 * SECOND) {
        assert_eq!(world.leaders(), leaders, "at {}", world.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_leaders_and_soon_one(weather in weather(Just(None))) {
        let mut world = World::new(weather);
        settles(&mut world, LEFTOVERS + TAKEOVER, |world| {
            assert!(world.leaders().len() <= 1, "at {}: {:?}", world.now, world.leaders());
        });
    }

    #[test]
    fn whatever_is_done_to_the_lease_one_leads_in_the_end(
        weather in weather((SECOND..60 * SECOND).prop_map(Some)),
    ) {
        settles(&mut World::new(weather), LEFTOVERS + LONGEST_LEASE + TAKEOVER, |_| {});
    }

    #[test]
    fn an_edit_that_does_not_look_like_a_release_makes_no_second_leader(
        weather in weather((SECOND..60 * SECOND).prop_map(Some)),
    ) {
        let weather = Weather { crashes: 0, careful: true, ..weather };
        settles(&mut World::new(weather), LEFTOVERS + LONGEST_LEASE + TAKEOVER, |world| {
            assert!(world.leaders().len() <= 1, "at {}: {:?}", world.now, world.leaders());
        });
    }
}

#[test]
fn a_crashed_leader_is_followed_within_lease_and_retry() {
    let calm = |seed| Weather {
        seed,
        candidates: 3,
        calm_from: 0,
        slow: 0,
        lost: 0,
        frozen: 0,
        crashes: 0,
        edits: None,
        careful: false,
    };
    for seed in 1..200 {
        let mut world = World::new(calm(seed * 7919));
        while world.leaders().is_empty() || world.now < 40 * SECOND + seed * 13 {
            world.step(u64::MAX);
        }
        let (crashed, since) = (world.leaders()[0], world.now);
        world.candidates[crashed].life = u64::MAX;
        while world.step(since + LEASE + RETRY * 6 / 5 + SECOND / 2) {
            assert!(world.leaders().len() <= 1);
        }
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
        assert_ne!(world.leaders()[0], crashed);
    }
}

#[test]
fn the_simulation_would_notice_two_leaders() {
    // As if leadership lasted until the answer's time plus the lease, as it does where nobody thinks of delays.
    let bad = |seed| Weather {
        seed,
        candidates: 3,
        calm_from: 300 * SECOND,
        slow: 300,
        lost: 100,
        frozen: 100,
        crashes: 0,
        edits: None,
        careful: false,
    };
    let noticed = (1..50).any(|seed| {
        let mut world = World::new(bad(seed * 7919));
        let mut two = false;
        while world.step(300 * SECOND) {
            let late = |who: &usize| {
                let until = world.candidates[*who].elector.leader_until().unwrap_or_default();
                world.elapsed(*who) < until + Duration::from_millis(LEASE - DEADLINE + CALL_TIMEOUT + SECOND)
            };
            two |= (0..world.candidates.len()).filter(late).count() > 1 && !world.leaders().is_empty();
        }
        two
    });
    assert!(noticed);
}
