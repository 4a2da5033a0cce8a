//! The straight line from a change to a Secret: look, decide, act, report.
//!
//! ```text
//! look     credentials and Secret, live     -> View
//! decide   decide(now, wanted, stored, …)   -> Decision                      (pure)
//! act      Request: issue()  -> token in memory, unsaved -> decide again
//!          Save:    save()   -> Secret written           -> decide again
//!          Repair:  repair() -> Secret written           -> decide again
//! report   next_status(old, …)              -> written only if it differs; an event only on a transition
//! restart  listed workloads, if the stored token is another one than they were told of; never in the token's way
//! ```

mod account;
mod authority;
mod claim;
mod failure;
mod former;
mod found;
mod issue;
mod line;
mod look;
mod pace;
mod report;
mod rollout;
mod save;
mod settled;
mod status;
mod stored;
mod tell;
mod twin;
mod unsaved;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use found::FirstLook;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

pub use settled::settled_until;

use crate::api::VerteilToken;
use crate::clock::Clock;
use crate::cluster::{ApiError, Cluster, Events, Rivals, Versions, number};
use crate::decide::{Decision, Trouble, decide};
use crate::issuer::{AllowedHosts, Issuer, Limits, Permits, Reach};
use crate::lease::Leadership;
use crate::memory::{Key, Memory};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::token::ProcessKey;
use crate::wakes::Wakes;

/// Rounds of one pass: a conflict or a write leads to another look. Whoever changes objects faster than this is looked at later.
const MOST_ROUNDS: usize = 6;
/// No resource is left alone for longer: so that a suspended machine or a stepped clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Longer than a request and its claim take: who asks first rings before.
const BEHIND_SLEEP: Duration = Duration::from_secs(60);
/// How long to wait for the event of our own write, which will ring first.
const STALE_SLEEP: Duration = Duration::from_secs(1);

/// All that a pass works with.
pub struct Context {
    /// The apiserver.
    pub cluster: Cluster,
    /// The HTTP client for token endpoints.
    pub issuer: Issuer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where tokens are kept.
    pub store: Arc<Store>,
    /// What this process remembers.
    pub memory: Arc<Memory>,
    /// Which Secrets exist in which version.
    pub versions: Arc<Versions>,
    /// The same of ConfigMaps.
    pub config_maps: Arc<Versions>,
    /// Which resources name the same token Secret.
    pub rivals: Rivals,
    /// Requests in flight, by host.
    pub permits: Arc<Permits>,
    /// What accounts were told to wait.
    pub limits: Arc<Limits>,
    /// Who could not reach which host, with which authorities.
    pub reach: Reach,
    /// Who waits for a token at the token API.
    pub wakes: Wakes,
    /// The way to post events.
    pub events: Events,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// `--allowed-issuer-hosts`
    pub allowed_hosts: AllowedHosts,
    /// `--allow-http`
    pub allow_http: bool,
    /// `--rollout-restart`
    pub rollout_restart: bool,
    /// This process, in claims: new with each start.
    pub identity: Arc<str>,
    /// Claims made so far.
    pub claims: AtomicU64,
    /// Key under which refused inputs are remembered.
    pub process_key: ProcessKey,
    /// Whether this process may request tokens.
    pub leading: Leadership,
    /// This process is coming to its end: nothing new is begun.
    pub stop: CancellationToken,
}

/// One pass over one resource.
pub(crate) struct Pass<'a> {
    ctx: &'a Context,
    key: Key,
    /// The resource as last read or written.
    token: VerteilToken,
    /// It was read or written by this pass, and not taken from a cache: a claim in it stands.
    confirmed: bool,
}

/// What came of an action.
enum Step {
    /// Decide again on what is now known.
    Decide,
    /// Something has changed meanwhile: read again.
    LookAgain,
    /// It cannot be done now.
    Blocked { trouble: Trouble, until: Option<Timestamp> },
    /// Another resource with the same account was told to wait.
    Held { trouble: Trouble, until: Timestamp },
    /// In the line for a permit, whose bell will ring.
    Queued,
    /// Another resource with the same account asks first; its verdict rings.
    Behind,
    /// Nothing more to do.
    Rest,
}

// === impl Context ===

impl Context {
    /// What `token` names, of interest to the watches and to others that name the same.
    pub fn remember(&self, key: &Key, token: &VerteilToken) {
        self.versions.add(key, token);
        self.config_maps.add(key, token);
        self.rivals.add(key, token);
    }

    /// The resource is gone, and names nothing any more.
    pub fn withdraw(&self, key: &Key) {
        self.versions.remove(key);
        self.config_maps.remove(key);
        self.rivals.remove(key);
    }

    /// The resource waits for no issuer any more: nobody has to ring for it, and no permit is kept for it.
    pub fn leave_lines(&self, key: &Key) {
        self.permits.withdraw(key);
        self.limits.forget(key);
        self.reach.forget(key);
    }

    /// Nothing is remembered of a resource that is gone but a token that was not saved.
    pub fn forget(&self, key: &Key) {
        self.memory.forget(key, self.clock.now());
        self.store.forget(key);
        self.leave_lines(key);
        self.count_unsaved();
    }

    /// Counts the tokens that are yet to be saved.
    pub fn count_unsaved(&self) {
        self.metrics.set_unsaved(self.memory.count_unsaved());
    }

    /// Whether this process leads, by the clock: asked anew each time.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leading.holds(self.clock.elapsed())
    }

    /// Whether a token request may be sent now.
    fn may_request(&self) -> bool {
        !self.stop.is_cancelled() && self.leads()
    }

    /// Resolves once the watches of `namespace` (all, if none) have listed what resources name.
    pub async fn listed(&self, namespace: Option<&str>) {
        self.versions.listed(namespace).await;
        self.config_maps.listed(namespace).await;
    }

    /// Whether they have.
    #[must_use]
    pub fn are_listed(&self, namespace: Option<&str>) -> bool {
        self.versions.are_listed(namespace) && self.config_maps.are_listed(namespace)
    }

    /// Waits for them no more: what they would have told is read instead.
    pub fn end_lists(&self, namespace: Option<&str>) {
        self.versions.end_list(namespace);
        self.config_maps.end_list(namespace);
    }

    fn new_claim_id(&self) -> String {
        format!("{}-{}", self.identity, self.claims.fetch_add(1, Ordering::Relaxed))
    }
}

/// Looks at `token` once and does what is due. Returns when to look again at the latest.
pub async fn reconcile(token: &VerteilToken, ctx: &Context) -> Result<Action, ApiError> {
    let key = Key::of(token);
    let mut ends = Ends { ctx, key: &key, in_line: false };
    let next = match glance(token, ctx, &key) {
        Some(action) => Next::Look(action),
        // On the heap: most passes end at a glance, and those that wait for their turn hold nothing yet.
        None => Box::pin(reconcile_once(token, ctx, &key)).await?,
    };
    let action = match next {
        Next::Look(action) => action,
        Next::InLine(action) => {
            ends.in_line = true;
            action
        }
    };
    // Also of one that waits in a line: its spec may have changed.
    Ok(if ctx.memory.take_news(&key) { Action::requeue(Duration::ZERO) } else { action })
}

/// How a pass ends.
enum Next {
    Look(Action),
    /// It keeps its place in the line for a permit, whose bell will ring.
    InLine(Action),
}

/// What a pass leaves behind, however it ends: a permit that was kept for one that panicked would be kept from all others.
struct Ends<'a> {
    ctx: &'a Context,
    key: &'a Key,
    in_line: bool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if !self.in_line {
            self.ctx.permits.withdraw(self.key);
        }
        if !self.ctx.memory.is_unsaved(self.key) {
            self.ctx.rivals.end(self.key);
        }
    }
}

/// The look that costs no call. None if a resource needs more.
fn glance(token: &VerteilToken, ctx: &Context, key: &Key) -> Option<Action> {
    if ctx.memory.is_stale(key, number(&token.metadata)) {
        return Some(Action::requeue(STALE_SLEEP));
    }
    rest(key, token, ctx).map(Action::requeue)
}

/// How long a resource can be left alone that needs nothing; none if it needs more than a look. No call is made.
#[must_use]
pub fn rest(key: &Key, token: &VerteilToken, ctx: &Context) -> Option<Duration> {
    let until = settled_until(key, token, ctx)?;
    let end = token.status.as_ref().and_then(|status| status.expires_at.as_ref()).map(|time| time.0);
    FirstLook::Settled(end).note(ctx, key);
    Some(left(until, ctx.clock.now()))
}

async fn reconcile_once(token: &VerteilToken, ctx: &Context, key: &Key) -> Result<Next, ApiError> {
    let mut pass = Pass { ctx, key: key.clone(), token: token.clone(), confirmed: false };
    if !pass.has_unsaved() && !ctx.leads() {
        // Standing by, there is nothing to do but to save. Leadership rings.
        pass.see_claim();
        return Ok(Next::Look(Action::requeue(LONGEST_SLEEP)));
    }
    if !pass.has_unsaved()
        && let Some(until) = pass.stand_in_line()
    {
        return Ok(Next::InLine(until));
    }
    let mut fetched = match pass.fetch().await {
        Err(error @ ApiError::Forbidden { .. }) => return pass.forbidden(&error).await.map(Next::Look),
        fetched => fetched?,
    };
    for _ in 0..MOST_ROUNDS {
        let view = pass.view(&fetched);
        let unsaved = view.unsaved.as_ref();
        let decision = decide(view.now, &view.wanted, &view.judged.stored, unsaved, &view.pace);
        if fetched.assumed_absent && !matches!(decision, Decision::Request { .. }) {
            // Only a request checks that assumption by itself.
            fetched = pass.fetch_all().await?;
            continue;
        }
        if !fetched.assumed_absent {
            FirstLook::of(&view).note(ctx, key);
        }
        tracing::debug!(?decision, "decided");
        let untold = pass.untold_failure(&view).filter(|_| decision != Decision::Leave);
        let step = if let Some(failed) = untold {
            pass.tell_failure(&view, &failed).await?
        } else {
            match decision {
                Decision::Leave => return Ok(Next::Look(Action::requeue(LONGEST_SLEEP))),
                Decision::Settled { until } => return pass.settled(&fetched, &view, until).await.map(Next::Look),
                Decision::Blocked { by, until } => return pass.blocked(&view, by, until).await.map(Next::Look),
                Decision::Repair => pass.repair(&mut fetched, &view).await?,
                Decision::Save => pass.save(&mut fetched, &view).await?,
                Decision::Request { reason, takeover } => pass.issue(&mut fetched, &view, reason, takeover).await?,
            }
        };
        match step {
            Step::Decide => {}
            Step::LookAgain => {
                if !pass.reload().await? {
                    return Ok(Next::Look(Action::await_change()));
                }
                fetched = pass.fetch_all().await?;
            }
            Step::Blocked { trouble, until } => {
                let view = pass.view(&fetched);
                return pass.troubled(&view, trouble, until).await.map(Next::Look);
            }
            Step::Held { trouble, until } => {
                let view = pass.view(&fetched);
                return pass.held(&fetched, &view, trouble, until).await.map(Next::Look);
            }
            Step::Behind => return Ok(Next::Look(Action::requeue(BEHIND_SLEEP))),
            Step::Queued => return pass.queued(&fetched).await.map(Next::InLine),
            Step::Rest => return Ok(Next::Look(Action::requeue(LONGEST_SLEEP))),
        }
    }
    Err(ApiError::Conflict { call: "reconcile" })
}

fn sleep_until(until: Timestamp, now: Timestamp) -> Action {
    Action::requeue(left(until, now))
}

/// The time until `until`: whole milliseconds, rounded up, so that the renewal point has passed when it ends.
fn left(until: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    left.saturating_add(Duration::from_millis(1)).min(LONGEST_SLEEP)
}
