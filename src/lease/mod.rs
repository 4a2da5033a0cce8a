//! Leader election by Lease, after client-go's algorithm (k8s.io/client-go/tools/leaderelection).
//!
//! [`Elector`] decides and is pure; [`Election`] reads and writes the Lease; [`Leadership`] is what everybody else asks.
//!
//! # Guarantees
//!
//! - Of all candidates at most one considers itself the leader at a time, whatever is delayed, frozen, lost or repeated, and
//!   whatever any clock shows: every write carries the resource version that was read, a leader counts its time from before
//!   its last successful write was sent, and others count from when they had seen the result of that write.
//! - Leadership ends by the clock. A process that was frozen past its deadline is no leader when it goes on, before any of its
//!   tasks has noticed.
//!
//! # Assumptions
//!
//! - `CLOCK_BOOTTIME` runs at about the same rate everywhere: the lease is half as long again as the renew deadline.
//! - Nobody edits or deletes the Lease by hand. An edit that does not look like a release does no harm: a leader that it
//!   deposes stops when it sees it, everybody else waits until the old leader's time is over. After a deletion, and for a candidate
//!   that starts after the edit, that holds only if the leader was seen before; else the old leader's next renewal, one retry
//!   period later at most, tells it that there is another one.
//!
//! # Caveats
//!
//! The Lease says who should send requests. That none is sent twice does not rest on it but on the claims in the status.

mod elect;
mod leadership;
mod record;
mod run;
#[cfg(test)]
mod simulation;
mod timings;

pub use elect::{Action, Elector, Outcome};
pub use leadership::Leadership;
pub use record::{Observed, Record};
pub use run::{Election, LeaseName, RELEASE_PATIENCE};
pub use timings::{Timings, TimingsError};
