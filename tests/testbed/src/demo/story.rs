//! What happens, step by step.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::say;
use super::stage::{End, PASSWORD, PATIENCE, Stage, USERNAME};
use super::table::{Row, Table};

/// The lifetime that the issuer gives by itself.
const LONG: Duration = Duration::from_secs(43199);
/// One that ends within the demo. Its last fifth is the margin in which it is renewed.
const SHORT: Duration = Duration::from_secs(20);
/// For an expiry, on a busy machine.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(90);

/// All of it. `table` is what it came to.
pub(super) async fn tell(stage: &mut Stage, table: &mut Table, restarts: u16) -> anyhow::Result<()> {
    first_token(stage).await?;
    crash(stage).await?;
    rolling_restarts(stage, restarts).await?;
    let before = stage.restarts;
    renewal(stage).await?;
    expiry_while_down(stage).await?;
    say::step("Look at both once more");
    for (name, count) in [("flight", 1), ("short", 3)] {
        stage.holds_at(name, count).await?;
    }
    stage.kubectl("get vt -o wide").await?;
    for (resource, lifetime, restarts, expiries) in
        [("flight", LONG, stage.restarts, 0), ("short", SHORT, stage.restarts - before, 2)]
    {
        table.0.push(Row {
            resource,
            lifetime: format!("{} s", lifetime.as_secs()),
            restarts,
            expiries,
            expected: 1 + expiries,
            counted: stage.issuer.count_for(resource),
        });
    }
    Ok(())
}

async fn first_token(stage: &mut Stage) -> anyhow::Result<()> {
    say::step("Start the operator");
    say::command(&format!("verteil-token-operator --namespaces=default {}", stage.flags().join(" ")));
    let took = stage.start_operator().await?;
    say::note(&format!("ready after {:.1} s", took.as_secs_f64()));

    say::step("Ask for a token: a Secret with the credentials, and a VerteilToken that names it");
    stage
        .apply(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: verteil-credentials\nstringData:\n  username: {USERNAME}\n  password: {PASSWORD}\n"
        ))
        .await?;
    stage.apply(&resource(stage, "flight")).await?;
    stage.kubectl("wait --for=condition=Ready vt/flight --timeout=60s").await?;
    stage.kubectl("get vt").await?;
    stage.seen("flight").await?;
    stage.holds_at("flight", 1).await?;
    say::note("requests at the issuer: 1");

    say::step("Look into the Secret (decoded here, tokens masked)");
    say::command("kubectl get secret flight -o yaml");
    say::output(&masked(stage, "flight").await?);
    Ok(())
}

/// A minimal resource.
fn resource(stage: &Stage, name: &str) -> String {
    format!(
        "apiVersion: verteil.dev/v1alpha1\nkind: VerteilToken\nmetadata:\n  name: {name}\nspec:\n  tokenURL: {}\n  credentialsSecretRef:\n    name: verteil-credentials\n",
        stage.issuer.url_for(name)
    )
}

async fn crash(stage: &mut Stage) -> anyhow::Result<()> {
    say::step("Kill the operator with SIGKILL, and start it again");
    let pid = stage.operator.as_ref().context("no operator runs")?.process().pid();
    say::command(&format!("kill -9 {pid}"));
    stage.stop_operator(End::Kill).await?;
    let took = stage.start_operator().await?;
    stage.holds_at("flight", 1).await?;
    stage.kubectl("get vt").await?;
    say::note(&format!(
        "ready after {:.1} s; the same token, the same expiry, requests at the issuer: 1",
        took.as_secs_f64()
    ));
    Ok(())
}

async fn rolling_restarts(stage: &mut Stage, restarts: u16) -> anyhow::Result<()> {
    say::step("Restart it again and again; each time the Secret is relabelled meanwhile, so that it must be looked at");
    say::command("kubectl label secret flight restart=<number> --overwrite");
    for number in 2..=restarts {
        let (end, name) = if number % 2 == 0 { (End::Terminate, "SIGTERM") } else { (End::Kill, "SIGKILL") };
        stage.stop_operator(end).await?;
        stage.quietly(&format!("label secret flight restart={number} --overwrite")).await?;
        let took = stage.start_operator().await?;
        stage.seen("flight").await?;
        stage.holds_at("flight", 1).await?;
        say::note(&format!(
            "{number} of {restarts}, {name}: ready after {:.1} s, same token, requests at the issuer: {}",
            took.as_secs_f64(),
            stage.issuer.count_for("flight")
        ));
    }
    Ok(())
}

async fn renewal(stage: &mut Stage) -> anyhow::Result<()> {
    say::step(&format!("Let a token reach its end: a second resource, whose tokens live for {} s", SHORT.as_secs()));
    stage.issuer.set_lifetime(SHORT);
    stage.apply(&resource(stage, "short")).await?;
    stage.kubectl("wait --for=condition=Ready vt/short --timeout=60s").await?;
    let status = stage.seen("short").await?;
    let due = status.renewal_time.context("no renewal time in the status")?.0;
    let expiry = status.expires_at.context("no expiry in the status")?.0;
    stage.kubectl("get vt").await?;
    say::note("SIGTERM and a new start before the renewal is due:");
    stage.stop_operator(End::Terminate).await?;
    stage.start_operator().await?;
    let count = stage.issuer.count_for("short");
    ensure!(count == 1 || Timestamp::now() >= due, "{count} requests before the renewal was due");
    say::note(&format!("requests for this resource: {count}; the next one is due at {due}, expiry at {expiry}"));
    second_request(stage, due).await?;
    let requested = stage.issuer.requests_for("short").get(1).context("no second request")?.at;
    ensure!(requested >= due, "requested at {requested}, before the renewal point {due}");
    stage.seen("short").await?;
    ensure!(stage.issuer.count_for("short") == 2, "more than one request for one expiry:\n{}", stage.issuer.log());
    say::note(&format!("requested at {requested:.1}, not before it was due; requests for this resource: 2"));
    Ok(())
}

async fn second_request(stage: &Stage, due: Timestamp) -> anyhow::Result<()> {
    say::wait("the renewal", EXPIRY_PATIENCE, async || match stage.issuer.count_for("short") {
        0 | 1 => Err(format!("due in {} s", due.duration_since(Timestamp::now()).as_secs().max(0))),
        _ => Ok(()),
    })
    .await
}

async fn expiry_while_down(stage: &mut Stage) -> anyhow::Result<()> {
    say::step("Kill the operator and let the token expire while nobody is there");
    stage.stop_operator(End::Kill).await?;
    let expiry = stage.status("short").await?.expires_at.context("no expiry in the status")?.0;
    say::wait("the expiry", EXPIRY_PATIENCE, async || {
        let left = expiry.duration_since(Timestamp::now()).as_secs();
        if left < 0 { Ok(()) } else { Err(format!("{left} s left")) }
    })
    .await?;
    ensure!(stage.issuer.count_for("short") == 2, "a request without an operator:\n{}", stage.issuer.log());
    say::note("expired; the Secret is still there, so that pods can start. The operator starts again:");
    // Long-lived from here on, so that the last count stands still.
    stage.issuer.set_lifetime(LONG);
    let start = Instant::now();
    stage.start_operator().await?;
    say::wait("the request that follows", PATIENCE, async || match stage.issuer.count_for("short") {
        0..3 => Err("none yet".to_owned()),
        _ => Ok(()),
    })
    .await?;
    stage.seen("short").await?;
    stage.holds_at("short", 3).await?;
    say::note(&format!(
        "a new token within {:.1} s of the start; requests for this resource: 3",
        start.elapsed().as_secs_f64()
    ));
    say::note("and one restart more, which costs nothing:");
    stage.stop_operator(End::Kill).await?;
    stage.start_operator().await?;
    stage.holds_at("short", 3).await?;
    say::note("requests for this resource: 3");
    Ok(())
}

/// The Secret's keys and values, no token among them.
async fn masked(stage: &Stage, name: &str) -> anyhow::Result<String> {
    let token = stage.issuer.last_token(name).context("no token was issued")?;
    let secret = stage.secret(name).await?;
    let annotations = secret.metadata.annotations.unwrap_or_default();
    let expiry = annotations.get("verteil.dev/expires-at").context("no expiry among the annotations")?;
    let mut lines = vec![format!("metadata.annotations[verteil.dev/expires-at]: {expiry}")];
    for (key, value) in secret.data.unwrap_or_default() {
        lines.push(format!("data[{key}]: {}", String::from_utf8_lossy(&value.0).replace(&token, "********")));
    }
    Ok(lines.join("\n"))
}
