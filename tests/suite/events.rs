//! Events as the tests read them.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use testbed::world::PATIENCE;
use testbed::{World, eventually};

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
