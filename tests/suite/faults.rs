//! What does a fault of the apiserver cost, at each call of an issuance? Nothing but time.

use serde_json::json;
use testbed::proxy::{FAULTS, Fault, Kind};
use testbed::world::{PASSWORD, PATIENCE, USERNAME, role};
use testbed::{Answer, Signal, World, eventually};

use crate::OPERATOR;

/// The calls of an issuance.
const CALLS: [Kind; 5] = [Kind::GetSecret, Kind::DryRun, Kind::Claim, Kind::WriteSecret, Kind::Status];

fn label(fault: &Fault) -> String {
    match fault {
        Fault::Status(code, _) | Fault::Answer(code, _) | Fault::Changed(code, _) => code.to_string(),
        Fault::Reset => "reset".into(),
        Fault::Hang => "hang".into(),
        Fault::LostAnswer => "lost".into(),
        Fault::HangAfter => "hang-after".into(),
    }
}

#[tokio::test]
async fn no_fault_at_any_call_costs_a_second_token() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let mut names = Vec::new();
    for kind in CALLS {
        for fault in FAULTS {
            let name = format!("{}-{}", format!("{kind:?}").to_lowercase(), label(&fault));
            let credentials = format!("{name}-credentials");
            world.set_credentials(&credentials, USERNAME, PASSWORD).await;
            let (own, its_credentials) = (name.clone(), credentials.clone());
            let met = proxy
                .fault(move |call| call.kind == kind && (call.name == own || call.name == its_credentials), [fault]);
            names.push((name, credentials, met));
        }
    }
    for (name, credentials, _) in &names {
        world.create_token(name, json!({"credentialsSecretRef": {"name": credentials}})).await;
    }
    for (name, _, met) in &names {
        world.ready(name).await;
        assert_eq!(met.count(), 1, "{name}");
        assert_eq!(world.issuer.count_for(name), 1, "{name}: {}", world.issuer.log());
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        let status = world.status(name, "no claim left", |s| s.claim.is_none()).await;
        assert_eq!(status.tokens_issued, Some(1), "{name}");
    }
    world.stays_at(names.len()).await;
    assert_eq!(operator.metric("verteil_token_unsaved").await, Some(0.0));
    assert_eq!(operator.metric("verteil_token_ambiguous_generations_total").await, Some(0.0));
}

#[tokio::test]
async fn an_apiserver_that_is_away_for_a_while_loses_no_unsaved_token() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    world.issuer.hold();
    world.create_token("flight", json!({})).await;
    world.issuer.wait_until_held(1, testbed::world::PATIENCE).await;
    proxy.cut();
    world.issuer.release();
    testbed::eventually("the token to be in memory", testbed::world::PATIENCE, async || {
        match operator.metric("verteil_token_unsaved").await {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // A minute: passes fail and are tried again, watches break off.
    testbed::never("a restart", std::time::Duration::from_secs(60), async || match operator.get("/livez").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(operator.metric("verteil_token_unsaved").await, Some(1.0));
    proxy.mend();
    world.ready("flight").await;
    world.stays_at(1).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
}

#[tokio::test]
async fn faults_of_the_issuer_are_not_repeated_at_once() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let faults = [
        ("hang", Answer::hang(), "IssuerTimeout", 1.0),
        ("close", Answer::close(), "IssuerTimeout", 1.0),
        ("truncated", Answer::token("fake-cut").truncated_after(10), "IssuerTimeout", 1.0),
        ("error", Answer::status(500), "IssuerUnavailable", 0.0),
        ("empty", Answer::status(200).text(""), "AnswerUnusable", 1.0),
    ];
    let mut ambiguous = 0.0;
    for (name, answer, reason, lost) in faults {
        world.issuer.enqueue_for(name, answer);
        world.create_token(name, json!({"timeout": "2s"})).await;
        let status = world.condition(name, "Ready", "False", reason).await;
        assert_eq!((status.failed_attempts, status.claim.is_none()), (Some(1), true), "{name}");
        assert!(status.next_attempt_time > status.last_failure_time, "{name}");
        ambiguous += lost;
    }
    assert_eq!(operator.metric("verteil_token_ambiguous_generations_total").await, Some(ambiguous));
    for name in ["hang", "close", "truncated", "empty"] {
        assert_eq!(world.issuer.count_for(name), 1, "{name}");
    }
    // Five seconds later the issuer is well again.
    world.ready("error").await;
    assert_eq!(world.issuer.count_for("error"), 2);
}

#[tokio::test]
async fn a_broken_watch_of_secrets_does_not_hold_up_the_resources() {
    let world = World::new().await;
    let proxy = world.proxy();
    let of_secrets = |call: &testbed::proxy::Call| call.kind == Kind::Watch && call.uri.contains("/secrets");
    let met = proxy.fault(of_secrets, std::iter::repeat_n(Fault::Status(500, None), 1000));
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    assert!(met.count() > 0);
    operator.wait_until_ready().await;
    // And once it works, it rings.
    proxy.clear();
    world.delete_secret("flight").await;
    world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_namespace_that_may_not_be_looked_into_holds_up_no_other_and_comes_in_once_it_may() {
    let (world, other) = (World::new().await, World::new().await);
    world.create_token("flight", json!({})).await;
    other.create_token("flight", json!({})).await;
    // No role in the other one: so it is where a namespace was deleted before the operator was told.
    let operator = world.start_operator(OPERATOR, &[&format!("--namespaces={}", other.namespace)]);
    world.ready("flight").await;
    operator.wait_until_ready().await;
    let log = operator.log();
    let missing = log.lines().filter(|line| line.contains("going on without them") && line.contains(&other.namespace));
    assert_eq!(missing.count(), 1, "{log}");
    let said = log.lines().filter(|line| line.contains("watch failed, trying again"));
    assert_eq!(said.count(), 1, "once, and not at each try: {log}");
    other.stays_at(0).await;
    // Nor does it hold up the end.
    operator.process().signal(Signal::TERM).unwrap();
    eventually("the end", PATIENCE, async || match operator.log() {
        log if log.contains("stopped") => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(!operator.log().contains("cut short"), "{}", operator.log());

    let _operator = world.start_operator(OPERATOR, &[&format!("--namespaces={}", other.namespace)]);
    world.ready("flight").await;
    let account = format!("namespace: {}", world.namespace);
    let role = role(&other.namespace).replace(&format!("namespace: {}", other.namespace), &account);
    other.kubectl_apply(&role).await;
    other.ready("flight").await;
    world.stays_at(1).await;
    other.stays_at(1).await;
}
