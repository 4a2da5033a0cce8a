//! Is an issuer reached by every way that leads to it, and is what stands in the way named, before anything is sent?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use testbed::world::{Operator, PASSWORD};
use testbed::{Answer, Authority, ConnectProxy, Issuer, OddServer, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::events::event;
use crate::failures::shows_no_canary;
use crate::trust::put;

const AMBIGUOUS: &str = "verteil_token_ambiguous_generations_total";
/// What a server that knows TLS 1.1 at most answers to a client that wants more: an alert, or its own version.
const TLS_1_1_ALERT: &[u8] = b"\x15\x03\x02\x00\x02\x02\x46";
const TLS_1_1_HELLO: &[u8] = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02\
    0123456789abcdef0123456789abcdef\x00\xc0\x13\x00";

/// A resource that is `IssuerUnreachable` with these words, which is nobody's fault that can be seen here, and costs nothing.
pub async fn unreachable(world: &World, operator: &Operator, name: &str, words: &str) -> VerteilTokenStatus {
    let status = world.condition(name, "Ready", "False", "IssuerUnreachable").await;
    let said = &condition(&status, "Ready").unwrap().message;
    assert!(said.starts_with("the issuer cannot be reached: ") && said.ends_with("no request was sent"), "{said}");
    assert!(said.contains(words), "{name}: {said}");
    assert_eq!(condition(&status, "Reconciling").unwrap().status, "True", "{name}");
    assert_eq!(event(world, name, "IssuerUnreachable").await.0, "Warning");
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(0.0), "{name}");
    shows_no_canary(world, operator).await;
    assert!(world.secrets().get_opt(name).await.unwrap().is_none(), "{name}");
    status
}

/// The same for a URL.
async fn unreachable_at(world: &World, operator: &Operator, name: &str, url: &str, words: &str) {
    world.create_token(name, json!({"tokenURL": url, "timeout": "15s"})).await;
    unreachable(world, operator, name, words).await;
}

/// An issuer behind TLS, and the reference to its CA.
async fn trusted(world: &World, address: impl Into<IpAddr>) -> (Issuer, Authority, Value) {
    let ca = Authority::new("corp");
    let issuer = Issuer::start_tls(address, &ca.server(&["127.0.0.1", "::1", "localhost"])).expect("an issuer");
    put(world, "Secret", "corp-ca", &ca.pem()).await;
    (issuer, ca, json!({"kind": "Secret", "name": "corp-ca"}))
}

#[tokio::test]
async fn what_is_not_a_tls_server_is_named_for_what_it_is() {
    let world = World::new().await;
    let operator = world.operator_with(OPERATOR, &[], &[("RES_OPTIONS", "timeout:1 attempts:1")]).await;
    let at = |server: &OddServer| format!("https://{}/oauth2/token", server.address());
    let plain = OddServer::says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    unreachable_at(&world, &operator, "plain", &at(&plain), "does not speak TLS: is it plain http").await;
    for (name, words) in [("alert", TLS_1_1_ALERT), ("hello", TLS_1_1_HELLO)] {
        let old = OddServer::says(words).await;
        unreachable_at(&world, &operator, name, &at(&old), "does not offer TLS 1.2 or newer").await;
        assert!(old.connections() > 0);
    }
    let failure = OddServer::says(b"\x15\x03\x03\x00\x02\x02\x28").await;
    unreachable_at(&world, &operator, "failure", &at(&failure), "refused the TLS handshake: HandshakeFailure").await;
    let closed = OddServer::says(b"").await;
    unreachable_at(&world, &operator, "closed", &at(&closed), "closed the connection").await;
    let nobody = OddServer::absent();
    let words = format!("connection refused: nothing listens at {}", nobody.address());
    unreachable_at(&world, &operator, "nobody", &at(&nobody), &words).await;
    let words = "the name of issuer.invalid:443 cannot be resolved";
    unreachable_at(&world, &operator, "nowhere", "https://issuer.invalid/t", words).await;
    assert_eq!(world.issuer.connections(), 0);
}

#[tokio::test]
async fn a_request_that_was_never_sent_is_none_that_was_not_answered() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let (silent, full) = (OddServer::silent().await, OddServer::unreachable().await);
    let cases = [
        ("handshake", format!("https://{}/t", silent.address()), "2s", "within 2 s"),
        ("handshake-long", format!("https://{}/t", silent.address()), "15s", "within 5 s"),
        ("connect", format!("http://{}/t", full.address()), "2s", "within 2 s"),
    ];
    for (name, url, timeout, _) in &cases {
        world.create_token(name, json!({"tokenURL": url, "timeout": timeout})).await;
    }
    for (name, _, _, words) in &cases {
        unreachable(&world, &operator, name, words).await;
    }
    // Sent, with a body or without: that is another matter.
    for (name, parameters_in) in [("body", "Body"), ("query", "Query")] {
        let url = format!("http://{}/t", silent.address());
        world.create_token(name, json!({"tokenURL": url, "timeout": "2s", "parametersIn": parameters_in})).await;
        world.condition(name, "Ready", "False", "IssuerTimeout").await;
        assert_eq!(event(&world, name, "AmbiguousGeneration").await.0, "Warning");
    }
    assert_eq!(operator.metric(AMBIGUOUS).await, Some(2.0));
}

#[tokio::test]
async fn an_issuer_is_reached_by_ipv6() {
    let world = World::new().await;
    let (issuer, _ca, reference) = trusted(&world, Ipv6Addr::LOCALHOST).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    assert!(issuer.url_for("flight").starts_with("https://[::1]:"));
    world.create_token("flight", json!({"tokenURL": issuer.url_for("flight"), "caBundleRef": reference})).await;
    world.ready("flight").await;
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn an_ipv6_address_is_reached_past_a_proxy_and_named_where_it_cannot_be() {
    let world = World::new().await;
    let (issuer, _ca, reference) = trusted(&world, Ipv6Addr::LOCALHOST).await;
    let proxy = ConnectProxy::start().await;
    let url = format!("http://{}", proxy.address());
    let host = issuer.base_url().replace("https://", "");
    let spec = |name: &str| json!({"tokenURL": issuer.url_for(name), "caBundleRef": reference});
    for (name, no_proxy) in [("address", "::1"), ("range", "other.example, ::/64")] {
        let operator = world.operator_with(OPERATOR, &[], &[("HTTPS_PROXY", &url), ("NO_PROXY", no_proxy)]).await;
        world.create_token(name, spec(name)).await;
        world.ready(name).await;
        operator.kill();
    }
    assert_eq!((issuer.count(), proxy.targets().len()), (2, 0));
    // Not refused by the proxy, but by the operator's HTTP client.
    let operator = world.operator_with(OPERATOR, &[], &[("HTTPS_PROXY", &url)]).await;
    world.create_token("through", spec("through")).await;
    let words = format!("{host} is an IPv6 address, which cannot be reached through a proxy: write a host name");
    unreachable(&world, &operator, "through", &words).await;
    assert_eq!(issuer.count(), 2);
}

#[tokio::test]
async fn resources_with_one_ca_share_connections() {
    let world = World::new().await;
    let (issuer, ca, _) = trusted(&world, Ipv4Addr::LOCALHOST).await;
    for number in 0..8 {
        let name = format!("token-{number}");
        put(&world, "ConfigMap", &name, &format!("# the same\n{}", ca.pem())).await;
        let reference = json!({"kind": "ConfigMap", "name": name});
        world.create_token(&name, json!({"tokenURL": issuer.url_for(&name), "caBundleRef": reference})).await;
    }
    let _operator = world.operator(OPERATOR, &["--issuer-concurrency=1"]).await;
    for number in 0..8 {
        world.ready(&format!("token-{number}")).await;
    }
    // One is enough, and without sharing there were eight; on a machine that stands still it is idle for too long, and another follows.
    assert_eq!(issuer.count(), 8, "{}", issuer.log());
    assert!(issuer.connections() <= 3, "{}: {}", issuer.connections(), issuer.log());
}

#[tokio::test]
async fn a_proxy_is_used_for_token_requests_and_for_nothing_else() {
    let world = World::new().await;
    let (issuer, ca, reference) = trusted(&world, Ipv4Addr::LOCALHOST).await;
    let roots = world.file("roots.pem", &ca.pem());
    let roots = ("SSL_CERT_FILE", roots.to_str().unwrap());
    let proxy = ConnectProxy::for_user("canary-proxy-user", "canary p@ss").await;
    let url = format!("http://canary-proxy-user:canary%20p%40ss@{}", proxy.address());
    let direct = json!({"tokenURL": issuer.url_for("direct"), "caBundleRef": reference});
    let at = |name: &str| issuer.url_at("localhost", name);
    for (round, env) in [
        ("upper", vec![("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "127.0.0.1,other.example"), roots]),
        ("lower", vec![("https_proxy", url.as_str()), ("no_proxy", "127.0.0.0/8"), roots]),
        ("all", vec![("ALL_PROXY", url.as_str()), ("no_proxy", "127.0.0.0/8"), roots]),
    ] {
        let operator = world.operator_with(OPERATOR, &[], &env).await;
        let (with, without, direct_name) =
            (format!("{round}-ca"), format!("{round}-system"), format!("{round}-direct"));
        world.create_token(&with, json!({"tokenURL": at(&with), "caBundleRef": reference})).await;
        world.create_token(&without, json!({"tokenURL": at(&without)})).await;
        world.ready(&with).await;
        world.ready(&without).await;
        let tunnels = proxy.targets().len();
        world.create_token(&direct_name, direct.clone()).await;
        world.ready(&direct_name).await;
        assert_eq!(proxy.targets().len(), tunnels, "{round}");
        shows_no_canary(&world, &operator).await;
        operator.kill();
    }
    let target = at("").split('/').nth(2).unwrap().to_owned();
    assert!(proxy.targets().iter().all(|asked| *asked == target), "{:?}", proxy.targets());
    assert_eq!(issuer.count(), 9);
}

#[tokio::test]
async fn a_proxy_in_the_way_is_named_without_its_password() {
    let world = World::new().await;
    let (issuer, _ca, reference) = trusted(&world, Ipv4Addr::LOCALHOST).await;
    let (asks, refuses) = (ConnectProxy::for_user("somebody", "else").await, ConnectProxy::that_refuses().await);
    let gone = OddServer::absent();
    for (name, address, words) in [
        ("asks", asks.address(), "the proxy answered 407: write user name and password into HTTPS_PROXY"),
        ("refuses", refuses.address(), "the proxy of HTTPS_PROXY refuses to connect to it"),
        ("gone", gone.address().to_string(), "the proxy of HTTPS_PROXY cannot be reached: Connection refused"),
    ] {
        let url = format!("http://canary-user:canary-password@{address}");
        let operator = world.operator_with(OPERATOR, &[], &[("HTTPS_PROXY", &url)]).await;
        let url = issuer.url_at("localhost", name);
        world.create_token(name, json!({"tokenURL": url, "caBundleRef": reference})).await;
        unreachable(&world, &operator, name, words).await;
        operator.kill();
    }
    assert_eq!(issuer.connections(), 0);
}

#[tokio::test]
async fn nobody_but_a_listed_issuer_sees_credentials() {
    let world = World::new().await;
    let (issuer, _ca, reference) = trusted(&world, Ipv4Addr::LOCALHOST).await;
    let host = issuer.base_url().replace("https://", "");
    let operator = world.bare_operator(OPERATOR, &["--allowed-issuer-hosts=localhost"]).await;
    let spec = json!({"tokenURL": issuer.url_for("flight"), "caBundleRef": reference});
    world.create_token("flight", spec).await;
    let held = world.condition("flight", "Stalled", "True", "IssuerNotAllowed").await;
    assert!(condition(&held, "Ready").unwrap().message.contains(&format!("host {host} is not among")));
    assert_eq!(issuer.connections(), 0);
    operator.kill();

    let elsewhere = "https://login.example/sso?state=canary-state#canary-fragment";
    issuer.enqueue(Answer::status(302).header("location", elsewhere));
    let listed = format!("--allowed-issuer-hosts={host}");
    let operator = world.bare_operator(OPERATOR, &[&listed]).await;
    let redirected = world.condition("flight", "Ready", "False", "AnswerUnusable").await;
    let said = &condition(&redirected, "Ready").unwrap().message;
    assert!(said.contains("302, a redirect to https://login.example/sso: redirects are not followed"), "{said}");
    assert_eq!(issuer.requests()[0].password.as_deref(), Some(PASSWORD));
    assert_eq!((issuer.count(), operator.metric(AMBIGUOUS).await), (1, Some(0.0)));
    shows_no_canary(&world, &operator).await;
}
