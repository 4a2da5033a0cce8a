//! The chart: does it render what a cluster takes, with the rights that are used and no others, and what does its life cost?
//!
//! There is no node here: the operator of a release runs as a process, with the arguments, the variables and the account of
//! its Deployment.

mod effects;
mod lifecycle;
mod manifests;
mod memory_only;
mod network;
mod rights;
mod token_api;
mod users;
mod values;

use serde_json::{Value, json};
use testbed::world::merge;
use testbed::{ControlPlane, Options, World};

use crate::token_api::client::TokenApi;

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

/// Values of a release with the token API, whose certificate [`certificate`] makes.
fn with_token_api(more: Value) -> Value {
    let mut values = json!({"tokenApi": {"enabled": true, "certificateSecretName": "token-api-tls"}});
    merge(&mut values, more);
    values
}

/// The Secret that [`with_token_api`] names, and a client that trusts what is in it.
async fn certificate(world: &World) -> TokenApi {
    let (api, _) = TokenApi::prepare(world);
    let [cert, key] =
        [("cert", &api.certificate), ("key", &api.key)].map(|(flag, file)| format!("--{flag}={}", file.display()));
    world.kubectl(&["create", "secret", "tls", "token-api-tls", &cert, &key], None).await.succeeded();
    api
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
