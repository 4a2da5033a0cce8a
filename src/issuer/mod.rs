//! The token endpoint: one HTTP exchange (RFC 6749 section 4.4), and what its answer means.

mod answer;
mod cause;
mod client;
mod exchange;
mod hosts;
mod permits;

pub use answer::{Answer, Failure, interpret};
pub use client::Issuer;
pub use exchange::{Exchange, RawAnswer};
pub use hosts::{AllowedHost, AllowedHosts, HostError, host_of};
pub use permits::{Permit, Permits, Priority};
