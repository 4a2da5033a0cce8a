//! A pass that panics, with a permit kept for it: it must not keep it from the others.

use std::sync::Arc;

use kube::core::ObjectMeta;
use serde_json::json;
use tokio::sync::mpsc;
use verteil_token_operator::api::VerteilToken;
use verteil_token_operator::issuer::Issuer;
use verteil_token_operator::memory::Key;

use crate::apiserver::NAMESPACE;
use crate::clock::ModelClock;
use crate::operator::{Arrival, Operator, PANIC};

fn token(name: &str) -> VerteilToken {
    serde_json::from_value(json!({
        "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "generation": 1, "resourceVersion": "1"},
        "spec": {"tokenURL": "https://issuer.example/token", "credentialsSecretRef": {"name": "credentials"}},
        "status": {"observedGeneration": -1},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_pass_that_panics_leaves_the_permit_that_was_kept_for_it_to_the_next() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let clock = Arc::new(ModelClock::new());
    let mut operator = Operator::start(1, false, &Issuer::new(1).unwrap(), &clock, &sender);
    // With the credentials known to be there, a resource stands in line before it reads anything.
    let credentials = ObjectMeta { uid: Some("u".into()), resource_version: Some("1".into()), ..ObjectMeta::default() };
    for name in ["bad", "good"] {
        let token = token(name);
        operator.ctx.remember(&Key::of(&token), &token);
    }
    operator.ctx.versions.applied(&Key::new(NAMESPACE, "credentials"), &credentials);

    operator.look(token("bad"), &sender);
    let Some(Arrival::Call { call, reply, .. }) = arrivals.recv().await else { panic!("the pass reads") };
    assert_eq!(call.name, "get Secret");
    // Of a host that was never asked there is one permit, and the first has it.
    let mut waits = Operator {
        ctx: Arc::clone(&operator.ctx),
        ..Operator::start(2, false, &Issuer::new(1).unwrap(), &clock, &sender)
    };
    waits.look(token("good"), &sender);
    let Some(Arrival::End { result: Some(Ok(_)), .. }) = arrivals.recv().await else { panic!("it stands in line") };
    reply.send((PANIC, Vec::new())).unwrap();
    let Some(Arrival::End { result: None, .. }) = arrivals.recv().await else { panic!("the pass panics") };
    assert_eq!(operator.rings.try_recv().unwrap(), Key::of(&token("good")));
    waits.look(token("good"), &sender);
    let Some(Arrival::Call { call, .. }) = arrivals.recv().await else { panic!("its turn has come") };
    assert_eq!(call.name, "get Secret");
}
