//! Counts of this process, for Prometheus. Label values come from fixed sets, and every combination starts at 0.

mod activity;
mod exposition;
mod resources;

pub use activity::Activity;
pub use exposition::Exposition;
pub use resources::ResourceMetrics;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use activity::Latest;

use crate::api::IssueReason;
use crate::cluster::{ApiError, Severity};
use crate::decide::{FailureClass, Outcome, Reason, RestartReason};

type Label = [(&'static str, &'static str); 1];

/// Kinds of Secret writes.
const WRITES: [&str; 3] = ["create", "update", "repair"];
/// Class of a pass that panicked; those that failed otherwise have the category of their error.
pub(crate) const PANIC: &str = "Panic";
/// Watched kinds.
const WATCHES: [&str; 3] = ["ConfigMap", "Secret", "VerteilToken"];

/// Status codes of the token API; 0 stands for any that it does not send.
const TOKEN_API_CODES: [(u16, &str); 11] = [
    (200, "200"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (0, "other"),
];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    generations: Family<Label, Counter>,
    requests: Family<Label, Counter>,
    request_duration: Histogram,
    unchanged: Counter,
    ambiguous: Counter,
    concurrent: Counter,
    secret_writes: Family<Label, Counter>,
    reused: Counter,
    unsaved: Gauge<i64, AtomicI64>,
    undecodable: Gauge<i64, AtomicI64>,
    reconcile_duration: Histogram,
    reconcile_errors: Family<Label, Counter>,
    watch_errors: Family<Label, Counter>,
    rollout_restarts: Family<Label, Counter>,
    events_dropped: Family<Label, Counter>,
    clock_skew: Gauge<i64, AtomicI64>,
    leader: Gauge<i64, AtomicI64>,
    token_api_requests: Family<Label, Counter>,
    token_api_waiting: Gauge<i64, AtomicI64>,
    latest: Latest,
    /// Bytes of the text that was encoded last.
    length: AtomicUsize,
}

// === impl Metrics ===

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("verteil_token");
        let metrics = Self {
            generations: family("reason", IssueReason::ALL.map(IssueReason::as_str)),
            requests: family(
                "outcome",
                std::iter::once("Issued").chain(FailureClass::ALL.map(|class| Reason::from(class).as_str())),
            ),
            request_duration: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0]),
            unchanged: Counter::default(),
            ambiguous: Counter::default(),
            concurrent: Counter::default(),
            secret_writes: family("kind", WRITES),
            reused: Counter::default(),
            unsaved: Gauge::default(),
            undecodable: Gauge::default(),
            reconcile_duration: Histogram::new([0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0]),
            reconcile_errors: family("class", ApiError::CATEGORIES.into_iter().chain([PANIC])),
            watch_errors: family("kind", WATCHES),
            rollout_restarts: family("outcome", Outcome::REASONS.map(RestartReason::as_str)),
            events_dropped: family("type", Severity::ALL.map(Severity::as_str)),
            clock_skew: Gauge::default(),
            leader: Gauge::default(),
            token_api_requests: family("code", TOKEN_API_CODES.map(|(_, text)| text)),
            token_api_waiting: Gauge::default(),
            latest: Latest::default(),
            length: AtomicUsize::new(0),
            registry: Registry::default(),
        };
        registry.register("generations", "Tokens issued, by reason", metrics.generations.clone());
        registry.register("requests", "Token requests sent, by outcome", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time that a token request took",
            Unit::Seconds,
            metrics.request_duration.clone(),
        );
        registry.register(
            "unchanged",
            "Requests that the issuer answered with the token it had already given",
            metrics.unchanged.clone(),
        );
        registry.register(
            "ambiguous_generations",
            "Requests that may have cost a token which nobody holds",
            metrics.ambiguous.clone(),
        );
        registry.register(
            "concurrent_attempts",
            "Attempts that found another process at work on the same token",
            metrics.concurrent.clone(),
        );
        registry.register("secret_writes", "Writes of token Secrets, by kind", metrics.secret_writes.clone());
        registry.register(
            "reused",
            "Stored tokens found at the first look at their resource, which need not be requested",
            metrics.reused.clone(),
        );
        registry.register(
            "unsaved",
            "Tokens in memory whose Secret or status is not written yet",
            metrics.unsaved.clone(),
        );
        registry.register("undecodable_resources", "VerteilTokens that cannot be read", metrics.undecodable.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time that a pass over one resource took",
            Unit::Seconds,
            metrics.reconcile_duration.clone(),
        );
        registry.register("reconcile_errors", "Passes that failed, by class", metrics.reconcile_errors.clone());
        registry.register("watch_errors", "Watches that broke, by kind", metrics.watch_errors.clone());
        registry.register(
            "rollout_restarts",
            "Workloads that were to be restarted for a new token, by outcome",
            metrics.rollout_restarts.clone(),
        );
        registry.register(
            "events_dropped",
            "Kubernetes events that were not posted, by type: too many were waiting, or the apiserver did not take them",
            metrics.events_dropped.clone(),
        );
        registry.register_with_unit(
            "clock_skew",
            "How far the clock of the issuer that answered last was ahead of the operator's; negative if behind",
            Unit::Seconds,
            metrics.clock_skew.clone(),
        );
        registry.register(
            "api_requests",
            "Calls of the token API, by the status code of the answer",
            metrics.token_api_requests.clone(),
        );
        registry.register(
            "api_waiting",
            "Calls of the token API that wait for a token",
            metrics.token_api_waiting.clone(),
        );
        registry.register("leader", "1 while this process may request tokens", metrics.leader.clone());
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, ..metrics }
    }

    /// The same, with what `collector` tells when it is asked.
    #[must_use]
    pub fn with(mut self, collector: impl Collector) -> Self {
        self.registry.register_collector(Box::new(collector));
        self
    }

    /// The metrics as text.
    pub fn encode(&self, exposition: Exposition) -> Result<String, std::fmt::Error> {
        let text = exposition.encode(&self.registry, self.length.load(Ordering::Relaxed))?;
        self.length.store(text.len(), Ordering::Relaxed);
        Ok(text)
    }

    /// A request, sent at `at`, was answered with a token.
    pub fn answered(&self, at: Timestamp, took: Duration) {
        self.requests.get_or_create(&[("outcome", "Issued")]).inc();
        self.request_duration.observe(took.as_secs_f64());
        self.latest.request.set(at);
    }

    /// A request, sent at `at`, failed.
    pub fn failed(&self, class: FailureClass, at: Timestamp, took: Duration) {
        self.requests.get_or_create(&[("outcome", Reason::from(class).as_str())]).inc();
        self.request_duration.observe(took.as_secs_f64());
        self.latest.request.set(at);
    }

    /// A token was issued, at `at`.
    pub fn issued(&self, reason: IssueReason, at: Timestamp) {
        self.generations.get_or_create(&[("reason", reason.as_str())]).inc();
        self.latest.generation.set(at);
        if reason != IssueReason::Initial {
            self.latest.refresh.set(at);
        }
    }

    /// A request was due, and another process was found at it.
    pub fn concurrent_attempt(&self, at: Timestamp) {
        self.concurrent.inc();
        self.latest.concurrent_attempt.set(at);
    }

    /// The issuer repeated its token.
    pub fn unchanged(&self) {
        self.unchanged.inc();
    }

    /// A token may have been lost.
    pub fn ambiguous(&self) {
        self.ambiguous.inc();
    }

    /// A Secret was written: `create`, `update` or `repair`.
    pub fn secret_written(&self, kind: &'static str) {
        self.secret_writes.get_or_create(&[("kind", kind)]).inc();
    }

    /// A stored token was found.
    pub fn reused(&self) {
        self.reused.inc();
    }

    /// So many tokens are in memory only.
    pub fn set_unsaved(&self, count: usize) {
        self.unsaved.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Of the resources of one watch, `now` cannot be read, where `before` could not.
    pub fn undecodable_changed(&self, before: usize, now: usize) {
        let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.undecodable.inc_by(count(now).saturating_sub(count(before)));
    }

    /// A pass is over; `error` is its class if it failed.
    pub fn reconciled(&self, took: Duration, error: Option<&'static str>) {
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(class) = error {
            self.reconcile_errors.get_or_create(&[("class", class)]).inc();
        }
    }

    /// A watch broke.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// A workload was to be restarted.
    pub fn rollout_restart(&self, outcome: &Outcome) {
        self.rollout_restarts.get_or_create(&[("outcome", outcome.reason().as_str())]).inc();
    }

    /// An event was not posted.
    pub fn event_dropped(&self, severity: Severity) {
        self.events_dropped.get_or_create(&[("type", severity.as_str())]).inc();
    }

    /// The issuer's clock was so many seconds ahead.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.clock_skew.set(seconds);
    }

    /// A call of the token API was answered with `code`.
    pub fn token_api_answered(&self, code: u16) {
        let known = TOKEN_API_CODES.into_iter().find(|(known, _)| *known == code);
        self.token_api_requests.get_or_create(&[("code", known.map_or("other", |(_, text)| text))]).inc();
    }

    /// So many calls of the token API wait.
    pub fn set_token_api_waiting(&self, count: usize) {
        self.token_api_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether this process may request tokens.
    pub fn set_leader(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn family(name: &'static str, values: impl IntoIterator<Item = &'static str>) -> Family<Label, Counter> {
    let family: Family<Label, Counter<u64, AtomicU64>> = Family::default();
    for value in values {
        drop(family.get_or_create(&[(name, value)]));
    }
    family
}
