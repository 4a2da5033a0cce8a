//! Whatever is admitted is read back as it was written.

use kube::Resource;
use kube::api::PostParams;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use testbed::World;
use testbed::world::merge;
use verteil_token_operator::api::VerteilTokenSpec;

use super::create;

/// Generated specs that are created and read back.
const SAMPLES: usize = 64;

/// Any spec of the documented form, within the documented bounds, often on them.
fn specs() -> impl Strategy<Value = Value> {
    let some = |value: BoxedStrategy<Value>| proptest::option::weighted(0.6, value);
    let text = |pattern: &'static str| pattern.prop_map(Value::from).boxed();
    let map = |keys: &'static str, values: &'static str| {
        proptest::collection::btree_map(keys, values, 0..=16).prop_map(|map| json!(map)).boxed()
    };
    let url = text(
        "https?://([a-z][a-z0-9-]{0,20}[a-z0-9]\\.){1,3}[a-z]{2,10}(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9._~@!$&'()*+,;=-]{0,12}){0,3}(\\?[a-z]=[a-z0-9%]{0}x)?",
    );
    let scopes = proptest::collection::vec("[!#-\\[\\]-~]{1,128}", 0..=32).prop_map(|list| json!(list)).boxed();
    let authentication = prop_oneof![
        Just(json!({})),
        Just(json!({"clientAuthentication": "Basic", "parametersIn": "Query"})),
        Just(json!({"clientAuthentication": "Body", "parametersIn": "Body"})),
        Just(json!({"clientAuthentication": "Body"})),
        Just(json!({"parametersIn": "Query"})),
    ];
    let timeout = prop_oneof![Just("1s"), Just("15s"), Just("0h0m00015s"), Just("5s5s5s")].prop_map(Value::from);
    let renew_before = prop_oneof![
        Just(String::from("168h")),
        Just(String::from("0s")),
        (0..84u32, 0..5040u32, 0..60u32).prop_map(|(h, m, s)| format!("{s}s{h}h{m}m")),
    ];
    let secret = (
        some(text("[a-b]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]{1,20})?")),
        some(map(
            "([a-z]{1,9}\\.example/)?[A-Za-z]([A-Za-z0-9._-]{0,61}[a-z])?",
            "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[a-z])?)?",
        )),
        some(map("([a-z]{1,9}\\.example/)?[A-Za-z]([A-Za-z0-9._-]{0,61}[a-z])?", "\\PC{0,80}")),
        some(prop_oneof![Just(json!("Delete")), Just(json!("Retain"))].boxed()),
    )
        .prop_map(|(name, labels, annotations, policy)| {
            object([("name", name), ("labels", labels), ("annotations", annotations), ("deletionPolicy", policy)])
        });
    let reference =
        (text("credentials(\\.[a-z0-9]{1,9})?"), some(text("[-_a-zA-Z0-9]{1,40}")), some(text("k[._a-zA-Z0-9]{0,40}")))
            .prop_map(|(name, user, password)| {
                object([("name", Some(name)), ("usernameKey", user), ("passwordKey", password)])
            });
    let kinds = prop_oneof![Just("Deployment"), Just("StatefulSet"), Just("DaemonSet")];
    let workloads = proptest::collection::btree_map("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", kinds, 0..=16)
        .prop_map(|map| map.iter().map(|(name, kind)| json!({"kind": kind, "name": name})).collect::<Value>());
    let simple = (
        url,
        reference,
        some(scopes),
        some(map("[\\PC&&[^\\\\]]{1,40}", "\\PC{0,200}")),
        some(timeout.boxed()),
        some(renew_before.prop_map(Value::from).boxed()),
        some(any::<bool>().prop_map(Value::from).boxed()),
        some(secret.boxed()),
        some(workloads.boxed()),
    );
    (simple, authentication).prop_map(
        |((url, reference, scopes, parameters, timeout, renew, suspend, secret, workloads), choice)| {
            let mut spec = object([
                ("tokenURL", Some(url)),
                ("credentialsSecretRef", Some(reference)),
                ("scopes", scopes),
                ("parameters", parameters),
                ("timeout", timeout),
                ("renewBefore", renew),
                ("suspend", suspend),
                ("secret", secret),
                ("rolloutRestart", workloads),
            ]);
            merge(&mut spec, choice);
            spec
        },
    )
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The schema and the Rust type agree: nothing is admitted that cannot be read, and both fill in the same defaults.
#[tokio::test]
async fn what_is_admitted_is_read_back_unchanged() {
    let world = World::new().await;
    let (specs, mut runner) = (specs(), TestRunner::deterministic());
    for number in 0..SAMPLES {
        let spec = specs.new_tree(&mut runner).unwrap().current();
        let name = format!("sample-{number}");
        let mut token = world.token(&name, json!({}));
        token["spec"] = spec.clone();
        create(&world, &token, false).await.unwrap_or_else(|error| panic!("not admitted: {error}\n{spec:#}"));
        let read = world.tokens().get(&name).await.unwrap_or_else(|error| panic!("not read: {error}\n{spec:#}"));
        assert_eq!(read.spec, serde_json::from_value::<VerteilTokenSpec>(spec).unwrap());
        // And written back by the type, it is still the same.
        world.tokens().replace(&name, &PostParams::default(), &read).await.expect("admitted again");
        let again = world.tokens().get(&name).await.unwrap();
        assert_eq!(again.spec, read.spec);
        assert_eq!(again.meta().name.as_deref(), Some(name.as_str()));
    }
}
