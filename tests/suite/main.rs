//! The operator against a real apiserver and a real token endpoint. One file a question.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod admission;
mod bad_objects;
mod brake;
mod crashes;
mod crd;
mod events;
mod failover;
mod faults;
mod inputs;
mod kubectl;
mod leadership;
mod midway;
mod overlap;
mod readme;
mod record;
mod renew;
mod restart;
mod transport;
mod trust;
mod wire;

/// The operator's binary, built by cargo for these tests.
const OPERATOR: &str = env!("CARGO_BIN_EXE_verteil-token-operator");
