//! Events as the tests read them, and whether they keep to the apiserver's limits and out of everybody's way.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::proxy::{Fault, Kind};
use testbed::world::PATIENCE;
use testbed::{World, eventually};
use verteil_token_operator::clock::{Clock as _, SystemClock};
use verteil_token_operator::cluster::{Cluster, Events, Note, Severity};
use verteil_token_operator::metrics::{Exposition, Metrics};

use crate::OPERATOR;

/// Waits for an event with this reason about a resource; its type (Normal or Warning) and its note.
pub async fn event(world: &World, about: &str, reason: &str) -> (String, String) {
    eventually(&format!("an event {reason} about {about}"), PATIENCE, async || {
        let all = events(world).await;
        let regards = |event: &Event| event.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(about);
        let mut found = all.iter().filter(|event| regards(event));
        match found.find(|event| event.reason.as_deref() == Some(reason)) {
            Some(event) => Ok((event.type_.clone().unwrap_or_default(), event.note.clone().unwrap_or_default())),
            None => Err(format!("{} others", all.len())),
        }
    })
    .await
}

/// All events of the world's namespace.
pub async fn events(world: &World) -> Vec<Event> {
    let api = Api::<Event>::namespaced(world.client.clone(), &world.namespace);
    api.list(&ListParams::default()).await.expect("readable").items
}

/// The operator's own way to post, from a process of this name.
fn post_as(world: &World, instance: &str) -> Events {
    post_counted(world, instance).0
}

/// The same, and where it counts what is not posted.
fn post_counted(world: &World, instance: &str) -> (Events, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let (events, post) = Events::new(Cluster::new(world.client.clone()), instance.into(), Arc::clone(&metrics));
    tokio::spawn(post);
    (events, metrics)
}

fn about(world: &World, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(world.namespace.clone()),
        uid: Some("0123456789".into()),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

fn note(text: String) -> Note {
    Note { severity: Severity::Warning, reason: "WriteRefused", action: "Reconcile", note: text }
}

#[tokio::test]
async fn a_note_in_letters_of_many_bytes_and_a_long_name_are_taken() {
    let world = World::new().await;
    let events = post_as(&world, &"ö".repeat(100));
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
    events.say(&about(&world, &long), &note("é".repeat(1500)), SystemClock.now());
    let (kind, said) = event(&world, &long, "WriteRefused").await;
    assert_eq!((kind.as_str(), said.chars().last(), said.len()), ("Warning", Some('…'), 1023));
}

#[tokio::test]
async fn what_stays_true_is_said_once_by_all_processes_together() {
    let world = World::new().await;
    let (one, two) = (post_as(&world, "one"), post_as(&world, "two"));
    let token = about(&world, "flight");
    for events in [&one, &two, &one] {
        events.say_once(&token, &note("for good".into()), SystemClock.now());
    }
    // Something else is said after it by each.
    for (events, name) in [(&one, "last-one"), (&two, "last-two")] {
        events.say(&about(&world, name), &note("last".into()), SystemClock.now());
    }
    for name in ["last-one", "last-two"] {
        event(&world, name, "WriteRefused").await;
    }
    let all = self::events(&world).await;
    assert_eq!(all.iter().filter(|event| event.note.as_deref() == Some("for good")).count(), 1);
    // Of another spec it is news.
    one.say_once(&ObjectMeta { generation: Some(2), ..token }, &note("again".into()), SystemClock.now());
    eventually("the event of the other spec", PATIENCE, async || {
        let all = self::events(&world).await;
        if all.iter().any(|event| event.note.as_deref() == Some("again")) { Ok(()) } else { Err(all.len().to_string()) }
    })
    .await;
}

#[tokio::test]
async fn of_very_many_at_once_the_later_ones_are_posted_with_pauses() {
    const COUNT: usize = 200;
    const BURST: usize = 100;
    const BATCH: usize = 20;
    let world = World::new().await;
    let events = post_as(&world, "one");
    let began = SystemClock.elapsed();
    for number in 0..COUNT {
        events.say(&about(&world, &format!("flight-{number}")), &note("trouble".into()), SystemClock.now());
    }
    eventually("all events", 5 * PATIENCE, async || match self::events(&world).await.len() {
        COUNT => Ok(()),
        count => Err(format!("{count} of {COUNT}")),
    })
    .await;
    // Twenty in a second from then on: each batch before the pause for as many.
    let took = SystemClock.elapsed().saturating_sub(began);
    assert!(took >= Duration::from_millis(50) * u32::try_from(COUNT - BURST - BATCH).unwrap(), "{took:?}");
}

#[tokio::test]
async fn a_warning_does_not_wait_behind_a_flood_of_what_is_ordinary_nor_is_it_dropped() {
    const ROOM: usize = 1024;
    const DROPPED: usize = 300;
    let world = World::new().await;
    let (events, metrics) = post_counted(&world, "one");
    let ordinary = Note { severity: Severity::Normal, ..note("as usual".into()) };
    // On this thread, nothing is posted meanwhile.
    for number in 0..ROOM + DROPPED {
        events.say(&about(&world, &format!("flight-{number}")), &ordinary, SystemClock.now());
    }
    events.say(&about(&world, "trouble"), &note("trouble".into()), SystemClock.now());
    event(&world, "trouble", "WriteRefused").await;
    // The last of the others follow half a minute later.
    let posted = self::events(&world).await.len();
    assert!(posted < ROOM, "{posted} events are there");
    let text = metrics.encode(Exposition::Plain).unwrap();
    for (kind, count) in [("Normal", DROPPED), ("Warning", 0)] {
        let line = format!("verteil_token_events_dropped_total{{type=\"{kind}\"}} {count}\n");
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_written_is_in_nobodys_way() {
    const COUNT: usize = 2;
    let world = World::new().await;
    let proxy = world.proxy();
    // The first is never answered, the others are refused.
    let faults = [Fault::Hang].into_iter().chain(std::iter::repeat_n(Fault::Status(403, None), 1000));
    let met = proxy.fault(|call| call.kind == Kind::Event, faults);
    let operator = world.operator_behind(&proxy, OPERATOR, &["--concurrency=1"]);
    operator.wait_until_ready().await;
    for number in 0..COUNT {
        world.create_token(&format!("flight-{number}"), json!({})).await;
    }
    for number in 0..COUNT {
        world.ready(&format!("flight-{number}")).await;
    }
    // Done with all of them, the operator still waits for the first event.
    assert_eq!(met.count(), 1);
    eventually("the others to be tried", PATIENCE, async || match met.count() {
        COUNT => Ok(()),
        count => Err(format!("{count} tried")),
    })
    .await;
    assert!(operator.log().contains("event not posted"));
    let dropped = "verteil_token_events_dropped_total{type=\"Normal\"}";
    eventually("all of them to be counted", PATIENCE, async || match operator.metric(dropped).await {
        Some(2.0) => Ok(()),
        count => Err(format!("{count:?} of {COUNT}")),
    })
    .await;
    proxy.clear();
    world.create_token("last", json!({})).await;
    event(&world, "last", "TokenIssued").await;
    assert!(events(&world).await.iter().all(|event| event.name_any().starts_with("last.")));
    world.stays_at(COUNT + 1).await;
}
