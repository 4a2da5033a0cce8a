//! What one process remembers between passes. Losing it never makes a wrong Secret; at worst one more request is made, after
//! the claim that stands in the status has been waited out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use crate::api::{Attempted, IssueReason, Workload};
use crate::decide::{Outcome, Trouble};
use crate::secret::Content;
use crate::token::{InputsFingerprint, RecordSeal};

/// Namespace and name of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
}

/// What is remembered of each resource.
#[derive(Default)]
pub struct Memory {
    entries: Mutex<HashMap<Key, Entry>>,
}

/// What is remembered of one resource.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Entry {
    /// A token that was issued and whose status is not written yet.
    pub issued: Option<Arc<Issued>>,
    /// The Secret was written with it.
    pub saved: bool,
    /// The inputs of the last failed attempt.
    pub attempted: Option<Attempt>,
    /// End of the wait after a failed attempt, in case the status could not be written.
    pub not_before: Option<Duration>,
    /// Somebody else has reached the host since the last attempt, which could not.
    pub reachable: bool,
    /// How far the issuer's clock is ahead, as measured and not yet told.
    pub clock_offset: Option<SignedDuration>,
    /// A failed attempt that the status does not tell yet.
    pub untold: Option<Failed>,
    /// When the last request went out, by the clock that nobody can set.
    pub last_request: Option<Duration>,
    /// The seal of the last token that this process was given.
    pub given: Option<RecordSeal>,
    /// When the last request that brought a token went out, by the same clock.
    pub last_issue: Option<Duration>,
    /// The time of a last request that lies ahead of the clock, which was set back, and when it was first seen.
    pub request_ahead: Option<(Timestamp, Duration)>,
    /// The same of the end of a wait.
    pub wait_ahead: Option<(Timestamp, Duration)>,
    /// The claim that this process made last.
    pub claim: Option<OwnClaim>,
    /// It was made over somebody else's that had run out, and no request has followed yet.
    pub taking_over: bool,
    /// The request that follows, or has followed, was counted as ambiguous for that.
    pub took_over: bool,
    /// Somebody else's claim, and when it was first seen.
    pub seen_claim: Option<(String, Duration)>,
    /// The resource version of our last status write: an older object is a stale one.
    pub written: Option<u64>,
    /// Writes of the Secret that were refused in a row, and when the next one may be tried.
    pub refused_writes: Option<(u32, Duration)>,
    /// Passes that failed at the apiserver in a row.
    pub failures: u32,
    /// Answers in a row that gave a token without any life left.
    pub lifeless_answers: u32,
    /// A restart of workloads that is not finished.
    pub restart: Option<Restart>,
}

/// A restart of workloads that is not finished.
#[derive(Default)]
pub struct Restart {
    /// For which token.
    pub fingerprint: String,
    /// Those that need no more: whoever rolls one of them back meanwhile is not overruled.
    pub done: Vec<(Workload, Outcome)>,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// End of the wait after them.
    pub not_before: Duration,
}

/// A token in memory, from its answer until both Secret and status are written. No `Debug`.
pub struct Issued {
    /// metadata.uid of the resource that it was requested for: another one of the same name may be somebody else's.
    pub owner: Option<String>,
    /// What the Secret gets.
    pub content: Content,
    /// Why it was requested.
    pub reason: IssueReason,
    /// The issuer answered with the token that was stored already.
    pub repeated: bool,
    /// What was wrong with the stored record, if that was the reason.
    pub trouble: Option<String>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The record that the Secret held then.
    pub replaces: Option<RecordSeal>,
    /// The request was counted as ambiguous when it was sent: it took over from a process that did not finish.
    pub counted: bool,
    /// The claim under which it was sent.
    pub claim: Option<OwnClaim>,
}

/// A claim of this process.
#[derive(Clone, Debug)]
pub struct OwnClaim {
    /// Its identity.
    pub id: String,
    /// Just before it was sent.
    pub taken: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

/// A failed attempt, as the status tells it.
#[derive(Clone)]
pub struct Failed {
    /// Why it failed.
    pub trouble: Trouble,
    /// So many in a row.
    pub failures: u32,
    /// When.
    pub at: Timestamp,
    /// When the next one may go out.
    pub next_attempt: Timestamp,
    /// What it was made with.
    pub attempted: Option<Attempted>,
}

/// What an attempt was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The inputs and how they were sent.
    pub inputs: InputsFingerprint,
    /// The value of verteil.dev/renew.
    pub renew_request: Option<String>,
}

// === impl Key ===

impl Key {
    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    /// The key of another object in the same namespace.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self { namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Memory ===

impl Memory {
    /// Works on what is remembered of `key`. It must not call back into the memory.
    pub fn with<T>(&self, key: &Key, f: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        f(entries.entry(key.clone()).or_default())
    }

    /// Works on what is remembered of `key`, if anything is.
    pub fn peek<T>(&self, key: &Key, f: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(f)
    }

    /// The resource is gone. An unsaved token is kept: the same resource made again takes it up.
    pub fn forget(&self, key: &Key, now: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.remove(key) else { return };
        if let Some(issued) = entry.issued.filter(|i| i.content.record.validity().holds_at(now)) {
            entries.insert(key.clone(), Entry { issued: Some(issued), saved: entry.saved, ..Entry::default() });
        }
    }

    /// The resources with a token whose Secret or status is yet to be written.
    #[must_use]
    pub fn unsaved(&self) -> Vec<Key> {
        self.keys(|entry| entry.issued.is_some())
    }

    /// The resources with a token that no Secret is known to hold: it ends with this process.
    #[must_use]
    pub fn unwritten(&self) -> Vec<Key> {
        self.keys(|entry| entry.issued.is_some() && !entry.saved)
    }

    fn keys(&self, which: impl Fn(&Entry) -> bool) -> Vec<Key> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|(_, entry)| which(entry)).map(|(key, _)| key.clone()).collect()
    }
}

// === impl Entry ===

impl Entry {
    /// The claim over somebody else's holds. True if that is new.
    pub fn ends_takeover(&mut self) -> bool {
        let new = std::mem::take(&mut self.taking_over);
        self.took_over |= new;
        new
    }
}

// === impl OwnClaim ===

impl OwnClaim {
    /// How much of it is left.
    #[must_use]
    pub fn left(&self, elapsed: Duration) -> Duration {
        self.lasts.saturating_sub(elapsed.saturating_sub(self.taken))
    }
}
