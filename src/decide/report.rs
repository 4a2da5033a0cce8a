//! The next status: what the resource says of itself after a look.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Reason;
use crate::api::VerteilTokenStatus;
use crate::token::{RecordSeal, Validity};

/// How long past its expiry a token may stay Ready while no attempt has failed: an issuer that repeats its token can only be
/// asked after expiry, and Ready must not flap at each renewal.
pub const TOKEN_EXPIRED_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Condition of a resource whose Secret another one names too, which waits. Absent otherwise.
pub const SECRET_CONTESTED: &str = "SecretContested";

/// What follows the message of a trouble in RenewalFailing: since when, and how long the stored token holds. In times, not
/// spans, so that the status does not change with each look.
const SINCE: &str = "; renewal fails since ";

/// What is stored, as far as the status tells it.
#[derive(Clone, Debug)]
pub struct HeldFacts {
    /// Times of the stored token.
    pub validity: Validity,
    /// Its seal.
    pub seal: RecordSeal,
    /// When it is renewed.
    pub renewal: Timestamp,
    /// Whether it was issued for the current inputs.
    pub current: bool,
    /// Whether the Secret that the spec names holds it, rather than the one that it named before.
    pub in_place: bool,
}

/// How the resource stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// All is as wanted.
    Settled,
    /// On its way, in the ordinary course of things.
    Progressing(Trouble),
    /// Something is in the way.
    Troubled(Trouble),
}

/// A reason and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub reason: Reason,
    /// What is wrong and what to do. Never a secret.
    pub message: String,
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In Secrets.
    Secret,
    /// In memory only.
    Memory {
        /// A Secret is yet to be emptied.
        leftover: bool,
    },
}

/// All that the conditions are made from.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// metadata.generation
    pub generation: i64,
    /// The Secret's name.
    pub secret_name: &'a str,
    /// Where tokens are kept.
    pub place: Place,
    /// What it holds.
    pub held: Option<HeldFacts>,
    /// How things stand.
    pub standing: Standing,
    /// Other resources that name the Secret which is this one's.
    pub rivals: Vec<String>,
}

// === impl Report ===

impl Report<'_> {
    const fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory { .. })
    }

    /// Where the token is, in words.
    fn whereabouts(&self) -> String {
        if self.is_in_memory() { "the operator's memory".to_owned() } else { format!("Secret {}", self.secret_name) }
    }
}

// === impl Trouble ===

impl Trouble {
    /// A trouble.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The trouble that a status tells of: what a wait after a restart goes on showing.
    #[must_use]
    pub fn told_by(status: &VerteilTokenStatus) -> Option<Self> {
        let failing = condition(status, "RenewalFailing").filter(|c| c.status == "True");
        let not_ready = condition(status, "Ready").filter(|c| c.status == "False");
        [failing, not_ready].into_iter().flatten().find_map(|c| {
            let reason = Reason::parse(&c.reason).filter(|r| !r.is_progress() && *r != Reason::TokenExpired)?;
            let message = c.message.split_once(SINCE).map_or(c.message.as_str(), |(message, _)| message);
            Some(Self::new(reason, message))
        })
    }
}

/// The wait for the sake of another resource with the same account that a status tells of, and its end.
#[must_use]
pub fn held_by_account(status: &VerteilTokenStatus) -> Option<(Trouble, Timestamp)> {
    let until = status.next_attempt_time.as_ref().filter(|_| status.failed_attempts.is_none())?;
    let limited = |trouble: &Trouble| matches!(trouble.reason, Reason::RateLimited | Reason::IssuerUnavailable);
    Some((Trouble::told_by(status).filter(limited)?, until.0))
}

/// Since when renewal fails, as the message of RenewalFailing has it: none before the renewal point, if all that stands in the way
/// is what will keep the operator from trying then.
#[must_use]
pub fn renewal_fails_since(status: &VerteilTokenStatus, now: Timestamp) -> Option<Timestamp> {
    let failing = condition(status, "RenewalFailing").filter(|c| c.status == "True")?;
    let (reason, renewal) = (Reason::parse(&failing.reason)?, status.renewal_time.as_ref()?.0);
    begin_of_failure(reason, failing.last_transition_time.0, renewal, now)
}

/// A request that failed tells by itself that renewal fails; what keeps the operator from trying does so from the renewal point on.
fn begin_of_failure(reason: Reason, told: Timestamp, renewal: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if reason.is_waited_out() { Some(told) } else { (now >= renewal).then_some(told.max(renewal)) }
}

/// The condition of this type.
#[must_use]
pub fn condition<'a>(status: &'a VerteilTokenStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// What is to be said of the stored token's end, if `now` tells of it as `before` did not.
#[must_use]
pub fn told_expiry<'a>(before: Option<&VerteilTokenStatus>, now: &'a VerteilTokenStatus) -> Option<&'a str> {
    fn expired(status: &VerteilTokenStatus) -> Option<&Condition> {
        condition(status, "Ready").filter(|c| c.status == "False" && c.reason == Reason::TokenExpired.as_str())
    }
    expired(now).filter(|_| before.and_then(expired).is_none()).map(|c| c.message.as_str())
}

/// Whether the stored token serves: for the current inputs, and not past its expiry or the grace after it.
#[must_use]
pub fn holds(held: &HeldFacts, standing: &Standing, now: Timestamp) -> bool {
    let end = match standing {
        Standing::Settled | Standing::Progressing(_) => {
            held.validity.expires_at.saturating_add(TOKEN_EXPIRED_GRACE).unwrap_or(Timestamp::MAX)
        }
        Standing::Troubled(_) => held.validity.expires_at,
    };
    held.current && held.in_place && now < end
}

/// The status that follows `old`. Equal to `old` when nothing has changed, so that nothing is written.
#[must_use]
pub fn next_status(old: &VerteilTokenStatus, report: &Report<'_>, now: Timestamp) -> VerteilTokenStatus {
    let mut next = old.clone();
    next.observed_generation = Some(report.generation);
    if report.held.as_ref().is_some_and(|held| held.in_place) {
        // What became of it is told by this, once it is gone.
        next.in_memory = report.is_in_memory().then_some(true);
    }
    if report.place == (Place::Memory { leftover: false }) {
        (next.secret_name, next.former_secret_name) = (None, None);
    } else if !report.is_in_memory() && report.held.as_ref().is_none_or(|held| held.in_place) {
        let before = next.secret_name.replace(report.secret_name.to_owned());
        // Until it is marked as left behind.
        next.former_secret_name = before.filter(|name| name != report.secret_name).or(next.former_secret_name);
    }
    if let Some(held) = &report.held {
        next.issued_at = Some(Time(held.validity.issued_at));
        next.expires_at = Some(Time(held.validity.expires_at));
        next.renewal_time = Some(Time(held.renewal));
        next.record_seal = Some(held.seal.as_str().to_owned());
    } else {
        next.expires_at = None;
        next.renewal_time = None;
        next.verified = None;
    }
    next.conditions = conditions(old, std::mem::take(&mut next.conditions), report, now);
    tell_of_rivals(&mut next, old, report, now);
    next
}

/// What the condition [`SECRET_CONTESTED`] says of `rivals`, if there are any.
#[must_use]
pub fn contest(secret_name: &str, rivals: &[String]) -> Option<String> {
    let names = rivals.join(", ");
    (!rivals.is_empty()).then(|| {
        format!("Secret {secret_name} is also named by {names}: let each name one of its own in spec.secret.name")
    })
}

fn tell_of_rivals(next: &mut VerteilTokenStatus, old: &VerteilTokenStatus, report: &Report<'_>, now: Timestamp) {
    let Some(message) = contest(report.secret_name, &report.rivals) else {
        next.conditions.retain(|c| c.type_ != SECRET_CONTESTED);
        return;
    };
    let list = std::mem::take(&mut next.conditions);
    let mut conditions = Conditions { old, generation: report.generation, now, list };
    conditions.set(SECRET_CONTESTED, true, "NamedTwice", &message);
    next.conditions = conditions.list;
}

/// `list`, which is that of `old`, as `report` has it.
fn conditions(old: &VerteilTokenStatus, list: Vec<Condition>, report: &Report<'_>, now: Timestamp) -> Vec<Condition> {
    let ready = report.held.as_ref().filter(|held| holds(held, &report.standing, now));
    let trouble = match &report.standing {
        Standing::Settled => None,
        Standing::Progressing(trouble) | Standing::Troubled(trouble) => Some(trouble),
    };
    let failing = matches!(report.standing, Standing::Troubled(_));
    let mut list = Conditions { old, generation: report.generation, now, list };
    if let Some(held) = ready {
        let message = format!(
            "token in {} is valid until {}, renewal at {}",
            report.whereabouts(),
            held.validity.expires_at,
            held.renewal
        );
        list.set("Ready", true, Reason::TokenValid.as_str(), &message);
        list.set("Reconciling", false, Reason::TokenValid.as_str(), "");
        list.set("Stalled", false, Reason::TokenValid.as_str(), "");
        match trouble.filter(|_| failing) {
            Some(trouble) => list.set_failing(trouble, held),
            None => list.set("RenewalFailing", false, Reason::TokenValid.as_str(), ""),
        }
        return list.list;
    }
    let why = trouble.cloned().unwrap_or_else(|| Trouble::new(Reason::Issuing, "a token is being requested"));
    let expired = report.held.as_ref().filter(|held| held.current && held.in_place);
    match expired {
        Some(held) => {
            let message = format!(
                "the token in {} expired at {} and is kept until it can be replaced: {}",
                report.whereabouts(),
                held.validity.expires_at,
                why.message
            );
            list.set("Ready", false, Reason::TokenExpired.as_str(), &message);
        }
        None => list.set("Ready", false, why.reason.as_str(), &why.message),
    }
    let stalled = why.reason.is_stalled();
    list.set("Reconciling", !stalled, why.reason.as_str(), if stalled { "" } else { &why.message });
    list.set("Stalled", stalled, why.reason.as_str(), if stalled { &why.message } else { "" });
    match report.held.as_ref().filter(|_| failing) {
        Some(held) => list.set_failing(&why, held),
        None => list.set("RenewalFailing", false, why.reason.as_str(), ""),
    }
    list.list
}

/// Conditions in the making.
pub(super) struct Conditions<'a> {
    pub(super) old: &'a VerteilTokenStatus,
    pub(super) generation: i64,
    pub(super) now: Timestamp,
    pub(super) list: Vec<Condition>,
}

impl Conditions<'_> {
    /// Renewal fails for this reason, or will when it is due.
    fn set_failing(&mut self, trouble: &Trouble, held: &HeldFacts) {
        let failing = condition(self.old, "RenewalFailing").filter(|c| c.status == "True");
        let told = failing.map_or(whole_seconds(self.now), |c| c.last_transition_time.0);
        let Some(since) = begin_of_failure(trouble.reason, told, held.renewal, self.now) else {
            return self.set("RenewalFailing", true, trouble.reason.as_str(), &trouble.message);
        };
        let end = held.validity.expires_at;
        let outlook = match (held.current, held.validity.holds_at(self.now)) {
            (true, true) => format!("the stored token holds until {end}"),
            (true, false) => format!("the stored token expired at {end}"),
            (false, _) => "the stored token was issued for other inputs".to_owned(),
        };
        let message = format!("{}{SINCE}{since}, {outlook}", trouble.message);
        self.set("RenewalFailing", true, trouble.reason.as_str(), &message);
    }

    /// Sets one condition; its transition time moves only when its status does (API conventions).
    pub(super) fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let since = condition(self.old, type_).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let next = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(self.generation),
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(self.now))),
        };
        match self.list.iter_mut().find(|c| c.type_ == type_) {
            Some(condition) => *condition = next,
            None => self.list.push(next),
        }
    }
}

/// `at` without its fraction, as the API prints it: so that what is compared is what is stored.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
