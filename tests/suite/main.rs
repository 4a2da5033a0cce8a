//! The operator against a real apiserver and a real token endpoint. One file a question.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod admission;
mod adoption;
mod alerts;
mod alternating;
mod answers;
mod backoff;
mod bad_objects;
mod brake;
mod chart;
mod crashes;
mod crd;
mod day;
mod debug;
mod deletion;
mod events;
mod failover;
mod failures;
mod faults;
mod helm_wait;
mod inputs;
mod kubectl;
mod leadership;
mod leak;
mod limits;
mod line;
mod logs;
mod memory_only;
mod metrics;
mod midway;
mod overlap;
mod prometheus;
mod readme;
mod ready;
mod record;
mod rename;
mod renew;
mod repeats;
mod restart;
mod rivals;
mod rollout;
mod scale;
mod source_of_truth;
mod status_writes;
mod template;
mod token_api;
mod transport;
mod trust;
mod wire;
mod workflows;

/// The operator's binary, built by cargo for these tests.
const OPERATOR: &str = env!("CARGO_BIN_EXE_verteil-token-operator");
