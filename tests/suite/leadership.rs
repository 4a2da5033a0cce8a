//! Several operators, one of which leads: who requests, who takes over and when, and how an end in good order looks.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::world::{Operator, PATIENCE};
use testbed::{Signal, World, eventually, never};

use crate::OPERATOR;

/// Short, so that a takeover is, and long enough for a leader on a busy machine to stay one.
const TIMINGS: [&str; 3] = ["--lease-duration=12s", "--lease-renew-deadline=9s", "--lease-retry-period=2s"];
const LEASE: &str = "verteil-token-operator";
/// Far below the lease duration where this is used.
const AT_ONCE: Duration = Duration::from_secs(20);
/// The longest that an end may take.
const END: Duration = Duration::from_secs(28);

#[tokio::test]
async fn of_two_operators_one_requests() {
    let world = World::new().await;
    let (one, two) = (candidate(&world, &[]).await, candidate(&world, &[]).await);
    let leader = leader(&[&one, &two]).await;
    for n in 0..20 {
        world.create_token(&format!("token-{n}"), json!({})).await;
    }
    for n in 0..20 {
        world.ready(&format!("token-{n}")).await;
    }
    world.stays_at(20).await;
    let sent = [&one, &two].map(requests);
    assert_eq!(sent[leader], 20);
    assert_eq!(sent[1 - leader], 0, "who stands by sends nothing");
    assert_eq!([&one, &two][leader].get("/readyz").await.unwrap().0, 200);
    assert_eq!([&one, &two][1 - leader].get("/readyz").await.unwrap().0, 200, "standing by is being ready");
    let spec = lease(&world).await.expect("a Lease");
    assert_eq!((spec["leaseDurationSeconds"].as_i64(), spec["leaseTransitions"].as_i64()), (Some(12), Some(0)));
    for time in ["acquireTime", "renewTime"] {
        let text = spec[time].as_str().expect("a time");
        assert_eq!(text.rsplit_once('.').map(|(_, fraction)| fraction.len()), Some("123456Z".len()), "{text}");
    }
}

#[tokio::test]
async fn the_standby_takes_over_from_a_leader_that_was_killed() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(40));
    let one = candidate(&world, &[]).await;
    leader(&[&one]).await;
    let two = candidate(&world, &[]).await;
    for name in ["a", "b", "c"] {
        world.create_token(name, json!({"renewBefore": "0s"})).await;
        world.ready(name).await;
    }
    // What is issued from here on lasts, so that every further request would be one too many.
    world.issuer.set_lifetime(Duration::from_secs(43_199));
    one.kill();
    leads(&two, PATIENCE).await;
    // Renewals go on: one request for each.
    world.issuer.wait_for_count(6, PATIENCE).await;
    for name in ["a", "b", "c"] {
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
        assert_eq!(world.issuer.count_for(name), 2);
    }
    world.stays_at(6).await;
    assert_eq!(requests(&two), 3, "{}", two.log());
    assert_eq!(lease(&world).await.expect("a Lease")["leaseTransitions"], 1);
}

#[tokio::test]
async fn a_leader_that_was_frozen_past_its_lease_sends_nothing_when_it_thaws() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(40));
    let one = candidate(&world, &[]).await;
    leader(&[&one]).await;
    let two = candidate(&world, &[]).await;
    for n in 0..5 {
        world.create_token(&format!("token-{n}"), json!({"renewBefore": "0s"})).await;
        world.ready(&format!("token-{n}")).await;
    }
    // What is issued from here on lasts, so that every further request would be one too many.
    world.issuer.set_lifetime(Duration::from_secs(43_199));
    one.process().signal(Signal::STOP).unwrap();
    leads(&two, PATIENCE).await;
    let sent = requests(&one);
    world.issuer.wait_for_count(10, PATIENCE).await;
    one.process().signal(Signal::CONT).unwrap();
    eventually("the old leader to know", PATIENCE, async || match one.metric(LEADER).await {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.stays_at(10).await;
    assert_eq!(requests(&one), sent, "the old leader has sent nothing more");
    assert_eq!(requests(&two), 5);
}

#[tokio::test]
async fn a_frozen_leader_thaws_at_the_moment_when_its_tokens_expire_and_stays_silent() {
    let world = World::new().await;
    world.issuer.set_lifetime(Duration::from_secs(20));
    let one = candidate(&world, &[]).await;
    leader(&[&one]).await;
    world.create_token("alone", json!({"renewBefore": "0s"})).await;
    world.ready("alone").await;
    world.issuer.set_lifetime(Duration::from_secs(43_199));
    one.process().signal(Signal::STOP).unwrap();
    // Renewal and deadline both pass; nobody else is there to take over, or to renew.
    tokio::time::sleep(Duration::from_secs(22)).await;
    one.process().signal(Signal::CONT).unwrap();
    world.issuer.wait_for_count(2, PATIENCE).await;
    let log = one.log();
    let (lost, again) = (log.find("not leading any more"), log.rfind("leading: this process requests tokens"));
    let sent = log.rfind("requesting token ").expect("a request");
    assert!(lost.is_some() && lost < again && again < Some(sent), "it asks again only when it leads again:\n{log}");
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_lease_that_is_deleted_or_edited_is_put_right() {
    let world = World::new().await;
    let (one, two) = (candidate(&world, &[]).await, candidate(&world, &[]).await);
    leader(&[&one, &two]).await;
    world.create_token("before", json!({})).await;
    world.ready("before").await;
    let leases = leases(&world);
    leases.delete(LEASE, &DeleteParams::default()).await.unwrap();
    only_one_leads(&world, [&one, &two], None).await;
    for (n, spec) in [
        json!({"holderIdentity": ""}),
        json!({"holderIdentity": null, "renewTime": null, "acquireTime": null, "leaseDurationSeconds": null}),
        json!({"leaseTransitions": i32::MAX, "renewTime": "0001-01-01T00:00:00.000000Z"}),
        json!({"leaseDurationSeconds": 1, "holderIdentity": "mallory", "renewTime": "9999-12-31T23:59:59.999999Z"}),
        json!({"leaseDurationSeconds": 1, "holderIdentity": ""}),
    ]
    .into_iter()
    .enumerate()
    {
        let patch = Patch::Merge(json!({"spec": spec}));
        let edited = leases.patch(LEASE, &PatchParams::default(), &patch).await.unwrap();
        only_one_leads(&world, [&one, &two], edited.metadata.resource_version).await;
        world.create_token(&format!("after-{n}"), json!({})).await;
        world.ready(&format!("after-{n}")).await;
    }
    world.stays_at(6).await;
}

#[tokio::test]
async fn a_leader_that_is_stopped_releases_the_lease_and_the_successor_leads_at_once() {
    let world = World::new().await;
    // Long timings: who does not find a released Lease is far too late.
    let timings = ["--lease-duration=60s", "--lease-renew-deadline=40s", "--lease-retry-period=1s"];
    let one = candidate(&world, &timings).await;
    leader(&[&one]).await;
    world.create_token("kept", json!({})).await;
    world.ready("kept").await;
    assert_eq!(one.terminate().await, Some(0));
    assert_eq!(holder(&world).await, "");
    let two = candidate(&world, &timings).await;
    leads(&two, AT_ONCE).await;
    let three = candidate(&world, &timings).await;
    assert_eq!(three.metric(LEADER).await, Some(0.0));
    assert_eq!(two.terminate().await, Some(0));
    leads(&three, AT_ONCE).await;
    assert_eq!(lease(&world).await.expect("a Lease")["leaseTransitions"], 2);
    // Who stands by has nothing to release.
    let four = candidate(&world, &timings).await;
    assert_eq!(four.terminate().await, Some(0));
    assert!(!holder(&world).await.is_empty());
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_request_in_flight_at_the_stop_is_finished_and_its_token_saved() {
    let world = World::new().await;
    // So short that a Lease which is not renewed runs out while the request is held.
    let timings = ["--lease-duration=7s", "--lease-renew-deadline=6s", "--lease-retry-period=1s"];
    let (one, two) = (candidate(&world, &timings).await, candidate(&world, &timings).await);
    let first = leader(&[&one, &two]).await;
    let (old, new) = if first == 0 { (one, two) } else { (two, one) };
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    old.process().signal(Signal::TERM).unwrap();
    eventually("readiness to end", PATIENCE, async || match old.get("/readyz").await {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Longer than a lease without renewals: the Lease is held until the drain has ended.
    never("a takeover", Duration::from_secs(9), async || match new.metric(LEADER).await {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(old.process().is_running());
    // What is new waits for the successor.
    world.create_token("later", json!({})).await;
    world.issuer.release();
    assert_eq!(old.process().wait(END).await.and_then(|status| status.code()), Some(0));
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    assert!(old.log().contains("released the Lease"), "{}", old.log());
    leads(&new, PATIENCE).await;
    let status = world.ready("flight").await;
    assert_eq!((status.tokens_issued, status.claim), (Some(1), None));
    world.ready("later").await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    operator.process().signal(Signal::TERM).unwrap();
    eventually("the first signal to be heard", PATIENCE, async || {
        if operator.log().contains("shutting down") { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    operator.process().signal(Signal::TERM).unwrap();
    // Long before the request has timed out.
    let status = operator.process().wait(Duration::from_secs(10)).await;
    assert_eq!(status.and_then(|status| status.code()), Some(1));
}

#[tokio::test]
async fn a_token_that_could_not_be_saved_is_saved_during_the_shutdown() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    forbid_secret_writes(&world, &operator).await;
    operator.process().signal(Signal::TERM).unwrap();
    eventually("the last saves", PATIENCE, async || {
        if operator.log().contains("saving what is still in memory") { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    allow_secret_writes(&world).await;
    assert_eq!(operator.process().wait(END).await.and_then(|status| status.code()), Some(0));
    assert!(!operator.log().contains("could not be saved before the end"));
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    let _next = world.operator(OPERATOR, &[]).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_token_that_cannot_be_saved_at_all_is_told_of_and_the_end_comes_in_time() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    forbid_secret_writes(&world, &operator).await;
    operator.process().signal(Signal::TERM).unwrap();
    let status = operator.process().wait(END).await;
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", operator.log());
    let log = operator.log();
    let line = log.lines().find(|line| line.contains("could not be saved before the end")).expect("a warning");
    assert!(line.contains(&world.namespace) && line.contains("flight"), "{line}");
}

#[tokio::test]
async fn timings_that_do_not_fit_are_refused_at_the_start() {
    let world = World::new().await;
    let operator = world.start_operator(OPERATOR, &["--lease-duration=10s", "--lease-renew-deadline=10s"]);
    let code = operator.process().wait(PATIENCE).await.and_then(|status| status.code());
    assert_eq!(code, Some(1));
    let log = operator.log();
    assert!(log.contains("--lease-duration must be longer than --lease-renew-deadline"), "{log}");
}

// --- what the tests are made of

const LEADER: &str = "verteil_token_leader";

/// An operator in leader election, ready.
async fn candidate(world: &World, flags: &[&str]) -> Operator {
    let namespace = format!("--lease-namespace={}", world.namespace);
    let timings: &[&str] = if flags.is_empty() { &TIMINGS } else { &[] };
    let flags: Vec<&str> =
        ["--leader-election", &namespace].into_iter().chain(flags.iter().chain(timings).copied()).collect();
    world.operator(OPERATOR, &flags).await
}

/// Waits until one of them leads.
async fn leader(operators: &[&Operator]) -> usize {
    eventually("a leader", PATIENCE, async || {
        for (n, operator) in operators.iter().enumerate() {
            if operator.metric(LEADER).await == Some(1.0) {
                return Ok(n);
            }
        }
        Err("none leads".into())
    })
    .await
}

async fn leads(operator: &Operator, within: Duration) {
    eventually("leadership", within, async || match operator.metric(LEADER).await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}\n{}", operator.process().log_tail(20))),
    })
    .await;
}

/// Waits until the Lease, at another version than that of the edit, names somebody who leads, alone.
async fn only_one_leads(world: &World, operators: [&Operator; 2], edited: Option<String>) {
    eventually("one leader whom the Lease names", PATIENCE, async || {
        let version = leases(world).get_opt(LEASE).await.expect("readable").and_then(|l| l.metadata.resource_version);
        if version == edited {
            return Err("it is as edited".into());
        }
        let holder = holder(world).await;
        let (one, two) = (operators[0].metric(LEADER).await, operators[1].metric(LEADER).await);
        let named = !holder.is_empty() && holder != "mallory";
        if named && one.zip(two).is_some_and(|(one, two)| (one > 0.5) != (two > 0.5)) {
            Ok(())
        } else {
            Err(format!("{holder}: {one:?}, {two:?}"))
        }
    })
    .await;
}

/// Untyped: the type refuses times that the apiserver takes.
fn leases(world: &World) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &world.namespace, &ApiResource::erase::<Lease>(&()))
}

async fn lease(world: &World) -> Option<Value> {
    let lease = leases(world).get_opt(LEASE).await.expect("readable");
    lease.map(|mut lease| lease.data["spec"].take())
}

async fn holder(world: &World) -> String {
    lease(world).await.and_then(|spec| spec["holderIdentity"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Token requests that an operator has sent.
fn requests(operator: &Operator) -> usize {
    operator.log().matches("requesting token").count()
}

/// A resource `flight` whose token was issued and cannot be written: the right is withdrawn while the request is in flight.
async fn forbid_secret_writes(world: &World, operator: &Operator) {
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    change_secret_verbs(world, &["get", "list", "watch"]).await;
    // The authorizer learns of it by a watch of its own.
    eventually("the right to be withdrawn", PATIENCE, async || {
        let user = format!("system:serviceaccount:{}:verteil-token-operator", world.namespace);
        let answer = world.kubectl(&["auth", "can-i", "create", "secrets", "--as", &user], None).await;
        if answer.stdout.trim() == "no" { Ok(()) } else { Err(answer.stdout) }
    })
    .await;
    world.issuer.release();
    eventually("an unsaved token", PATIENCE, async || match operator.metric("verteil_token_unsaved").await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.condition("flight", "Ready", "False", "Forbidden").await;
}

async fn allow_secret_writes(world: &World) {
    change_secret_verbs(world, &["get", "list", "watch", "create", "update"]).await;
}

async fn change_secret_verbs(world: &World, verbs: &[&str]) {
    let roles = Api::<k8s_openapi::api::rbac::v1::Role>::namespaced(world.client.clone(), &world.namespace);
    let mut role = roles.get("verteil-token-operator").await.unwrap();
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.as_ref().is_some_and(|resources| resources.iter().any(|r| r == "secrets")) {
            rule.verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        }
    }
    roles.replace("verteil-token-operator", &kube::api::PostParams::default(), &role).await.unwrap();
}
