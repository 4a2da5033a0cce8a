//! The token endpoint: one HTTP exchange (RFC 6749 section 4.4), and what its answer means.

mod answer;
mod cause;
mod client;
mod exchange;
mod hosts;
mod limits;
mod permits;
mod quote;
mod reach;

pub use answer::{Answer, Failure, date_of, interpret};
pub use client::Issuer;
pub use exchange::{Exchange, RawAnswer};
pub use hosts::{AllowedHost, AllowedHosts, HostError, host_of};
pub use limits::{Hold, Limits, Turn};
pub use permits::{Permit, Permits, Priority};
pub use reach::Reach;
