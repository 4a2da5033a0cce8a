//! Kubernetes events (events.k8s.io): posted on transitions, by a task of their own, never in a pass's way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
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
/// Posts without a pause, and the pause for each that follows: trouble of many resources at once must not become a storm at the
/// apiserver, and news of thousands of tokens not delay the tokens.
const BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
const PAUSE: Duration = Duration::from_millis(50);
/// Posts at a time after a pause: the process wakes once in a second for all that may be posted in it, and not for each. Before there
/// is one at a time, so that news of tokens delays no tokens.
const BATCH: usize = 20;
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
    warnings: mpsc::Sender<Said>,
    ordinary: mpsc::Sender<Said>,
    metrics: Arc<Metrics>,
}

/// What was said about a VerteilToken: an event before it is posted, a quarter of its size.
struct Said {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    note: Note,
    /// The end of the event's name.
    end: String,
    at: Timestamp,
}

/// What waits to be posted.
struct Waiting {
    warnings: mpsc::Receiver<Said>,
    ordinary: mpsc::Receiver<Said>,
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
        let events = Self { warnings, ordinary, metrics: Arc::clone(&metrics) };
        let post = async move {
            let pace = Quota::with_period(PAUSE).map(|quota| RateLimiter::direct(quota.allow_burst(BURST)));
            let mut most = 1;
            loop {
                let batch = waiting.next(most).await;
                let Some(posted) = u32::try_from(batch.len()).ok().and_then(NonZeroU32::new) else { break };
                join_all(batch.iter().map(async |said| {
                    match cluster.post_event(&said.event(&instance)).await {
                        // Said before, and still to be read.
                        Ok(()) | Err(ApiError::Conflict { .. }) => {}
                        Err(error) => drop_event(&metrics, said, &error.to_string()),
                    }
                }))
                .await;
                most = 1;
                while let Some(Ok(Err(early))) = pace.as_ref().map(|pace| pace.check_n(posted)) {
                    tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
                    most = BATCH;
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
        let ObjectMeta { namespace, name, uid, .. } = token;
        let (namespace, name, uid) = (namespace.clone(), name.clone(), uid.clone());
        let said = Said { namespace, name, uid, note: note.clone(), end: end.to_owned(), at: now };
        let queue = match note.severity {
            Severity::Normal => &self.ordinary,
            Severity::Warning => &self.warnings,
        };
        if let Err(TrySendError::Full(said) | TrySendError::Closed(said)) = queue.try_send(said) {
            drop_event(&self.metrics, &said, "too many are waiting");
        }
    }
}

// === impl Said ===

impl Said {
    /// As the apiserver takes it, reported by the process `instance`.
    fn event(&self, instance: &str) -> Event {
        let Self { namespace, name, uid, note, end, at } = self;
        let stem = name.as_deref().unwrap_or_default();
        // No label of a name ends in one of these.
        let stem = stem.get(..LONGEST_STEM).unwrap_or(stem).trim_end_matches(['-', '.']);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{stem}.{end}")),
                namespace: namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(note.action.into()),
            event_time: Some(MicroTime(*at)),
            note: Some(cut(&note.note, LONGEST_NOTE)),
            reason: Some(note.reason.into()),
            regarding: Some(ObjectReference {
                api_version: Some(VerteilToken::api_version(&()).into_owned()),
                kind: Some(VerteilToken::kind(&()).into_owned()),
                name: name.clone(),
                namespace: namespace.clone(),
                uid: uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(format!("verteil.dev/{MANAGER}")),
            reporting_instance: Some(cut(instance, LONGEST_INSTANCE)),
            type_: Some(note.severity.as_str().into()),
            ..Event::default()
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// What is next, and no more than `most`, warnings first. Nothing once all senders are gone.
    async fn next(&mut self, most: usize) -> Vec<Said> {
        let first = tokio::select! {
            biased;
            Some(said) = self.warnings.recv() => Some(said),
            Some(said) = self.ordinary.recv() => Some(said),
            else => None,
        };
        let others = std::iter::from_fn(|| self.warnings.try_recv().or_else(|_| self.ordinary.try_recv()).ok());
        first.into_iter().chain(others).take(most).collect()
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

/// Nobody will read it.
fn drop_event(metrics: &Metrics, said: &Said, why: &str) {
    let Said { namespace, name, note, .. } = said;
    metrics.event_dropped(note.severity);
    tracing::debug!(namespace, name, reason = note.reason, why, "event not posted");
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
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_counted_in_bytes() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 7), "äö…");
        assert_eq!(cut("äöüß", 6), "ä…");
        assert_eq!(cut(&"é".repeat(1500), LONGEST_NOTE).len(), LONGEST_NOTE - 1);
    }

    #[tokio::test]
    async fn a_batch_is_what_waits_up_to_its_size_warnings_first() {
        let (warnings, warnings_waiting) = mpsc::channel(WAITING);
        let (ordinary, ordinary_waiting) = mpsc::channel(WAITING);
        let mut waiting = Waiting { warnings: warnings_waiting, ordinary: ordinary_waiting };
        let said = |severity| {
            let note = Note { severity, reason: "r", action: "a", note: String::new() };
            Said { namespace: None, name: None, uid: None, note, end: String::new(), at: Timestamp::UNIX_EPOCH }
        };
        for _ in 0..BATCH {
            ordinary.send(said(Severity::Normal)).await.unwrap();
        }
        for _ in 0..2 {
            warnings.send(said(Severity::Warning)).await.unwrap();
        }
        drop((warnings, ordinary));
        let mut next = async |most| {
            let batch = waiting.next(most).await;
            let warnings = batch.iter().take_while(|said| said.note.severity == Severity::Warning).count();
            (warnings, batch.len())
        };
        assert_eq!(next(1).await, (1, 1));
        assert_eq!(next(BATCH).await, (1, BATCH));
        assert_eq!(next(BATCH).await, (0, 1));
        assert_eq!(next(BATCH).await, (0, 0));
    }
}
