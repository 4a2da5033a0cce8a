//! A look at all resources of a watch at once: when they are listed for the first time, and when this process begins to lead. Those
//! that need nothing are left alone until that ends; only the others take the way through the queue.

use std::ops::AddAssign;
use std::time::Duration;

use futures::{Stream, stream};
use kube::runtime::reflector::Store;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Tokens;
use crate::memory::Key;
use crate::reconcile::{Context, rest};

/// What a survey found.
#[derive(Default)]
pub(crate) struct Found {
    resources: usize,
    valid: usize,
    undecodable: usize,
}

/// When to ring for whom: the last one is the next.
pub(crate) struct Rests(Vec<(Instant, Key)>);

/// Looks at all that `store` holds, and rings for those that need more than a look.
pub(crate) fn survey(store: &Store<Tokens>, context: &Context, now: Instant, ring: impl Fn(Key)) -> (Found, Rests) {
    let (mut found, mut rests) = (Found::default(), Vec::new());
    for object in store.state() {
        let key = Key::of(&*object);
        found.resources += 1;
        found.undecodable += usize::from(object.get().is_err());
        match object.get().ok().and_then(|token| rest(&key, token, context)) {
            Some(rest) => {
                found.valid += 1;
                rests.push((rest, key));
            }
            None => ring(key),
        }
    }
    (found, Rests::new(rests, now))
}

/// Rings at the end of each rest. The rests of a later survey take the place of those before.
pub(crate) fn ends(surveys: mpsc::UnboundedReceiver<Rests>) -> impl Stream<Item = Key> + Send + 'static {
    stream::unfold((surveys, Rests(Vec::new())), |(mut surveys, mut rests)| async move {
        loop {
            let next = rests.0.last().map(|(end, _)| *end);
            tokio::select! {
                survey = surveys.recv() => rests = survey?,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some((_, key)) = rests.0.pop() {
                        return Some((key, (surveys, rests)));
                    }
                }
            }
        }
    })
}

// === impl Found ===

impl Found {
    /// Says it.
    pub(crate) fn announce(&self) {
        tracing::info!(
            resources = self.resources,
            valid_tokens = self.valid,
            undecodable = self.undecodable,
            "Loaded valid tokens from their Secrets: none of them is requested"
        );
    }
}

impl AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.resources += other.resources;
        self.valid += other.valid;
        self.undecodable += other.undecodable;
    }
}

// === impl Rests ===

impl Rests {
    fn new(rests: Vec<(Duration, Key)>, now: Instant) -> Self {
        let mut ends: Vec<(Instant, Key)> = rests.into_iter().map(|(rest, key)| (now + rest, key)).collect();
        ends.sort_unstable_by_key(|(end, _)| std::cmp::Reverse(*end));
        Self(ends)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rests(of: &[(u64, &str)]) -> Rests {
        let rests = of.iter().map(|(rest, name)| (seconds(*rest), Key::new("a", *name))).collect();
        Rests::new(rests, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn each_rest_ends_in_its_time_and_a_later_survey_takes_the_place_of_an_earlier_one() {
        let (send, surveys) = mpsc::unbounded_channel();
        let mut ends = pin!(ends(surveys));
        assert_eq!(ends.next().now_or_never(), None);
        let began = Instant::now();
        assert!(send.send(rests(&[(7, "second"), (3, "first"), (20, "never")])).is_ok());
        for (name, after) in [("first", 3), ("second", 7)] {
            assert_eq!(ends.next().await, Some(Key::new("a", name)));
            assert_eq!(began.elapsed().as_secs(), after);
        }
        assert_eq!(ends.next().now_or_never(), None);
        assert!(send.send(rests(&[(30, "third")])).is_ok());
        assert_eq!(ends.next().await, Some(Key::new("a", "third")));
        assert_eq!(began.elapsed().as_secs(), 37);
    }
}
