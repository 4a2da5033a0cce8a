//! The testbed's own tests: that it does what other tests rely on.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod borrowed;
mod control_plane;
mod helper;
mod issuer;
mod node;
mod process;
mod wait;
