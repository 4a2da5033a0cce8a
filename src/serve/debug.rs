//! The debug endpoint: what is known of each token, never the token itself, and the log filter. It answers from memory alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::loopback::is_local;
use crate::clock::Clock;
use crate::logs::LogFilter;
use crate::memory::{Key, Memory};
use crate::metrics::{Activity, Metrics};
use crate::resources::Resources;
use crate::store::Store;
use crate::view::TokenView;

/// A filter is a line.
const LONGEST_BODY: usize = 4096;

/// What the debug endpoint answers from.
#[derive(Clone)]
pub struct Debug {
    /// The resources, as the watches last saw them.
    pub resources: Arc<Resources>,
    /// Where their tokens are kept.
    pub store: Arc<Store>,
    /// What this process remembers of them.
    pub memory: Arc<Memory>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is logged.
    pub log_filter: LogFilter,
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Serialize)]
struct One {
    status: &'static str,
    #[serde(flatten)]
    token: TokenView,
    metrics: Activity,
}

#[derive(Serialize)]
struct All {
    status: &'static str,
    tokens: Vec<TokenView>,
    metrics: Activity,
}

/// Serves `/api/debug/token`, `/api/debug/log-filter` and `/api/debug/token-persistence` until `stop`.
pub async fn serve_debug(listener: TcpListener, debug: Debug, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/api/debug/token", get(tokens))
        .route("/api/debug/log-filter", get(log_filter).put(set_log_filter))
        .route("/api/debug/token-persistence", get(persistence).put(set_persistence))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(middleware::from_fn(only_local))
        .with_state(debug);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn only_local(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_local) {
        next.run(request).await
    } else {
        error(StatusCode::FORBIDDEN, "the Host header is to be localhost or a loopback address")
    }
}

async fn tokens(State(debug): State<Debug>, RawQuery(query): RawQuery) -> Response {
    let wish = match Wish::parse(query.as_deref().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(message) => return error(StatusCode::BAD_REQUEST, &message),
    };
    let now = debug.clock.now();
    let metrics = debug.metrics.activity();
    match wish {
        Wish { namespace: Some(namespace), name: Some(name) } => {
            let key = Key::new(namespace, name);
            match debug.one(&key, now) {
                Some(token) => answer(StatusCode::OK, &One { status: "success", token, metrics }),
                None => debug.missing(Some(&key.namespace)),
            }
        }
        Wish { namespace, .. } if debug.resources.are_listed(namespace.as_deref()) => {
            let tokens = debug.all(namespace.as_deref(), now);
            answer(StatusCode::OK, &All { status: "success", tokens, metrics })
        }
        Wish { namespace, .. } => debug.missing(namespace.as_deref()),
    }
}

async fn log_filter(State(debug): State<Debug>) -> Response {
    answer(StatusCode::OK, &json!({"status": "success", "filter": debug.log_filter.get()}))
}

async fn set_log_filter(State(debug): State<Debug>, filter: String) -> Response {
    let filter = filter.trim();
    match debug.log_filter.set(filter) {
        Ok(()) => {
            tracing::info!(filter, "the log filter was changed");
            log_filter(State(debug)).await
        }
        Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    }
}

async fn persistence(State(debug): State<Debug>) -> Response {
    let now = if debug.store.is_in_memory() { "disabled" } else { "enabled" };
    answer(StatusCode::OK, &json!({"status": "success", "token_persistence": now}))
}

async fn set_persistence(State(debug): State<Debug>, wish: String) -> Response {
    match wish.trim() {
        "enabled" => {
            if debug.store.persist() {
                tracing::info!("token persistence was enabled: the tokens in memory are saved, and none is requested");
            }
            persistence(State(debug)).await
        }
        "disabled" => error(StatusCode::CONFLICT, "start the operator with --disable-token-persistence for that"),
        _ => error(StatusCode::BAD_REQUEST, "write enabled"),
    }
}

// === impl Debug ===

impl Debug {
    fn one(&self, key: &Key, now: Timestamp) -> Option<TokenView> {
        let object = self.resources.get(key)?;
        Some(TokenView::of(&object, &self.memory, now))
    }

    /// All of `namespace`, or of all namespaces, in order.
    fn all(&self, namespace: Option<&str>, now: Timestamp) -> Vec<TokenView> {
        let objects = self.resources.all();
        let wanted =
            objects.filter(|object| namespace.is_none_or(|wanted| *Key::of(object.as_ref()).namespace == *wanted));
        let mut views: Vec<TokenView> = wanted.map(|object| TokenView::of(&object, &self.memory, now)).collect();
        views.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        views
    }

    fn missing(&self, namespace: Option<&str>) -> Response {
        if self.resources.are_listed(namespace) {
            error(StatusCode::NOT_FOUND, "there is no such VerteilToken in the namespaces that this operator watches")
        } else {
            error(StatusCode::SERVICE_UNAVAILABLE, "the VerteilTokens are not listed yet")
        }
    }
}

// === impl Wish ===

impl Wish {
    fn parse(query: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "namespace" => wish.namespace = Some(value.into_owned()),
                "name" => wish.name = Some(value.into_owned()),
                other => {
                    return Err(format!("{other:?} is no parameter: write namespace and name, namespace, or none"));
                }
            }
        }
        if wish.name.is_some() && wish.namespace.is_none() {
            return Err("name needs its namespace: ?namespace=…&name=…".into());
        }
        Ok(wish)
    }
}

fn error(code: StatusCode, message: &str) -> Response {
    answer(code, &json!({"status": "error", "message": message}))
}

fn answer(code: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (code, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn one_a_namespace_or_all_can_be_asked_for() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(Wish::parse("").unwrap(), Wish::default());
        assert_eq!(Wish::parse("namespace=a").unwrap(), Wish { namespace: some("a"), name: None });
        let one = Wish { namespace: some("a"), name: some("b-c") };
        assert_eq!(Wish::parse("name=b%2Dc&namespace=a").unwrap(), one);
        assert!(Wish::parse("name=b").unwrap_err().contains("namespace"));
        assert!(Wish::parse("nam=b").unwrap_err().contains("nam"));
    }
}
