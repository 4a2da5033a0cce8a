//! What the NetworkPolicy lets through. No cluster of these tests enforces one, so its content is what can be looked at.

use serde_json::{Value, json};
use testbed::World;
use testbed::world::CHART;

use super::{RELEASE, the, with_token_api};

/// The policy's `spec` with these values.
async fn policy(world: &World, more: &Value) -> Value {
    let mut values = json!({"networkPolicy": {"enabled": true}});
    testbed::world::merge(&mut values, more.clone());
    let objects = world.render(CHART, RELEASE, &values).await.unwrap();
    the(&objects, "NetworkPolicy")["spec"].clone()
}

#[tokio::test]
async fn the_ports_of_issuers_and_proxy_are_open() {
    let world = World::new().await;
    for (values, expected) in [
        (json!({}), "53,5353|443,6443|443"),
        (
            json!({"allowedIssuerHosts": ["a.example:8443", "b.example", "[::1]:9443", "[::1]"]}),
            "53,5353|443,6443|443,8443,9443",
        ),
        (json!({"allowedIssuerHosts": ["*"]}), "53,5353|443,6443|1-65535"),
        (json!({"allowedIssuerHosts": ["*:8443"]}), "53,5353|443,6443|8443"),
        (json!({"proxy": {"https": "http://user@proxy.example:3128/"}}), "53,5353|443,6443|3128,443"),
        (json!({"proxy": {"https": "http://proxy.example"}}), "53,5353|443,6443|443,80"),
        (json!({"networkPolicy": {"dnsPorts": [], "apiserverPorts": [16443]}}), "16443|443"),
    ] {
        let spec = policy(&world, &values).await;
        let rules: Vec<String> = spec["egress"].as_array().unwrap().iter().map(ports).collect();
        assert_eq!(rules.join("|"), expected, "{values}");
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(spec["ingress"], json!([{"ports": [{"port": "http"}]}]), "everybody, at one port");
    }
}

/// The ports of a rule, each once.
fn ports(rule: &Value) -> String {
    let text = |port: &Value| match port["endPort"].as_u64() {
        Some(end) => format!("{}-{end}", port["port"]),
        None => port["port"].to_string(),
    };
    let mut ports: Vec<String> = rule["ports"].as_array().unwrap().iter().map(text).collect();
    ports.dedup();
    ports.join(",")
}

#[tokio::test]
async fn names_are_asked_for_by_udp_and_tcp_and_everything_else_is_tcp() {
    let world = World::new().await;
    let spec = policy(&world, &json!({"networkPolicy": {"dnsPorts": [53]}})).await;
    let dns = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    assert_eq!(spec["egress"][0], json!({"ports": dns}), "to any name server");
    for rule in &spec["egress"].as_array().unwrap()[1..] {
        // Which is what a port without a protocol means.
        assert!(rule["ports"].as_array().unwrap().iter().all(|port| port.get("protocol").is_none()), "{rule}");
    }
}

#[tokio::test]
async fn who_may_come_in_and_what_else_may_go_out_is_as_the_values_have_it() {
    let world = World::new().await;
    let (scrapers, callers) = (
        json!({"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}),
        json!({"podSelector": {"matchLabels": {"token": "yes"}}}),
    );
    let proxy = json!({"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 3128, "protocol": "TCP"}]});
    let values = with_token_api(json!({"networkPolicy": {
        "ingressFrom": [scrapers], "tokenApiFrom": [callers], "extraEgress": [proxy],
    }}));
    let spec = policy(&world, &values).await;
    let tests = json!({"podSelector": {"matchLabels": {
        "app.kubernetes.io/name": "verteil-token-operator-test", "app.kubernetes.io/instance": RELEASE,
    }}});
    assert_eq!(
        spec["ingress"],
        json!([
            {"ports": [{"port": "http"}], "from": [scrapers, tests]},
            {"ports": [{"port": "token-api"}], "from": [callers]},
        ])
    );
    assert_eq!(spec["egress"].as_array().unwrap().last(), Some(&proxy));
    // Without a list: everybody, at these two ports.
    let spec = policy(&world, &with_token_api(json!({}))).await;
    assert_eq!(spec["ingress"], json!([{"ports": [{"port": "http"}]}, {"ports": [{"port": "token-api"}]}]));
}
