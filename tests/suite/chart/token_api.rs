//! The token API and tokens in memory only, as the chart sets them up.

use clap::Parser as _;
use serde_json::{Value, json};
use testbed::World;
use testbed::world::CHART;
use verteil_token_operator::args::{Cli, RunArgs};

use super::{RELEASE, kind, the, with_token_api};

/// What the operator of these objects runs with.
fn args(objects: &[Value]) -> RunArgs {
    let args = &the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    // `run` is the default.
    let args = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).filter(|arg| *arg != "run");
    Cli::try_parse_from(["operator"].into_iter().chain(args)).unwrap().run
}

#[tokio::test]
async fn its_port_certificate_and_callers_are_those_of_the_values() {
    let world = World::new().await;
    let policy = json!({"networkPolicy": {"enabled": true, "tokenApiFrom": [{"podSelector": {}}]}});
    let objects = world.render(CHART, RELEASE, &with_token_api(policy)).await.unwrap();
    let args = args(&objects);
    assert_eq!(args.token_api_listen, Some("[::]:8443".parse().unwrap()));
    assert!(!args.disable_token_persistence && args.deployment_name.is_none());
    let pod = &the(&objects, "Deployment")["spec"]["template"]["spec"];
    let (mount, volume) = (&pod["containers"][0]["volumeMounts"][0], &pod["volumes"][0]);
    assert_eq!((&mount["name"], &volume["secret"]["secretName"]), (&volume["name"], &json!("token-api-tls")));
    for path in [&args.token_api_cert, &args.token_api_key] {
        assert_eq!(path.parent().unwrap().to_str(), mount["mountPath"].as_str());
    }
    let port = &pod["containers"][0]["ports"][1];
    assert_eq!((&port["name"], &port["containerPort"]), (&json!("token-api"), &json!(8443)));
    let service = &the(&objects, "Service")["spec"]["ports"][1];
    assert_eq!((&service["port"], &service["targetPort"]), (&json!(8443), &port["name"]));
    let rule = &the(&objects, "NetworkPolicy")["spec"]["ingress"][1];
    assert_eq!(rule, &json!({"ports": [{"port": "token-api"}], "from": [{"podSelector": {}}]}));
    let other = with_token_api(json!({"tokenApi": {"port": 9443}, "httpListen": "0.0.0.0:8080"}));
    let objects = world.render(CHART, RELEASE, &other).await.unwrap();
    assert_eq!(self::args(&objects).token_api_listen, Some("0.0.0.0:9443".parse().unwrap()));
}

#[tokio::test]
async fn the_reviews_need_a_cluster_role_even_where_the_rest_are_roles() {
    let world = World::new().await;
    let objects = world.render(CHART, RELEASE, &with_token_api(json!({"namespaces": ["a"]}))).await.unwrap();
    let bound: Vec<&Value> = objects.iter().filter(|object| kind(object) == "ClusterRoleBinding").collect();
    assert_eq!(bound.len(), 1, "{bound:?}");
    let named = |object: &&Value| object["metadata"]["name"] == bound[0]["roleRef"]["name"];
    let role = objects.iter().filter(|object| kind(object) == "ClusterRole").find(named).unwrap();
    let rules = role["rules"].as_array().unwrap();
    let resources: Vec<&Value> = rules.iter().map(|rule| &rule["resources"][0]).collect();
    assert_eq!(resources, ["tokenreviews", "subjectaccessreviews"]);
    assert!(rules.iter().all(|rule| rule["verbs"] == json!(["create"])), "{rules:?}");
    // Its own Deployment and no other.
    let own = objects.iter().find(|object| object["metadata"]["name"] == json!(format!("{RELEASE}-self"))).unwrap();
    assert_eq!(own["rules"][0]["resourceNames"], json!([RELEASE]));
}

#[tokio::test]
async fn tokens_in_memory_only_have_one_pod_that_is_replaced_before_the_next() {
    let world = World::new().await;
    let memory_only = with_token_api(json!({"disableTokenPersistence": true, "replicas": 1}));
    let objects = world.render(CHART, RELEASE, &memory_only).await.unwrap();
    let args = args(&objects);
    assert!(args.disable_token_persistence && args.check().is_ok());
    let deployment = the(&objects, "Deployment");
    assert_eq!(args.deployment_name.as_deref(), deployment["metadata"]["name"].as_str());
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]),
        (&json!(1), &json!({"type": "Recreate"}))
    );
}

#[tokio::test]
async fn how_pods_are_replaced_is_always_written_in_full() {
    let world = World::new().await;
    let rolling = |surge: Value, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    for (strategy, rendered) in [
        (json!({}), rolling(json!("25%"), json!("25%"))),
        (json!({"type": "RollingUpdate"}), rolling(json!("25%"), json!("25%"))),
        (json!({"rollingUpdate": {"maxSurge": 1}}), rolling(json!(1), json!("25%"))),
        (json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}), rolling(json!("50%"), json!(0))),
        (json!({"type": "Recreate"}), json!({"type": "Recreate"})),
    ] {
        let objects = world.render(CHART, RELEASE, &json!({"strategy": strategy})).await.unwrap();
        assert_eq!(the(&objects, "Deployment")["spec"]["strategy"], rendered, "{strategy}");
    }
}
