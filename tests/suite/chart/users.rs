//! Who in a namespace may see and write VerteilTokens, once the chart is there?

use serde_json::json;
use testbed::world::{CHART, PATIENCE};
use testbed::{World, eventually};

use super::RELEASE;

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// What `user` may do in the world's namespace, of [`VERBS`].
async fn may(world: &World, user: &str, subresource: &str) -> Vec<&'static str> {
    let mut allowed = Vec::new();
    for verb in VERBS {
        let subresource = format!("--subresource={subresource}");
        let asked = world.kubectl(&["auth", "can-i", verb, "verteiltokens", &subresource, "--as", user], None).await;
        if asked.stdout.trim() == "yes" {
            allowed.push(verb);
        }
    }
    allowed
}

#[tokio::test]
async fn view_edit_and_admin_of_a_namespace_reach_its_tokens_resources() {
    let world = World::new().await;
    world
        .install(
            CHART,
            RELEASE,
            &json!({
                "crds": {"enabled": false}, "namespaces": [world.namespace],
                "tokenApi": {"enabled": true, "certificateSecretName": "token-api-tls"},
            }),
        )
        .await
        .succeeded();
    for role in ["view", "edit", "admin"] {
        let (of, user) = (format!("--clusterrole={role}"), format!("--user={role}"));
        world.kubectl(&["create", "rolebinding", role, &of, &user], None).await.succeeded();
    }
    // Bound by hand, and never part of the others.
    let of = format!("--clusterrole={RELEASE}:{}:token", world.namespace);
    world.kubectl(&["create", "rolebinding", "caller", &of, "--user=caller"], None).await.succeeded();
    // The roles have to be aggregated, and the authorizer learns of each by a watch of its own.
    let reading = &VERBS[..3];
    for (user, subresource, expected) in
        [("edit", "", VERBS.as_slice()), ("admin", "", &VERBS), ("view", "", reading), ("caller", "token", &["get"])]
    {
        eventually(&format!("the rights of {user}"), PATIENCE, async || match may(&world, user, subresource).await {
            verbs if verbs == expected => Ok(()),
            verbs => Err(format!("{verbs:?}")),
        })
        .await;
    }
    for user in ["view", "edit", "admin"] {
        for subresource in ["status", "token"] {
            assert_eq!(may(&world, user, subresource).await, [""; 0], "{user} {subresource}");
        }
    }
    assert_eq!(may(&world, "caller", "").await, [""; 0]);
    assert_eq!(may(&world, "stranger", "").await, [""; 0]);
}
