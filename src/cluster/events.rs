//! Kubernetes events (events.k8s.io): posted on transitions, by a task of their own, never in a pass's way.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Resource;
use kube::core::ObjectMeta;
use tokio::sync::mpsc;

use super::Cluster;
use crate::api::{MANAGER, VerteilToken};

/// Events waiting to be posted; what comes on top is dropped, since an event is news, not state.
const WAITING: usize = 512;
/// Longest note that events.k8s.io takes.
const LONGEST_NOTE: usize = 1024;

/// How an event is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The ordinary course of things.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What is to be said.
#[derive(Clone, Debug)]
pub struct Note {
    /// Normal or Warning.
    pub severity: Severity,
    /// Why the action was taken: one of the documented reasons.
    pub reason: &'static str,
    /// What the operator did or tried.
    pub action: &'static str,
    /// For a person. Never a secret.
    pub note: String,
}

/// The way to post events.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    instance: Arc<str>,
}

// === impl Events ===

impl Events {
    /// Events from the process `instance`, and the task that posts them until all senders are gone.
    pub fn new(cluster: Cluster, instance: Arc<str>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::channel::<Event>(WAITING);
        let post = async move {
            while let Some(event) = waiting.recv().await {
                if let Err(error) = cluster.post_event(&event).await {
                    let about = event.regarding.unwrap_or_default();
                    let (namespace, name) = (about.namespace.unwrap_or_default(), about.name.unwrap_or_default());
                    tracing::debug!(namespace, name, %error, "event not posted");
                }
            }
        };
        (Self { queue, instance }, post)
    }

    /// Says `note` about the VerteilToken with the metadata `token`.
    pub fn say(&self, token: &ObjectMeta, note: &Note, now: Timestamp) {
        let name = token.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: token.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(note.action.into()),
            event_time: Some(MicroTime(now)),
            note: Some(note.note.chars().take(LONGEST_NOTE).collect()),
            reason: Some(note.reason.into()),
            regarding: Some(ObjectReference {
                api_version: Some(VerteilToken::api_version(&()).into_owned()),
                kind: Some(VerteilToken::kind(&()).into_owned()),
                name: token.name.clone(),
                namespace: token.namespace.clone(),
                uid: token.uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(format!("verteil.dev/{MANAGER}")),
            reporting_instance: Some(self.instance.chars().take(128).collect()),
            type_: Some(match note.severity {
                Severity::Normal => "Normal".into(),
                Severity::Warning => "Warning".into(),
            }),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            let namespace = token.namespace.as_deref().unwrap_or_default();
            tracing::debug!(namespace, name, reason = note.reason, "event dropped: too many are waiting");
        }
    }
}
