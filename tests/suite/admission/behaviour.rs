//! Times, switches and workloads.

use serde_json::{Value, json};
use testbed::World;

use super::{admits, rejects};

#[tokio::test]
async fn a_timeout_lasts_from_one_to_fifteen_seconds() {
    let world = World::new().await;
    for good in ["1s", "15s", "10s", "0m7s", "5s5s", "00015s", "0h0m1s"] {
        admits(&world, json!({"timeout": good})).await;
    }
    for outside in ["0s", "16s", "1m", "1h", "0h", "99999h99999m99999s"] {
        rejects(&world, json!({"timeout": outside}), "write a timeout from 1s to 15s").await;
    }
    for bad in ["", "10", "abc", "-5s", "+5s", "1.5s", "500ms", "5 s", " 5s", "5S", "1d", "99999999999h", "٣s", "s"] {
        let message = "write a duration of whole numbers with the units h, m or s, such as 10s";
        rejects(&world, json!({"timeout": bad}), message).await;
    }
    rejects(&world, json!({"timeout": "0".repeat(20) + "s"}), "may not be more than 20 bytes").await;
    rejects(&world, json!({"timeout": 10}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn a_renewal_comes_at_most_a_week_early() {
    let world = World::new().await;
    for good in ["0s", "10m", "1h30m", "168h", "10080m", "167h59m60s"] {
        admits(&world, json!({"renewBefore": good})).await;
    }
    for outside in ["169h", "168h1s", "99999h99999m99999s"] {
        rejects(&world, json!({"renewBefore": outside}), "write at most 168h").await;
    }
    for bad in ["", "10", "abc", "-5s", "-0s", "1.5h", "500ms", "1h 30m", "7d", "99999999999h", "PT10M", "m"] {
        let message = "write a duration of whole numbers with the units h, m or s, such as 10m or 1h30m";
        rejects(&world, json!({"renewBefore": bad}), message).await;
    }
    rejects(&world, json!({"renewBefore": "0".repeat(20) + "s"}), "may not be more than 20 bytes").await;
    rejects(&world, json!({"renewBefore": 600}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn suspend_is_true_or_false() {
    let world = World::new().await;
    assert_eq!(admits(&world, json!({"suspend": true})).await["suspend"], true);
    for (bad, kind) in [(json!("true"), "string"), (json!("yes"), "string"), (json!(1), "integer")] {
        rejects(&world, json!({"suspend": bad}), &format!("must be of type boolean: \"{kind}\"")).await;
    }
}

#[tokio::test]
async fn workloads_to_restart_are_few_known_by_kind_and_listed_once() {
    let world = World::new().await;
    let listed = |list: Value| json!({"rolloutRestart": list});
    let one = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    let many = |count: usize| (0..count).map(|n| one("Deployment", &format!("api-{n}"))).collect::<Value>();
    admits(&world, listed(json!([]))).await;
    admits(&world, listed(many(16))).await;
    admits(&world, listed(json!([one("Deployment", "a"), one("StatefulSet", "a"), one("DaemonSet", "a.b-c")]))).await;
    rejects(&world, listed(many(17)), "must have at most 16 items").await;
    rejects(&world, listed(json!([one("Deployment", "a"), one("Deployment", "a")])), "Duplicate value").await;
    rejects(
        &world,
        listed(json!([one("Job", "a")])),
        "supported values: \"Deployment\", \"StatefulSet\", \"DaemonSet\"",
    )
    .await;
    rejects(&world, listed(json!([{"kind": "Deployment"}])), "rolloutRestart[0].name: Required value").await;
    for name in ["", "Flight", "other/api", "-a"] {
        rejects(&world, listed(json!([one("Deployment", name)])), "write the name of a workload in this namespace")
            .await;
    }
}
