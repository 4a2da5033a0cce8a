//! Kubernetes events (events.k8s.io): posted on transitions, by a task of their own, never in a pass's way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{Quota, RateLimiter};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Resource;
use kube::core::ObjectMeta;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{ApiError, Cluster};
use crate::api::{MANAGER, VerteilToken};
use crate::metrics::Metrics;

/// Events waiting to be posted, warnings and others; what comes on top is dropped, since an event is news, not state.
const WAITING: usize = 1024;
/// Posts in a row without a pause, and pauses between those that follow: trouble of many resources at once must not become a
/// storm at the apiserver.
const BURST: NonZeroU32 = NonZeroU32::new(500).unwrap();
const PAUSE: Duration = Duration::from_millis(50);
/// Longest note and reporting instance that events.k8s.io takes: its validation counts bytes.
const LONGEST_NOTE: usize = 1024;
const LONGEST_INSTANCE: usize = 128;
/// What of a resource's name stands in an event's, which has 253 characters and adds its own end.
const LONGEST_STEM: usize = 200;

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
    /// Why the action was taken: one of the documented reasons, or an [`super::Occurrence`].
    pub reason: &'static str,
    /// What the operator did or tried.
    pub action: &'static str,
    /// For a person. Never a secret.
    pub note: String,
}

/// The way to post events. Warnings do not wait behind what is ordinary, and have room of their own.
#[derive(Clone)]
pub struct Events {
    warnings: mpsc::Sender<Event>,
    ordinary: mpsc::Sender<Event>,
    instance: Arc<str>,
    metrics: Arc<Metrics>,
}

/// The events that wait to be posted.
struct Waiting {
    warnings: mpsc::Receiver<Event>,
    ordinary: mpsc::Receiver<Event>,
}

// === impl Events ===

impl Events {
    /// Events from the process `instance`, and the task that posts them until all senders are gone.
    pub fn new(
        cluster: Cluster,
        instance: Arc<str>,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (warnings, warnings_waiting) = mpsc::channel(WAITING);
        let (ordinary, ordinary_waiting) = mpsc::channel(WAITING);
        let mut waiting = Waiting { warnings: warnings_waiting, ordinary: ordinary_waiting };
        let events = Self { warnings, ordinary, instance, metrics: Arc::clone(&metrics) };
        let post = async move {
            let pace = Quota::with_period(PAUSE).map(|quota| RateLimiter::direct(quota.allow_burst(BURST)));
            while let Some(event) = waiting.next().await {
                match cluster.post_event(&event).await {
                    // Said before, and still to be read.
                    Ok(()) | Err(ApiError::Conflict { .. }) => {}
                    Err(error) => drop_event(&metrics, &event, &error.to_string()),
                }
                while let Some(Err(early)) = pace.as_ref().map(RateLimiter::check) {
                    tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
                }
            }
        };
        (events, post)
    }

    /// Says `note` about the VerteilToken with the metadata `token`.
    pub fn say(&self, token: &ObjectMeta, note: &Note, now: Timestamp) {
        self.post(token, note, &format!("{:x}", now.as_nanosecond()), now);
    }

    /// The same for what stays true as long as nobody changes the resource: said once, whoever looks again and whatever restarts,
    /// until the apiserver has forgotten the event (an hour, if not configured otherwise).
    pub fn say_once(&self, token: &ObjectMeta, note: &Note, now: Timestamp) {
        let uid: String = token.uid.iter().flat_map(|uid| uid.chars()).take(8).collect();
        let generation = token.generation.unwrap_or_default();
        self.post(token, note, &format!("{}-{uid}-{generation}", note.reason.to_lowercase()), now);
    }

    fn post(&self, token: &ObjectMeta, note: &Note, end: &str, now: Timestamp) {
        let name = token.name.as_deref().unwrap_or_default();
        // No label of a name ends in one of these.
        let stem = name.get(..LONGEST_STEM).unwrap_or(name).trim_end_matches(['-', '.']);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{stem}.{end}")),
                namespace: token.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(note.action.into()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(&note.note, LONGEST_NOTE)),
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
            reporting_instance: Some(cut(&self.instance, LONGEST_INSTANCE)),
            type_: Some(note.severity.as_str().into()),
            ..Event::default()
        };
        let queue = match note.severity {
            Severity::Normal => &self.ordinary,
            Severity::Warning => &self.warnings,
        };
        if let Err(TrySendError::Full(event) | TrySendError::Closed(event)) = queue.try_send(event) {
            drop_event(&self.metrics, &event, "too many are waiting");
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// The next event, warnings first. None once all senders are gone.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(event) = self.warnings.recv() => Some(event),
            Some(event) = self.ordinary.recv() => Some(event),
            else => None,
        }
    }
}

// === impl Severity ===

impl Severity {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Warning];

    /// As events.k8s.io has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Nobody will read `event`.
fn drop_event(metrics: &Metrics, event: &Event, why: &str) {
    let warning = event.type_.as_deref() == Some(Severity::Warning.as_str());
    metrics.event_dropped(if warning { Severity::Warning } else { Severity::Normal });
    let about = event.regarding.as_ref();
    let (namespace, name) = (about.and_then(|o| o.namespace.as_deref()), about.and_then(|o| o.name.as_deref()));
    tracing::debug!(namespace, name, reason = event.reason, why, "event not posted");
}

/// As much of `text` as has room in so many bytes, with a mark where it was cut.
fn cut(text: &str, bytes: usize) -> String {
    const MARK: char = '…';
    if text.len() <= bytes {
        return text.to_owned();
    }
    let room = bytes.saturating_sub(MARK.len_utf8());
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= room).last().unwrap_or_default();
    text.get(..end).unwrap_or_default().to_owned() + &MARK.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_counted_in_bytes() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 7), "äö…");
        assert_eq!(cut("äöüß", 6), "ä…");
        assert_eq!(cut(&"é".repeat(1500), LONGEST_NOTE).len(), LONGEST_NOTE - 1);
    }
}
