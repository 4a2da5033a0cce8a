//! Who may have a token. The apiserver is asked; its answers hold for seconds, and callers that come together share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::UserInfo;
use quick_cache::sync::{Cache, EntryAction, EntryResult};
use tokio::sync::Semaphore;

use super::bearer::Bearer;
use super::buckets::Buckets;
use super::problem::Problem;
use crate::cluster::ApiError;
use crate::memory::Key;
use crate::reconcile::Context;

/// How long answers hold: yes, no, and no answer.
const YES: Duration = Duration::from_secs(10);
const NO: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(1);
/// Answers that are kept.
const MOST_ANSWERS: usize = 8192;
/// Reviews in flight.
const MOST_REVIEWS: usize = 16;
/// For both reviews, with the wait for their turn.
const PATIENCE: Duration = Duration::from_secs(12);
/// Calls of one caller: on average in a second, and at once.
const A_SECOND: u32 = 20;
const BURST: u32 = 100;
/// Where the apiserver tells the pod that a token is bound to.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Those who call.
pub(super) struct Callers {
    audience: String,
    known: Answers<Arc<Caller>>,
    allowed: Answers<()>,
    in_flight: Semaphore,
    buckets: Buckets<String>,
    /// The log was told that the operator may not ask.
    told: AtomicBool,
}

/// One of them, as the apiserver knows it.
pub(super) struct Caller {
    user: UserInfo,
    /// The ServiceAccount; with the pod, if its token is bound to one: a hundred replicas are a hundred callers.
    pub(super) name: String,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The apiserver says no.
    Denied,
    /// The operator may not ask it.
    MayNotAsk,
    /// It could not be asked.
    Unanswered,
}

/// By a keyed hash of what was asked: the tokens themselves are not kept.
type Answers<T> = Cache<[u8; 32], Answer<T>>;

#[derive(Clone)]
struct Answer<T> {
    result: Result<T, Refusal>,
    until: Duration,
}

// === impl Callers ===

impl Callers {
    /// Nobody is known yet. `audience`: what their tokens have to be for.
    pub(super) fn new(audience: String) -> Self {
        Self {
            audience,
            known: Cache::new(MOST_ANSWERS),
            allowed: Cache::new(MOST_ANSWERS),
            in_flight: Semaphore::new(MOST_REVIEWS),
            buckets: Buckets::new(A_SECOND, BURST),
            told: AtomicBool::new(false),
        }
    }

    /// Whether the holder of `headers` may have the token of `key`. The answer says nothing of whether there is one.
    pub(super) async fn admit(&self, ctx: &Context, headers: &HeaderMap, key: &Key) -> Result<Arc<Caller>, Problem> {
        self.review(ctx, headers, key, |caller| match self.buckets.take(&caller.name) {
            Ok(()) => Ok(()),
            Err(seconds) => {
                let detail = "this ServiceAccount asks too often: keep the token until shortly before its expiry";
                Err(Problem::later(StatusCode::TOO_MANY_REQUESTS, seconds, detail))
            }
        })
        .await
    }

    /// Whether that is so still, after a wait. It is the same call, and not counted again.
    pub(super) async fn confirm(&self, ctx: &Context, headers: &HeaderMap, key: &Key) -> Result<(), Problem> {
        self.review(ctx, headers, key, |_| Ok(())).await.map(drop)
    }

    async fn review(
        &self,
        ctx: &Context,
        headers: &HeaderMap,
        key: &Key,
        limit: impl FnOnce(&Caller) -> Result<(), Problem>,
    ) -> Result<Arc<Caller>, Problem> {
        let bearer = Bearer::of(headers, &self.audience, ctx.clock.now())?;
        let reviewed = async {
            let caller = self.identify(ctx, &bearer).await?;
            limit(&caller)?;
            self.authorize(ctx, &bearer, &caller, key).await?;
            Ok(caller)
        };
        let reviewed = tokio::time::timeout(PATIENCE, reviewed).await;
        reviewed.unwrap_or_else(|_| Err(Self::refuse(Refusal::Unanswered)))
    }

    async fn identify(&self, ctx: &Context, bearer: &Bearer) -> Result<Arc<Caller>, Problem> {
        let key = ctx.process_key.digest("verteil.dev/caller", &[bearer.expose()]);
        let review = async {
            let user = ctx.cluster.review_token(bearer.expose(), &self.audience).await?;
            Ok(user.map(Caller::new).map(Arc::new))
        };
        let known = answer(&self.known, key, ctx, self.ask(review)).await;
        known.map_err(|refusal| match refusal {
            Refusal::Denied => Problem::invalid_token("the apiserver does not accept this token"),
            Refusal::MayNotAsk | Refusal::Unanswered => Self::refuse(refusal),
        })
    }

    async fn authorize(&self, ctx: &Context, bearer: &Bearer, caller: &Caller, key: &Key) -> Result<(), Problem> {
        let asked = [bearer.expose(), &key.namespace, &key.name];
        let asked = ctx.process_key.digest("verteil.dev/access", &asked);
        let review = async { Ok(ctx.cluster.may_get_token(&caller.user, key).await?.then_some(())) };
        let allowed = answer(&self.allowed, asked, ctx, self.ask(review)).await;
        allowed.map_err(|refusal| match refusal {
            Refusal::Denied => Problem::new(
                StatusCode::FORBIDDEN,
                format!("{} may not get verteiltokens/token {key} (verteil.dev)", caller.account()),
            ),
            Refusal::MayNotAsk | Refusal::Unanswered => Self::refuse(refusal),
        })
    }

    /// Waits for its turn, and reduces the answer to yes or no.
    async fn ask<T>(&self, review: impl Future<Output = Result<Option<T>, ApiError>>) -> Result<T, Refusal> {
        // The semaphore is never closed.
        let _turn = self.in_flight.acquire().await;
        match review.await {
            Ok(answer) => {
                self.told.store(false, Ordering::Relaxed);
                answer.ok_or(Refusal::Denied)
            }
            Err(error @ ApiError::Forbidden { .. }) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %error,
                        "the token API cannot ask who its callers are: bind the operator to a ClusterRole that allows create of tokenreviews (authentication.k8s.io) and of subjectaccessreviews (authorization.k8s.io)"
                    );
                }
                Err(Refusal::MayNotAsk)
            }
            Err(error) => {
                tracing::debug!(%error, "a caller of the token API could not be reviewed");
                Err(Refusal::Unanswered)
            }
        }
    }

    fn refuse(refusal: Refusal) -> Problem {
        let detail = match refusal {
            Refusal::MayNotAsk => {
                "the operator may not ask the apiserver who you are: it lacks a ClusterRole with create of tokenreviews and subjectaccessreviews"
            }
            Refusal::Denied | Refusal::Unanswered => "the apiserver does not tell at the moment who you are",
        };
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, 2, detail)
    }
}

// === impl Caller ===

impl Caller {
    fn new(user: UserInfo) -> Self {
        let account = user.username.clone().unwrap_or_default();
        let pod = user.extra.as_ref().and_then(|extra| extra.get(POD_UID)?.first());
        let name = pod.map_or_else(|| account.clone(), |pod| format!("{account}/{pod}"));
        Self { user, name }
    }

    /// The user's name, as the apiserver tells it.
    pub(super) fn account(&self) -> &str {
        self.user.username.as_deref().unwrap_or_default()
    }
}

/// The answer that is kept, if it still holds; or that of `ask`, which is kept. Who asks the same meanwhile waits for it.
async fn answer<T: Clone>(
    answers: &Answers<T>,
    key: [u8; 32],
    ctx: &Context,
    ask: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let found = answers
        .entry_async(&key, |_, kept| {
            if ctx.clock.elapsed() < kept.until {
                EntryAction::Retain(kept.result.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        })
        .await;
    let guard = match found {
        EntryResult::Retained(result) => return result,
        EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard,
        // Nothing is removed here, and nothing timed.
        EntryResult::Removed(..) | EntryResult::Timeout => return Err(Refusal::Unanswered),
    };
    let result = ask.await;
    let lasts = match &result {
        Ok(_) => YES,
        Err(Refusal::Denied) => NO,
        Err(Refusal::MayNotAsk | Refusal::Unanswered) => SILENCE,
    };
    let until = ctx.clock.elapsed().saturating_add(lasts);
    // It may have been thrown out for others already.
    drop(guard.insert(Answer { result: result.clone(), until }));
    result
}
