//! The watches: resources with their content, Secrets and ConfigMaps as bells only. Each has its own backoff, so that one that fails does not
//! pause the other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use super::bell::Bell;
use super::decode::Tokens;
use super::{ApiError, Versions};
use crate::api::VerteilToken;
use crate::memory::Key;
use crate::metrics::Metrics;

/// Objects of one list request: the memory that a list takes.
const PAGE_SIZE: u32 = 100;

/// How long the same complaint about a watch is not repeated.
const REPEAT: Duration = Duration::from_secs(60);

/// Whether a first list is complete. `Store::wait_until_ready` would do, but wakes only the last of several that wait.
pub type Listed = tokio::sync::watch::Receiver<bool>;

/// What the watch of resources tells.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// It is new, has changed, or was listed.
    Exists(&'a VerteilToken),
    /// It was deleted.
    Gone(&'a Key),
    /// A list is complete: what it does not hold is gone, though nobody has told so.
    Listed(&'a HashSet<Key>),
}

/// Whether a change is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is.
    Yes,
    /// This process made it, and has looked.
    No,
}

/// The resources of `namespace`, or of all: a store, the stream that fills it and tells of changes, and whether it is full.
/// `told` is called with each change, before the stream tells of it; of what `told` calls no news it does not tell, nor of what
/// is listed for the first time: whoever waits for that list looks at all of it.
pub fn tokens(
    client: Client,
    namespace: Option<&str>,
    metrics: Arc<Metrics>,
    told: impl Fn(Change<'_>) -> News + Send + 'static,
) -> (Store<Tokens>, impl Stream<Item = Result<Tokens, watcher::Error>> + Send + 'static, Listed) {
    let (reader, writer) = reflector::store();
    let (full, listed) = tokio::sync::watch::channel(false);
    let (mut undecodable, counts) = (Undecodable::default(), Arc::clone(&metrics));
    let (mut listing, mut first, mut complaints) = (HashSet::new(), true, Complaints::default());
    let stream = watch(api::<Tokens>(client, namespace), config())
        .default_backoff()
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(event) = event {
                undecodable.count(event, &counts);
            }
        })
        .filter(move |event| {
            let exists = |token: &Tokens| token.get().map_or(News::Yes, |token| told(Change::Exists(token)));
            let news = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    News::Yes
                }
                Ok(Event::InitApply(token)) => {
                    listing.insert(Key::of(token));
                    let news = exists(token);
                    if first { News::No } else { news }
                }
                Ok(Event::Apply(token)) => exists(token),
                Ok(Event::Delete(token)) => told(Change::Gone(&Key::of(token))),
                Ok(Event::InitDone) => {
                    let news = told(Change::Listed(&std::mem::take(&mut listing)));
                    first = false;
                    full.send_replace(true);
                    news
                }
                Err(error) => {
                    complaints.tell("VerteilToken", error, &metrics);
                    News::Yes
                }
            };
            future::ready(news == News::Yes)
        })
        .applied_objects()
        // Reported above; the stream goes on by itself.
        .filter(|item| future::ready(item.is_ok()));
    (reader, stream, listed)
}

/// The resources of one watch that cannot be read.
#[derive(Default)]
struct Undecodable {
    known: HashSet<Key>,
    listing: HashSet<Key>,
}

/// What was said of a watch that fails: it is tried again every second, and what it says each time is worth a line a minute.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

/// Rings for each resource that names an object of kind `K` which has changed. Starts once the resources are `listed` and one of
/// them names any.
pub fn bells<K>(
    client: Client,
    namespace: Option<String>,
    versions: Arc<Versions>,
    metrics: Arc<Metrics>,
    mut listed: Listed,
) -> impl Stream<Item = Key> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + 'static,
{
    let api = api::<Bell<K>>(client, namespace.as_deref());
    let (needed, scope) = (Arc::clone(&versions), namespace.clone());
    let begin = async move {
        drop(listed.wait_for(|listed| *listed).await);
        let at_once = needed.is_needed();
        if !at_once {
            needed.end_list(scope.as_deref());
            needed.needed().await;
        }
        at_once
    };
    stream::once(begin).flat_map(move |at_once| {
        let (namespace, versions, metrics) = (namespace.clone(), Arc::clone(&versions), Arc::clone(&metrics));
        let (mut listing, mut first, mut complaints) = (HashSet::new(), at_once, Complaints::default());
        let events = watch(api.clone(), config()).default_backoff();
        let rings = events.map(move |event| match event {
            Ok(Event::Init) => {
                listing.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                let key = Key::of(&object);
                let concerned = versions.applied(&key, object.meta());
                // Until the first list nobody has looked at anything: the end of it rings for all that need more than a look.
                let concerned = if versions.are_listed(namespace.as_deref()) { concerned } else { Vec::new() };
                // Of other people's objects not even the names are kept.
                if versions.is_named(&key) {
                    listing.insert(key);
                }
                concerned
            }
            Ok(Event::InitDone) => {
                versions.relisted(namespace.as_deref(), &std::mem::take(&mut listing), std::mem::take(&mut first))
            }
            Ok(Event::Apply(object)) => versions.applied(&Key::of(&object), object.meta()),
            Ok(Event::Delete(object)) => versions.deleted(&Key::of(&object), object.meta()),
            Err(error) => {
                complaints.tell(K::KIND, &error, &metrics);
                Vec::new()
            }
        });
        rings.flat_map(stream::iter)
    })
}

// === impl Undecodable ===

impl Undecodable {
    /// Keeps the metric true as resources come, change and go.
    fn count(&mut self, event: &Event<Tokens>, metrics: &Metrics) {
        let before = self.known.len();
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(token) => {
                if token.get().is_err() {
                    self.listing.insert(Key::of(token));
                }
            }
            Event::InitDone => self.known = std::mem::take(&mut self.listing),
            Event::Apply(token) if token.get().is_err() => {
                self.known.insert(Key::of(token));
            }
            Event::Apply(token) | Event::Delete(token) if before > 0 => {
                self.known.remove(&Key::of(token));
            }
            Event::Apply(_) | Event::Delete(_) => {}
        }
        metrics.undecodable_changed(before, self.known.len());
    }
}

// === impl Complaints ===

impl Complaints {
    fn tell(&mut self, kind: &'static str, error: &watcher::Error, metrics: &Metrics) {
        metrics.watch_error(kind);
        // A watch that has expired (410) is begun anew as a matter of course.
        let expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        let error = ApiError::of_watch(error).to_string();
        let now = Instant::now();
        let said = self.last.as_ref().is_some_and(|(said, at)| *said == error && now.duration_since(*at) < REPEAT);
        if expired {
            tracing::debug!(kind, %error, "watch expired");
        } else if said {
            tracing::debug!(kind, %error, "watch failed again");
        } else {
            tracing::warn!(kind, %error, "watch failed, trying again");
            self.last = Some((error, now));
        }
    }
}

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

fn api<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}
