//! Who leads: a state machine that is told what was seen and says what to do. It awaits nothing and asks no clock.
//!
//! ```text
//! Wait ──(pause over, not leading)──> Look ──(nobody else may lead)──> Create | Replace ──(written)──> Wait, leading
//!   ^ ──(pause over, leading)───────────────────────────────────────────────^      │
//!   └──(somebody else may lead)────────┘                                           │
//!   └───────────────────────────────── Look <──────────────(conflict)──────────────┘
//! ```
//!
//! Two intervals keep leaders apart. A leader leads from before its last successful write was *sent*, for the renew deadline.
//! Others wait from after they have *seen* that write, for the lease duration, which is longer. The clock of each is its own.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use super::{Observed, Record, Timings};

/// Writes without an answer that are remembered, to know one's own hand in a Lease. More of them do not fit in a deadline.
const MOST_ATTEMPTS: usize = 8;

/// One candidate.
#[derive(Clone, Debug)]
pub struct Elector {
    identity: String,
    timings: Timings,
    known: Known,
    /// What is known is what the last answer said; a write that was not answered may have changed it.
    sure: bool,
    /// Until then somebody else may consider itself the leader.
    rival_until: Option<Duration>,
    /// How long the rival last seen asks to be waited for.
    rival_wait: Duration,
    /// Until then this candidate is the leader.
    leader_until: Option<Duration>,
    /// Replacements that may have had their effect. Each has it only if nobody else was faster, which a creation that comes
    /// late does not know of a Lease that was deleted.
    attempts: Vec<Record>,
    /// The last write, and when it was sent.
    sent: Option<(Record, Duration)>,
    phase: Phase,
    /// For jitter.
    spread: u32,
}

/// What the Lease was when last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Absent,
    Present(Observed),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Wait { until: Duration },
    Look { then_write: bool },
    Write,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease, then tell [`Elector::observed`] or [`Elector::unseen`].
    Look,
    /// Create the Lease, then tell [`Elector::wrote`].
    Create(Record),
    /// Replace the Lease of this version, then tell [`Elector::wrote`].
    Replace(Record, String),
    /// Nothing until then.
    Wait {
        /// By the clock that is handed in as `elapsed`.
        until: Duration,
    },
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the Lease has this version.
    Written {
        /// `metadata.resourceVersion`
        version: String,
    },
    /// Somebody else was faster, or the Lease is gone: nothing was written.
    Conflict,
    /// Not known: refused, timed out, broken off.
    Unknown,
}

// === impl Elector ===

impl Elector {
    /// A candidate. Its identity must be its own: not that of a former process.
    #[must_use]
    pub fn new(identity: &str, timings: Timings) -> Self {
        Self {
            identity: identity.to_owned(),
            timings,
            known: Known::Nothing,
            sure: false,
            rival_until: None,
            rival_wait: timings.lease(),
            leader_until: None,
            attempts: Vec::new(),
            sent: None,
            phase: Phase::Look { then_write: true },
            spread: identity.bytes().fold(0, |n, byte| n.wrapping_mul(31).wrapping_add(u32::from(byte))),
        }
    }

    /// Whether this candidate is the leader at `elapsed`.
    #[must_use]
    pub fn leads(&self, elapsed: Duration) -> bool {
        self.leader_until.is_some_and(|until| elapsed < until)
    }

    /// Until when it is the leader, if nothing more happens.
    #[must_use]
    pub const fn leader_until(&self) -> Option<Duration> {
        self.leader_until
    }

    /// Whom the Lease names, as last seen; empty: nobody.
    #[must_use]
    pub fn holder(&self) -> &str {
        match &self.known {
            Known::Present(seen) => &seen.record.holder,
            Known::Nothing | Known::Absent => "",
        }
    }

    /// What to do at `elapsed`. `now` only goes into the Lease, for people.
    pub fn next(&mut self, elapsed: Duration, now: Timestamp) -> Action {
        if let Phase::Wait { until } = self.phase {
            if elapsed < until {
                // The end of the leadership is worth waking up for.
                let end = self.leader_until.filter(|end| elapsed < *end).unwrap_or(until);
                return Action::Wait { until: until.min(end) };
            }
            let may_renew = self.leads(elapsed) && self.sure;
            self.phase = if may_renew { Phase::Write } else { Phase::Look { then_write: true } };
        }
        match (self.phase, &self.known) {
            (Phase::Write, Known::Absent) => {
                let record = Record::held(&self.identity, self.timings.lease_seconds(), None, now);
                self.attempt(record, None, elapsed)
            }
            (Phase::Write, Known::Present(seen)) => {
                let version = seen.version.clone();
                let record = Record::held(&self.identity, self.timings.lease_seconds(), Some(&seen.record), now);
                self.attempt(record, Some(version), elapsed)
            }
            (Phase::Wait { .. } | Phase::Look { .. } | Phase::Write, _) => Action::Look,
        }
    }

    /// What to do at the end: the Lease is let go. None: nothing, or no more.
    ///
    /// This candidate is no leader from this call on; everything that only a leader may do must have ended.
    pub fn release(&mut self, elapsed: Duration, now: Timestamp) -> Option<Action> {
        self.leader_until = None;
        match &self.known {
            Known::Absent | Known::Present(_) if !self.sure => Some(Action::Look),
            Known::Present(seen) if seen.record.holder == self.identity => {
                let (record, version) = (seen.record.released(now), seen.version.clone());
                Some(self.attempt(record, Some(version), elapsed))
            }
            Known::Nothing | Known::Absent | Known::Present(_) => None,
        }
    }

    fn attempt(&mut self, record: Record, version: Option<String>, elapsed: Duration) -> Action {
        // Whatever becomes of it: until there is an answer it may have had its effect.
        self.sure = false;
        self.sent = Some((record.clone(), elapsed));
        let Some(version) = version else { return Action::Create(record) };
        if self.attempts.len() >= MOST_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(record.clone());
        Action::Replace(record, version)
    }

    /// The Lease was read; none: there is none. `elapsed` is asked after the answer has come.
    pub fn observed(&mut self, found: Option<Observed>, elapsed: Duration) {
        let known = found.map_or(Known::Absent, Known::Present);
        if known != self.known {
            self.learn(known, elapsed);
        }
        self.sure = true;
        let then_write = matches!(self.phase, Phase::Look { then_write: true });
        let free = self.rival_until.is_none_or(|until| until <= elapsed);
        if then_write && free { self.phase = Phase::Write } else { self.pause_from(elapsed) }
    }

    /// The Lease could not be read.
    pub fn unseen(&mut self, elapsed: Duration) {
        self.pause_from(elapsed);
    }

    /// The write that [`Self::next`] or [`Self::release`] asked for has come to this.
    pub fn wrote(&mut self, outcome: Outcome, elapsed: Duration) {
        match outcome {
            Outcome::Written { version } => {
                let Some((record, sent)) = self.sent.take() else { return self.pause_from(elapsed) };
                self.attempts.clear();
                let held = record.holder == self.identity;
                self.leader_until = held.then(|| sent.saturating_add(self.timings.renew_deadline()));
                self.rival_until = None;
                self.known = Known::Present(Observed { record, version });
                self.sure = true;
                self.pause_from(sent);
            }
            // Who it was is worth knowing at once: a leader that was replaced must stop.
            Outcome::Conflict => self.phase = Phase::Look { then_write: false },
            Outcome::Unknown => self.pause_from(elapsed),
        }
    }

    /// The Lease is not what it was.
    fn learn(&mut self, known: Known, elapsed: Duration) {
        match &known {
            Known::Present(seen) if seen.record.is_released() => {
                (self.leader_until, self.rival_until) = (None, None);
            }
            Known::Present(seen) if self.is_mine(&seen.record, elapsed) => self.rival_until = None,
            Known::Present(seen) if !seen.record.holder.is_empty() => {
                self.leader_until = None;
                self.rival_wait = self.timings.wait_for(seen.record.seconds);
                self.rival_until = Some(elapsed.saturating_add(self.rival_wait));
            }
            // Emptied or deleted by hand: whoever led until then may not know it yet. At the first look an absent Lease is one
            // that nobody has made yet.
            Known::Nothing | Known::Absent | Known::Present(_) => {
                let unmade = known == Known::Absent && self.known == Known::Nothing;
                if !self.leads(elapsed) && !unmade {
                    self.rival_until = Some(elapsed.saturating_add(self.rival_wait));
                }
            }
        }
        self.known = known;
    }

    /// Whether this candidate wrote it. Its name alone does not say so: somebody may have put it there while another one leads.
    fn is_mine(&self, record: &Record, elapsed: Duration) -> bool {
        record.holder == self.identity && (self.leads(elapsed) || self.attempts.contains(record))
    }

    fn pause_from(&mut self, elapsed: Duration) {
        // Numerical Recipes' generator; the high bits are the better ones.
        self.spread = self.spread.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.phase = Phase::Wait { until: elapsed.saturating_add(self.timings.pause(self.spread >> 16)) };
    }
}
