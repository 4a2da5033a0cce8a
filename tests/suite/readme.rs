//! Does the README say what is so, and does what it shows work? The chart's copies are looked at as well.

mod token_api;

use clap::CommandFactory as _;
use jiff::{SignedDuration, Timestamp};
use testbed::day::{HEAD, Setup};
use testbed::world::PATIENCE;
use testbed::{World, eventually};
use verteil_token_operator::api::{Duration, IssueReason, VerteilToken};
use verteil_token_operator::args::Cli;
use verteil_token_operator::cluster::Occurrence;
use verteil_token_operator::decide::{CLOCK_SKEW_REASONS, Reason, RestartReason};
use verteil_token_operator::secret::{check_templates, template_keys};
use verteil_token_operator::token::{Record, RecordSeal, renewal_point};

const README: &str = include_str!("../../README.md");
/// Lifetime of this vendor's tokens, in seconds.
const LIFETIME: i64 = 43199;
/// So many tokens show the earliest and the latest renewal: the jitter has at most 864 values here.
const TOKENS: usize = 20_000;
const APPLY: [&str; 6] = ["apply", "--dry-run=server", "--validate=strict", "-o=json", "-f", "-"];

/// The first block of this language under a heading.
pub fn block_under(heading: &str, language: &str) -> &'static str {
    let section = README.split_once(&format!("\n{heading}\n")).expect("the heading").1;
    section.split_once(&format!("```{language}\n")).and_then(|(_, rest)| rest.split_once("```")).expect("a block").0
}

fn yaml_under(heading: &str) -> &'static str {
    block_under(&format!("## {heading}"), "yaml")
}

#[test]
fn every_reason_has_a_line_of_advice() {
    let words = Reason::ALL.map(Reason::as_str).into_iter().chain(IssueReason::ALL.map(IssueReason::as_str));
    let words = words.chain(RestartReason::ALL.map(RestartReason::as_str)).chain(CLOCK_SKEW_REASONS);
    let missing: Vec<&str> = words.filter(|word| !README.contains(&format!("\n| `{word}` | "))).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn every_event_has_a_row_in_the_order_of_the_code() {
    let section = README.split_once("\n### Events\n").expect("the heading").1.split("\n### ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<String> = rows.map(|row| row.splitn(4, " | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
    let wanted = Occurrence::ALL.map(|what| {
        let note = what.note(String::new());
        format!("| `{}` | {:?}", note.reason, note.severity)
    });
    assert_eq!(told, wanted);
}

#[test]
fn every_flag_has_a_row_with_its_twin() {
    for flag in Cli::command().get_arguments().filter(|flag| !["help", "version"].contains(&flag.get_id().as_str())) {
        let (name, twin) = (flag.get_long().unwrap(), flag.get_env().unwrap().to_str().unwrap());
        let row = format!("\n| `--{name}` | `{twin}` | ");
        let rest = README.split_once(&row).unwrap_or_else(|| panic!("no row for --{name}")).1;
        let default: Vec<_> = flag.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let shown = rest.split(" | ").next().unwrap().trim_matches('`');
        assert!(default.is_empty() || shown == default.join(","), "--{name} has another default than {shown}");
    }
}

#[tokio::test]
async fn the_first_token_is_accepted() {
    let world = World::new().await;
    let applied = world.kubectl(&APPLY, Some(yaml_under("A first token"))).await;
    assert_eq!(applied.stderr, "");
    applied.succeeded();
}

#[tokio::test]
async fn the_token_with_a_ca_is_accepted() {
    let world = World::new().await;
    let applied = world.kubectl(&APPLY, Some(yaml_under("A token endpoint with a CA of its own"))).await;
    assert_eq!(applied.stderr, "");
    applied.succeeded();
}

#[tokio::test]
async fn the_further_keys_are_accepted_and_rendered() {
    let world = World::new().await;
    let applied = world.kubectl(&APPLY, Some(yaml_under("Further keys"))).await;
    assert_eq!(applied.stderr, "");
    let token: VerteilToken = serde_json::from_str(&applied.succeeded()).unwrap();
    assert_eq!(check_templates(&token), Ok(()));
    assert_eq!(template_keys(&token).collect::<Vec<_>>(), [".env", "AUTHORIZATION"]);
}

#[tokio::test]
async fn the_pod_is_accepted_and_reads_the_secret_of_the_first_token() {
    let world = World::new().await;
    // Pods are refused until the namespace's own account is there.
    world.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"], None).await.succeeded();
    let applied = world.kubectl(&APPLY, Some(yaml_under("A pod that uses it"))).await;
    assert_eq!(applied.stderr, "");
    let pod: serde_json::Value = serde_json::from_str(&applied.succeeded()).unwrap();
    let volume = &pod["spec"]["volumes"][0]["secret"];
    assert_eq!(volume["defaultMode"], 0o400);
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!((&mount["mountPath"], &mount["subPath"]), (&"/tmp/flight_app_tokens".into(), &serde_json::Value::Null));
    let name = volume["secretName"].as_str().unwrap();
    assert!(yaml_under("A first token").contains(&format!("\n  name: {name}\n")), "{name}");
}

#[test]
fn the_table_of_renewals_is_what_the_code_does() {
    for (renew_before, row) in [("0s", "0s"), ("10m", "10m"), ("1h", "1h"), ("2h", "2h"), ("3h", "3h or more")] {
        let (earliest, latest) = leads(renew_before.parse().unwrap());
        #[expect(clippy::cast_precision_loss, reason = "seconds of a day")]
        let a_day = format!("{:.2}", 86_400.0 / (LIFETIME - earliest) as f64);
        let lead = if earliest < 0 {
            "no: 1 s after it".to_owned()
        } else {
            format!("{} to {}", text(latest), text(earliest))
        };
        let line = format!("\n| {row} | {lead}");
        let found = README.split_once(&line).unwrap_or_else(|| panic!("not in the README: {line}")).1;
        assert!(found.lines().next().unwrap().ends_with(&format!("| {a_day} |")), "{row}: {a_day} tokens a day");
    }
}

/// How long before its expiry a token is renewed, in seconds: at most and at least.
fn leads(renew_before: Duration) -> (i64, i64) {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let before: SignedDuration = renew_before.signed();
    let lead = |number: usize| {
        let record = Record::new(number.to_string().into(), "Bearer".into(), LIFETIME, now, now).unwrap();
        let renewal = renewal_point(record.validity(), before, &RecordSeal::of(&record), false);
        record.token_expiry() - renewal.as_second()
    };
    (0..TOKENS).map(lead).fold((i64::MIN, i64::MAX), |(most, least), lead| (most.max(lead), least.min(lead)))
}

/// `1h48m`, without parts that are zero.
fn text(seconds: i64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let shown = parts.into_iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    shown.collect::<Vec<_>>().concat()
}

#[test]
fn the_table_of_costs_is_one_that_the_command_prints() {
    let rows = README.split_once(HEAD).expect("the head").1.trim_start().lines();
    let rows: Vec<Vec<&str>> =
        rows.take(8).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    for (setup, rows) in Setup::ALL.into_iter().zip(rows.chunks(2)) {
        for (row, resources) in rows.iter().zip(["1", "100"]) {
            assert_eq!((row[0], row[1], row[4]), (setup.as_str(), resources, setup.bound().to_string().as_str()));
            let most: usize = row[2].split(' ').next().unwrap().parse().unwrap();
            assert!(most <= setup.bound(), "{row:?}");
        }
    }
}

#[test]
fn the_chart_ships_the_definition_of_crds() {
    let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let name = "verteiltokens.verteil.dev.yaml";
    let (ours, charts) = (read(&format!("crds/{name}")), read(&format!("charts/verteil-token-operator/files/{name}")));
    assert!(ours == charts, "run: cp crds/{name} charts/verteil-token-operator/files/");
}

#[test]
fn the_chart_has_the_version_of_the_crate() {
    let chart = include_str!("../../charts/verteil-token-operator/Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "Chart.yaml is to have{line}");
    }
}

#[tokio::test]
async fn the_pod_that_asks_for_its_token_asks_the_service_that_the_certificate_names() {
    let world = World::new().await;
    world.kubectl(&["create", "serviceaccount", "flight-search"], None).await.succeeded();
    let pod = block_under("### A pod that asks for its token", "yaml");
    let applied = world.kubectl(&APPLY, Some(pod)).await;
    assert_eq!(applied.stderr, "");
    let pod: serde_json::Value = serde_json::from_str(&applied.succeeded()).unwrap();
    let url = pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap();
    let certificate: serde_json::Value = serde_saphyr::from_str(block_under("### Switching it on", "yaml")).unwrap();
    let host = certificate["spec"]["dnsNames"][0].as_str().unwrap();
    assert_eq!(url, format!("https://{host}:8443/api/token/default/verteil-token"));
    let audience = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"];
    let flags = Cli::command();
    let flag = flags.get_arguments().find(|flag| flag.get_long() == Some("token-api-audience")).unwrap();
    assert_eq!(audience.as_str(), flag.get_default_values()[0].to_str());
    // The shell takes the loop.
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    let checked = std::process::Command::new("sh").args(["-n", "-c", script]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[tokio::test]
async fn the_roles_of_callers_are_made_as_told() {
    let world = World::new().await;
    let section = README.split_once("### Switching it on").unwrap().1;
    let commands = section.split("```sh\n").nth(2).and_then(|rest| rest.split_once("```")).expect("a block").0;
    let mut made = 0;
    for command in commands.replace("\\\n", " ").lines() {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words.remove(0), "kubectl");
        world.kubectl(&words, None).await.succeeded();
        made += 1;
    }
    assert_eq!(made, 3);
    let can = ["auth", "can-i", "get", "verteiltokens.verteil.dev/verteil-token", "--subresource=token"];
    let account = "--as=system:serviceaccount:default:flight-search";
    // The authorizer learns of it by a watch of its own.
    eventually("the right", PATIENCE, async || {
        let allowed = world.kubectl(&[can.as_slice(), &[account]].concat(), None).await;
        if allowed.stdout.trim() == "yes" { Ok(()) } else { Err(format!("{allowed:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_token_with_workloads_to_restart_is_accepted() {
    let world = World::new().await;
    let applied = world.kubectl(&APPLY, Some(yaml_under("Pods that read the token only at start"))).await;
    assert_eq!(applied.stderr, "");
    applied.succeeded();
}

#[tokio::test]
async fn the_token_for_argo_cd_is_accepted() {
    let world = World::new().await;
    let section = block_under("### Tokens in your own chart", "yaml");
    assert!(section.contains("dependsOn"), "{section}");
    let blocks = README.split_once("\n### Tokens in your own chart\n").unwrap().1.split("```yaml\n").skip(1);
    let token =
        blocks.map(|block| block.split_once("```").unwrap().0).find(|block| block.contains("kind: VerteilToken"));
    let applied = world.kubectl(&APPLY, token).await;
    assert_eq!(applied.stderr, "");
    applied.succeeded();
}
