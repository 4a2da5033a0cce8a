//! The chart: does it render what a cluster takes, with the rights that are used and no others, and what does its life cost?
//!
//! There is no node here: the operator of a release runs as a process, with the arguments, the variables and the account of
//! its Deployment.

mod lifecycle;
mod manifests;
mod rights;
mod token_api;
mod users;
mod values;

use serde_json::{Value, json};
use testbed::world::merge;
use testbed::{ControlPlane, Options};

/// What every release here is called, and so its objects.
const RELEASE: &str = "verteil-token-operator";

/// A control plane of the test's own, where a chart can bring its CRD.
async fn control_plane(apiserver_args: Vec<String>) -> &'static ControlPlane {
    let options = Options { apiserver_args, ..Default::default() };
    Box::leak(Box::new(ControlPlane::start(options).await.unwrap()))
}

/// Values with which an operator works against the issuer of a test.
fn for_tests(more: Value) -> Value {
    let mut values = json!({"allowedIssuerHosts": ["*"], "extraArgs": ["--allow-http"]});
    merge(&mut values, more);
    values
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

/// The only object of this kind.
fn the<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let found: Vec<&Value> = objects.iter().filter(|object| kind(object) == wanted).collect();
    assert_eq!(found.len(), 1, "{wanted} among {:?}", objects.iter().map(kind).collect::<Vec<_>>());
    found[0]
}
