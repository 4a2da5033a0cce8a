//! Can a log line be found again: by time, and by the resource that it speaks of?

use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::world::PATIENCE;
use testbed::{Answer, World, eventually};

use crate::OPERATOR;

/// What these speak of is the process as a whole, or its Lease.
const ABOUT_NO_RESOURCE: [&str; 6] = [
    "verteil_token_operator::run",
    "verteil_token_operator::start",
    "verteil_token_operator::lease",
    "verteil_token_operator::cluster::watch",
    "verteil_token_operator::serve",
    "verteil_token_operator::drain",
];

fn lines(log: &str) -> Vec<Value> {
    // The last line may be half written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test]
async fn every_line_about_a_resource_names_it_and_the_first_tells_what_runs() {
    let world = World::new().await;
    let lease = format!("--lease-namespace={}", world.namespace);
    let flags = ["--log-format=json", "--log-filter=info,verteil_token_operator=trace", "--leader-election", &lease];
    let operator = world.operator(OPERATOR, &flags).await;
    world.issuer.enqueue_for("unlucky", Answer::status(500));
    world.create_token("flight", json!({})).await;
    world.create_token("unlucky", json!({})).await;
    world.create_token("waiting", json!({"credentialsSecretRef": {"name": "nowhere"}})).await;
    world.ready("flight").await;
    world.ready("unlucky").await;
    world.change_secret("flight", json!({"metadata": {"labels": {"verteil.dev/token": null}}})).await;
    eventually("the repair in the log", PATIENCE, async || {
        if operator.log().contains("repaired the Secret") { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    let lines = lines(&operator.log());
    for line in &lines {
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time} is not RFC 3339");
        let target = line["target"].as_str().unwrap();
        let summary = line["message"].as_str().is_some_and(|message| message.starts_with("Loaded valid tokens"));
        let ours = target.starts_with("verteil_token_operator");
        if ours && !summary && !ABOUT_NO_RESOURCE.iter().any(|other| target.starts_with(other)) {
            assert_eq!(line["namespace"], json!(world.namespace), "{line}");
            assert!(["flight", "unlucky", "waiting"].contains(&line["name"].as_str().unwrap_or_default()), "{line}");
        }
    }
    let of_flight = |words: &str| {
        let has =
            |line: &&Value| line["name"] == "flight" && line["message"].as_str().unwrap_or_default().contains(words);
        lines.iter().find(has).unwrap_or_else(|| panic!("no line {words:?} of flight"))
    };
    let obtained = of_flight("Successfully obtained new token. Expires in ");
    assert_eq!((&obtained["reason"], &obtained["expires_in_hours"]), (&json!("Initial"), &json!(11)));
    of_flight("requesting token");

    let with_version: Vec<&Value> = lines.iter().filter(|line| line["version"].is_string()).collect();
    assert_eq!(with_version.len(), 1, "{with_version:#?}");
    let first = with_version[0];
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert!(first["message"].as_str().unwrap().starts_with("Token persistence enabled"));
    assert!(first["watches"].as_str().unwrap().contains(&world.namespace), "{first}");
    let told = first["flags"].as_str().unwrap();
    assert!(told.contains("--log-format=json") && told.contains("--leader-election=true"), "{told}");
    assert!(told.contains("--concurrency=32"), "also what was left out: {told}");
}

#[tokio::test]
async fn lines_of_text_begin_with_the_time_and_name_the_resource_too() {
    let world = World::new().await;
    let operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let log = operator.log();
    for line in log.lines() {
        let time = line.split(' ').next().unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{line}");
    }
    let obtained = log.lines().find(|line| line.contains("Successfully obtained new token")).unwrap();
    for field in [format!("namespace=\"{}\"", world.namespace), "name=\"flight\"".into(), "reason=\"Initial\"".into()] {
        assert!(obtained.contains(&field), "{obtained}");
    }
}
