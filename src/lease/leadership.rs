//! Whether this process leads: a question that the clock answers, not a task that may be late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::watch;

/// There is no election.
const ALWAYS: u64 = u64::MAX;

/// Whether this process may request tokens. Clones speak of the same leadership.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The end, in nanoseconds of the clock; [`ALWAYS`]: there is none.
    until: AtomicU64,
    /// Somebody was told that this process does not lead, and has to be told when it does.
    refused: AtomicBool,
    bell: watch::Sender<()>,
}

// === impl Leadership ===

impl Leadership {
    /// Without leader election.
    #[must_use]
    pub fn always() -> Self {
        Self::new(ALWAYS)
    }

    /// Nothing is known of an election yet.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0)
    }

    fn new(until: u64) -> Self {
        let bell = watch::Sender::new(());
        Self(Arc::new(Shared { until: AtomicU64::new(until), refused: AtomicBool::new(false), bell }))
    }

    /// Whether this process leads at `elapsed`, which must have been asked just now: right before each request.
    ///
    /// Who gets a no need not ask again: [`Self::gained`] rings.
    #[must_use]
    pub fn holds(&self, elapsed: Duration) -> bool {
        let holds = self.covers(elapsed);
        if !holds {
            self.0.refused.store(true, Ordering::SeqCst);
        }
        holds
    }

    /// The same for who only wants to know: nothing rings for it.
    #[must_use]
    pub fn covers(&self, elapsed: Duration) -> bool {
        let until = self.0.until.load(Ordering::SeqCst);
        until == ALWAYS || nanoseconds(elapsed) < until
    }

    /// This process leads until `until`, by the clock that nobody can set, or not at all.
    pub fn set(&self, until: Option<Duration>, elapsed: Duration) {
        self.0.until.store(until.map_or(0, nanoseconds), Ordering::SeqCst);
        // A no that is given while this runs is made good by the next renewal.
        if self.covers(elapsed) && self.0.refused.swap(false, Ordering::SeqCst) {
            self.0.bell.send_replace(());
        }
    }

    /// Rings when this process leads and somebody was told before that it does not.
    pub fn gained(&self) -> impl Stream<Item = ()> + Send + 'static {
        stream::unfold(self.0.bell.subscribe(), |mut rings| async { rings.changed().await.ok().map(|()| ((), rings)) })
    }
}

fn nanoseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(ALWAYS).min(ALWAYS - 1)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn it_ends_by_the_clock() {
        let leadership = Leadership::none();
        assert!(!leadership.holds(at(0)));
        leadership.set(Some(at(10)), at(1));
        assert!(leadership.holds(at(9)) && !leadership.holds(at(10)) && !leadership.holds(Duration::MAX));
        leadership.set(None, at(5));
        assert!(!leadership.holds(at(5)));
        assert!(Leadership::always().holds(Duration::MAX));
    }

    #[test]
    fn who_was_refused_is_told_once_that_it_leads() {
        let leadership = Leadership::none();
        let mut rings = Box::pin(leadership.gained());
        assert!(!leadership.holds(at(0)));
        leadership.set(None, at(0));
        leadership.set(Some(at(10)), at(11));
        assert_eq!(rings.next().now_or_never(), None);
        leadership.set(Some(at(20)), at(11));
        assert_eq!(rings.next().now_or_never(), Some(Some(())));
        leadership.set(Some(at(22)), at(13));
        assert_eq!(rings.next().now_or_never(), None);
    }
}
