//! What does it take to stop a restart of workloads, or to make a second one of it?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{InProcess, PATIENCE, TestClock};
use testbed::{World, eventually, never};
use verteil_token_operator::decide::condition;

use super::{
    CONDITION, FLAG, count_events, create_workload, deployment, generation, message, renew, rolled_out,
    stays_at_generation, told, world,
};
use crate::OPERATOR;
use crate::events::event;

fn patches(call: &Call) -> bool {
    call.method == http::Method::PATCH && call.uri.contains("/deployments/")
}

/// Where the process dies, between the write of the Secret and the last word of the status.
#[derive(Clone, Copy, Debug)]
enum Point {
    AfterSecret,
    BeforePatch,
    AfterPatch,
    BeforeLastStatus,
    AfterLastStatus,
}

async fn dies_at(point: Point) {
    let world = world().await;
    create_workload(&world, "Deployment", "api").await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, FLAG);
    operator.wait_until_ready().await;
    world.create_token("flight", json!({"timeout": "1s", "rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    let before = matches!(point, Point::BeforePatch | Point::BeforeLastStatus);
    let fault = if before { Fault::Hang } else { Fault::HangAfter };
    let patched = AtomicBool::new(false);
    let met = proxy.fault(
        move |call| match point {
            Point::AfterSecret => call.kind == Kind::WriteSecret,
            Point::BeforePatch | Point::AfterPatch => patches(call),
            Point::BeforeLastStatus | Point::AfterLastStatus => {
                patched.fetch_or(patches(call), Ordering::SeqCst) && call.kind == Kind::Status
            }
        },
        [fault],
    );
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "one"}}})).await;
    if before {
        met.wait(&format!("{point:?}"), PATIENCE).await;
    } else {
        met.wait_until_carried_out(&format!("{point:?}"), PATIENCE).await;
    }
    operator.kill();
    let _second = world.operator(OPERATOR, FLAG).await;
    let status = told(&world, "Restarted").await;
    let fingerprint = status.rollout_restart.unwrap().token_fingerprint;
    stays_at_generation(&world, "api", 2).await;
    assert_eq!(rolled_out(&world, "Deployment", "api").await.1, Some(fingerprint), "{point:?}");
    assert_eq!(world.issuer.count(), 2, "{point:?}");
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_exactly_one_restart() {
    use Point::{AfterLastStatus, AfterPatch, AfterSecret, BeforeLastStatus, BeforePatch};
    join_all([AfterSecret, BeforePatch, AfterPatch].map(dies_at)).await;
    join_all([BeforeLastStatus, AfterLastStatus].map(dies_at)).await;
}

#[tokio::test]
async fn a_restart_that_is_forbidden_is_reported_and_done_once_it_is_allowed() {
    // Without the right to patch.
    let world = World::new().await;
    create_workload(&world, "Deployment", "api").await;
    let operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    let status = told(&world, "RestartForbidden").await;
    assert!(message(&status).contains("Deployment/api: patch Deployment"), "{status:?}");
    let ready = world.ready("flight").await;
    assert!(condition(&ready, "RenewalFailing").is_some_and(|c| c.status == "False"), "{ready:?}");
    assert_eq!(event(&world, "flight", "RestartForbidden").await.0, "Warning");
    let forbidden = "verteil_token_rollout_restarts_total{outcome=\"RestartForbidden\"}";
    eventually("a second attempt", PATIENCE, async || match operator.metric(forbidden).await {
        Some(attempts) if attempts >= 2.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(count_events(&world, "RestartForbidden").await, 1);
    // Another process has as much to do.
    operator.kill();
    let _operator = world.operator(OPERATOR, FLAG).await;
    assert_eq!(generation(&world, "api").await, 1);
    world.allow_rollout_restarts().await;
    told(&world, "Restarted").await;
    assert_eq!(event(&world, "flight", CONDITION).await.0, "Normal");
    stays_at_generation(&world, "api", 2).await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_restart_that_fails_is_tried_again_for_that_workload_alone() {
    let world = world().await;
    for name in ["api", "other"] {
        create_workload(&world, "Deployment", name).await;
    }
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, FLAG);
    operator.wait_until_ready().await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api"), deployment("other")]})).await;
    told(&world, "TokenUnchanged").await;
    let fails = move |call: &Call| patches(call) && call.uri.contains("/api?");
    let faults = [Fault::Status(500, None), Fault::Status(409, None)].into_iter();
    proxy.fault(fails, faults.chain(std::iter::repeat_n(Fault::Status(500, None), 1000)));
    renew(&world, "one").await;
    let status = told(&world, "RestartFailed").await;
    assert!(message(&status).contains("Deployment/api: "), "{status:?}");
    assert!(message(&status).contains("restarted for the token of "), "{status:?}");
    assert_eq!(generation(&world, "other").await, 2);
    eventually("what it can be rolled back to", PATIENCE, async || {
        let sets = ["get", "replicasets", "--selector=app=other", "-o=name"];
        let sets = world.kubectl(&sets, None).await.succeeded();
        if sets.lines().count() == 2 { Ok(()) } else { Err(sets) }
    })
    .await;
    // Rolled back by somebody: that is not overruled by what another one still waits for.
    world.kubectl(&["rollout", "undo", "deployment/other"], None).await.succeeded();
    // A status wiped by somebody does not end what has begun.
    let wipe =
        ["patch", "vt", "flight", "--subresource=status", "--type=json", "-p", r#"[{"op":"remove","path":"/status"}]"#];
    world.kubectl(&wipe, None).await.succeeded();
    world.status("flight", "what was wiped", |s| condition(s, "Ready").is_some()).await;
    proxy.clear();
    told(&world, "Restarted").await;
    stays_at_generation(&world, "api", 2).await;
    assert_eq!(generation(&world, "other").await, 3);
    assert_eq!(proxy.calls().iter().filter(|call| patches(call) && !fails(call)).count(), 1);
    assert_eq!(count_events(&world, CONDITION).await, 1);
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_token_that_comes_while_a_restart_is_waited_for_is_the_one_restarted_for() {
    let world = World::new().await;
    create_workload(&world, "Deployment", "api").await;
    let operator: InProcess = world.in_process(FLAG, TestClock::default());
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    let old = told(&world, "RestartForbidden").await.rollout_restart;
    operator.clock.advance(Duration::from_hours(12));
    renew(&world, "two").await;
    assert_eq!(told(&world, "RestartForbidden").await.rollout_restart, old);
    world.allow_rollout_restarts().await;
    // Its next attempt is two minutes away at most.
    operator.clock.advance(Duration::from_mins(2));
    world.change("flight", json!({"metadata": {"annotations": {"bell": "1"}}})).await;
    let known = told(&world, "Restarted").await.rollout_restart.unwrap().token_fingerprint;
    assert_eq!(rolled_out(&world, "Deployment", "api").await, (2, Some(known)));
    stays_at_generation(&world, "api", 2).await;
    operator.stop().await;
}

#[tokio::test]
async fn while_suspended_nothing_is_restarted() {
    let world = World::new().await;
    create_workload(&world, "Deployment", "api").await;
    let _operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    told(&world, "RestartForbidden").await;
    world.change("flight", json!({"spec": {"suspend": true}})).await;
    world.condition("flight", "RenewalFailing", "True", "Suspended").await;
    world.allow_rollout_restarts().await;
    never("a restart while suspended", Duration::from_secs(12), async || match generation(&world, "api").await {
        1 => Ok(()),
        other => Err(format!("generation {other}")),
    })
    .await;
    world.change("flight", json!({"spec": {"suspend": false}})).await;
    told(&world, "Restarted").await;
    assert_eq!(generation(&world, "api").await, 2);
    world.stays_at(2).await;
}

#[tokio::test]
async fn what_keeps_the_next_token_back_does_not_keep_back_the_restart_for_this_one() {
    let world = World::new().await;
    create_workload(&world, "Deployment", "api").await;
    let _operator = world.operator(OPERATOR, FLAG).await;
    world.create_token("flight", json!({"rolloutRestart": [deployment("api")]})).await;
    told(&world, "TokenUnchanged").await;
    renew(&world, "one").await;
    told(&world, "RestartForbidden").await;
    // As after several such renewals: the brake holds for a quarter of an hour, longer than this test takes anywhere.
    let braked = Patch::Merge(json!({"status": {"unscheduledIssues": 4}}));
    world.tokens().patch_status("flight", &PatchParams::default(), &braked).await.unwrap();
    world.change("flight", json!({"spec": {"parameters": {"audience": "x"}}})).await;
    world.condition("flight", "Ready", "False", "GenerationThrottled").await;
    world.allow_rollout_restarts().await;
    // On a busy machine some tries have failed by now: the next one comes within two minutes.
    eventually("the restart", 3 * PATIENCE, async || match generation(&world, "api").await {
        2 => Ok(()),
        generation => Err(generation.to_string()),
    })
    .await;
    told(&world, "Restarted").await;
    assert_eq!(world.issuer.count(), 2, "{}", world.issuer.log());
}
