//! What the tests of `verteil-token-operator` stand on: nothing here is mocked that could be real.
//!
//! - [`ControlPlane`]: etcd, kube-apiserver and kube-controller-manager as child processes on loopback ports, with the
//!   faults a cluster can have (restart, freeze, compaction).
//! - [`Issuer`]: an OAuth2 token endpoint that keeps every request and answers whatever a test scripts.
//! - [`Authority`]: certificates for it; [`ConnectProxy`] and [`OddServer`]: what may stand in its way or in its place.
//! - [`Proxy`]: between one operator and the apiserver, with faults at any call.
//! - [`node`]: a kubelet with containerd, name server and service proxy beside a control plane, in namespaces of their own.
//! - [`process::Child`]: a child process that never outlives the test process, however that one ends.
//! - [`World`]: one test's namespace, issuer and operators, explained when the test fails.
//! - [`day`]: a simulated day of the operator in seconds, and what broken setups cost in it.
//! - [`demo`]: what `cargo demo` shows.
//! - [`scale`]: what `cargo scale` measures.
//! - [`wait`]: waiting for a condition, and asserting that one keeps holding, with a reason on failure.
//!
//! Unix only. The first use builds the control plane's binaries with Go (see [`binaries`]).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fixture lives by the real clocks, and where it cannot do its work it has no better answer than to fail the test"
)]

mod authority;
pub mod binaries;
mod connect_proxy;
pub mod control_plane;
pub mod day;
pub mod demo;
pub mod issuer;
pub mod node;
mod odd_server;
pub mod plain_http;
pub mod ports;
pub mod process;
pub mod proxy;
mod random;
pub mod scale;
pub mod wait;
pub mod world;

pub use authority::{Authority, ServerCertificate};
pub use binaries::say;
pub use connect_proxy::ConnectProxy;
pub use control_plane::{ControlPlane, Options};
pub use issuer::{Answer, Issuer, Recorded};
pub use odd_server::OddServer;
pub use process::{Child, Signal};
pub use proxy::Proxy;
pub use wait::{eventually, never, until};
pub use world::World;
