//! The operator as people run it: installed by Helm from its image on a real node, with pods that use its Secrets.
//!
//! The issuer runs in this process, behind TLS with a CA of its own. Pods reach it by a Service, so a token request goes
//! through the image's resolver, the cluster's name server and the service proxy. Without a node all of these tests pass and
//! say on stderr that they were skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod consumer;
mod expiry;
mod install;
mod restart;
mod stage;
mod token_api;
