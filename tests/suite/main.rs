//! The operator against a real apiserver and a real token endpoint. One file a question.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod brake;
mod crashes;
mod crd;
mod faults;
mod inputs;
mod midway;
mod overlap;
mod readme;
mod record;
mod renew;
mod restart;

/// The operator's binary, built by cargo for these tests.
const OPERATOR: &str = env!("CARGO_BIN_EXE_verteil-token-operator");
