//! Wiring: watches, the controller, the HTTP server, shutdown.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::api::VerteilToken;
use crate::args::RunArgs;
use crate::clock::Clock;
use crate::cluster::{ApiError, Cluster, Events, Listed, Note, Severity, Tokens, Versions, secret_bells, tokens};
use crate::drain::save_unsaved;
use crate::issuer::{AllowedHosts, Issuer, Permits};
use crate::lease::{Election, Leadership, LeaseName, RELEASE_PATIENCE};
use crate::memory::{Key, Memory};
use crate::metrics::Metrics;
use crate::reconcile::{Context, reconcile, settled_until};
use crate::serve::{HEARTBEAT, Health, Served, serve};
use crate::token::ProcessKey;

/// The shutdown, within a pod's grace of 30 s: passes in flight 16 s (a request takes 15 s at most, and none is sent any more),
/// saves of what is still in memory 8 s, the Lease 2 s, last words under 2 s: 28 s in all.
const LAST_PASSES: Duration = Duration::from_secs(16);
const LAST_SAVES: Duration = Duration::from_secs(8);
const LAST_WORDS: Duration = Duration::from_millis(900);
/// Where a pod finds its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Waits after a pass that failed at the apiserver, doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A restart waits for the list of Secrets, which spares it a read of each; but not for longer than this.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// No resource can have this name: through the queue it comes back as "not found", which shows that the queue moves.
const HEARTBEAT_NAME: &str = "/heartbeat";

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the pass panicked")]
    Panic,
}

/// The namespaces to watch: one that is `None` means all.
fn scopes(args: &RunArgs) -> Vec<Option<String>> {
    if args.namespaces.is_empty() { vec![None] } else { args.namespaces.iter().cloned().map(Some).collect() }
}

/// Runs the operator until `stop`, then finishes what is in flight.
///
/// Resources come in as parameters, so that a test runs the true operator against a listener and a clock of its own.
pub async fn run(
    client: Client,
    args: &RunArgs,
    clock: Arc<dyn Clock>,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let timings = args.lease_timings()?;
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::default());
    health.beat(clock.elapsed());
    let cluster = Cluster::new(client.clone());
    let identity: Arc<str> = identity()?.into();
    let (events, post_events) = Events::new(cluster.clone(), Arc::clone(&identity));
    let posting = tokio::spawn(post_events);
    let (permit_bell, permit_rings) = mpsc::unbounded_channel();
    let leading = if args.leader_election { Leadership::none() } else { Leadership::always() };
    metrics.set_leader(!args.leader_election);
    let passes_ended = CancellationToken::new();
    let electing = args.leader_election.then(|| {
        let name = lease_name(&client, args);
        let (clock, leading, metrics) = (Arc::clone(&clock), leading.clone(), Arc::clone(&metrics));
        let election = Election::new(client.clone(), name, &identity, timings, clock, leading, metrics);
        let (passes_ended, stop) = (passes_ended.clone(), stop.clone());
        tokio::spawn(async move {
            if AssertUnwindSafe(election.run(passes_ended)).catch_unwind().await.is_err() {
                // Leadership ends by the clock; but a process that can never lead again had better be replaced.
                tracing::error!("the leader election panicked: stopping");
                stop.cancel();
            }
        })
    });
    let scopes = scopes(args);
    let context = Arc::new(Context {
        cluster,
        issuer: Issuer::new()?,
        clock: Arc::clone(&clock),
        memory: Memory::default(),
        versions: Arc::new(Versions::new(scopes.len())),
        permits: Permits::new(usize::from(args.issuer_concurrency), permit_bell),
        events,
        metrics: Arc::clone(&metrics),
        allowed_hosts: AllowedHosts::new(args.allowed_issuer_hosts.clone()),
        allow_http: args.allow_http,
        identity,
        claims: AtomicU64::new(0),
        process_key: ProcessKey::generate()?,
        leading,
        stop: stop.clone(),
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespaces = ?args.namespaces,
        allowed_issuer_hosts = %context.allowed_hosts,
        allow_http = args.allow_http,
        "Token persistence enabled: tokens are kept in Secrets and survive restarts"
    );
    let served = Served { health: Arc::clone(&health), metrics, clock: Arc::clone(&clock) };
    let serving_ends = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, served, serving_ends.clone()));

    let work = work(&client, &scopes, args, &context, &health, permit_rings, &stop);
    let draining = async {
        stop.cancelled().await;
        health.set_ready(false);
        tracing::info!("shutting down: no new work, finishing what is in flight");
        tokio::time::sleep(LAST_PASSES).await;
    };
    tokio::select! {
        // Not ready comes first.
        biased;
        () = draining => tracing::warn!("passes were cut short: they took too long to end"),
        () = work => {}
    }
    save_unsaved(&context, LAST_SAVES).await;
    passes_ended.cancel();
    if let Some(electing) = electing {
        drop(tokio::time::timeout(RELEASE_PATIENCE + Duration::from_millis(100), electing).await);
    }
    drop(context);
    // What is still waiting to be said gets a moment.
    drop(tokio::time::timeout(LAST_WORDS, posting).await);
    serving_ends.cancel();
    drop(tokio::time::timeout(LAST_WORDS, serving).await);
    tracing::info!("stopped");
    Ok(())
}

/// Watches and reconciles until `stop`; returns when the last pass has ended.
async fn work(
    client: &Client,
    scopes: &[Option<String>],
    args: &RunArgs,
    context: &Arc<Context>,
    health: &Arc<Health>,
    permit_rings: mpsc::UnboundedReceiver<Key>,
    stop: &CancellationToken,
) {
    let mut controllers = Vec::new();
    let mut bells = Vec::new();
    let mut stores = Vec::new();
    for scope in scopes {
        let (versions, metrics) = (Arc::clone(&context.versions), Arc::clone(&context.metrics));
        let (store, stream, listed) =
            tokens(client.clone(), scope.as_deref(), Arc::clone(&versions), Arc::clone(&metrics));
        let (bell, rings) = mpsc::unbounded_channel::<Key>();
        let secrets = secret_bells(client.clone(), scope.clone(), versions, metrics, listed.clone());
        let all_bells = stream::select(received(rings), secrets.boxed());
        let beats = heartbeats(listed, Arc::clone(health), Arc::clone(&context.clock));
        let controller = Controller::for_stream(stream, store.clone())
            .with_config(Config::default().concurrency(args.concurrency))
            .reconcile_on(all_bells.map(|key| ObjectRef::new(&key.name).within(&key.namespace)))
            .reconcile_on(beats)
            .reconcile_all_on(context.leading.gained())
            .graceful_shutdown_on(stop.clone().cancelled_owned());
        controllers.push(controller.run(pass, error_policy, Arc::clone(context)).boxed());
        bells.push((scope.clone(), bell));
        stores.push(store);
    }
    let ring = async {
        let mut permit_rings = received(permit_rings).boxed();
        while let Some(key) = permit_rings.next().await {
            for (scope, bell) in &bells {
                if scope.as_ref().is_none_or(|namespace| *namespace == key.namespace) {
                    // Nobody listens any more only at the end.
                    drop(bell.send(key.clone()));
                }
            }
        }
    };
    let announce = async {
        context.versions.listed().await;
        health.set_ready(!stop.is_cancelled());
        announce_reuse(&stores, context);
        std::future::pending::<()>().await;
    };
    let reconciling = stream::select_all(controllers).for_each(|result| {
        health.beat(context.clock.elapsed());
        if let Err(kube::runtime::controller::Error::ObjectNotFound(gone)) = &result
            && gone.name != HEARTBEAT_NAME
        {
            let key = Key { namespace: gone.namespace.clone().unwrap_or_default(), name: gone.name.clone() };
            context.memory.forget(&key, context.clock.now());
            context.permits.withdraw(&key);
        }
        std::future::ready(())
    });
    tokio::select! {
        () = reconciling => {}
        () = ring => {}
        () = announce => {}
    }
}

/// One pass over one resource. A panic in it is an error of that resource alone.
async fn pass(object: Arc<Tokens>, context: Arc<Context>) -> Result<Action, PassError> {
    let key = Key::of(object.as_ref());
    let span = tracing::info_span!("reconcile", namespace = key.namespace, name = key.name);
    let started = context.clock.elapsed();
    let pass = async {
        let listed = context.stop.run_until_cancelled(context.versions.listed());
        drop(tokio::time::timeout(LIST_PATIENCE, listed).await);
        match &object.0 {
            Ok(token) => reconcile(token, &context).await.map_err(PassError::from),
            Err(invalid) => {
                tracing::warn!(error = invalid.error, "the resource cannot be read and is left alone");
                if !context.leads() {
                    return Ok(Action::await_change());
                }
                let note = format!("the resource cannot be read and is left alone: {}", invalid.error);
                let note = Note { severity: Severity::Warning, reason: "Undecodable", action: "Read", note };
                context.events.say(object.meta(), &note, context.clock.now());
                Ok(Action::await_change())
            }
        }
    };
    let result = AssertUnwindSafe(pass).catch_unwind().instrument(span.clone()).await;
    let result = result.unwrap_or(Err(PassError::Panic));
    let took = context.clock.elapsed().saturating_sub(started);
    context.metrics.reconciled(took, result.as_ref().err().map(PassError::category));
    match &result {
        Ok(_) => drop(context.memory.peek(&key, |entry| entry.failures).filter(|n| *n > 0).map(|_| {
            context.memory.with(&key, |entry| entry.failures = 0);
        })),
        Err(error) => {
            context.memory.with(&key, |entry| entry.failures = entry.failures.saturating_add(1));
            let _in_span = span.enter();
            match error {
                PassError::Api(ApiError::Conflict { .. }) => tracing::debug!(%error, "pass to be repeated"),
                PassError::Api(_) => tracing::warn!(%error, "pass failed"),
                PassError::Panic => tracing::error!(%error, "pass failed"),
            }
        }
    }
    result
}

/// When to try a failed pass again.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
fn error_policy(object: Arc<Tokens>, error: &PassError, context: Arc<Context>) -> Action {
    let failures = context.memory.peek(&Key::of(object.as_ref()), |entry| entry.failures).unwrap_or_default();
    let wait = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LAST_RETRY);
    Action::requeue(match error {
        PassError::Api(ApiError::Conflict { .. }) => Duration::from_millis(100).max(wait / 10),
        PassError::Api(_) => wait,
        PassError::Panic => LAST_RETRY,
    })
}

/// Says once what was found at start.
fn announce_reuse(stores: &[Store<Tokens>], context: &Context) {
    let now = context.clock.now();
    let (mut resources, mut valid, mut undecodable) = (0_usize, 0_usize, 0_usize);
    for object in stores.iter().flat_map(Store::state) {
        resources += 1;
        let Ok(token) = &object.0 else {
            undecodable += 1;
            continue;
        };
        let Some(end) = stored_until(token, context) else { continue };
        valid += 1;
        context.metrics.reused();
        let expires_in_seconds = end.as_second().saturating_sub(now.as_second());
        let expires_in_hours = expires_in_seconds / 3600;
        let key = Key::of(token);
        tracing::debug!(
            namespace = key.namespace,
            name = key.name,
            expires_in_seconds,
            expires_in_hours,
            "Loaded valid token. Expires in {expires_in_seconds} seconds ({expires_in_hours} hours)"
        );
    }
    tracing::info!(
        resources,
        valid_tokens = valid,
        undecodable,
        "Loaded valid tokens from their Secrets: none of them is requested"
    );
}

/// The expiry of a token that needs no look.
fn stored_until(token: &VerteilToken, context: &Context) -> Option<jiff::Timestamp> {
    settled_until(token, context)?;
    token.status.as_ref()?.expires_at.as_ref().map(|time| time.0)
}

/// A beat every so often, through the queue once it runs.
fn heartbeats(
    listed: Listed,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
) -> impl Stream<Item = ObjectRef<Tokens>> + Send + 'static {
    let ticks = stream::unfold(tokio::time::interval(HEARTBEAT), |mut interval| async {
        interval.tick().await;
        Some(((), interval))
    });
    let beats = ticks.filter_map(move |()| {
        // Until the first list the queue stands still, which is the apiserver's doing and no reason to restart.
        let running = *listed.borrow();
        if !running {
            health.beat(clock.elapsed());
        }
        std::future::ready(running.then(|| ObjectRef::new(HEARTBEAT_NAME)))
    });
    beats.boxed()
}

fn received(receiver: mpsc::UnboundedReceiver<Key>) -> impl Stream<Item = Key> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|key| (key, receiver)) }).boxed()
}

/// The Lease: in the pod's namespace, or in that of the kubeconfig's context, unless said otherwise.
fn lease_name(client: &Client, args: &RunArgs) -> LeaseName {
    let of_pod = || std::fs::read_to_string(POD_NAMESPACE).ok().map(|text| text.trim().to_owned());
    let namespace = args.lease_namespace.clone().or_else(|| of_pod().filter(|namespace| !namespace.is_empty()));
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    LeaseName { namespace, name: args.lease_name.clone() }
}

/// This process, for claims and the Lease: the host's name and a part that is new with each start.
fn identity() -> anyhow::Result<String> {
    let host = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty()).unwrap_or_else(|| "operator".into());
    Ok(format!("{}-{}", host.chars().take(63).collect::<String>(), crate::token::random_suffix()?))
}

// === impl PassError ===

impl PassError {
    const fn category(&self) -> &'static str {
        match self {
            Self::Api(error) => error.category(),
            Self::Panic => "Panic",
        }
    }
}
