//! A simulated day in seconds: the operator's own passes, against the real apiserver and the real issuer. A clock that jumps
//! takes the place of the waits: to the next moment at which a pass has asked to look again.
//!
//! What is left out is the queue: its timers run by the machine's clock.

mod failures;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use verteil_token_operator::api::VerteilToken;
use verteil_token_operator::clock::Clock;
use verteil_token_operator::cluster::{ApiError, Cluster, Events, Rivals, Versions};
use verteil_token_operator::issuer::{AllowedHosts, Issuer, Limits, Permits, Reach};
use verteil_token_operator::lease::Leadership;
use verteil_token_operator::memory::{Key, Memory};
use verteil_token_operator::metrics::{Exposition, Metrics};
use verteil_token_operator::reconcile::{Context, reconcile};
use verteil_token_operator::token::ProcessKey;

pub use failures::{Cost, HEAD, Setup, cost};

use crate::World;
use crate::world::TestClock;

/// 24 hours.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// The operator's defaults of `--concurrency` and `--issuer-concurrency`.
const CONCURRENCY: usize = 32;
const PERMITS: usize = 8;

static PROCESSES: AtomicUsize = AtomicUsize::new(0);

/// An operator whose clock is moved, with the resources that it looks at.
pub struct Day<'a> {
    world: &'a World,
    /// The operator's clock.
    pub clock: TestClock,
    context: Arc<Context>,
    rings: mpsc::UnboundedReceiver<Key>,
    /// When each resource is to be looked at, and how many passes over it have failed in a row.
    due: HashMap<String, (Duration, u32)>,
}

// === impl Day ===

impl<'a> Day<'a> {
    /// A process that knows nothing yet but these resources.
    pub async fn begin(world: &'a World, clock: TestClock, names: impl IntoIterator<Item = String>) -> Self {
        let now = clock.elapsed();
        let (context, rings) = process(world, &clock).await;
        Self { world, clock, context, rings, due: names.into_iter().map(|name| (name, (now, 0))).collect() }
    }

    /// The process dies, and another one starts: what was in memory is gone, and it looks at everything.
    pub async fn restart(&mut self) {
        (self.context, self.rings) = process(self.world, &self.clock).await;
        self.look();
    }

    /// A change rings for every resource.
    pub fn look(&mut self) {
        let now = self.clock.elapsed();
        self.due.values_mut().for_each(|due| *due = (now, 0));
    }

    /// Lets time pass, with all that is due in it.
    pub async fn pass(&mut self, span: Duration) {
        let end = self.clock.elapsed() + span;
        loop {
            while let Ok(key) = self.rings.try_recv() {
                self.due.insert(key.name.to_string(), (self.clock.elapsed(), 0));
            }
            let now = self.clock.elapsed();
            let next = self.due.values().map(|(at, _)| *at).min().unwrap_or(end);
            if next.min(end) > now {
                let wait = next.min(end).saturating_sub(now);
                self.clock.advance(Duration::from_secs(wait.as_secs() + 1));
            } else if now >= end {
                return;
            } else {
                self.run_due(now).await;
            }
        }
    }

    async fn run_due(&mut self, now: Duration) {
        let due: Vec<String> =
            self.due.iter().filter(|(_, (at, _))| *at <= now).map(|(name, _)| name.clone()).collect();
        let tokens = self.world.tokens();
        let present: Vec<VerteilToken> = match due.as_slice() {
            [one] => vec![tokens.get(one).await.expect("the resource is there")],
            _ => tokens.list(&ListParams::default()).await.expect("the resources are there").items,
        };
        let passes = stream::iter(present.into_iter().filter(|token| due.contains(&token.name_any()))).map(|token| {
            let context = Arc::clone(&self.context);
            async move { (token.name_any(), reconcile(&token, &context).await) }
        });
        let done: Vec<_> = passes.buffer_unordered(CONCURRENCY).collect().await;
        for (name, result) in done {
            let failures = self.due.get(&name).map_or(0, |(_, failures)| *failures);
            let (wait, failures) = match result {
                Ok(action) => (requeue(&action).unwrap_or(DAY), 0),
                Err(ApiError::Conflict { .. }) => (Duration::from_secs(1), failures + 1),
                Err(_) => (Duration::from_secs(1 << failures.min(5)), failures + 1),
            };
            self.due.insert(name, (self.clock.elapsed() + wait, failures));
        }
    }

    /// The value of a metric of the present process, by its name with labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.context.metrics.encode(Exposition::Plain).expect("text");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// The wait of an action, which kube shows in its `Debug` only.
#[must_use]
pub fn requeue(action: &Action) -> Option<Duration> {
    let text = format!("{action:?}");
    let wait = text.split_once("Some(")?.1.split_once(')')?.0;
    let units = [("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0)];
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((wait.strip_suffix(unit)?, scale)))?;
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * scale))
}

/// An operator process without its queue.
async fn process(world: &World, clock: &TestClock) -> (Arc<Context>, mpsc::UnboundedReceiver<Key>) {
    verteil_token_operator::start::init_crypto();
    let kubeconfig = Kubeconfig::read_from(world.operator_kubeconfig()).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a config");
    let client = verteil_token_operator::client::client(config).expect("a client");
    let cluster = Cluster::new(client);
    let identity: Arc<str> = format!("day-{}", PROCESSES.fetch_add(1, Ordering::Relaxed)).into();
    let metrics = Arc::new(Metrics::new());
    let (events, post_events) = Events::new(cluster.clone(), Arc::clone(&identity), Arc::clone(&metrics));
    tokio::spawn(post_events);
    let (bell, rings) = mpsc::unbounded_channel();
    let context = Context {
        cluster,
        issuer: Issuer::new(8).expect("a client"),
        clock: Arc::new(clock.clone()),
        store: Arc::new(verteil_token_operator::store::Store::new(false, Arc::clone(&identity), bell.clone())),
        memory: Arc::new(Memory::default()),
        versions: Arc::new(Versions::new(Vec::new())),
        config_maps: Arc::new(Versions::of_config_maps(Vec::new())),
        rivals: Rivals::new(bell.clone()),
        permits: Permits::new(PERMITS, bell.clone()),
        limits: Limits::new(bell.clone()),
        reach: Reach::new(bell),
        wakes: verteil_token_operator::wakes::Wakes::default(),
        events,
        metrics,
        allowed_hosts: AllowedHosts::new(vec!["*".parse().expect("any host")]),
        allow_http: true,
        rollout_restart: false,
        identity,
        claims: AtomicU64::new(0),
        process_key: ProcessKey::generate().expect("random numbers"),
        leading: Leadership::always(),
        stop: CancellationToken::new(),
    };
    (Arc::new(context), rings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_of_an_action_is_read() {
        for wait in [Duration::from_micros(7), Duration::from_millis(150), Duration::from_millis(3_600_001)] {
            assert_eq!(requeue(&Action::requeue(wait)), Some(wait));
        }
        assert_eq!(requeue(&Action::await_change()), None);
    }
}
