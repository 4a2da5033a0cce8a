//! A resource of the same name that is made while a token for an earlier one is in memory: it may be somebody else's, and has the
//! token only if it is for the very same inputs.

use serde_json::json;
use testbed::world::{OperatorFlags, PASSWORD, PATIENCE, USERNAME};
use testbed::{World, eventually};

use super::unsaved;
use crate::token_api::client::{self, TokenApi};

const IN_MEMORY_ONLY: &str = "--disable-token-persistence";

/// A token is issued for a resource that is gone by then, with its credentials; one of the same name is made. Its credentials
/// come later, with this password. Returns the world, what keeps it alive, and the token.
async fn made_again(flags: OperatorFlags<'_>, password: &str) -> (World, testbed::world::Operator, TokenApi, String) {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, flags).await;
    let bearer = client::caller(&world, "reader", "*").await;
    world.issuer.hold();
    world.create_token("flight", json!({})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    world.kubectl(&["delete", "verteiltoken/flight", "secret/credentials"], None).await.succeeded();
    eventually("the operator to know", PATIENCE, async || {
        match api.get(&world.namespace, "flight", &bearer).await.status {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    world.issuer.release();
    // The gauge of unsaved tokens counts it only until its end is noticed: nobody misses it.
    let issued = r#"verteil_token_generations_total{reason="Initial"}"#;
    eventually("the token to come", PATIENCE, async || match operator.metric(issued).await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let token = world.issuer.last_token("flight").unwrap();
    world.create_token("flight", json!({})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    world.stays_at(1).await;
    let answer = api.get(&world.namespace, "flight", &bearer).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.body.contains(&token));
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    world.set_credentials("credentials", USERNAME, password).await;
    world.ready("flight").await;
    unsaved(&operator, 0.0).await;
    let answer = api.get(&world.namespace, "flight", &bearer).await;
    assert_eq!(answer.json()["access_token"], json!(world.issuer.last_token("flight")));
    (world, operator, api, token)
}

#[tokio::test]
async fn somebody_elses_gets_a_token_of_its_own() {
    for flags in [&[][..], &[IN_MEMORY_ONLY]] {
        let (world, _operator, _api, token) = made_again(flags, "another").await;
        world.stays_at(2).await;
        assert_ne!(world.issuer.last_token("flight").unwrap(), token);
        assert_eq!(world.cluster.etcd_files_with(&token).unwrap(), Vec::<String>::new(), "it was never stored");
    }
}

#[tokio::test]
async fn the_same_takes_the_token_once_its_credentials_are_back() {
    for flags in [&[][..], &[IN_MEMORY_ONLY]] {
        let (world, _operator, _api, token) = made_again(flags, PASSWORD).await;
        world.stays_at(1).await;
        assert_eq!(world.issuer.last_token("flight").unwrap(), token);
    }
}
