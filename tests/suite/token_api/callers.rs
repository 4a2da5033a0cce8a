//! Who may have a token, by the apiserver's word.

use serde_json::json;
use testbed::proxy::Kind;
use testbed::world::PATIENCE;
use testbed::{World, eventually};
use verteil_token_operator::clock::{Clock as _, SystemClock};

use super::client::{self, AUDIENCE, Answered, TokenApi};
use super::eventually_gets;

#[tokio::test]
async fn who_may_not_see_it_does_not_learn_whether_it_exists() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let reader = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.create_token("hotel", json!({})).await;
    world.ready("flight").await;
    world.ready("hotel").await;
    assert_eq!(api.get(&world.namespace, "flight", &reader).await.status, 200);
    // A name that it may not get, one that does not exist, and another namespace: the same, word for word.
    let said = |answer: &Answered, name: &str| {
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.header("retry-after") + &answer.header("etag"), "");
        answer.body.replace(name, "…")
    };
    let hotel = said(&api.get(&world.namespace, "hotel", &reader).await, "hotel");
    let nobody = said(&api.get(&world.namespace, "nobody", &reader).await, "nobody");
    assert_eq!(hotel, nobody);
    assert!(hotel.contains("verteiltokens/token") && hotel.contains("reader"), "{hotel}");
    let other = World::new().await;
    other.create_token("flight", json!({})).await;
    assert_eq!(api.get(&other.namespace, "flight", &reader).await.status, 403);
    // Nor by asking wrongly, or by waiting.
    assert_eq!(api.call("GET", &world.namespace, "hotel", &reader, "?wait=x", &[]).await.status, 403);
    assert_eq!(api.call("GET", &world.namespace, "nobody", &reader, "?wait=60s", &[]).await.status, 403);
    // What the role gives it has soon.
    client::allow(&world, "reader", "hotel").await;
    eventually("the new right", PATIENCE, async || match api.get(&world.namespace, "hotel", &reader).await.status {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    for token in [&reader, &world.issuer.last_token("flight").unwrap(), &world.issuer.last_token("hotel").unwrap()] {
        assert!(!operator.log().contains(token.as_str()), "a token is in the log");
    }
}

#[tokio::test]
async fn reading_the_resource_or_the_secret_is_another_right() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let viewer = client::caller(&world, "viewer", "other").await;
    let args =
        ["create", "role", "viewer-too", "--verb=get,list,watch", "--resource=verteiltokens.verteil.dev,secrets"];
    world.kubectl(&args, None).await.succeeded();
    let subject = format!("--serviceaccount={}:viewer", world.namespace);
    world.kubectl(&["create", "rolebinding", "viewer-too", "--role=viewer-too", &subject], None).await.succeeded();
    assert_eq!(api.get(&world.namespace, "flight", &viewer).await.status, 403);
}

#[tokio::test]
async fn a_right_of_the_groups_that_the_apiserver_tells_counts() {
    let world = World::new().await;
    let (_operator, api) = TokenApi::start(&world, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let role = ["create", "role", "all", "--verb=get", "--resource=verteiltokens.verteil.dev/token"];
    world.kubectl(&role, None).await.succeeded();
    let group = format!("--group=system:serviceaccounts:{}", world.namespace);
    world.kubectl(&["create", "rolebinding", "all", "--role=all", &group], None).await.succeeded();
    world.kubectl(&["create", "serviceaccount", "member"], None).await.succeeded();
    let member = client::token_of(&world, "member", AUDIENCE).await;
    eventually_gets(&api, &world, &member, "flight").await;
    // Of another namespace, and another group.
    let other = World::new().await;
    other.kubectl(&["create", "serviceaccount", "member"], None).await.succeeded();
    let stranger = client::token_of(&other, "member", AUDIENCE).await;
    assert_eq!(api.get(&world.namespace, "flight", &stranger).await.status, 403);
}

#[tokio::test]
async fn only_a_living_token_for_this_audience_is_accepted() {
    let world = World::new().await;
    let (operator, api) = TokenApi::start(&world, &[]).await;
    let reader = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let refused = async |bearer: &str, word: &str| {
        let answer = api.get(&world.namespace, "flight", bearer).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.header("www-authenticate").starts_with("Bearer realm="), "{answer:?}");
        assert!(answer.body.contains(word), "{answer:?}");
    };
    refused("", "no token").await;
    refused("opaque", "no ServiceAccount token").await;
    refused(&client::token_of(&world, "reader", "https://kubernetes.default.svc").await, "audience").await;
    // A signature that is somebody else's.
    let forged = format!("{}AAAA", &reader[..reader.len() - 4]);
    refused(&forged, "does not accept").await;

    // Signed with the apiserver's own key, of which only the end differs.
    let account = world.kubectl(&["get", "sa", "reader", "-o=jsonpath={.metadata.uid}"], None).await.succeeded();
    let now = SystemClock.now().as_second();
    let signed = |end: i64, audience: &str, uid: &str| {
        let claims = json!({
            "iss": "https://kubernetes.default.svc", "aud": [audience], "iat": now - 7200, "nbf": now - 7200, "exp": end,
            "sub": format!("system:serviceaccount:{}:reader", world.namespace),
            "kubernetes.io": {"namespace": world.namespace, "serviceaccount": {"name": "reader", "uid": uid}},
        });
        world.cluster.sign_token(&claims).unwrap()
    };
    assert_eq!(api.get(&world.namespace, "flight", &signed(now + 600, AUDIENCE, &account)).await.status, 200);
    // By minutes, which the operator leaves to the apiserver's clock, and by an hour.
    refused(&signed(now - 150, AUDIENCE, &account), "does not accept").await;
    refused(&signed(now - 3600, AUDIENCE, &account), "expired").await;
    refused(&signed(now + 600, "other", &account), "audience").await;
    refused(&signed(now + 600, AUDIENCE, "6e1c2f3a-0000-4000-8000-000000000000"), "does not accept").await;
    assert_eq!(operator.metric("verteil_token_api_requests_total{code=\"401\"}").await, Some(8.0));

    world.kubectl(&["delete", "sa", "reader"], None).await.succeeded();
    eventually("the end of a deleted ServiceAccount's token", PATIENCE, async || {
        match api.get(&world.namespace, "flight", &reader).await.status {
            401 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn without_its_cluster_role_it_says_what_is_missing() {
    let world = World::new().await;
    let (api, flags) = TokenApi::prepare(&world);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let operator = world.operator(crate::OPERATOR, &flags).await;
    let reader = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let answer = api.get(&world.namespace, "flight", &reader).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("tokenreviews") && answer.body.contains("ClusterRole"), "{answer:?}");
    assert!(operator.log().contains("bind the operator to a ClusterRole"), "{}", operator.log());
    world.allow_reviews().await;
    eventually_gets(&api, &world, &reader, "flight").await;
}

#[tokio::test]
async fn answers_hold_for_seconds_and_not_for_the_outage_of_the_apiserver() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (_operator, api) = TokenApi::start_behind(&world, &proxy, &[]).await;
    let reader = client::caller(&world, "reader", "flight").await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let reviews = || proxy.calls().iter().filter(|call| call.kind == Kind::Other).count();
    for _ in 0..30 {
        assert_eq!(api.get(&world.namespace, "flight", &reader).await.status, 200);
    }
    assert!(reviews() <= 4, "{} reviews for 30 calls: {:?}", reviews(), proxy.calls());
    proxy.fault(|call| call.kind == Kind::Other, std::iter::repeat_n(testbed::proxy::Fault::Status(500, None), 1000));
    let answer = eventually("the end of what was known", PATIENCE, async || {
        let answer = api.get(&world.namespace, "flight", &reader).await;
        if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(answer.body.contains("who you are"), "{answer:?}");
    proxy.clear();
    eventually_gets(&api, &world, &reader, "flight").await;
}
