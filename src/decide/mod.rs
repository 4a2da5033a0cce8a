//! What to do next: a pure function of the time, what is wanted, what is stored, what is in memory, and the pace.
//!
//! Nothing here awaits, asks a clock or knows a client. A token is requested only where [`decide`] says `Request`.

mod claim;
mod failures;
mod pace;
mod reason;
mod report;
mod restart_reason;
mod rollout;
mod skew;

pub use claim::{CLAIM_SLACK, ClaimView, SAVE_RESERVE, claim_seconds, covers_request, view_claim};
pub use failures::Failures;
pub use pace::{
    FailureClass, LAST_SECOND_DELAY, SHORTEST_GAP, brake, held_until, jittered, since_first_sight, unscheduled_after,
};
pub use reason::Reason;
pub use report::{
    HeldFacts, Place, Report, SECRET_CONTESTED, Standing, TOKEN_EXPIRED_GRACE, Trouble, condition, contest,
    held_by_account, holds, next_status, renewal_fails_since, told_expiry,
};
pub use restart_reason::{Outcome, RestartReason, WORKLOADS_RESTARTED};
pub use rollout::{RolloutFacts, enter_rollout, finish_rollout, restart_wait, rollout_is_settled};
pub use skew::{CLOCK_SKEW, CLOCK_SKEW_REASONS, clock_offset, tell_clock_skew};

use jiff::{SignedDuration, Timestamp};

use crate::api::IssueReason;
use crate::token::{RecordSeal, Validity, renewal_point};

/// What the resource and its inputs ask for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Wanted {
    /// The resource has a deletionTimestamp.
    pub deleting: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.renewBefore`.
    pub renew_before: SignedDuration,
    /// This token URL was seen to answer with the token it already gave.
    pub issuer_repeats: bool,
    /// The annotation verteil.dev/renew has a value that no token serves yet.
    pub renew_pending: bool,
    /// What keeps a request from being sent: credentials or CA missing or wrong, issuer not allowed, a template invalid.
    pub obstacle: Option<Reason>,
}

/// What the token Secret holds, judged live.
#[derive(Clone, Debug)]
pub enum Stored {
    /// There is no Secret.
    Absent {
        /// Whether a token was stored before.
        lost: Lost,
    },
    /// The Secret has a deletionTimestamp.
    Terminating,
    /// It belongs to somebody else.
    Foreign,
    /// Ours, but its record is gone, unreadable or altered.
    Unusable,
    /// Ours, with a record.
    Held(Held),
}

/// What became of the token that was stored before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was none.
    Nothing,
    /// Somebody deleted the Secret.
    Secret,
    /// It was in the memory of a process that has ended.
    Memory,
}

impl Stored {
    /// Whether there is a Secret that is ours.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        match self {
            Self::Unusable | Self::Held(_) => true,
            Self::Absent { .. } | Self::Terminating | Self::Foreign => false,
        }
    }
}

/// A record in our Secret.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its times.
    pub validity: Validity,
    /// Its seal.
    pub seal: RecordSeal,
    /// It was issued for the inputs that are wanted now; inputs that cannot be read count as unchanged.
    pub current: bool,
    /// Keys, labels, annotations and owner reference are as wanted.
    pub tidy: bool,
}

/// A token in memory that no Secret holds yet.
#[derive(Clone, Debug)]
pub struct Unsaved {
    /// Its times.
    pub validity: Validity,
    /// It was issued for the inputs that are wanted now.
    pub current: bool,
    /// The Secret holds it already, with its seals; only the status is yet to be written.
    pub saved: bool,
    /// Which is the later one, this token or the Secret's.
    pub order: Order,
}

/// How an unsaved token and a stored one follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Their times tell.
    ByTime,
    /// The Secret holds the record that this token was requested to replace: whatever the clock said, that one is older.
    Successor,
    /// The Secret's record serves the renewal that is asked for, and this token does not: whatever the clock said, it is older.
    Predecessor,
}

/// What the past allows.
#[derive(Clone, Debug)]
pub struct Pace {
    /// May this process request tokens, or is another one the leader?
    pub leading: bool,
    /// End of the wait after a failure, as the status tells it; none where a change has lifted it.
    pub not_before: Option<Timestamp>,
    /// The same as this process remembers it: the status may not have been written.
    pub own_not_before: Option<Timestamp>,
    /// End of the wait after a refused write of the Secret.
    pub write_not_before: Option<Timestamp>,
    /// When the last request went out.
    pub last_request: Option<Timestamp>,
    /// When the last request that brought a token went out.
    pub last_issue: Option<Timestamp>,
    /// Successful requests outside the schedule in a row.
    pub unscheduled: u32,
    /// Who has announced a request.
    pub claim: ClaimView,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing at all: no request, no write, no status.
    Leave,
    /// All is as wanted until then.
    Settled {
        /// The renewal point.
        until: Timestamp,
    },
    /// Something is wanted that cannot be done now.
    Blocked {
        /// Why.
        by: Block,
        /// When to look again; none: only a change can help.
        until: Option<Timestamp>,
    },
    /// Write the unsaved token to the Secret.
    Save,
    /// Write the Secret anew from its own record.
    Repair,
    /// Ask the issuer.
    Request {
        /// Why.
        reason: IssueReason,
        /// A claim whose time has run out stands in the way: take it over.
        takeover: bool,
    },
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// A state that has a name of its own.
    Reason(Reason),
    /// The wait after a failure; status says which.
    Backoff,
    /// A wait that only this process knows of: after a refused write, or a failure that the status does not tell.
    Own,
    /// Requests follow each other too fast.
    Gap,
}

/// Decides.
///
/// Guarantees: no `Request` while a current stored token is before its renewal point and no renewal was asked for, nor while
/// a current unsaved token lives; no write of a Secret that is not ours; no panic for any value.
///
/// Assumes: `stored` was read live where a `Request` is to follow it.
#[must_use]
pub fn decide(now: Timestamp, wanted: &Wanted, stored: &Stored, unsaved: Option<&Unsaved>, pace: &Pace) -> Decision {
    let blocked = |reason| Decision::Blocked { by: Block::Reason(reason), until: None };
    if wanted.deleting {
        return Decision::Leave;
    }
    if wanted.suspended {
        return blocked(Reason::Suspended);
    }
    let save = unsaved.is_some_and(|unsaved| wants_saving(now, stored, unsaved));
    match stored {
        Stored::Terminating => blocked(Reason::SecretTerminating),
        Stored::Foreign => blocked(Reason::SecretNotOurs),
        Stored::Absent { .. } | Stored::Unusable | Stored::Held(_) if save => match pace.claim {
            // To write, the claim would have to be ours: it is not taken from somebody who may be asking right now.
            ClaimView::Foreign { until } => {
                Decision::Blocked { by: Block::Reason(Reason::Claimed), until: Some(until) }
            }
            ClaimView::Free | ClaimView::Mine | ClaimView::RunOut => {
                wait(now, pace.write_not_before, Block::Own).unwrap_or(Decision::Save)
            }
        },
        Stored::Absent { lost: Lost::Nothing } => request(now, IssueReason::Initial, wanted, pace),
        Stored::Absent { lost: Lost::Secret } => request(now, IssueReason::SecretDeleted, wanted, pace),
        Stored::Absent { lost: Lost::Memory } => request(now, IssueReason::MemoryLost, wanted, pace),
        Stored::Unusable => request(now, IssueReason::RecordInvalid, wanted, pace),
        Stored::Held(held) => {
            let renewal = renewal_point(held.validity, wanted.renew_before, &held.seal, wanted.issuer_repeats);
            let next = match due(now, held, renewal, wanted.renew_pending) {
                Some(reason) => request(now, reason, wanted, pace),
                None => Decision::Settled { until: renewal },
            };
            match next {
                Decision::Settled { .. } | Decision::Blocked { .. } if !held.tidy && pace.leading => {
                    wait(now, pace.write_not_before, Block::Own).unwrap_or(Decision::Repair)
                }
                Decision::Leave
                | Decision::Settled { .. }
                | Decision::Blocked { .. }
                | Decision::Save
                | Decision::Repair
                | Decision::Request { .. } => next,
            }
        }
    }
}

/// Whether the unsaved token is still worth writing: alive, for the wanted inputs, and not superseded by a later one.
#[must_use]
pub fn wants_saving(now: Timestamp, stored: &Stored, unsaved: &Unsaved) -> bool {
    if unsaved.saved || !unsaved.current || !unsaved.validity.holds_at(now) {
        return false;
    }
    match stored {
        Stored::Held(held) => {
            let later = match unsaved.order {
                Order::ByTime => unsaved.validity.issued_at > held.validity.issued_at,
                Order::Successor => return true,
                Order::Predecessor => false,
            };
            later || !held.current || !held.validity.holds_at(now)
        }
        Stored::Absent { .. } | Stored::Terminating | Stored::Foreign | Stored::Unusable => true,
    }
}

/// Why a held token must be replaced, if it must. Expiry comes first: it is never braked, and serves the others as well.
fn due(now: Timestamp, held: &Held, renewal: Timestamp, renew_pending: bool) -> Option<IssueReason> {
    if now >= renewal {
        Some(IssueReason::Expired)
    } else if !held.current {
        Some(IssueReason::InputsChanged)
    } else if renew_pending {
        Some(IssueReason::Manual)
    } else {
        None
    }
}

/// A request is wanted: is there anything in its way?
fn request(now: Timestamp, reason: IssueReason, wanted: &Wanted, pace: &Pace) -> Decision {
    if let Some(obstacle) = wanted.obstacle {
        return Decision::Blocked { by: Block::Reason(obstacle), until: None };
    }
    if !pace.leading {
        return Decision::Leave;
    }
    // First of all, since every process sees it alike: two that explained themselves differently would write against each other.
    if let ClaimView::Foreign { until } = pace.claim {
        return Decision::Blocked { by: Block::Reason(Reason::Claimed), until: Some(until) };
    }
    let after = |start: Option<Timestamp>, gap| start.map(|start| held_until(start, gap, now));
    // Of a request that failed the backoff alone tells when the next one goes out.
    let gap = brake(reason, pace.unscheduled);
    // The shortest gap holds for every request and is no reproach.
    let by = if gap > SHORTEST_GAP { Block::Reason(Reason::GenerationThrottled) } else { Block::Gap };
    // The failure first: it says more than the brake that may hold beside it.
    wait(now, pace.not_before, Block::Backoff)
        .or_else(|| wait(now, after(pace.last_issue, gap), by))
        .or_else(|| wait(now, pace.own_not_before, Block::Own))
        .or_else(|| wait(now, pace.write_not_before, Block::Own))
        .or_else(|| wait(now, after(pace.last_request, SHORTEST_GAP), Block::Gap))
        .unwrap_or(Decision::Request { reason, takeover: pace.claim == ClaimView::RunOut })
}

/// Blocked, if `until` lies ahead.
fn wait(now: Timestamp, until: Option<Timestamp>, by: Block) -> Option<Decision> {
    until.filter(|until| now < *until).map(|until| Decision::Blocked { by, until: Some(until) })
}
