//! What a call is about, told from its method, path and body.

use http::Method;
use serde_json::Value;

/// The steps of the protocol, as the apiserver sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// GET of a Secret.
    GetSecret,
    /// Create or update of a Secret with `dryRun=All`.
    DryRun,
    /// Status update that carries a claim.
    Claim,
    /// Create or update of a Secret.
    WriteSecret,
    /// Status update without a claim.
    Status,
    /// Event.
    Event,
    /// Lease.
    Lease,
    /// List or watch.
    Watch,
    /// GET of a VerteilToken.
    GetToken,
    /// Anything else.
    Other,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which step.
    pub kind: Kind,
    /// The object's name; empty for lists.
    pub name: String,
    /// HTTP method.
    pub method: Method,
    /// Path and query.
    pub uri: String,
}

// === impl Call ===

impl Call {
    /// What this request is about.
    #[must_use]
    pub fn of(method: &Method, uri: &str, body: &[u8]) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let object: Value = serde_json::from_slice(body).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let after = |what: &str| parts.iter().position(|part| *part == what).map(|at| parts.get(at + 1).copied());
        let in_body = || object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let named = |name: Option<&str>| name.map_or_else(in_body, str::to_owned);
        let lists = *method == Method::GET;
        let (kind, name) = if let Some(name) = after("secrets") {
            match (lists, name) {
                (true, None) => (Kind::Watch, String::new()),
                (true, Some(name)) => (Kind::GetSecret, name.to_owned()),
                (false, name) if query.contains("dryRun=All") => (Kind::DryRun, named(name)),
                (false, name) => (Kind::WriteSecret, named(name)),
            }
        } else if let Some(name) = after("verteiltokens") {
            match (lists, name) {
                (true, None) => (Kind::Watch, String::new()),
                (true, Some(name)) => (Kind::GetToken, name.to_owned()),
                (false, name) if object["status"]["claim"].is_object() => (Kind::Claim, named(name)),
                (false, name) => (Kind::Status, named(name)),
            }
        } else if path.contains("/events") {
            (Kind::Event, in_body())
        } else if let Some(name) = after("leases") {
            (Kind::Lease, named(name))
        } else {
            (Kind::Other, String::new())
        };
        Self { kind, name, method: method.clone(), uri: uri.to_owned() }
    }
}
