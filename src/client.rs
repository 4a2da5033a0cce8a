//! The client for the apiserver: one connection for all calls and watches.

use std::time::Duration;

use anyhow::Context as _;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to the head of an answer, also of a watch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that is silent for this long is asked for a sign of life (an HTTP/2 PING), and given up if none comes: a new one
/// is there before a leader has to stand back, ten seconds after it last renewed its Lease.
const SILENCE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);

/// A client for `config` without retries of its own, and with time-outs.
///
/// It speaks HTTP/2, as client-go does: kube's own speaks HTTP/1.1 only, where each call in flight has a connection, with a TLS
/// handshake and buffers that stay. Whoever stands between and does not know HTTP/2 is spoken to in HTTP/1.1.
pub fn client(mut config: Config) -> anyhow::Result<Client> {
    // HTTPS_PROXY is for token requests. With a kubeconfig kube would take it for the apiserver too, wherever NO_PROXY leads.
    if config.proxy_url.is_some() && config.proxy_url == proxy_of_environment() {
        config.proxy_url = None;
    }
    if config.proxy_url.is_some() {
        // That of a kubeconfig: kube knows what to do, or says that it does not.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        return Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(ANSWER_TIMEOUT)).build());
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().context("tls-server-name of the kubeconfig")?;
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connections = legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(SILENCE)
        .http2_keep_alive_timeout(PATIENCE)
        .http2_keep_alive_while_idle(true)
        .build(tls.enable_all_versions().wrap_connector(tcp));
    // No retry: it would repeat a write that nobody decided on.
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(ANSWER_TIMEOUT))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, config.default_namespace))
}

fn proxy_of_environment() -> Option<http::Uri> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("HTTPS_PROXY").or_else(|| set("https_proxy"))?.parse().ok()
}
