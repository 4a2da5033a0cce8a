//! Does the debug endpoint tell what is so, and nothing else, to nobody else?

use serde_json::{Value, json};
use testbed::proxy::{Call, Fault, Kind};
use testbed::world::{Operator, PATIENCE};
use testbed::{Child, Signal, World, eventually, plain_http};

use crate::OPERATOR;
use crate::events::event;

async fn ask(operator: &Operator, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, Value) {
    let url = format!("http://{}{path}", operator.debug());
    let answer = plain_http::exchange(method, &url, headers, body).await.unwrap();
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, answer.json().unwrap())
}

async fn get(operator: &Operator, path: &str) -> (u16, Value) {
    ask(operator, "GET", path, &[], "").await
}

async fn token(operator: &Operator, world: &World, name: &str) -> (u16, Value) {
    get(operator, &format!("/api/debug/token?namespace={}&name={name}", world.namespace)).await
}

/// Waits until the answer about a token satisfies `check`.
async fn shows(operator: &Operator, world: &World, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{what} of {name} at the debug endpoint"), PATIENCE, async || {
        let (code, answer) = token(operator, world, name).await;
        if code == 200 && check(&answer) { Ok(answer) } else { Err(format!("{code} {answer}")) }
    })
    .await
}

/// Waits until the operator has said everything: what it writes itself makes it look at nothing once more.
async fn comes_to_rest(world: &World) {
    event(world, "flight", "TokenIssued").await;
    event(world, "waiting", "CredentialsMissing").await;
}

#[tokio::test]
async fn it_shows_a_tokens_times_and_never_the_token_and_asks_nobody() {
    let world = World::new().await;
    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    world.create_token("flight", json!({})).await;
    world.create_token("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    let status = world.ready("flight").await;
    world.condition("waiting", "Ready", "False", "CredentialsMissing").await;
    let answer = shows(&operator, &world, "flight", "its reason", |answer| answer["reason"] == "TokenValid").await;
    shows(&operator, &world, "waiting", "its reason", |answer| answer["reason"] == "CredentialsMissing").await;
    let expiry = status.expires_at.unwrap().0.as_second();
    assert_eq!((&answer["status"], &answer["token_available"]), (&json!("success"), &json!(true)));
    let info = &answer["token_info"];
    assert_eq!(
        (&info["has_token"], &info["is_valid"], &info["expiry_time"]),
        (&json!(true), &json!(true), &json!(expiry))
    );
    let left = info["expires_in"].as_i64().unwrap();
    assert!((43100..=43199).contains(&left), "{left}");
    assert_eq!(answer["renewal"], json!(status.renewal_time.unwrap().0.as_second()));
    assert_eq!(answer["source"], "issued");
    let metrics = &answer["metrics"];
    for (key, value) in [
        ("token_generations", 1),
        ("token_refreshes", 0),
        ("total_token_requests", 1),
        ("concurrent_refresh_attempts", 0),
    ] {
        assert_eq!(metrics[key], json!(value), "{key}");
    }
    assert_eq!(metrics["last_token_request"], json!(status.issued_at.unwrap().0.as_second()));
    assert_eq!(metrics["last_token_refresh"], Value::Null);

    comes_to_rest(&world).await;
    let before = proxy.calls().len();
    let (code, all) = get(&operator, "/api/debug/token").await;
    let names: Vec<&str> = all["tokens"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (200, vec!["flight", "waiting"]));
    let nothing = json!({"has_token": false, "is_valid": false, "expires_in": null, "expiry_time": null});
    assert_eq!(all["tokens"][1]["token_info"], nothing);
    assert_eq!(all["tokens"][1]["source"], Value::Null);
    assert_eq!(get(&operator, "/api/debug/token?namespace=elsewhere").await.1["tokens"], json!([]));
    let (code, missing) = token(&operator, &world, "nobody").await;
    assert_eq!((code, &missing["status"]), (404, &json!("error")));
    assert!(missing["message"].as_str().unwrap().contains("VerteilToken"), "{missing}");
    assert_eq!(get(&operator, "/api/debug/token?name=flight").await.0, 400);
    assert_eq!(get(&operator, "/api/debug/token?nmae=flight").await.0, 400);
    for _ in 0..50 {
        token(&operator, &world, "flight").await;
    }
    // A watch that ends is begun anew, whoever asks; a list would be for somebody.
    let later = proxy.calls().split_off(before);
    let asks = |call: &Call| call.kind != Kind::Watch || !call.uri.contains("watch=");
    assert!(!later.iter().any(asks), "{later:?}");
    let issued = world.issuer.last_token("flight").unwrap();
    assert!(!format!("{all}{answer}").contains(&issued));
}

#[tokio::test]
async fn the_source_is_the_secret_after_a_restart_and_memory_while_nothing_can_be_written() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    shows(&operator, &world, "flight", "the source issued", |answer| answer["source"] == "issued").await;
    assert_eq!(operator.terminate().await, Some(0));

    let proxy = world.proxy();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    operator.wait_until_ready().await;
    let answer = shows(&operator, &world, "flight", "a token", |answer| answer["token_available"] == true).await;
    assert_eq!((&answer["source"], &answer["metrics"]["token_generations"]), (&json!("secret"), &json!(0)));

    let writes = |call: &Call| call.kind == Kind::WriteSecret && call.name == "late";
    proxy.fault(writes, std::iter::repeat_n(Fault::Status(500, None), 1000));
    world.create_token("late", json!({})).await;
    let answer = shows(&operator, &world, "late", "a token in memory", |answer| answer["source"] == "memory").await;
    assert_eq!((&answer["token_available"], &answer["token_info"]["is_valid"]), (&json!(true), &json!(true)));
    let in_memory = answer["token_info"]["expiry_time"].clone();
    proxy.clear();
    world.ready("late").await;
    let answer = shows(&operator, &world, "late", "the source issued", |answer| answer["source"] == "issued").await;
    assert_eq!(answer["token_info"]["expiry_time"], in_memory);
    world.stays_at(2).await;
}

#[tokio::test]
async fn who_finds_another_process_at_work_counts_it() {
    let world = World::new().await;
    let one = world.operator(OPERATOR, &[]).await;
    let two = world.operator(OPERATOR, &[]).await;
    // It looks only when the other one is at work already.
    two.process().signal(Signal::STOP).unwrap();
    world.issuer.hold();
    world.create_token("flight", json!({"timeout": "15s"})).await;
    world.issuer.wait_until_held(1, PATIENCE).await;
    two.process().signal(Signal::CONT).unwrap();
    let attempts = |answer: &Value| answer["metrics"]["concurrent_refresh_attempts"].as_u64();
    let answer = shows(&two, &world, "flight", "an attempt", |answer| attempts(answer) > Some(0)).await;
    assert!(answer["metrics"]["last_concurrent_refresh_attempt"].is_i64(), "{answer}");
    world.issuer.release();
    world.ready("flight").await;
    let of_one = shows(&one, &world, "flight", "the source issued", |answer| answer["source"] == "issued").await;
    assert_eq!(attempts(&of_one), Some(0));
    // The token is another process's.
    let of_two = shows(&two, &world, "flight", "a token", |answer| answer["token_available"] == true).await;
    assert_eq!((&of_two["source"], &of_two["metrics"]["token_generations"]), (&json!("secret"), &json!(0)));
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_standby_shows_the_same() {
    let world = World::new().await;
    let lease = format!("--lease-namespace={}", world.namespace);
    let flags = ["--leader-election", lease.as_str()];
    let leader = world.operator(OPERATOR, &flags).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let standby = world.operator(OPERATOR, &flags).await;
    let of_leader = shows(&leader, &world, "flight", "a token", |answer| answer["token_available"] == true).await;
    let of_standby = shows(&standby, &world, "flight", "a token", |answer| answer["token_available"] == true).await;
    assert_eq!(of_leader["token_info"]["expiry_time"], of_standby["token_info"]["expiry_time"]);
    assert_eq!((&of_leader["source"], &of_standby["source"]), (&json!("issued"), &json!("secret")));
}

#[tokio::test]
async fn before_the_resources_are_listed_it_says_so() {
    let world = World::new().await;
    world.create_token("flight", json!({})).await;
    let proxy = world.proxy();
    let lists = |call: &Call| call.kind == Kind::Watch && call.uri.contains("/verteiltokens");
    proxy.fault(lists, vec![Fault::Status(500, None); 1000]);
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    let one = format!("/api/debug/token?namespace={}&name=flight", world.namespace);
    for path in ["/api/debug/token", &one] {
        let url = format!("http://{}{path}", operator.debug());
        let answer = eventually("an answer of the debug endpoint", PATIENCE, async || {
            plain_http::get(&url).await.map_err(|error| error.to_string())
        })
        .await;
        let body: Value = answer.json().unwrap();
        assert_eq!((answer.status, &body["status"]), (503, &json!("error")), "{body}");
        assert!(body["message"].as_str().unwrap().contains("not listed yet"), "{body}");
    }
    proxy.clear();
    shows(&operator, &world, "flight", "its token", |answer| answer["token_available"] == true).await;
}

#[tokio::test]
async fn only_this_machine_is_answered() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    for (host, code) in
        [("Host: localhost:8081", 200), ("Host: [::1]:8081", 200), ("Host: evil.example:8081", 403), ("Host:", 403)]
    {
        for path in ["/api/debug/token", "/api/debug/log-filter"] {
            assert_eq!(ask(&operator, "GET", path, &[host], "").await.0, code, "{host} {path}");
        }
    }
    let rebound = ask(&operator, "PUT", "/api/debug/log-filter", &["Host: evil.example"], "trace").await;
    assert_eq!(rebound.0, 403);
    // It is not to be had where the metrics are.
    assert_eq!(operator.get("/api/debug/token").await.unwrap().0, 404);
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let child = Child::spawn("the operator", OPERATOR, ["--debug-listen=0.0.0.0:8081"], &[], &log).unwrap();
    let status = child.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(2));
    let said = child.log();
    assert!(said.contains("0.0.0.0 is no loopback address") && said.contains("127.0.0.1"), "{said}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_warning() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--debug-listen={}", taken.local_addr().unwrap());
    let (kubeconfig, dir) = (world.operator_kubeconfig(), tempfile::tempdir().unwrap());
    let http = format!("--http-listen=127.0.0.1:{}", testbed::ports::free_port().unwrap());
    let namespaces = format!("--namespaces={}", world.namespace);
    let args = [&namespaces, &http, &flag, "--allow-http", "--allowed-issuer-hosts=*"];
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let child = Child::spawn("the operator", OPERATOR, args, &env, &dir.path().join("log")).unwrap();
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let log = child.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("there is no debug endpoint")), "{log}");
}

#[tokio::test]
async fn the_log_filter_is_changed_while_it_runs_and_a_bad_one_changes_nothing() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &["--log-filter=warn"]).await;
    let path = "/api/debug/log-filter";
    let set = async |filter: &'static str| ask(&operator, "PUT", path, &[], filter).await;
    assert_eq!(get(&operator, path).await, (200, json!({"status": "success", "filter": "warn"})));
    let decided = || operator.log().matches("decided").count();
    world.create_token("quiet", json!({})).await;
    world.ready("quiet").await;
    assert_eq!(decided(), 0);

    let (code, answer) = set("info,verteil_token_operator=debug\n").await;
    assert_eq!((code, &answer["filter"]), (200, &json!("info,verteil_token_operator=debug")));
    world.create_token("loud", json!({})).await;
    world.ready("loud").await;
    let before = decided();
    assert!(before > 0);

    let (code, answer) = set("info,verteil_token_operator=lowd").await;
    assert_eq!((code, &answer["status"]), (400, &json!("error")));
    assert!(answer["message"].as_str().unwrap().contains("no log filter"), "{answer}");
    assert_eq!(set("lowd").await.0, 400);
    assert_eq!(set("").await.0, 400);
    assert_eq!(get(&operator, path).await.1["filter"], "info,verteil_token_operator=debug");
    world.create_token("still-loud", json!({})).await;
    world.ready("still-loud").await;
    assert!(decided() > before);
}
