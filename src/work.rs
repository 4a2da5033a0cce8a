//! The work: watches that ring, the queue that they ring for, and the beat that shows it is moving.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::clock::Clock;
use crate::cluster::{Change, Listed, News, Tokens, bells, number, tokens};
use crate::memory::Key;
use crate::pass::{error_policy, pass};
use crate::reconcile::{Context, settled_until};
use crate::resources::{Resources, Watched};
use crate::serve::{HEARTBEAT, Health};

/// A restart waits for the list of Secrets, which spares it a read of each; but not for longer than this.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// No resource can have this name: through the queue it comes back as "not found", which shows that the queue moves.
const HEARTBEAT_NAME: &str = "/heartbeat";

/// Watches and reconciles until `stop`; returns when the last pass has ended.
pub(crate) async fn work(
    client: &Client,
    args: &RunArgs,
    context: &Arc<Context>,
    resources: &Resources,
    health: &Arc<Health>,
    from_ours: mpsc::UnboundedReceiver<Key>,
    stop: &CancellationToken,
) {
    let mut controllers = Vec::new();
    let mut bells_by_scope = Vec::new();
    let mut watches = Vec::new();
    for scope in args.scopes() {
        let metrics = || Arc::clone(&context.metrics);
        let (told, of) = (Arc::clone(context), scope.clone());
        let told = move |change: Change<'_>| heed(&told, of.as_deref(), change);
        let (store, stream, listed) = tokens(client.clone(), scope.as_deref(), metrics(), told);
        let (bell, rings) = mpsc::unbounded_channel::<Key>();
        let (secrets, config_maps) = (Arc::clone(&context.versions), Arc::clone(&context.config_maps));
        let secrets = bells::<Secret>(client.clone(), scope.clone(), secrets, metrics(), listed.clone());
        let config_maps = bells::<ConfigMap>(client.clone(), scope.clone(), config_maps, metrics(), listed.clone());
        let waked = Arc::clone(context);
        let secrets = secrets.inspect(move |key| waked.wakes.ring(key));
        let all_bells = stream::select_all([received(rings).boxed(), secrets.boxed(), config_maps.boxed()]);
        let beats = heartbeats(listed.clone(), Arc::clone(health), Arc::clone(&context.clock));
        let controller = Controller::for_stream(stream, store.clone())
            .with_config(Config::default().concurrency(args.concurrency))
            .reconcile_on(all_bells.map(|key| ObjectRef::new(&key.name).within(&key.namespace)))
            .reconcile_on(beats)
            .reconcile_all_on(context.leading.gained())
            .graceful_shutdown_on(stop.clone().cancelled_owned());
        controllers.push(controller.run(pass, error_policy, Arc::clone(context)).boxed());
        bells_by_scope.push((scope, bell));
        watches.push(Watched { store, listed });
    }
    resources.set(watches.clone());
    let ring = async {
        let mut from_ours = received(from_ours).boxed();
        while let Some(key) = from_ours.next().await {
            for (scope, bell) in &bells_by_scope {
                if scope.as_ref().is_none_or(|namespace| **namespace == *key.namespace) {
                    // Nobody listens any more only at the end.
                    drop(bell.send(key.clone()));
                }
            }
        }
    };
    let patience = async {
        for Watched { listed, .. } in &mut watches {
            // The watch ends only with the process.
            drop(listed.wait_for(|listed| *listed).await);
        }
        if tokio::time::timeout(LIST_PATIENCE, context.listed()).await.is_err() {
            tracing::warn!("Secrets or ConfigMaps are not listed yet: going on without, with a read for each resource");
            context.versions.give_up();
            context.config_maps.give_up();
        }
    };
    let announce = async {
        patience.await;
        health.set_ready(!stop.is_cancelled());
        announce_reuse(resources, context);
        std::future::pending::<()>().await;
    };
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
        () = announce => {}
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

/// Says once what was found at start.
fn announce_reuse(watched: &Resources, context: &Context) {
    let (mut resources, mut valid, mut undecodable) = (0_usize, 0_usize, 0_usize);
    for object in watched.all() {
        resources += 1;
        let Ok(token) = object.get() else {
            undecodable += 1;
            continue;
        };
        valid += usize::from(settled_until(&Key::of(&*object), token, context).is_some());
    }
    tracing::info!(
        resources,
        valid_tokens = valid,
        undecodable,
        "Loaded valid tokens from their Secrets: none of them is requested"
    );
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
