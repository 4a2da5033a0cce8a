//! What is measured, one after another.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::api::PostParams;

use super::bed::{Bed, NAMESPACE};
use super::meter::Requests;
use super::operator::Operator;
use super::report::{Figures, Row};
use super::{Args, floor, say, seconds};

const LOOK: Duration = Duration::from_millis(100);
/// For any phase to end.
const PATIENCE: Duration = Duration::from_secs(1800);
/// For the operator to come to rest after a start.
const REST: Duration = Duration::from_secs(5);
/// It is at rest when nothing was asked of the apiserver for so long: events are posted some time after what they tell of.
const QUIET: Duration = Duration::from_secs(3);
/// The token lifetime: so many times what an issue of all takes. A fifth of it is the time for renewals, and nothing expires in it
/// that is renewed no slower than it was issued.
const LIFETIME_FACTOR: f64 = 10.0;
/// At least this many seconds, so that all that comes before the end fits in.
const SHORTEST_LIFETIME: f64 = 300.0;

/// All figures for the resources of `bed`.
pub(super) async fn measure(bed: &Bed, args: &Args, foreign: usize) -> anyhow::Result<Figures> {
    let mut rows = Vec::new();
    say("  floor");
    let floor = floor::writes(bed, args.concurrency).await?;
    let asked_apart =
        Duration::from_millis(args.latency) * u32::try_from(bed.resources)? / u32::try_from(args.concurrency)?;
    let lifetime = (seconds(floor + asked_apart) * LIFETIME_FACTOR).max(SHORTEST_LIFETIME);
    bed.issuer.set_lifetime(Duration::from_secs_f64(lifetime.round()));

    empty(bed, &mut rows).await?;
    bed.make_resources(NAMESPACE).await?;
    let issued = issue(bed, floor, asked_apart, &mut rows).await?;
    idle(bed, args, &issued, &mut rows).await?;
    let settled = issued.memory()?.0;
    issued.stop().await?;
    let restarted = restart(bed, &mut rows).await?;
    let (_, alone) = restarted.memory()?;
    restarted.stop().await?;
    if foreign > 0 {
        among_foreign_secrets(bed, foreign, alone, &mut rows).await?;
    }
    let operator = due_at_once(bed, args, &mut rows).await?;
    if !args.skip_renewal {
        renewal(bed, args, &mut rows).await?;
    }
    let (now, _) = operator.memory()?;
    rows.push(Row::new("memory after renewals, MiB", now).beside("settled before", settled));
    operator.stop().await?;
    Ok(Figures { resources: bed.resources, rows })
}

/// The operator with nothing to do.
async fn empty(bed: &Bed, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    say("  no resources");
    let operator = bed.operator()?;
    operator.ready().await?;
    tokio::time::sleep(REST).await;
    rows.push(Row::new("memory with none, MiB", operator.memory()?.0).at_most(14.0, ""));
    operator.stop().await
}

/// All resources get their first token.
async fn issue(bed: &Bed, floor: Duration, asked_apart: Duration, rows: &mut Vec<Row>) -> anyhow::Result<Operator> {
    say("  first tokens");
    let n = bed.resources;
    let before = Requests::read(&bed.client).await?;
    let operator = bed.operator()?;
    wait_for_requests(bed, n).await?;
    wait_until_ready(bed, n).await?;
    let took = operator.age();
    let requests = come_to_rest(bed).await?.since(&before);
    say(&format!("  {requests}"));
    ensure!(bed.issuer.count() == n, "{} requests for {n} tokens", bed.issuer.count());
    let bound = 1.3f64.mul_add(seconds(floor), seconds(asked_apart));
    rows.push(
        Row::new("from start to all ready, s", seconds(took))
            .beside("floor", seconds(floor))
            .at_most(bound, "1.3 × floor + latency × N / concurrency"),
    );
    let cpu = seconds(operator.cpu()?);
    rows.push(Row::new("CPU for 1,000 tokens, s", cpu * 1000.0 / count(n)).at_most(1.2, ""));
    rows.push(Row::new("apiserver requests for a first token", per(requests.of_work(), n)).at_most(6.0, ""));
    let (settled, peak) = operator.memory()?;
    let goal = match n {
        0..=1000 => 20.0,
        1001.. => 64.0,
    };
    rows.push(Row::new("memory settled, MiB", settled).at_most(goal, ""));
    rows.push(Row::new("memory at its highest, MiB", peak).at_most(1.5 * settled, "1.5 × settled"));
    Ok(operator)
}

/// Nothing happens, and nothing should.
async fn idle(bed: &Bed, args: &Args, operator: &Operator, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    say(&format!("  at rest for {} s", args.idle));
    let (requests, cpu) = (Requests::read(&bed.client).await?, operator.cpu()?);
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    let cpu = operator.cpu()?.saturating_sub(cpu);
    let requests = Requests::read(&bed.client).await?.since(&requests);
    rows.push(
        Row::new("at rest: requests but for watches and the Lease", count_u64(requests.of_work())).at_most(0.0, ""),
    );
    let minute = 60.0 / f64::from(u32::try_from(args.idle.max(1))?);
    rows.push(Row::new("at rest: CPU in a minute, s", seconds(cpu) * minute).at_most(0.1, ""));
    Ok(())
}

/// Started again with all tokens there.
async fn restart(bed: &Bed, rows: &mut Vec<Row>) -> anyhow::Result<Operator> {
    say("  restart");
    let floor = floor::lists(bed).await?;
    let before = Requests::read(&bed.client).await?;
    let operator = bed.operator()?;
    let ready = operator.ready().await?;
    tokio::time::sleep(REST).await;
    let requests = Requests::read(&bed.client).await?.since(&before);
    say(&format!("  {requests}"));
    ensure!(bed.issuer.count() == bed.resources, "a restart has cost a token");
    rows.push(Row::new("restart: requests for resources", count_u64(requests.of_work())).at_most(0.0, ""));
    let lists = count(bed.resources) / 40.0;
    rows.push(Row::new("restart: requests in all", count_u64(requests.all())).at_most(lists.max(10.0), "N / 40"));
    rows.push(
        Row::new("restart: ready after, s", seconds(ready))
            .beside("floor", seconds(floor))
            .at_most(1.5f64.mul_add(seconds(floor), STARTING), "1.5 × floor, and 0.2 s for the process to start"),
    );
    let cpu = seconds(operator.cpu()?);
    rows.push(
        Row::new("restart: CPU, s", cpu).at_most((count(bed.resources) * 0.5 / 10_000.0).max(0.1), "0.5 for 10,000"),
    );
    Ok(operator)
}

/// What a process takes before its first call: of no weight with many resources.
const STARTING: f64 = 0.2;

/// The same among Secrets of others.
async fn among_foreign_secrets(bed: &Bed, foreign: usize, alone: f64, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    bed.make_foreign_secrets(foreign).await?;
    let operator = bed.operator()?;
    operator.ready().await?;
    tokio::time::sleep(REST).await;
    let (_, peak) = operator.memory()?;
    rows.push(
        Row::new("restart among Secrets of others: memory at its highest, MiB", peak)
            .beside("alone", alone)
            .at_most(alone * 1.1, "1.1 × alone"),
    );
    operator.stop().await
}

/// All renewals are due when the operator starts, and then comes a new resource.
async fn due_at_once(bed: &Bed, args: &Args, rows: &mut Vec<Row>) -> anyhow::Result<Operator> {
    say("  all renewals due at once");
    let (n, asked) = (bed.resources, bed.issuer.count());
    bed.ask_for_renewals("now").await?;
    let before = Requests::read(&bed.client).await?;
    let operator = bed.operator()?;
    operator.ready().await?;
    let began = Instant::now();
    bed.tokens().create(&PostParams::default(), &bed.token(NAMESPACE, "new")).await?;
    bed.issuer.wait_for_count_of("new", 1, PATIENCE).await;
    let new = loop {
        let status = bed.tokens().get("new").await?.status.unwrap_or_default();
        if status.expires_at.is_some() {
            break began.elapsed();
        }
        tokio::time::sleep(LOOK / 5).await;
    };
    let left = (asked + n + 1).saturating_sub(bed.issuer.count());
    rows.push(
        Row::new("a new resource among them: token after, s", seconds(new))
            .beside("renewals still due", count(left))
            .at_most(2.0, ""),
    );
    wait_for_requests(bed, asked + n + 1).await?;
    let took = operator.age();
    let requests = come_to_rest(bed).await?.since(&before);
    say(&format!("  {requests}"));
    ensure!(bed.issuer.count() == asked + n + 1, "{} requests for {n} renewals", bed.issuer.count() - asked);
    rows.push(Row::new("all renewals due at once: done after, s", seconds(took)));
    rows.push(Row::new("apiserver requests for a renewal", per(requests.of_work(), n + 1)).at_most(7.0, ""));
    rows.push(
        Row::new("requests in flight at the issuer, at most", count(bed.issuer.max_in_flight()))
            .at_most(count(args.concurrency), "--issuer-concurrency"),
    );
    Ok(operator)
}

/// The tokens come to their end by themselves.
async fn renewal(bed: &Bed, args: &Args, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    say("  waiting for the tokens' end");
    let (n, asked) = (bed.resources + 1, bed.issuer.count());
    let last = bed.issuer.issued().into_iter().rev().take(n).collect::<Vec<_>>();
    wait_for_requests(bed, asked + n).await?;
    tokio::time::sleep(REST).await;
    // Those that were renewed first may be due again already if there are very many.
    let renewed = bed.issuer.issued().into_iter().skip(asked).take(n).collect::<Vec<_>>();
    let mut expired = 0;
    let mut margin = f64::MAX;
    for before in &last {
        let after = renewed.iter().find(|after| after.tag == before.tag);
        let end = before.at.as_second() + i64::try_from(before.lifetime.as_secs())?;
        let left = after.map_or(-1, |after| end - after.at.as_second());
        expired += usize::from(left < 0);
        margin = margin.min(f64::from(i32::try_from(left)?));
    }
    let times = renewed.iter().map(|issued| issued.at.as_second());
    let spread = times.clone().max().unwrap_or_default() - times.min().unwrap_or_default();
    let issued = last.iter().map(|issued| issued.at.as_second());
    let before = issued.clone().max().unwrap_or_default() - issued.min().unwrap_or_default();
    rows.push(
        Row::new("renewal: spread over, s", f64::from(i32::try_from(spread)?))
            .beside("issued within", f64::from(i32::try_from(before)?)),
    );
    rows.push(Row::new("renewal: least time left, s", margin));
    rows.push(Row::new("renewal: tokens that expired before", count(expired)).at_most(0.0, ""));
    rows.push(
        Row::new("renewal: requests in flight at the issuer, at most", count(bed.issuer.max_in_flight()))
            .at_most(count(args.concurrency), "--issuer-concurrency"),
    );
    ensure!(bed.count_ready().await? == n, "not all are ready after their renewal");
    Ok(())
}

async fn wait_for_requests(bed: &Bed, wanted: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while bed.issuer.count() < wanted {
        ensure!(began.elapsed() < PATIENCE, "{} of {wanted} requests", bed.issuer.count());
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until nothing is asked of the apiserver any more, and returns what was until then.
async fn come_to_rest(bed: &Bed) -> anyhow::Result<Requests> {
    let began = Instant::now();
    let mut before = Requests::read(&bed.client).await?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = Requests::read(&bed.client).await?;
        if now.since(&before).of_work() == 0 {
            return Ok(now);
        }
        ensure!(began.elapsed() < PATIENCE, "no rest: {}", now.since(&before));
        before = now;
    }
}

/// The last resources become ready one after another: only the very last is asked for, until it is.
async fn wait_until_ready(bed: &Bed, wanted: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut waiting = None;
        bed.list(|token| {
            if token.status.as_ref().is_none_or(|status| status.expires_at.is_none()) {
                waiting.clone_from(&token.metadata.name);
            }
        })
        .await?;
        if waiting.is_none() {
            ensure!(bed.count_ready().await? == wanted, "not all are ready");
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{waiting:?} is not ready");
        tokio::time::sleep(LOOK).await;
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn count_u64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn per(number: u64, each: usize) -> f64 {
    count_u64(number) / count(each)
}
