//! Is the status written only when it says something new?

use serde_json::json;
use testbed::proxy::Kind;
use testbed::world::{PATIENCE, QUIET};
use testbed::{Answer, Proxy, World, eventually, never};

use crate::OPERATOR;
use crate::events::event;

/// Resources, the condition in which each comes to rest, and its reason.
const RESTING: [(&str, &str, &str, &str); 5] = [
    ("flight", "Ready", "True", "TokenValid"),
    ("renewing", "RenewalFailing", "True", "RequestRefused"),
    ("refused", "Stalled", "True", "RequestRefused"),
    ("waiting", "Reconciling", "True", "CredentialsMissing"),
    ("suspended", "Stalled", "True", "Suspended"),
];

fn writes(proxy: &Proxy) -> Vec<String> {
    let calls = proxy.calls().into_iter().filter(|call| matches!(call.kind, Kind::Claim | Kind::Status));
    calls.map(|call| format!("{:?} of {}", call.kind, call.name)).collect()
}

async fn nothing_is_written(proxy: &Proxy) {
    let before = writes(proxy).len();
    never("a write of a status that is as it was", QUIET, async || match writes(proxy) {
        now if now.len() == before => Ok(()),
        now => Err(format!("{:?}", &now[before..])),
    })
    .await;
}

#[tokio::test]
async fn a_status_that_says_nothing_new_is_not_written() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let refused = || Answer::status(401).json(json!({"error": "invalid_client"}));
    world.issuer.enqueue_for("refused", refused());
    for (name, spec) in [
        ("flight", json!({})),
        ("renewing", json!({})),
        ("refused", json!({})),
        ("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})),
        ("suspended", json!({"suspend": true})),
    ] {
        world.create_token(name, spec).await;
    }
    world.ready("renewing").await;
    world.issuer.enqueue_for("renewing", refused());
    world.change("renewing", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    let mut resting = Vec::new();
    for (name, condition, status, reason) in RESTING {
        resting.push((name, world.condition(name, condition, status, reason).await));
    }
    // Said with the last write of the one that comes to rest last.
    event(&world, "renewing", "RequestRefused").await;
    event(&world, "flight", "TokenIssued").await;
    nothing_is_written(&proxy).await;

    // Looked at again, each is as it was: after an edit that changes nothing of it, and after a restart.
    for (name, ..) in RESTING {
        world.change(name, json!({"metadata": {"labels": {"team": "flight"}}})).await;
    }
    nothing_is_written(&proxy).await;
    operator.kill();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    nothing_is_written(&proxy).await;
    proxy.cut();
    nothing_is_written(&proxy).await;
    proxy.mend();
    nothing_is_written(&proxy).await;
    for (name, before) in resting {
        assert_eq!(world.status(name, "a status", |_| true).await, before, "{name}");
    }
    world.stays_at(4).await;
}

#[tokio::test]
async fn the_operators_own_write_of_a_status_rings_for_no_pass_and_others_changes_do() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    let passes = async || operator.metric("verteil_token_reconcile_duration_seconds_count").await.unwrap();
    assert!(passes().await.abs() < 0.5, "there is nothing yet");
    // It names no Secret that exists, so that nothing but its status can ring.
    world.create_token("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.condition("waiting", "Ready", "False", "CredentialsMissing").await;
    event(&world, "waiting", "CredentialsMissing").await;
    never("another pass", QUIET, async || match passes().await {
        count if count < 1.5 => Ok(()),
        count => Err(format!("{count} passes: {}", operator.log())),
    })
    .await;
    world.change("waiting", json!({"metadata": {"labels": {"team": "flight"}}})).await;
    eventually("the next pass", PATIENCE, async || match passes().await {
        count if count > 1.5 => Ok(()),
        count => Err(format!("{count} passes")),
    })
    .await;
    world.stays_at(0).await;
}
