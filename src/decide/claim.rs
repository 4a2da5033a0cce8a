//! Claims: how one process announces a request so that nobody else sends one.
//!
//! A claim stands in the status, written with the resource version that was read: of two processes only one can write it.
//! It lasts for the seconds it names. Its holder counts them from before it wrote it, everybody else from when they first saw
//! it, each by a clock of its own that no one can set: so the holder stops before the others begin.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A claim outlasts the request's time-out by this: time for the write of the Secret and its retries.
pub const CLAIM_SLACK: i64 = 15;
/// The Secret is written only while its claim has this much left; the request is sent only with this much beyond its time-out.
pub const SAVE_RESERVE: Duration = Duration::from_secs(10);

/// How the claim in the status looks to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimView {
    /// There is none.
    Free,
    /// It is ours.
    Mine,
    /// Somebody else's, still running.
    Foreign {
        /// When it has run out.
        until: Timestamp,
    },
    /// Somebody else's, run out: its holder crashed, or was cut off.
    RunOut,
}

/// How long a claim lasts for a request with this time-out, in seconds.
#[must_use]
pub const fn claim_seconds(timeout: SignedDuration) -> i64 {
    timeout.as_secs().saturating_add(CLAIM_SLACK)
}

/// How the claim looks that names `seconds` and was first seen `seen_for` ago.
#[must_use]
pub fn view_claim(now: Timestamp, seconds: i64, seen_for: Duration) -> ClaimView {
    // A claim written by others is not believed beyond an hour.
    let lasts = Duration::from_secs(u64::try_from(seconds.clamp(0, 3600)).unwrap_or_default());
    match lasts.checked_sub(seen_for) {
        Some(left) if !left.is_zero() => {
            ClaimView::Foreign { until: now.saturating_add(left).unwrap_or(Timestamp::MAX) }
        }
        Some(_) | None => ClaimView::RunOut,
    }
}

/// Whether what is left of a claim covers a request with this time-out and the write that follows.
#[must_use]
pub fn covers_request(left: Duration, timeout: SignedDuration) -> bool {
    left >= Duration::try_from(timeout).unwrap_or_default().saturating_add(SAVE_RESERVE)
}
