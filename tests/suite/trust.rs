//! Does the operator trust the issuer that the CA bundle is for, and no other, and notice when the bundle changes?

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::proxy::{Call, Fault};
use testbed::world::{PASSWORD, PATIENCE, QUIET, USERNAME};
use testbed::{Authority, Issuer, ServerCertificate, World};
use verteil_token_operator::api::VerteilTokenStatus;
use verteil_token_operator::decide::condition;

use crate::OPERATOR;
use crate::transport::unreachable;

const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// A world whose issuer shows this certificate.
async fn behind(certificate: &ServerCertificate) -> World {
    let mut world = World::new().await;
    world.issuer = issuer(certificate);
    world
}

fn issuer(certificate: &ServerCertificate) -> Issuer {
    Issuer::start_tls(Ipv4Addr::LOCALHOST, certificate).expect("an issuer")
}

fn config_maps(world: &World) -> Api<ConfigMap> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

/// Writes `content` into the key `ca.crt` of a ConfigMap or Secret, new or not.
pub async fn put(world: &World, kind: &str, name: &str, content: &str) {
    let (field, data) = if kind == "Secret" { ("stringData", "data") } else { ("data", "binaryData") };
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    object[field] = json!({"ca.crt": content});
    object[data] = json!({});
    apply(world, kind, name, &object).await;
}

async fn apply(world: &World, kind: &str, name: &str, object: &Value) {
    let (params, patch) = (PatchParams::apply("test").force(), Patch::Apply(object));
    let outcome = match kind {
        "Secret" => world.secrets().patch(name, &params, &patch).await.map(drop),
        _ => config_maps(world).patch(name, &params, &patch).await.map(drop),
    };
    outcome.expect("applied");
}

async fn label(world: &World, kind: &str, name: &str) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}})));
    let outcome = match kind {
        "Secret" => world.secrets().patch(name, &params, &patch).await.map(drop),
        _ => config_maps(world).patch(name, &params, &patch).await.map(drop),
    };
    outcome.expect("labelled");
}

async fn delete(world: &World, kind: &str, name: &str) {
    let outcome = match kind {
        "Secret" => world.secrets().delete(name, &DeleteParams::default()).await.map(drop),
        _ => config_maps(world).delete(name, &DeleteParams::default()).await.map(drop),
    };
    outcome.expect("deleted");
}

fn said(status: &VerteilTokenStatus, type_: &str) -> String {
    condition(status, type_).unwrap().message.clone()
}

#[tokio::test]
async fn a_private_ca_stands_in_a_configmap_or_a_secret() {
    let ca = Authority::new("corp");
    let world = behind(&ca.server(HERE)).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    put(&world, "ConfigMap", "corp-ca", &format!("# of last year\n{}{}", Authority::new("old").pem(), ca.pem())).await;
    let binary = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "binary-ca"},
        "binaryData": {"ca.pem": k8s_openapi::ByteString(ca.pem().into_bytes())}});
    apply(&world, "ConfigMap", "binary-ca", &binary).await;
    put(&world, "Secret", "secret-ca", &ca.pem()).await;
    // As cert-manager's and others do: all in one.
    let together = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "together"},
        "stringData": {"username": USERNAME, "password": PASSWORD, "ca.crt": ca.pem()}});
    apply(&world, "Secret", "together", &together).await;
    for (name, spec) in [
        ("config-map", json!({"caBundleRef": {"kind": "ConfigMap", "name": "corp-ca"}})),
        ("binary", json!({"caBundleRef": {"kind": "ConfigMap", "name": "binary-ca", "key": "ca.pem"}})),
        ("secret", json!({"caBundleRef": {"kind": "Secret", "name": "secret-ca"}})),
        (
            "one-secret",
            json!({"caBundleRef": {"kind": "Secret", "name": "together"}, "credentialsSecretRef": {"name": "together"}}),
        ),
    ] {
        world.create_token(name, spec).await;
        let status = world.ready(name).await;
        assert_eq!((status.tokens_issued, status.failed_attempts), (Some(1), None), "{name}");
    }
    world.stays_at(4).await;
}

#[tokio::test]
async fn a_ca_that_is_missing_is_waited_for_and_one_that_is_none_is_for_a_person() {
    let ca = Authority::new("corp");
    let world = behind(&ca.server(HERE)).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    for kind in ["ConfigMap", "Secret"] {
        let (name, token) = (format!("{}-ca", kind.to_lowercase()), kind.to_lowercase());
        world.create_token(&token, json!({"caBundleRef": {"kind": kind, "name": name}})).await;
        let waiting = world.condition(&token, "Reconciling", "True", "CANotFound").await;
        assert!(said(&waiting, "Ready").starts_with(&format!("{kind} {name} does not exist: create it")));
        let other = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        apply(&world, kind, &name, &other).await;
        let words = format!("{kind} {name} has no key ca.crt");
        world.status(&token, "the missing key", |s| said(s, "Ready").starts_with(&words)).await;
        world.condition(&token, "Reconciling", "True", "CANotFound").await;
        put(&world, kind, &name, "hello").await;
        let stalled = world.condition(&token, "Stalled", "True", "CAInvalid").await;
        let words =
            format!("key ca.crt of {kind} {name} holds no certificate: write the CA of the token endpoint there");
        assert!(said(&stalled, "Ready").starts_with(&words), "{stalled:?}");
    }
    world.stays_at(0).await;
    assert_eq!(world.issuer.connections(), 0);
    for (number, kind) in ["ConfigMap", "Secret"].into_iter().enumerate() {
        let (name, token) = (format!("{}-ca", kind.to_lowercase()), kind.to_lowercase());
        put(&world, kind, &name, &ca.pem()).await;
        let expiry = world.ready(&token).await.expires_at;
        assert_eq!(world.issuer.count(), number + 1);
        // Damaged or gone again: the token holds, and what will be in the way is said.
        put(&world, kind, &name, "-----BEGIN CERTIFICATE-----").await;
        world.condition(&token, "RenewalFailing", "True", "CAInvalid").await;
        delete(&world, kind, &name).await;
        let failing = world.condition(&token, "RenewalFailing", "True", "CANotFound").await;
        for (type_, value) in [("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")] {
            assert_eq!(condition(&failing, type_).unwrap().status, value, "{type_}");
        }
        put(&world, kind, &name, &ca.pem()).await;
        let status = world.condition(&token, "RenewalFailing", "False", "").await;
        assert_eq!(status.expires_at, expiry);
    }
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_trusted_is_named_for_what_it_is() {
    let (ca, other) = (Authority::new("corp"), Authority::new("other"));
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    put(&world, "ConfigMap", "corp-ca", &ca.pem()).await;
    let odd = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    put(&world, "ConfigMap", "odd-ca", &(ca.pem() + odd)).await;
    let between = ca.intermediate("between");
    let cases = [
        ("expired", ca.expired(HERE), "corp-ca", "expired at 2020-01-01T00:00:00Z: it has to be renewed there"),
        ("future", ca.future(HERE), "corp-ca", "is valid only from 3019-01-01T00:00:00Z: look at the clocks"),
        (
            "name",
            ca.server(&["issuer.example", "*.issuer.example", "192.0.2.1"]),
            "corp-ca",
            "but for issuer.example, *.issuer.example, 192.0.2.1: write in spec.tokenURL a name that it has",
        ),
        (
            "other",
            other.server(HERE),
            "corp-ca",
            "is not signed by an authority in key ca.crt of ConfigMap corp-ca: put",
        ),
        ("same-name", Authority::new("corp").server(HERE), "corp-ca", "is not signed by an authority in key ca.crt"),
        ("alone", between.server(HERE).alone(), "corp-ca", "and intermediate ones that the issuer leaves out"),
        ("odd", other.server(HERE), "odd-ca", "ConfigMap odd-ca (1 of 2 certificates there cannot be used): put"),
        ("system", ca.server(HERE), "", "signed by an unknown authority: give its CA in spec.caBundleRef"),
    ];
    let mut issuers = Vec::new();
    for (name, certificate, source, _) in &cases {
        let issuer = issuer(certificate);
        let mut spec = json!({"tokenURL": format!("{}?audience=not-for-everybody", issuer.url_for(name))});
        if !source.is_empty() {
            spec["caBundleRef"] = json!({"kind": "ConfigMap", "name": source});
        }
        world.create_token(name, spec).await;
        issuers.push(issuer);
    }
    for ((name, _, _, words), issuer) in cases.iter().zip(&issuers) {
        let status = unreachable(&world, &operator, name, words).await;
        let address = issuer.base_url().replace("https://", "");
        let said = said(&status, "Ready");
        assert!(said.contains(&address) && !said.contains("not-for-everybody"), "{name}: {said}");
    }
    for ((name, ..), issuer) in cases.iter().zip(&issuers) {
        assert!(issuer.connections() > 0 && issuer.count() == 0, "{name}: {}", issuer.log());
    }
    assert!(!operator.log().contains("not-for-everybody"));
    // With the certificate between, all is well.
    issuers[5].show(&between.server(HERE)).unwrap();
    // Not after the wait, which has grown meanwhile.
    world.change("alone", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.ready("alone").await;
    assert_eq!(issuers[5].count(), 1);
}

#[tokio::test]
async fn an_authority_that_is_replaced_is_taken_up_without_a_restart() {
    let (old, new) = (Authority::new("corp"), Authority::new("corp"));
    let world = behind(&old.server(HERE)).await;
    let _operator = world.operator(OPERATOR, &[]).await;
    put(&world, "ConfigMap", "corp-ca", &old.pem()).await;
    let spec = json!({"caBundleRef": {"kind": "ConfigMap", "name": "corp-ca"}});
    world.create_token("stored", spec.clone()).await;
    let stored = world.ready("stored").await.expires_at;

    world.issuer.show(&new.server(HERE)).unwrap();
    world.create_token("waiting", spec).await;
    let second = world.status("waiting", "two failures", |s| s.failed_attempts >= Some(2)).await;
    assert!(said(&second, "Ready").contains("is not signed by an authority in key ca.crt of ConfigMap corp-ca"));
    // The same certificates under a touched label, or with a word beside them, are the same CA: the wait goes on.
    label(&world, "ConfigMap", "corp-ca").await;
    put(&world, "ConfigMap", "corp-ca", &format!("# old\n{}", old.pem())).await;
    let third = world.status("waiting", "another failure", |s| s.failed_attempts > second.failed_attempts).await;
    assert!(third.last_failure_time >= second.next_attempt_time, "{second:?} {third:?}");
    assert_eq!(world.issuer.count(), 1);

    put(&world, "ConfigMap", "corp-ca", &new.pem()).await;
    let issued = world.ready("waiting").await;
    assert!(issued.issued_at < third.next_attempt_time, "the change did not end the wait: {third:?} {issued:?}");
    assert_eq!(world.ready("stored").await.expires_at, stored);
    world.stays_at(2).await;
}

#[tokio::test]
async fn another_ca_reference_costs_no_token() {
    let ca = Authority::new("corp");
    let world = behind(&ca.server(HERE)).await;
    let mut operator = world.operator(OPERATOR, &[]).await;
    put(&world, "ConfigMap", "corp-ca", &ca.pem()).await;
    put(&world, "Secret", "corp-ca", &ca.pem()).await;
    put(&world, "Secret", "other-ca", &Authority::new("other").pem()).await;
    world.create_token("flight", json!({"caBundleRef": {"kind": "ConfigMap", "name": "corp-ca"}})).await;
    let before = world.ready("flight").await;
    for reference in [
        json!({"kind": "Secret", "name": "corp-ca"}),
        json!({"kind": "Secret", "name": "other-ca"}),
        json!(null),
        json!({"kind": "ConfigMap", "name": "corp-ca", "key": "ca.crt"}),
    ] {
        world.change("flight", json!({"spec": {"caBundleRef": reference}})).await;
        assert_eq!(world.ready("flight").await.expires_at, before.expires_at);
    }
    operator.kill();
    put(&world, "ConfigMap", "corp-ca", &format!("{}{}", ca.pem(), Authority::new("other").pem())).await;
    operator = world.operator(OPERATOR, &[]).await;
    assert_eq!(world.ready("flight").await.expires_at, before.expires_at);
    world.stays_at(1).await;
    drop(operator);
}

fn concerns_config_maps(call: &Call) -> bool {
    call.uri.contains("/configmaps")
}

#[tokio::test]
async fn config_maps_are_watched_when_one_is_named_and_read_when_it_has_changed() {
    let ca = Authority::new("corp");
    let world = behind(&ca.server(HERE)).await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    put(&world, "Secret", "secret-ca", &ca.pem()).await;
    world.create_token("first", json!({"caBundleRef": {"kind": "Secret", "name": "secret-ca"}})).await;
    world.ready("first").await;
    assert_eq!(proxy.calls().iter().filter(|call| concerns_config_maps(call)).count(), 0);

    put(&world, "ConfigMap", "corp-ca", &ca.pem()).await;
    world.create_token("flight", json!({"caBundleRef": {"kind": "ConfigMap", "name": "corp-ca"}})).await;
    let settled = world.ready("flight").await;
    testbed::eventually("a watch of ConfigMaps", PATIENCE, async || {
        let watched = proxy.calls().iter().any(|call| concerns_config_maps(call) && call.uri.contains("watch=true"));
        watched.then_some(()).ok_or_else(|| "none".to_owned())
    })
    .await;
    operator.kill();

    // Nothing has changed: the lists are all that a restart reads, however late they come.
    let proxy = world.proxy();
    let late = proxy.fault(concerns_config_maps, [Fault::Status(500, None)]);
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let reads = |call: &Call| !call.uri.contains("/leases") && !call.uri.contains('?');
    testbed::never("a read", QUIET, async || match proxy.calls().into_iter().find(|call| reads(call)) {
        Some(call) => Err(format!("{call:?}")),
        None => Ok(()),
    })
    .await;
    assert_eq!((late.count(), world.tokens().get("flight").await.unwrap().status), (1, Some(settled)));
    label(&world, "ConfigMap", "corp-ca").await;
    testbed::eventually("a read of the ConfigMap", PATIENCE, async || {
        let read = proxy.calls().iter().any(|call| call.uri.ends_with("/configmaps/corp-ca"));
        read.then_some(()).ok_or_else(|| "none".to_owned())
    })
    .await;
    world.stays_at(2).await;
}
