//! The election's calls: what the [`Elector`] asks for is done, what comes of it is told, and [`Leadership`] is kept honest.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::{Action, Elector, Leadership, Observed, Outcome, Record, Timings};
use crate::api::MANAGER;
use crate::clock::Clock;
use crate::cluster::ApiError;
use crate::metrics::Metrics;

/// How long letting go of the Lease may take at the end. Not done by then, the successor waits for the lease to run out.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for an answer: a call that hangs must leave time for another one before the deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two tries to let go.
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// Which Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One candidate at work.
pub struct Election {
    /// Not `Api<Lease>`, which refuses a Lease as a whole if one of its times is beyond what it can hold.
    api: Api<DynamicObject>,
    kind: ApiResource,
    name: LeaseName,
    elector: Elector,
    call_timeout: Duration,
    clock: Arc<dyn Clock>,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    /// As last read or written: what others keep in it stays.
    lease: Option<DynamicObject>,
    /// What was last logged.
    told: Told,
}

#[derive(Default)]
struct Told {
    leads: bool,
    holder: String,
    trouble: bool,
}

// === impl Election ===

impl Election {
    /// A candidate for the Lease `name`, which keeps `leadership` and the metric up to date.
    #[must_use]
    pub fn new(
        client: Client,
        name: LeaseName,
        identity: &str,
        timings: Timings,
        clock: Arc<dyn Clock>,
        leadership: Leadership,
        metrics: Arc<Metrics>,
    ) -> Self {
        let kind = ApiResource::erase::<Lease>(&());
        Self {
            api: Api::namespaced_with(client, &name.namespace, &kind),
            kind,
            name,
            elector: Elector::new(identity, timings),
            call_timeout: CALL_TIMEOUT.min(timings.renew_deadline() / 2),
            clock,
            leadership,
            metrics,
            lease: None,
            told: Told::default(),
        }
    }

    /// Leads or stands by until `end`, then lets go of the Lease within [`RELEASE_PATIENCE`].
    ///
    /// Whoever cancels `end` has ended everything that only a leader may do.
    pub async fn run(mut self, end: CancellationToken) {
        while !end.is_cancelled() {
            match self.elector.next(self.clock.elapsed(), self.clock.now()) {
                Action::Wait { until } => {
                    let pause = until.saturating_sub(self.clock.elapsed());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = end.cancelled() => {}
                    }
                }
                action @ (Action::Look | Action::Create(_) | Action::Replace(..)) => {
                    tokio::select! {
                        () = self.perform(action) => {}
                        () = end.cancelled() => {}
                    }
                }
            }
            self.publish();
        }
        if tokio::time::timeout(RELEASE_PATIENCE, self.release()).await.is_err() {
            tracing::warn!(lease = %self.name, "the Lease was not released in time: the successor waits for it to run out");
        }
    }

    async fn release(&mut self) {
        self.told.leads = false;
        self.metrics.set_leader(false);
        while let Some(action) = self.elector.release(self.clock.elapsed(), self.clock.now()) {
            self.publish();
            let writes = action != Action::Look;
            self.perform(action).await;
            if self.told.trouble {
                tokio::time::sleep(RELEASE_PAUSE).await;
            } else if writes && self.elector.holder().is_empty() {
                tracing::info!(lease = %self.name, "released the Lease");
            }
        }
        self.publish();
    }

    async fn perform(&mut self, action: Action) {
        // A renewal that has not succeeded by the end of the leadership is a new candidacy.
        let elapsed = self.clock.elapsed();
        let left =
            self.elector.leader_until().map(|until| until.saturating_sub(elapsed)).filter(|left| !left.is_zero());
        let timeout = self.call_timeout.min(left.unwrap_or(self.call_timeout));
        match action {
            Action::Wait { .. } => {}
            Action::Look => {
                let answer = call("get Lease", timeout, self.api.get_opt(&self.name.name)).await;
                let elapsed = self.clock.elapsed();
                match self.heard(answer) {
                    Some(found) => {
                        let observed = found.as_ref().map(observed);
                        self.lease = found;
                        self.elector.observed(observed, elapsed);
                    }
                    None => self.elector.unseen(elapsed),
                }
            }
            Action::Create(record) => {
                let lease = self.lease_with(&record, None);
                let answer = call("create Lease", timeout, self.api.create(&params(), &lease)).await;
                self.written(answer, false);
            }
            Action::Replace(record, version) => {
                let lease = self.lease_with(&record, Some(version));
                let answer = call("update Lease", timeout, self.api.replace(&self.name.name, &params(), &lease)).await;
                self.written(answer, true);
            }
        }
    }

    fn lease_with(&self, record: &Record, version: Option<String>) -> DynamicObject {
        let new = || DynamicObject::new(&self.name.name, &self.kind).within(&self.name.namespace);
        let mut lease = self.lease.clone().filter(|_| version.is_some()).unwrap_or_else(new);
        lease.metadata.resource_version = version;
        // Left out, the apiserver keeps its own.
        lease.metadata.managed_fields = None;
        record.write_to(&mut lease.data);
        lease
    }

    fn written(&mut self, answer: Result<DynamicObject, ApiError>, existed: bool) {
        let elapsed = self.clock.elapsed();
        let outcome = match answer {
            // What was replaced may be gone; what was to be created lacks its namespace.
            Err(ApiError::Conflict { .. }) => Outcome::Conflict,
            Err(ApiError::NotFound { .. }) if existed => Outcome::Conflict,
            answer => match self.heard(answer) {
                Some(lease) => {
                    let version = lease.metadata.resource_version.clone().unwrap_or_default();
                    self.lease = Some(lease);
                    Outcome::Written { version }
                }
                None => Outcome::Unknown,
            },
        };
        self.elector.wrote(outcome, elapsed);
    }

    /// Says once that calls fail, and once that they succeed again.
    fn heard<T>(&mut self, answer: Result<T, ApiError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                if std::mem::take(&mut self.told.trouble) {
                    tracing::info!(lease = %self.name, "the Lease can be reached again");
                }
                Some(answer)
            }
            Err(error) => {
                if std::mem::replace(&mut self.told.trouble, true) {
                    tracing::debug!(lease = %self.name, %error, "the Lease still cannot be reached");
                } else {
                    tracing::warn!(lease = %self.name, %error, "the Lease cannot be reached");
                }
                None
            }
        }
    }

    /// Makes known what the elector has come to.
    fn publish(&mut self) {
        let elapsed = self.clock.elapsed();
        self.leadership.set(self.elector.leader_until(), elapsed);
        let leads = self.elector.leads(elapsed);
        if std::mem::replace(&mut self.told.leads, leads) != leads {
            self.metrics.set_leader(leads);
            if leads {
                tracing::info!(lease = %self.name, "leading: this process requests tokens");
            } else {
                tracing::warn!(lease = %self.name, "not leading any more: standing by, no token is requested");
            }
        }
        if self.told.holder != self.elector.holder() {
            self.elector.holder().clone_into(&mut self.told.holder);
            if !leads && !self.told.holder.is_empty() {
                tracing::info!(lease = %self.name, holder = self.told.holder, "standing by");
            }
        }
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

async fn call<T>(
    call: &'static str,
    timeout: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer.map_err(|error| ApiError::of(call, &error)),
        Err(_) => Err(ApiError::Unavailable { call, message: format!("no answer within {timeout:?}") }),
    }
}

fn params() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(MANAGER.into()) }
}

fn observed(lease: &DynamicObject) -> Observed {
    Observed {
        record: Record::read_from(&lease.data),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
