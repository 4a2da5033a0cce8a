//! What one process remembers between passes. Losing it never makes a wrong Secret; at worst one more request is made, after
//! the claim that stands in the status has been waited out.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Resource;

use crate::api::{Attempted, IssueReason, Workload};
use crate::decide::{Failures, Outcome, Reason, Trouble};
use crate::secret::Content;
use crate::token::{InputsFingerprint, RecordSeal};

/// Namespace and name of one object. A clone is the same text: it is kept in many tables, and looked for in all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// metadata.namespace
    pub namespace: Arc<str>,
    /// metadata.name
    pub name: Arc<str>,
}

/// What is remembered of each resource.
#[derive(Default)]
pub struct Memory {
    entries: Mutex<Entries>,
    /// The resources that were looked at: by hashes, since there may be many, and nothing but a count hangs on it.
    looked_at: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Entries {
    /// Each on the heap: a table has up to twice the room that it needs.
    of: HashMap<Key, Box<Entry>>,
    /// How many of them [count](counts) as unsaved.
    unsaved: usize,
}

/// What is remembered of one resource. What is large and seldom there is on the heap.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Entry {
    /// A token that was issued and whose status is not written yet.
    pub issued: Option<Arc<Issued>>,
    /// The Secret was written with it.
    pub saved: bool,
    /// There is no such resource any more: only its token is kept.
    pub gone: bool,
    /// The inputs of the last failed attempt.
    pub attempted: Option<Box<Attempt>>,
    /// End of the wait after a failed attempt, in case the status could not be written.
    pub not_before: Option<Duration>,
    /// Somebody else has reached the host since the last attempt, which could not.
    pub reachable: bool,
    /// How far the issuer's clock is ahead, as measured and not yet told.
    pub clock_offset: Option<Box<SignedDuration>>,
    /// A failed attempt that the status does not tell yet.
    pub untold: Option<Box<Failed>>,
    /// The trouble of an attempt that was logged with it, until a status tells of it: no second line is needed then.
    pub logged: Option<Reason>,
    /// When the last request went out, by the clock that nobody can set.
    pub last_request: Option<Duration>,
    /// The seal of the last token that this process was given.
    pub given: Option<RecordSeal>,
    /// When the last request that brought a token went out, by the same clock.
    pub last_issue: Option<Duration>,
    /// The time of a last request that lies ahead of the clock, which was set back, and when it was first seen.
    pub request_ahead: Option<Box<(Timestamp, Duration)>>,
    /// The same of the end of a wait.
    pub wait_ahead: Option<Box<(Timestamp, Duration)>>,
    /// The claim that this process made last.
    pub claim: Option<OwnClaim>,
    /// It was made over somebody else's that had run out, and no request has followed yet.
    pub taking_over: bool,
    /// The request that follows, or has followed, was counted as ambiguous for that.
    pub took_over: bool,
    /// Somebody else's claim, and when it was first seen.
    pub seen_claim: Option<Box<(String, Duration)>>,
    /// The resource version of our last status write: an older object is a stale one.
    pub written: Option<u64>,
    /// A pass was given a stale object, and waits for the watch to tell of the one that was written.
    pub waits_for_echo: bool,
    /// The status is being written: the watch may tell of it before the answer does.
    pub writing: bool,
    /// The version that the watch told of meanwhile.
    pub told_meanwhile: Option<u64>,
    /// Writes of the Secret that were refused in a row, and when the next one may be tried.
    pub refused_writes: Option<Box<(u32, Duration)>>,
    /// Passes that failed at the apiserver in a row.
    pub failures: u32,
    /// Answers in a row that gave a token without any life left, or the stored one with next to none.
    pub lifeless_answers: u32,
    /// A restart of workloads that is not finished.
    pub restart: Option<Box<Restart>>,
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
    /// Those in a row, with this one.
    pub failures: Failures,
    /// When.
    pub at: Timestamp,
    /// When the next one may go out.
    pub next_attempt: Timestamp,
    /// What it was made with.
    pub attempted: Option<Box<Attempted>>,
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
    /// Of this namespace and name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Self { namespace: text(&meta.namespace), name: text(&meta.name) }
    }

    /// The key of another object in the same namespace.
    #[must_use]
    pub fn beside(&self, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: Arc::clone(&self.namespace), name: name.into() }
    }

    /// Whether it is in `namespace`, or that is none and means all.
    #[must_use]
    pub fn is_in(&self, namespace: Option<&str>) -> bool {
        namespace.is_none_or(|namespace| *namespace == *self.namespace)
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
        let mut entries = self.lock();
        let Entries { of, unsaved } = &mut *entries;
        let entry = match of.get_mut(key) {
            Some(entry) => entry,
            None => of.entry(key.clone()).or_default(),
        };
        let before = counts(entry);
        let result = f(entry);
        match (before, counts(entry)) {
            (false, true) => *unsaved += 1,
            (true, false) => *unsaved = unsaved.saturating_sub(1),
            (false, false) | (true, true) => {}
        }
        result
    }

    /// Works on what is remembered of `key`, if anything is.
    pub fn peek<T>(&self, key: &Key, f: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.lock().of.get(key).map(|entry| f(entry))
    }

    /// Whether the pass is to wait, since its object, of version `given`, is older than the status that this process wrote last.
    pub fn is_stale(&self, key: &Key, given: Option<u64>) -> bool {
        let mut entries = self.lock();
        let Some((entry, given)) = entries.of.get_mut(key).zip(given) else { return false };
        // Of a pass that panicked.
        entry.writing = false;
        entry.waits_for_echo = entry.written.is_some_and(|written| given < written);
        entry.waits_for_echo
    }

    /// Whether version `told` of a resource, of which the watch tells, is the status that this process wrote last, or older. Then
    /// it is no news: a status is written over the version that its pass has seen, and no other. Unless a later pass was given a
    /// stale object and waits to be told. What is told while a status is written is [kept](Self::take_news) until the answer
    /// says whether it was that.
    pub fn is_echo(&self, key: &Key, told: Option<u64>) -> bool {
        let mut entries = self.lock();
        let Some((entry, told)) = entries.of.get_mut(key).zip(told) else { return false };
        match entry.written.map(|written| told.cmp(&written)) {
            Some(Ordering::Less) => return true,
            Some(Ordering::Equal) => return !std::mem::take(&mut entry.waits_for_echo),
            Some(Ordering::Greater) | None => {}
        }
        if entry.writing {
            entry.told_meanwhile = entry.told_meanwhile.max(Some(told));
        }
        entry.writing
    }

    /// The write of a status has begun.
    pub fn begin_write(&self, key: &Key) {
        self.with(key, |entry| entry.writing = true);
    }

    /// It has ended; with version `written`, if it is known to have succeeded.
    pub fn end_write(&self, key: &Key, written: Option<u64>) {
        self.with(key, |entry| {
            entry.writing = false;
            if written.is_some() {
                entry.written = written;
                entry.told_meanwhile = entry.told_meanwhile.filter(|told| Some(*told) > written);
            }
        });
    }

    /// Whether the watch has told of somebody else's change while a status was written: a pass that ends is to be repeated.
    pub fn take_news(&self, key: &Key) -> bool {
        let mut entries = self.lock();
        entries.of.get_mut(key).is_some_and(|entry| entry.told_meanwhile.take().is_some())
    }

    /// Whether this is the first look at `key`.
    pub fn looks_first(&self, key: &Key) -> bool {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).insert(self.hasher.hash_one(key))
    }

    /// The resource is gone. An unsaved token is kept until it expires: the same resource made again takes it up.
    pub fn forget(&self, key: &Key, now: Timestamp) {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hasher.hash_one(key));
        let mut entries = self.lock();
        let Some(entry) = entries.of.remove(key) else { return };
        entries.unsaved = entries.unsaved.saturating_sub(usize::from(counts(&entry)));
        if let Some(issued) = entry.issued.filter(|i| i.content.record.validity().holds_at(now)) {
            let kept = Entry { issued: Some(issued), saved: entry.saved, gone: true, ..Entry::default() };
            entries.of.insert(key.clone(), Box::new(kept));
        }
    }

    /// The resource exists. True if it was gone and its token is counted again.
    pub fn found(&self, key: &Key) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.of.get_mut(key).filter(|entry| entry.gone) else { return false };
        entry.gone = false;
        let counted = counts(entry);
        entries.unsaved += usize::from(counted);
        counted
    }

    /// Drops what was kept of resources that are gone, where the token has expired.
    pub fn expire(&self, now: Timestamp) {
        let holds = |entry: &Entry| entry.issued.as_ref().is_some_and(|i| i.content.record.validity().holds_at(now));
        self.lock().of.retain(|_, entry| !entry.gone || holds(entry));
    }

    /// Whether the token of `key` is yet to be written to its Secret or status.
    #[must_use]
    pub fn is_unsaved(&self, key: &Key) -> bool {
        self.peek(key, Entry::is_unsaved).unwrap_or_default()
    }

    /// How many resources have such a token: the metric.
    #[must_use]
    pub fn count_unsaved(&self) -> usize {
        self.lock().unsaved
    }

    /// The resources with such a token.
    #[must_use]
    pub fn unsaved(&self) -> Vec<Key> {
        self.keys(Entry::is_unsaved)
    }

    /// The resources with a token that no Secret is known to hold: it ends with this process.
    #[must_use]
    pub fn unwritten(&self) -> Vec<Key> {
        self.keys(|entry| entry.issued.is_some() && !entry.saved)
    }

    fn keys(&self, which: impl Fn(&Entry) -> bool) -> Vec<Key> {
        self.lock().of.iter().filter(|(_, entry)| which(entry)).map(|(key, _)| key.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    /// A token was issued whose Secret or status is not written yet.
    #[must_use]
    pub const fn is_unsaved(&self) -> bool {
        self.issued.is_some()
    }

    /// The claim over somebody else's holds. True if that is new.
    pub fn ends_takeover(&mut self) -> bool {
        let new = std::mem::take(&mut self.taking_over);
        self.took_over |= new;
        new
    }
}

/// Whether the metric of unsaved tokens counts it: one of a resource that is gone is not missed by anybody.
const fn counts(entry: &Entry) -> bool {
    entry.is_unsaved() && !entry.gone
}

// === impl Attempt ===

impl Attempt {
    /// Whether `next` is worth an attempt: it has other inputs, or asks for another renewal. A request that was taken back asks
    /// for none.
    #[must_use]
    pub fn is_outdated_by(&self, next: &Self) -> bool {
        let asks = next.renew_request.is_some() && next.renew_request != self.renew_request;
        asks || self.inputs != next.inputs
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

#[cfg(test)]
mod tests;
