//! Do changed inputs bring a new token, once, and unchanged ones none?

use serde_json::json;
use testbed::World;
use testbed::world::{PASSWORD, USERNAME};
use verteil_token_operator::api::IssueReason;

use crate::OPERATOR;

#[tokio::test]
async fn corrected_credentials_bring_a_token_within_seconds() {
    let world = World::new().await;
    world.issuer.require(USERNAME, PASSWORD);
    world.set_credentials("credentials", USERNAME, "wrong").await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    let refused = world.condition("flight", "Stalled", "True", "RequestRefused").await;
    assert!(refused.conditions.iter().any(|c| c.message.contains("password of Secret credentials")));
    world.stays_at(1).await;
    world.set_credentials("credentials", USERNAME, PASSWORD).await;
    world.ready("flight").await;
    world.stays_at(2).await;
}

#[tokio::test]
async fn a_missing_credentials_secret_costs_nothing_and_may_arrive_later() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "later"}})).await;
    let waiting = world.condition("flight", "Reconciling", "True", "CredentialsMissing").await;
    assert!(waiting.conditions.iter().any(|c| c.message.contains("kubectl create secret generic later")));
    world.stays_at(0).await;
    world.set_credentials("later", USERNAME, "").await;
    world.condition("flight", "Stalled", "True", "CredentialsInvalid").await;
    world.set_credentials("later", USERNAME, PASSWORD).await;
    world.ready("flight").await;
    world.stays_at(1).await;
    // Gone again: the token holds, and what will be in the way is said.
    world.delete_secret("later").await;
    world.condition("flight", "RenewalFailing", "True", "CredentialsMissing").await;
    world.ready("flight").await;
    world.set_credentials("later", USERNAME, PASSWORD).await;
    world.condition("flight", "RenewalFailing", "False", "").await;
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_changed_password_brings_one_new_token_and_an_unchanged_one_none() {
    let world = World::new().await;
    let mut operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"scopes": ["b", "a"]})).await;
    world.ready("flight").await;
    world.set_credentials("credentials", USERNAME, "another").await;
    let status = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::InputsChanged));
    world.set_credentials("credentials", USERNAME, "another").await;
    // Made again with the same content: other UID and resource version, same inputs.
    world.delete_secret("credentials").await;
    world.set_credentials("credentials", USERNAME, "another").await;
    // Another order of scopes is the same request.
    world.change("flight", json!({"spec": {"scopes": ["a", "b"]}})).await;
    operator.kill();
    operator = world.operator(OPERATOR, &[]).await;
    world.ready("flight").await;
    world.stays_at(2).await;
    drop(operator);
}

#[tokio::test]
async fn a_password_changed_while_no_operator_runs_is_noticed_by_the_seal() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    operator.kill();
    world.set_credentials("credentials", USERNAME, "another").await;
    let _operator = world.operator(OPERATOR, &[]).await;
    let status = world.status("flight", "the second token", |s| s.tokens_issued == Some(2)).await;
    assert_eq!(status.last_issue_reason, Some(IssueReason::InputsChanged));
    world.stays_at(2).await;
}

#[tokio::test]
async fn every_input_in_the_spec_counts_and_nothing_else() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    for (name, change) in [
        ("url", json!({"tokenURL": world.issuer.url_for("other")})),
        ("scopes", json!({"scopes": ["api"]})),
        ("parameters", json!({"parameters": {"audience": "x"}})),
    ] {
        world.create_token(name, json!({})).await;
        world.ready(name).await;
        world.change(name, json!({"spec": change})).await;
        let status = world.status(name, "the second token", |s| s.tokens_issued == Some(2)).await;
        assert_eq!(status.last_issue_reason, Some(IssueReason::InputsChanged), "{name}");
    }
    let all = world.issuer.count();
    world.create_token("same", json!({})).await;
    world.ready("same").await;
    for change in [
        json!({"timeout": "5s"}),
        json!({"renewBefore": "1h"}),
        json!({"parametersIn": "Query"}),
        json!({"clientAuthentication": "Body", "parametersIn": "Body"}),
        json!({"secret": {"deletionPolicy": "Retain"}}),
        json!({"suspend": true}),
        json!({"suspend": false}),
    ] {
        world.change("same", json!({"spec": change})).await;
        world.ready("same").await;
    }
    world.stays_at(all + 1).await;
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_until_it_is_resumed() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"suspend": true})).await;
    world.condition("flight", "Ready", "False", "Suspended").await;
    world.stays_at(0).await;
    assert!(world.secrets().get_opt("flight").await.unwrap().is_none());
    world.change("flight", json!({"spec": {"suspend": false}})).await;
    world.ready("flight").await;
    world.stays_at(1).await;
}
