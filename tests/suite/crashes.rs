//! What does a crash cost, at each step of an issuance and at any moment?

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use testbed::proxy::{Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{World, eventually};

use crate::OPERATOR;

/// Where the process dies.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Before the apiserver sees the call.
    Before(Kind),
    /// After the apiserver has carried it out, before its answer arrives.
    After(Kind),
    /// While the issuer works on the request.
    Request,
}

/// All of them, with the requests that a first issue then takes, and whether a token may have been lost.
const POINTS: [(Point, usize, bool); 11] = [
    (Point::Before(Kind::GetSecret), 1, false),
    (Point::After(Kind::GetSecret), 1, false),
    (Point::Before(Kind::DryRun), 1, false),
    (Point::After(Kind::DryRun), 1, false),
    (Point::Before(Kind::Claim), 1, false),
    // Nobody can know that the request was not sent: it is counted as if it had been.
    (Point::After(Kind::Claim), 1, true),
    (Point::Request, 2, true),
    (Point::Before(Kind::WriteSecret), 2, true),
    (Point::After(Kind::WriteSecret), 1, false),
    (Point::Before(Kind::Status), 1, false),
    (Point::After(Kind::Status), 1, false),
];

/// The apiserver's word on how many tokens may have been lost.
async fn ambiguous_events(world: &World, name: &str) -> usize {
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    let about = |e: &&Event| {
        e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name)
            && e.reason.as_deref() == Some("AmbiguousGeneration")
    };
    events.list(&ListParams::default()).await.unwrap().iter().filter(about).count()
}

async fn dies_at(point: Point, requests: usize, ambiguous: bool) {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    match point {
        Point::Before(kind) | Point::After(kind) => {
            let fault = if matches!(point, Point::Before(_)) { Fault::Hang } else { Fault::HangAfter };
            let met = proxy.fault(move |call| call.kind == kind, [fault]);
            world.create_token("flight", json!({"timeout": "1s"})).await;
            if matches!(point, Point::After(_)) {
                met.wait_until_carried_out(&format!("{point:?}"), PATIENCE).await;
            } else {
                met.wait(&format!("{point:?}"), PATIENCE).await;
            }
        }
        Point::Request => {
            world.issuer.hold();
            world.create_token("flight", json!({"timeout": "1s"})).await;
            world.issuer.wait_until_held(1, PATIENCE).await;
        }
    }
    operator.kill();
    world.issuer.release();
    let second = world.operator(OPERATOR, &[]).await;
    world.ready("flight").await;
    world.stays_at(requests).await;
    world.stores("flight", &world.issuer.last_token("flight").unwrap()).await;
    // A claim of the dead is in nobody's way, and is cleared once its time has run out.
    let status = world.status("flight", &format!("no claim left after {point:?}"), |s| s.claim.is_none()).await;
    assert_eq!(status.tokens_issued, Some(1), "{point:?}: {status:?}");
    let counted = second.metric("verteil_token_ambiguous_generations_total").await;
    assert_eq!(counted, Some(f64::from(u8::from(ambiguous))), "{point:?}");
    eventually(&format!("{} events of it after {point:?}", usize::from(ambiguous)), PATIENCE, async || {
        let told = ambiguous_events(&world, "flight").await;
        if told == usize::from(ambiguous) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    // A third one finds nothing left to do.
    second.kill();
    let settled = world.tokens().get("flight").await.unwrap().metadata.resource_version;
    let _third = world.operator(OPERATOR, &[]).await;
    world.stays_at(requests).await;
    assert_eq!(world.tokens().get("flight").await.unwrap().metadata.resource_version, settled, "{point:?}");
}

#[tokio::test]
async fn a_crash_at_any_step_costs_at_most_the_token_that_nobody_could_save() {
    for some in POINTS.chunks(4) {
        join_all(some.iter().map(|(point, requests, ambiguous)| dies_at(*point, *requests, *ambiguous))).await;
    }
}

/// A small generator, so that a run can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn crashes_at_random_moments_through_two_hundred_issuances_lose_nothing_uncounted() {
    const RESOURCES: usize = 200;
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut random = Random(seed);
    let world = World::new().await;
    world.issuer.set_latency(Duration::from_millis(50));
    let names: Vec<String> = (0..RESOURCES).map(|n| format!("token-{n}")).collect();
    for name in &names {
        world.create_token(name, json!({"timeout": "1s"})).await;
    }
    let mut crashes = 0;
    // A claim left behind is waited out by a process that lives long enough: the last one.
    while crashes < 40 && names.iter().filter(|name| world.issuer.count_for(name) == 0).count() > RESOURCES / 20 {
        let operator = world.operator(OPERATOR, &[]).await;
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        operator.kill();
        crashes += 1;
    }
    let last = world.operator(OPERATOR, &[]).await;
    for name in &names {
        world.ready(name).await;
        world.stores(name, &world.issuer.last_token(name).unwrap()).await;
    }
    let total = world.issuer.count();
    world.stays_at(total).await;
    let mut in_vain = 0;
    for name in &names {
        let extra = world.issuer.count_for(name) - 1;
        // An event may die with the process that posts it; then the next takeover posts another.
        eventually(&format!("the {extra} requests more of {name} to be counted"), PATIENCE, async || {
            let counted = extra == 0 || ambiguous_events(&world, name).await > 0;
            counted.then_some(()).ok_or_else(|| "there is no event".to_owned())
        })
        .await;
        in_vain += extra;
    }
    drop(last);
    // Only what was in flight when a crash came can be lost: eight requests at a time.
    assert!(in_vain <= 8 * (crashes + 1), "{in_vain} requests more after {crashes} crashes");
    println!("{RESOURCES} issuances, {crashes} crashes, {in_vain} requests more");
}
