//! The pure part of a restart, step by step and in random orders.

#![allow(clippy::unwrap_used, reason = "a failed test")]

use proptest::prelude::*;

use super::*;
use crate::api::WorkloadKind;

fn workload(name: &str) -> Workload {
    Workload { kind: WorkloadKind::Deployment, name: name.to_owned() }
}

fn token(number: u8) -> AccessToken {
    format!("fake-token-{number}").into()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A user's list, a stored token and a flag, and a process with its memory.
struct Model {
    status: VerteilTokenStatus,
    listed: Vec<Workload>,
    enabled: bool,
    token: Option<u8>,
    under_way: bool,
    now: i64,
}

impl Model {
    fn new(listed: &[&str]) -> Self {
        let listed = listed.iter().map(|name| workload(name)).collect();
        let status = VerteilTokenStatus::default();
        Self { status, listed, enabled: true, token: Some(0), under_way: false, now: 0 }
    }

    fn look(&mut self) -> bool {
        self.now += 1;
        let stored = self.token.map(token);
        let facts = self.facts(stored.as_ref());
        let (mut once, mut twice) = (self.status.clone(), self.status.clone());
        let due = enter_rollout(&mut once, &facts, at(self.now));
        assert_eq!(enter_rollout(&mut twice, &facts, at(self.now)), due);
        assert_eq!(once, twice);
        assert_eq!(enter_rollout(&mut twice, &facts, at(self.now + 60)), due, "the same once more");
        assert_eq!(once, twice);
        let settled = rollout_is_settled(&self.listed, self.enabled, &once);
        assert!(stored.is_none() || settled != due, "a look is needed just while something is due: {once:?}");
        self.status = once;
        self.under_way = due && self.under_way;
        due
    }

    fn attempt(&mut self, outcome: &Outcome) -> RestartReason {
        self.under_way = true;
        let stored = self.token.map(token);
        let outcomes: Vec<_> = self.listed.iter().map(|w| (w.clone(), outcome.clone())).collect();
        let mut status = self.status.clone();
        let reason = finish_rollout(&mut status, &self.facts(stored.as_ref()), &outcomes, at(self.now));
        self.status = status;
        self.under_way = !outcome.is_final();
        reason
    }

    fn facts<'a>(&'a self, token: Option<&'a AccessToken>) -> RolloutFacts<'a> {
        RolloutFacts { workloads: &self.listed, enabled: self.enabled, token, under_way: self.under_way, generation: 1 }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Token(Option<u8>),
    Look,
    Attempt(Outcome),
    CrashBeforeStatus,
    Relabel,
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        Just(Outcome::Restarted(None)),
        Just(Outcome::Missing),
        Just(Outcome::Forbidden("no".into())),
        Just(Outcome::Failed("no".into())),
    ];
    prop_oneof![
        proptest::option::of(0..4_u8).prop_map(Op::Token),
        Just(Op::Look),
        outcome.prop_map(Op::Attempt),
        Just(Op::CrashBeforeStatus),
        Just(Op::Relabel),
    ]
}

proptest! {
    #[test]
    fn a_restart_is_due_exactly_while_the_workloads_know_another_token(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model::new(&["api", "worker"]);
        prop_assert!(!model.look());
        let mut known = 0;
        for op in ops {
            match op {
                Op::Token(token) => model.token = token,
                Op::Look => {}
                Op::Attempt(outcome) => {
                    if model.look() {
                        model.attempt(&outcome);
                        if outcome.is_final() {
                            known = model.token.unwrap();
                        }
                    }
                }
                // The patches were made, the status was not written, the memory is gone.
                Op::CrashBeforeStatus => model.under_way = false,
                Op::Relabel => model.status.observed_generation = Some(7),
            }
            prop_assert_eq!(model.look(), model.token.is_some_and(|token| token != known));
        }
    }
}

#[test]
fn the_first_token_a_wiped_status_and_a_new_list_restart_nothing() {
    let mut model = Model::new(&["api"]);
    assert!(!model.look());
    assert_eq!(RestartReason::told_by(&model.status), Some(RestartReason::TokenUnchanged));
    model.token = Some(1);
    model.status = VerteilTokenStatus::default();
    assert!(!model.look());
    model.listed.clear();
    assert!(!model.look());
    assert_eq!(model.status, VerteilTokenStatus::default());
    (model.token, model.listed) = (Some(2), vec![workload("other")]);
    assert!(!model.look());
}

#[test]
fn a_status_wiped_in_the_midst_ends_no_restart() {
    let mut model = Model::new(&["api"]);
    assert!(!model.look());
    model.token = Some(1);
    assert!(model.look());
    assert_eq!(model.attempt(&Outcome::Failed("no".into())), RestartReason::RestartFailed);
    model.status = VerteilTokenStatus::default();
    assert!(model.look());
    // Said again, it holds for the next process as well.
    model.under_way = false;
    assert!(model.look());
    assert_eq!(model.attempt(&Outcome::Restarted(None)), RestartReason::Restarted);
    assert!(!model.look());
}

#[test]
fn without_the_flag_the_present_token_is_always_the_known_one() {
    let mut model = Model::new(&["api"]);
    model.enabled = false;
    for number in 0..3 {
        model.token = Some(number);
        assert!(!model.look());
        assert_eq!(RestartReason::told_by(&model.status), Some(RestartReason::RolloutRestartDisabled));
    }
    model.enabled = true;
    assert!(!model.look());
    assert_eq!(RestartReason::told_by(&model.status), Some(RestartReason::TokenUnchanged));
}

#[test]
fn a_fingerprint_of_a_newer_operator_is_no_other_token() {
    let mut model = Model::new(&["api"]);
    let token_fingerprint = "t2.whatever".to_owned();
    model.status.rollout_restart = Some(Box::new(RolloutRestart { token_fingerprint, missing: Vec::new() }));
    assert!(!model.look());
    model.token = Some(1);
    assert!(model.look());
}

#[test]
fn waits_grow_from_five_seconds_to_two_minutes() {
    let waits = [0, 1, 2, 3, 5, 6, u32::MAX].map(|failures| restart_wait(failures).as_secs());
    assert_eq!(waits, [5, 5, 10, 20, 80, 120, 120]);
}
