//! Waiting for a condition instead of sleeping, with a failure that explains itself.
//!
//! Deadlines are measured on the machine's clock, so a runtime with paused time waits as long as any other.

use std::panic::Location;
use std::time::{Duration, Instant};

/// First pause between two checks; it doubles up to [`LONGEST_PAUSE`], so that a short wait stays short and a long one
/// does not load the machine it is waiting for.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Repeats `check` until it returns `Ok`, and returns what it found.
///
/// `Err` says what was seen instead. After `timeout` the test fails with `what`, the last such reason and the place of
/// the call. A check that does not return counts as one that failed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut looks = 0;
/// let found = testbed::eventually("a third look", std::time::Duration::from_secs(5), async || {
///     looks += 1;
///     if looks == 3 { Ok(looks) } else { Err(format!("only {looks} looks")) }
/// })
/// .await;
/// assert_eq!(found, 3);
/// # });
/// ```
///
/// # Caveats
/// The compiler does not see that this future may move between threads: await it in the test itself, not in a spawned
/// task. [`until`] has no such limit.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let mut wait = Wait::new(what, timeout);
    async move {
        loop {
            match tokio::time::timeout(wait.left(), check()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(reason)) => wait.last_reason = reason,
                // Paused time ran ahead of the machine's.
                Err(_) if wait.left() > FIRST_PAUSE => {}
                Err(_) => wait.last_reason.insert_str(0, "the last check did not return; before that: "),
            }
            wait.pause().await;
        }
    }
}

/// [`eventually`] for a check that does not wait for anything.
#[track_caller]
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let mut wait = Wait::new(what, timeout);
    async move {
        loop {
            match check() {
                Ok(found) => return found,
                Err(reason) => wait.last_reason = reason,
            }
            wait.pause().await;
        }
    }
}

/// Repeats `check` for `duration` and fails the test as soon as it returns `Err`, whose text says what was seen.
///
/// `what` names that which must not happen: `never("a second token request", …)`.
#[track_caller]
pub fn never(
    what: &str,
    duration: Duration,
    mut check: impl AsyncFnMut() -> Result<(), String>,
) -> impl Future<Output = ()> {
    let place = Location::caller();
    let start = Instant::now();
    async move {
        loop {
            let is_last = start.elapsed() >= duration;
            if let Err(reason) = check().await {
                panic!("{what} must not happen, but after {:?}, at {place}: {reason}", start.elapsed());
            }
            if is_last {
                return;
            }
            tokio::time::sleep(LONGEST_PAUSE.min(duration)).await;
        }
    }
}

/// One wait for something.
struct Wait<'a> {
    what: &'a str,
    timeout: Duration,
    place: &'static Location<'static>,
    deadline: Instant,
    next_pause: Duration,
    last_reason: String,
}

// === impl Wait ===

impl<'a> Wait<'a> {
    #[track_caller]
    fn new(what: &'a str, timeout: Duration) -> Self {
        Self {
            what,
            timeout,
            place: Location::caller(),
            deadline: Instant::now() + timeout,
            next_pause: FIRST_PAUSE,
            last_reason: "it was not checked once".to_owned(),
        }
    }

    /// The time for a check: a little even at the end, so that there is at least one.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(FIRST_PAUSE)
    }

    /// Fails the test if the time is over.
    async fn pause(&mut self) {
        let Self { what, timeout, place, last_reason, .. } = self;
        assert!(Instant::now() < self.deadline, "waited {timeout:?} in vain for {what}, at {place}: {last_reason}");
        tokio::time::sleep(self.next_pause).await;
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }
}
