//! Is work progressing, and may traffic come?

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Work has stopped if the queue has not moved for so long. It is made to move far more often.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// How often the queue is made to move.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the probes tell.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    /// Seconds since the clock's start at the last heartbeat.
    beat: AtomicU64,
}

// === impl Health ===

impl Health {
    /// Work has moved at `elapsed`.
    pub fn beat(&self, elapsed: Duration) {
        self.beat.store(elapsed.as_secs(), Ordering::Relaxed);
    }

    /// Whether work has moved lately.
    #[must_use]
    pub fn is_alive(&self, elapsed: Duration) -> bool {
        elapsed.as_secs().saturating_sub(self.beat.load(Ordering::Relaxed)) <= LONGEST_SILENCE.as_secs()
    }

    /// Whether the watches have listed and no shutdown has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Sets readiness.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_alive_while_work_moves_and_not_when_it_has_stopped() {
        let health = Health::default();
        let started = Duration::from_secs(1_000_000);
        health.beat(started);
        assert!(health.is_alive(started + HEARTBEAT));
        assert!(health.is_alive(started + LONGEST_SILENCE));
        assert!(!health.is_alive(started + LONGEST_SILENCE + Duration::from_secs(1)));
        health.beat(started + LONGEST_SILENCE * 2);
        assert!(health.is_alive(started + LONGEST_SILENCE * 2));
        // Read just before a beat of another thread.
        assert!(health.is_alive(started));
    }

    #[test]
    fn is_ready_only_when_told_so() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.set_ready(true);
        assert!(health.is_ready());
    }
}
