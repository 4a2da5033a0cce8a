//! The work: watches that ring, the queue that they ring for, and the beat that shows it is moving.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::clock::Clock;
use crate::cluster::{Change, Listed, News, Tokens, bells, number, tokens};
use crate::memory::Key;
use crate::pass::{error_policy, pass};
use crate::reconcile::Context;
use crate::resources::{Resources, Watched};
use crate::serve::{HEARTBEAT, Health};
use crate::survey::{Found, Rests, ends, survey};

/// How long the start waits for a list: that of Secrets spares a restart a read of each, and that of another namespace's resources
/// holds up no other.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// No resource can have this name: through the queue it comes back as "not found", which shows that the queue moves.
const HEARTBEAT_NAME: &str = "/heartbeat";

/// The work in one namespace, or in all.
struct Scope {
    watched: Watched,
    /// Rings for a resource.
    bell: mpsc::UnboundedSender<Key>,
    /// Rings for resources when their rests end.
    rests: mpsc::UnboundedSender<Rests>,
}

/// Watches and reconciles until `stop`; returns when the last pass has ended.
pub(crate) async fn work(
    client: &Client,
    args: &RunArgs,
    context: &Arc<Context>,
    resources: &Arc<Resources>,
    health: &Arc<Health>,
    from_ours: mpsc::UnboundedReceiver<Key>,
    stop: &CancellationToken,
) {
    let mut controllers = Vec::new();
    let mut scopes = Vec::new();
    for namespace in args.scopes() {
        let metrics = || Arc::clone(&context.metrics);
        let (told, of) = (Arc::clone(context), namespace.clone());
        let told = move |change: Change<'_>| heed(&told, of.as_deref(), change);
        let (store, stream, listed) = tokens(client.clone(), namespace.as_deref(), metrics(), told);
        let (bell, rings) = mpsc::unbounded_channel::<Key>();
        let (rests, surveys) = mpsc::unbounded_channel::<Rests>();
        let (secrets, config_maps) = (Arc::clone(&context.versions), Arc::clone(&context.config_maps));
        let secrets = bells::<Secret>(client.clone(), namespace.clone(), secrets, metrics(), listed.clone());
        let config_maps = bells::<ConfigMap>(client.clone(), namespace.clone(), config_maps, metrics(), listed.clone());
        let waked = Arc::clone(context);
        let secrets = secrets.inspect(move |key| waked.wakes.ring(key));
        let all_bells = [received(rings).boxed(), ends(surveys).boxed(), secrets.boxed(), config_maps.boxed()];
        let beats = heartbeats(listed.clone(), Arc::clone(resources), Arc::clone(health), Arc::clone(&context.clock));
        let controller = Controller::for_stream(stream, store.clone())
            .with_config(Config::default().concurrency(args.concurrency))
            .reconcile_on(stream::select_all(all_bells).map(|key| ObjectRef::new(&key.name).within(&key.namespace)))
            .reconcile_on(beats)
            .graceful_shutdown_on(stop.clone().cancelled_owned());
        let passes = controller.run(pass, error_policy, Arc::clone(context));
        controllers.push(passes.take_until(stopped_before(listed.clone(), stop.clone())).boxed());
        scopes.push(Scope { watched: Watched { namespace, store, listed }, bell, rests });
    }
    resources.set(scopes.iter().map(|scope| scope.watched.clone()).collect());
    let ring = received(from_ours).for_each(|key| {
        scopes.iter().filter(|scope| key.is_in(scope.namespace())).for_each(|scope| scope.ring(key.clone()));
        std::future::ready(())
    });
    let begin = async {
        begin(&scopes, context, || health.set_ready(!stop.is_cancelled())).await;
        std::future::pending::<()>().await;
    };
    let lead = context.leading.gained().for_each(|()| {
        // Where lists are not complete the start looks at all of them.
        for scope in scopes.iter().filter(|scope| scope.is_listed() && context.are_listed(scope.namespace())) {
            scope.survey(context);
        }
        std::future::ready(())
    });
    let reconciling = stream::select_all(controllers).for_each(|result| {
        health.beat(context.clock.elapsed());
        match &result {
            Err(kube::runtime::controller::Error::ObjectNotFound(beat)) if beat.name == HEARTBEAT_NAME => {
                // What is kept of resources that are gone ends by time alone.
                context.memory.expire(context.clock.now());
                context.count_unsaved();
            }
            Err(kube::runtime::controller::Error::ObjectNotFound(gone)) => {
                let key = Key::new(gone.namespace.as_deref().unwrap_or_default(), &*gone.name);
                // Gone while the watch was broken: only the queue has noticed.
                context.forget(&key);
            }
            Ok(_) | Err(_) => {}
        }
        std::future::ready(())
    });
    tokio::select! {
        () = reconciling => {}
        () = ring => {}
        () = begin => {}
        () = lead => {}
    }
}

/// Looks at all resources as soon as they are listed with what they name, and says what was found.
async fn begin(scopes: &[Scope], context: &Context, ready: impl FnOnce()) {
    let mut beginning: FuturesUnordered<_> = scopes.iter().map(|scope| scope.begin(context)).collect();
    let mut found = beginning.next().await.unwrap_or_default();
    let others = async {
        while let Some(other) = beginning.next().await {
            found += other;
        }
    };
    if tokio::time::timeout(LIST_PATIENCE, others).await.is_err() {
        let missing = scopes.iter().filter(|scope| !scope.is_listed()).filter_map(Scope::namespace);
        let namespaces = missing.collect::<Vec<_>>().join(", ");
        // None: they wait for what their resources name, and say so themselves.
        if !namespaces.is_empty() {
            tracing::warn!(namespaces, "VerteilTokens of some namespaces are not listed yet: going on without them");
        }
    }
    ready();
    found.announce();
    while let Some(late) = beginning.next().await {
        late.announce();
    }
}

// === impl Scope ===

impl Scope {
    fn namespace(&self) -> Option<&str> {
        self.watched.namespace.as_deref()
    }

    fn is_listed(&self) -> bool {
        *self.watched.listed.borrow()
    }

    fn ring(&self, key: Key) {
        // Nobody listens any more only at the end.
        drop(self.bell.send(key));
    }

    async fn begin(&self, context: &Context) -> Found {
        // The watch ends only with the process.
        drop(self.watched.listed.clone().wait_for(|listed| *listed).await);
        let listed = context.listed(self.namespace());
        if tokio::time::timeout(LIST_PATIENCE, listed).await.is_err() {
            tracing::warn!("Secrets or ConfigMaps are not listed yet: going on without, with a read for each resource");
            context.end_lists(self.namespace());
        }
        self.survey(context)
    }

    /// Looks at all of them, and leaves those alone that need nothing.
    fn survey(&self, context: &Context) -> Found {
        let (found, rests) = survey(&self.watched.store, context, Instant::now(), |key| self.ring(key));
        drop(self.rests.send(rests));
        found
    }
}

/// What the watch of `scope` tells, for whoever has to know before the queue does.
fn heed(context: &Context, scope: Option<&str>, change: Change<'_>) -> News {
    let gone = |key: &Key| {
        context.withdraw(key);
        context.forget(key);
    };
    match change {
        Change::Exists(token) => {
            let key = Key::of(token);
            context.remember(&key, token);
            if context.memory.found(&key) {
                context.count_unsaved();
            }
            context.wakes.ring(&key);
            if context.memory.is_echo(&key, number(&token.metadata)) { News::No } else { News::Yes }
        }
        Change::Gone(key) => {
            gone(key);
            context.wakes.ring(key);
            News::Yes
        }
        Change::Listed(listed) => {
            let known = context.rivals.known(scope);
            known.iter().filter(|key| !listed.contains(key)).for_each(gone);
            // Only now are they all where callers of the token API look.
            for key in &known {
                context.wakes.ring(key);
            }
            News::Yes
        }
    }
}

/// Resolves at `stop` if nothing is `listed` then: a controller that waits for its list has begun no pass, and would not end by itself.
async fn stopped_before(listed: Listed, stop: CancellationToken) {
    stop.cancelled().await;
    if *listed.borrow() {
        std::future::pending::<()>().await;
    }
}

/// A beat every so often, through the queue once it runs.
fn heartbeats(
    listed: Listed,
    resources: Arc<Resources>,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
) -> impl Stream<Item = ObjectRef<Tokens>> + Send + 'static {
    let ticks = stream::unfold(tokio::time::interval(HEARTBEAT), |mut interval| async {
        interval.tick().await;
        Some(((), interval))
    });
    let beats = ticks.filter_map(move |()| {
        // Until the first list the queue stands still, which is the apiserver's doing and no reason to restart; but no queue that
        // runs is vouched for by one that does not.
        let running = *listed.borrow();
        if !running && !resources.are_listed(None) {
            health.beat(clock.elapsed());
        }
        std::future::ready(running.then(|| ObjectRef::new(HEARTBEAT_NAME)))
    });
    beats.boxed()
}

fn received(receiver: mpsc::UnboundedReceiver<Key>) -> impl Stream<Item = Key> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|key| (key, receiver)) }).boxed()
}
