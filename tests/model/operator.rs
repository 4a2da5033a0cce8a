//! One operator: the real `reconcile` with a memory, an identity and a process key of its own. Each of its calls stops until
//! the schedule lets it go on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use kube::client::Body;
use kube::runtime::controller::Action;
use testbed::day::requeue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use verteil_token_operator::api::VerteilToken;
use verteil_token_operator::clock::Clock;
use verteil_token_operator::cluster::{ApiError, Cluster, Events, Rivals, Versions};
use verteil_token_operator::issuer::{AllowedHosts, Issuer, Limits, Permits, Reach};
use verteil_token_operator::lease::Leadership;
use verteil_token_operator::memory::Memory;
use verteil_token_operator::metrics::Metrics;
use verteil_token_operator::reconcile::{Context, reconcile};
use verteil_token_operator::store::Store;
use verteil_token_operator::token::ProcessKey;
use verteil_token_operator::wakes::Wakes;

use crate::apiserver::{Call, NAMESPACE};
use crate::clock::ModelClock;
use crate::issuer::Reply;

/// Answered with this status, a call panics in the pass that makes it.
pub const PANIC: u16 = 0;

/// What a running pass comes to.
pub enum Arrival {
    /// A call to the apiserver. Dropping `reply` breaks the connection.
    Call { process: u64, call: Call, reply: oneshot::Sender<(u16, Vec<u8>)> },
    /// A token request. Dropping `reply` breaks the connection.
    Post { inputs: String, reply: oneshot::Sender<Reply> },
    /// The end of the pass. None: it panicked.
    End { process: u64, result: Option<Result<Action, ApiError>> },
}

/// Where a pass has stopped.
pub enum Stop {
    Call(Call, oneshot::Sender<(u16, Vec<u8>)>),
    Post(oneshot::Sender<Reply>),
}

pub struct Operator {
    pub ctx: Arc<Context>,
    /// New with each start.
    pub process: u64,
    pub leading: Leadership,
    pub pass: Option<JoinHandle<()>>,
    /// Where its pass stands, and since when.
    pub stop: Option<(Stop, Duration)>,
    /// The version of the VerteilToken that its cache holds.
    pub cached: usize,
    /// How much the watch of Secrets has told.
    pub told: usize,
    /// The model's sequence number when it last read the credentials.
    pub read: u64,
    /// The longest that a request of the claim made last may take.
    pub timeout: Duration,
    /// When it wants to look again, and what it had seen by its last look.
    pub wake: Option<Duration>,
    pub seen: Option<u64>,
    pub failures: u32,
    pub rings: mpsc::UnboundedReceiver<verteil_token_operator::memory::Key>,
}

impl Operator {
    pub fn start(
        process: u64,
        in_memory: bool,
        issuer: &Issuer,
        clock: &Arc<ModelClock>,
        arrivals: &mpsc::UnboundedSender<Arrival>,
    ) -> Self {
        let cluster = Cluster::new(client(process, arrivals.clone()));
        let identity: Arc<str> = format!("operator-{process}").into();
        let metrics = Arc::new(Metrics::new());
        let (events, post_events) = Events::new(cluster.clone(), Arc::clone(&identity), Arc::clone(&metrics));
        tokio::spawn(post_events);
        let (bell, rings) = mpsc::unbounded_channel();
        let leading = Leadership::always();
        let ctx = Context {
            cluster,
            issuer: issuer.clone(),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            store: Arc::new(Store::new(in_memory, Arc::clone(&identity), bell.clone())),
            memory: Arc::new(Memory::default()),
            versions: Arc::new(Versions::new(Vec::new())),
            config_maps: Arc::new(Versions::of_config_maps(Vec::new())),
            rivals: Rivals::new(bell.clone()),
            limits: Limits::new(bell.clone()),
            reach: Reach::new(bell.clone()),
            permits: Permits::new(4, bell),
            wakes: Wakes::default(),
            events,
            metrics,
            allowed_hosts: AllowedHosts::new(vec!["*".parse().unwrap()]),
            allow_http: true,
            rollout_restart: false,
            identity,
            claims: AtomicU64::new(0),
            process_key: ProcessKey::generate().unwrap(),
            leading: leading.clone(),
            stop: tokio_util::sync::CancellationToken::new(),
        };
        Self {
            ctx: Arc::new(ctx),
            process,
            leading,
            pass: None,
            stop: None,
            cached: 0,
            told: 0,
            read: 0,
            timeout: Duration::ZERO,
            wake: None,
            seen: None,
            failures: 0,
            rings,
        }
    }

    /// Starts a pass over `token`.
    pub fn look(&mut self, token: VerteilToken, arrivals: &mpsc::UnboundedSender<Arrival>) {
        let (ctx, process, arrivals) = (Arc::clone(&self.ctx), self.process, arrivals.clone());
        self.pass = Some(tokio::spawn(async move {
            let result = AssertUnwindSafe(reconcile(&token, &ctx)).catch_unwind().await.ok();
            arrivals.send(Arrival::End { process, result }).ok();
        }));
    }

    /// Becomes leader, which rings for every resource, or stands by.
    pub fn lead(&mut self, leads: bool, elapsed: Duration) {
        self.leading.set(leads.then_some(Duration::MAX), elapsed);
        if leads {
            self.wake = Some(elapsed);
        }
    }

    /// The same waits as the controller's.
    pub fn ended(&mut self, result: &Result<Action, ApiError>, elapsed: Duration) {
        self.failures = if result.is_ok() { 0 } else { self.failures + 1 };
        self.wake = match result {
            Ok(action) => requeue(action).map(|wait| elapsed + wait),
            Err(ApiError::Conflict { .. }) => Some(elapsed + Duration::from_millis(100)),
            Err(_) => Some(elapsed + Duration::from_secs(1 << self.failures.min(5))),
        };
    }
}

/// A client whose calls are told to `arrivals`. Events are taken without a word: nothing depends on them.
fn client(process: u64, arrivals: mpsc::UnboundedSender<Arrival>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let arrivals = arrivals.clone();
        async move {
            let (parts, body) = request.into_parts();
            let broken = || std::io::Error::other("broken by the model");
            let (status, answer) = if parts.uri.path().ends_with("/events") {
                (201, br#"{"metadata":{}}"#.to_vec())
            } else {
                let call = Call {
                    name: parts.extensions.get::<&'static str>().copied().unwrap_or("unnamed"),
                    verb: parts.method,
                    path: parts.uri.path().to_owned(),
                    dry_run: parts.uri.query().is_some_and(|query| query.contains("dryRun=All")),
                    body: body.collect_bytes().await.map_err(|_| broken())?.to_vec(),
                };
                let (reply, answer) = oneshot::channel();
                arrivals.send(Arrival::Call { process, call, reply }).map_err(|_| broken())?;
                let answer = answer.await.map_err(|_| broken())?;
                assert!(answer.0 != PANIC, "a panic, as the model wants it");
                answer
            };
            Ok::<_, std::io::Error>(Response::builder().status(status).body(Body::from(answer)).unwrap())
        }
    });
    kube::Client::new(service, NAMESPACE)
}
