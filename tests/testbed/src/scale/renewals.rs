//! Renewals: all due at once, and each at its time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::api::PostParams;
use verteil_token_operator::api::VerteilTokenStatus;

use super::bed::{Bed, NAMESPACE};
use super::operator::Operator;
use super::phases::{REST, Run, count, per, per_1000};
use super::report::Row;
use super::{say, seconds, waits};
use crate::issuer::Issued;

/// The token lifetime: so many times what an issue of all takes. A fifth of it is the time for renewals, and nothing expires in it
/// that is renewed no slower than it was issued.
const LIFETIME_FACTOR: f64 = 10.0;
/// At least this many seconds, so that the jitter can be seen in whole seconds.
const SHORTEST_LIFETIME: f64 = 300.0;
/// For the first request of the new resource.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Of the time over which the jitter may spread renewals, this part is reached by many.
const MOST: f64 = 0.8;

/// All renewals are due when the operator starts, and then comes a new resource.
pub(super) async fn due_at_once(run: &mut Run<'_>) -> anyhow::Result<Operator> {
    say("  all renewals due at once");
    let (bed, n) = (run.bed, run.bed.resources);
    let asked = bed.issuer.count();
    let lifetime = (seconds(run.floor.writes + run.asked_apart) * LIFETIME_FACTOR).max(SHORTEST_LIFETIME);
    bed.issuer.set_lifetime(Duration::from_secs_f64(lifetime.round()));
    bed.ask_for_renewals("now").await?;
    let before = bed.requests()?;
    let operator = bed.operator()?;
    operator.ready().await?;
    let began = Instant::now();
    bed.tokens().create(&PostParams::default(), &bed.token(NAMESPACE, "new")).await?;
    bed.issuer.wait_for_count_of("new", 1, PATIENCE).await;
    waits::token(bed, "new").await?;
    let new = began.elapsed();
    let left = (asked + n + 1).saturating_sub(bed.issuer.count());
    run.row(
        Row::new("a new resource among renewals: token after, s", seconds(new))
            .beside("renewals still due", count(left))
            .at_most(2.0, ""),
    );
    waits::requests(bed, "renewals", asked, n + 1).await?;
    let took = operator.age();
    let requests = waits::rest(bed).await?.since(&before);
    let cpu = seconds(operator.cpu()?);
    ensure!(bed.issuer.count() == asked + n + 1, "{} requests for {n} renewals", bed.issuer.count() - asked - 1);
    run.row(Row::new("all renewals due at once: done after, s", seconds(took)));
    run.row(Row::new("CPU for 1,000 renewals, s", per_1000(cpu, n + 1)));
    run.row(Row::count("apiserver requests for a renewal", per(requests.of_work(), n + 1)).at_most(7.0, ""));
    run.row(in_flight("requests in flight at the issuer, at most", run));
    run.figures.requests.push(("renewals", requests));
    Ok(operator)
}

/// The tokens come to their end by themselves.
pub(super) async fn by_time(run: &mut Run<'_>) -> anyhow::Result<()> {
    say("  waiting for the tokens' end");
    let (bed, n) = (run.bed, run.bed.resources + 1);
    let (asked, before) = (bed.issuer.count(), bed.requests()?);
    let (spread, window) = jitter(bed).await?;
    run.row(
        Row::count("renewal: points spread by the jitter over, s", spread)
            .at_least((window * MOST).floor(), "0.8 × the tenth of a fifth of the lifetime"),
    );
    let issued: Vec<Issued> = bed.issuer.issued().into_iter().rev().take(n).collect();
    waits::requests(bed, "renewals", asked, n).await?;
    tokio::time::sleep(REST).await;
    ensure!(bed.issuer.count() == asked + n, "{} requests for {n} renewals", bed.issuer.count() - asked);
    let renewed: Vec<Issued> = bed.issuer.issued().into_iter().skip(asked).collect();
    let by_name: HashMap<&str, &Issued> = renewed.iter().map(|new| (new.tag.as_str(), new)).collect();
    ensure!(by_name.len() == n, "{} of {n} were renewed", by_name.len());
    let mut left = Vec::new();
    for before in &issued {
        let after = by_name.get(before.tag.as_str()).with_context(|| format!("{} was not renewed", before.tag))?;
        let end = before.at.as_second() + i64::try_from(before.lifetime.as_secs())?;
        left.push(end - after.at.as_second());
    }
    let least = left.iter().min().copied().unwrap_or_default();
    run.row(Row::new("renewal: requests spread over, s", within(&renewed)?).beside("issued within", within(&issued)?));
    run.row(Row::new("renewal: least time left, s", f64::from(i32::try_from(least)?)));
    let expired = left.iter().filter(|left| **left < 0).count();
    run.row(Row::count("renewal: tokens that expired before", count(expired)).at_most(0.0, ""));
    run.row(in_flight("renewal: requests in flight at the issuer, at most", run));
    ensure!(bed.count_ready().await? == n, "not all are ready after their renewal");
    run.figures.requests.push(("renewals by time", waits::rest(bed).await?.since(&before)));
    Ok(())
}

fn in_flight(what: &'static str, run: &Run<'_>) -> Row {
    let most = count(run.args.issuer_concurrency);
    Row::count(what, count(run.bed.issuer.max_in_flight())).at_most(most, "--issuer-concurrency")
}

/// Over how many seconds the statuses spread the renewal points, had all been issued at once; and over how many they may.
async fn jitter(bed: &Bed) -> anyhow::Result<(f64, f64)> {
    let (mut points, mut window) = (Vec::new(), 0);
    bed.list(&bed.client, |token| {
        let renew_before = token.spec.renew_before.signed().as_secs();
        if let Some((point, margin)) = token.status.as_ref().and_then(|status| renewal(status, renew_before)) {
            points.push(point);
            window = margin / 10;
        }
    })
    .await?;
    let spread = points.iter().max().zip(points.iter().min()).map_or(0, |(max, min)| max - min);
    Ok((f64::from(i32::try_from(spread)?), f64::from(i32::try_from(window)?)))
}

/// How long after the issue the renewal is, and the margin before the end in which it lies.
fn renewal(status: &VerteilTokenStatus, renew_before: i64) -> Option<(i64, i64)> {
    let (issued, expires) = (status.issued_at.as_ref()?.0, status.expires_at.as_ref()?.0);
    let margin = renew_before.min((expires.as_second() - issued.as_second()) / 5);
    Some((status.renewal_time.as_ref()?.0.as_second() - issued.as_second(), margin))
}

/// Seconds between the first and the last.
fn within(issued: &[Issued]) -> anyhow::Result<f64> {
    let times = || issued.iter().map(|issued| issued.at.as_second());
    let span = times().max().unwrap_or_default() - times().min().unwrap_or_default();
    Ok(f64::from(i32::try_from(span)?))
}
