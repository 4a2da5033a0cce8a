//! Does a password, a user name or a token show anywhere but in its Secret, whatever happens, at the finest log level?
//!
//! All of them are canaries: words that stand nowhere else. Each path of `issuer.rs` and `cluster.rs` carries some of them past
//! the operator; then everything that it has written or says is searched, also for their encodings. `token_api.rs` does the same
//! with the tokens of callers, and with tokens that are in memory only.

mod cluster;
mod issuer;
mod memory;
mod panics;
mod search;
mod token_api;
mod types;

use std::net::Ipv4Addr;

use serde_json::json;
use testbed::world::Operator;
use testbed::{Authority, ConnectProxy, Issuer, World, plain_http};

use crate::OPERATOR;
use crate::events::events;
use crate::trust::put;
use search::Needles;

/// What a proxy's URL carries.
const PROXY_USER: &str = "canary-proxy-user";
const PROXY_PASSWORD: &str = "canary-proxy p@ss";

#[tokio::test]
async fn no_canary_shows_in_text_logs_at_trace() {
    no_canary_shows("--log-format=text").await;
}

#[tokio::test]
async fn no_canary_shows_in_json_logs_at_trace() {
    no_canary_shows("--log-format=json").await;
}

async fn no_canary_shows(format: &str) {
    let world = World::new().await;
    let connect = ConnectProxy::for_user(PROXY_USER, PROXY_PASSWORD).await;
    let url = format!("http://canary-proxy-user:canary-proxy%20p%40ss@{}", connect.address());
    let apiserver = world.proxy();
    cluster::script(&apiserver);
    let flags = ["--log-filter=trace", format, "--rollout-restart"];
    let operator = world.operator_behind_with(&apiserver, OPERATOR, &flags, &[("HTTPS_PROXY", &url)]);
    operator.wait_until_ready().await;

    // All at once: the paths do not touch each other.
    let ca = Authority::new("corp");
    let tls = Issuer::start_tls(Ipv4Addr::LOCALHOST, &ca.server(&["localhost"])).expect("an issuer");
    put(&world, "Secret", "corp-ca", &ca.pem()).await;
    let through_proxy =
        json!({"tokenURL": tls.url_at("localhost", "tls"), "caBundleRef": {"kind": "Secret", "name": "corp-ca"}});
    world.create_token("tls", through_proxy).await;
    world.create_token("tls-untrusted", json!({"tokenURL": tls.url_at("localhost", "untrusted")})).await;
    issuer::begin(&world).await;
    cluster::begin(&world).await;
    world.ready("tls").await;
    world.condition("tls-untrusted", "Ready", "False", "IssuerUnreachable").await;
    issuer::end(&world).await;
    cluster::end(&world, &operator).await;
    assert!(!connect.targets().is_empty() && tls.count() == 1, "the request did not go through the proxy");

    for (filter, name) in [("debug", "basic"), ("trace,kube_client=trace,kube_client::client=trace", "body")] {
        let url = format!("http://{}/api/debug/log-filter", operator.debug());
        assert_eq!(plain_http::exchange("PUT", &url, &[], filter).await.unwrap().status, 200);
        world.change(name, json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
        world.status(name, "another token", |status| status.tokens_issued == Some(2)).await;
    }

    let mut needles = Needles::default();
    needles.add(PROXY_USER).add(PROXY_PASSWORD);
    for issued in world.issuer.issued().into_iter().chain(tls.issued()) {
        needles.add(&issued.token);
    }
    // Where they are meant to be they are found, and so the search finds them.
    let secrets = world.kubectl(&["get", "secrets", "-o", "json"], None).await.succeeded();
    assert!(needles.found_in(&secrets).is_some());

    for (place, text) in said(&world, &operator).await {
        assert_eq!(needles.found_in(&text), None, "in {place}");
    }
    assert!(operator.log().contains("hyper_util") && operator.log().contains("TRACE"), "no trace of libraries");
    // And in its last words, with a token that could not be saved.
    let log = operator.process().log_file().to_owned();
    assert_eq!(operator.terminate().await, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a token could not be saved before the end"), "{}", log.len());
    assert_eq!(needles.found_in(&log), None, "in the log");
    for (place, text) in objects(&world).await {
        assert_eq!(needles.found_in(&text), None, "in {place}");
    }
}

/// All that the operator says of itself, and all that it has written but the Secrets' data.
async fn said(world: &World, operator: &Operator) -> Vec<(String, String)> {
    let mut all = objects(world).await;
    let one = format!("/api/debug/token?namespace={}&name=basic", world.namespace);
    let debug = ["/api/debug/token", &one, "/api/debug/log-filter", "/api/debug/token?nobody=1"];
    let urls = ["/livez", "/readyz", "/metrics", "/nothing"].map(|path| format!("http://{}{path}", operator.http()));
    for url in urls.into_iter().chain(debug.map(|path| format!("http://{}{path}", operator.debug()))) {
        let answer = plain_http::get(&url).await.unwrap();
        all.push((url, format!("{answer:?}")));
    }
    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    let url = format!("http://{}/metrics", operator.http());
    let open = plain_http::exchange("GET", &url, &[accept], "").await.unwrap();
    all.push(("OpenMetrics".into(), format!("{open:?}")));
    all.push(("the log".into(), operator.log()));
    all
}

async fn objects(world: &World) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for kind in ["verteiltokens", "leases", "deployments"] {
        all.push((kind.to_owned(), world.kubectl(&["get", kind, "-o", "json"], None).await.succeeded()));
    }
    all.push(("describe".to_owned(), world.kubectl(&["describe", "verteiltokens"], None).await.succeeded()));
    all.push(("events".to_owned(), format!("{:?}", events(world).await)));
    // Labels and annotations, but for what kubectl leaves of what a person has applied.
    for mut secret in world.secrets().list(&kube::api::ListParams::default()).await.unwrap().items {
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        let place = format!("the metadata of Secret {}", secret.metadata.name.clone().unwrap_or_default());
        all.push((place, format!("{:?}", secret.metadata)));
    }
    all
}

/// The operator's own credentials: the token of its kubeconfig.
#[tokio::test]
async fn the_operators_own_token_does_not_show() {
    let world = World::new().await;
    let kubeconfig = std::fs::read_to_string(world.operator_kubeconfig()).unwrap();
    let kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).unwrap();
    let own = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
    let lease = format!("--lease-namespace={}", world.namespace);
    let operator = world.operator(OPERATOR, &["--log-filter=trace", "--leader-election", &lease]).await;
    world.create_token("basic", json!({})).await;
    world.ready("basic").await;
    let mut needles = Needles::default();
    needles.add(own).add(&world.issuer.last_token("basic").unwrap());
    for (place, text) in said(&world, &operator).await {
        assert_eq!(needles.found_in(&text), None, "in {place}");
    }
    assert!(operator.log().contains("TRACE"));
}
