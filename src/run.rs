//! Wiring: watches, the controller, the HTTP server, shutdown.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::OptionFuture;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::clock::Clock;
use crate::cluster::{Cluster, Events, Rivals, Versions};
use crate::drain::save_unsaved;
use crate::handover::Handover;
use crate::issuer::{AllowedHosts, Issuer, Limits, Permits, Reach};
use crate::lease::{Election, Leadership, LeaseName, RELEASE_PATIENCE};
use crate::logs::LogFilter;
use crate::memory::{Key, Memory};
use crate::metrics::{Metrics, ResourceMetrics};
use crate::reconcile::Context;
use crate::resources::Resources;
use crate::serve::{Debug, Health, Served, serve, serve_debug};
use crate::store::Store;
use crate::token::ProcessKey;
use crate::tokenapi::{TokenApi, TokenListener};
use crate::wakes::Wakes;
use crate::work::work;

/// The shutdown, within a pod's grace of 30 s: passes in flight 16 s (a request takes 15 s at most, and none is sent any more),
/// saves of what is still in memory 8 s, with the look at the Deployment, the Lease 2 s, last words under 2 s: 28 s in all.
const LAST_PASSES: Duration = Duration::from_secs(16);
const LAST_SAVES: Duration = Duration::from_secs(8);
const LAST_LOOK: Duration = Duration::from_secs(3);
const LAST_WORDS: Duration = Duration::from_millis(900);
/// Where a pod finds its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Where the process is listened to.
pub struct Listeners {
    /// Probes and metrics.
    pub http: TcpListener,
    /// The debug endpoint, with the log filter that it changes.
    pub debug: Option<(TcpListener, LogFilter)>,
    /// The token API.
    pub token: Option<TokenListener>,
}

/// One line that says what runs here, and how.
fn announce_start(args: &RunArgs, identity: &str) {
    let namespaces = if args.namespaces.is_empty() { "all namespaces".into() } else { args.namespaces.join(",") };
    let persistence = if args.disable_token_persistence {
        "Token persistence disabled: tokens are kept in memory only, and a restart costs one for each resource"
    } else {
        "Token persistence enabled: tokens are kept in Secrets and survive restarts"
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity,
        watches = format!("VerteilTokens, and by metadata only Secrets and the ConfigMaps named as CA, in {namespaces}"),
        flags = %args,
        "{persistence}"
    );
}

/// Runs the operator until `stop`, then finishes what is in flight.
///
/// Resources come in as parameters, so that a test runs the true operator against a listener and a clock of its own.
pub async fn run(
    client: Client,
    args: &RunArgs,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let timings = args.lease_timings()?;
    let resources = Arc::new(Resources::default());
    let memory = Arc::new(Memory::default());
    let leading = if args.leader_election { Leadership::none() } else { Leadership::always() };
    let metrics = Metrics::new();
    let metrics = Arc::new(if args.per_resource_metrics {
        metrics.with(ResourceMetrics::new(Arc::clone(&resources), leading.clone(), Arc::clone(&clock)))
    } else {
        metrics
    });
    let health = Arc::new(Health::default());
    health.beat(clock.elapsed());
    let cluster = Cluster::new(client.clone());
    let identity: Arc<str> = identity()?.into();
    let (events, post_events) = Events::new(cluster.clone(), Arc::clone(&identity), Arc::clone(&metrics));
    let posting = tokio::spawn(post_events);
    let (bell, rings) = mpsc::unbounded_channel();
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
    let context = Arc::new(Context {
        cluster,
        issuer: Issuer::new(usize::from(args.issuer_concurrency))?,
        clock: Arc::clone(&clock),
        store: Arc::new(Store::new(args.disable_token_persistence, Arc::clone(&identity), bell.clone())),
        memory: Arc::clone(&memory),
        versions: Arc::new(Versions::new(args.scopes())),
        config_maps: Arc::new(Versions::of_config_maps(args.scopes())),
        rivals: Rivals::new(bell.clone()),
        limits: Limits::new(bell.clone()),
        reach: Reach::new(bell.clone()),
        permits: Permits::new(usize::from(args.issuer_concurrency), bell),
        wakes: Wakes::default(),
        events,
        metrics: Arc::clone(&metrics),
        allowed_hosts: AllowedHosts::new(args.allowed_issuer_hosts.clone()),
        allow_http: args.allow_http,
        rollout_restart: args.rollout_restart,
        identity,
        claims: AtomicU64::new(0),
        process_key: ProcessKey::generate()?,
        leading,
        stop: stop.clone(),
    });
    announce_start(args, &context.identity);
    let served = Served { health: Arc::clone(&health), metrics: Arc::clone(&metrics), clock: Arc::clone(&clock) };
    let serving_ends = CancellationToken::new();
    let serving = tokio::spawn(serve(listeners.http, served, serving_ends.clone()));
    let debugging = listeners.debug.map(|(listener, log_filter)| {
        let (resources, clock, store) = (Arc::clone(&resources), Arc::clone(&clock), Arc::clone(&context.store));
        let debug = Debug { resources, store, memory, metrics, clock, log_filter };
        tokio::spawn(serve_debug(listener, debug, serving_ends.clone()))
    });
    let giving_ends = CancellationToken::new();
    let giving = listeners.token.map(|at| {
        let api = TokenApi::new(Arc::clone(&context), Arc::clone(&resources), args.token_api_audience.clone());
        tokio::spawn(api.serve(at, giving_ends.clone()))
    });
    let handover = begin_handover(&client, args, &context);
    let work = work(&client, args, &context, &resources, &health, rings, &stop);
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
    save_last(&context, handover).await;
    passes_ended.cancel();
    if let Some(electing) = electing {
        drop(tokio::time::timeout(RELEASE_PATIENCE + Duration::from_millis(100), electing).await);
    }
    drop(context);
    giving_ends.cancel();
    // What is still waiting to be said gets a moment; the token API knows of the same context.
    drop(tokio::time::timeout(LAST_WORDS, futures::future::join(posting, OptionFuture::from(giving))).await);
    serving_ends.cancel();
    drop(tokio::time::timeout(LAST_WORDS, futures::future::join(serving, OptionFuture::from(debugging))).await);
    tracing::info!("stopped");
    Ok(())
}

/// With tokens in memory only, the look at the Deployment that says at the end whether they are to be saved.
fn begin_handover(client: &Client, args: &RunArgs, context: &Context) -> Option<Handover> {
    let name = args.deployment_name.clone().filter(|_| args.disable_token_persistence)?;
    let key = Key::new(own_namespace(client), name);
    Some(Handover::begin(context.cluster.clone(), key))
}

/// Saves what is still in memory. The look at the Deployment takes no more than its part of the time.
async fn save_last(context: &Context, handover: Option<Handover>) {
    let end = Instant::now() + LAST_SAVES;
    if let Some(handover) = handover {
        handover.end(&context.store, LAST_LOOK).await;
    }
    save_unsaved(context, end.saturating_duration_since(Instant::now())).await;
}

/// The Lease: in the pod's namespace, or in that of the kubeconfig's context, unless said otherwise.
fn lease_name(client: &Client, args: &RunArgs) -> LeaseName {
    let namespace = args.lease_namespace.clone().unwrap_or_else(|| own_namespace(client));
    LeaseName { namespace, name: args.lease_name.clone() }
}

/// The pod's namespace, or that of the kubeconfig's context.
fn own_namespace(client: &Client) -> String {
    let of_pod = std::fs::read_to_string(POD_NAMESPACE).ok().map(|text| text.trim().to_owned());
    of_pod.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| client.default_namespace().to_owned())
}

/// This process, for claims and the Lease: the host's name and a part that is new with each start.
fn identity() -> anyhow::Result<String> {
    let host = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty()).unwrap_or_else(|| "operator".into());
    Ok(format!("{}-{}", host.chars().take(63).collect::<String>(), crate::token::random_suffix()?))
}
