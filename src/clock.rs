//! The one place that asks what time it is.

use std::time::Duration;

use jiff::Timestamp;

/// Where time comes from. Everything else is given the time as an argument.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. It may be stepped by whoever keeps the machine's clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment. Nobody can set it, and it runs on while the machine is suspended.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

// === impl SystemClock ===

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        // Linux's CLOCK_MONOTONIC, which std::time::Instant reads, stops during suspend; elsewhere the two are one.
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}
