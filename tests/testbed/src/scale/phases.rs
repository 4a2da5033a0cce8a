//! What is measured, one after another.

use std::time::Duration;

use anyhow::ensure;

use super::bed::{Bed, NAMESPACE};
use super::floor::{self, Floor};
use super::operator::Operator;
use super::report::{Figures, Row, Totals};
use super::{Args, renewals, say, seconds, waits};

/// For the operator to come to rest after a start.
pub(super) const REST: Duration = Duration::from_secs(5);
/// The lifetime of tokens that nobody waits for: they come to no end while anything else is measured.
const LONG: Duration = Duration::from_secs(43_199);
/// For etcd to write down what it has freed.
const ETCD_COMMITS: Duration = Duration::from_secs(1);
/// What a process takes before its first call: of no weight with many resources.
const STARTING: f64 = 0.2;

/// The measuring of one number of resources.
pub(super) struct Run<'a> {
    pub(super) bed: &'a Bed,
    pub(super) args: &'a Args,
    pub(super) figures: Figures,
    /// What the bare loop took, and what the issuer takes for all by its latency.
    pub(super) floor: Floor,
    pub(super) asked_apart: Duration,
}

/// All figures for the resources of `bed`.
pub(super) async fn measure(bed: &Bed, args: &Args, foreign: usize) -> anyhow::Result<Figures> {
    say("  floor");
    let figures =
        Figures { resources: bed.resources, rows: Vec::new(), requests: Vec::new(), totals: Totals::default() };
    let asked_apart =
        Duration::from_millis(args.latency) * u32::try_from(bed.resources)? / u32::try_from(args.issuer_concurrency)?;
    let floor = Floor::measure(bed, args.issuer_concurrency).await?;
    let mut run = Run { bed, args, figures, floor, asked_apart };

    bed.issuer.set_lifetime(LONG);
    run.empty().await?;
    let stored = stored(bed).await?;
    bed.make_resources(NAMESPACE).await?;
    let issued = run.issue(stored).await?;
    run.idle(&issued).await?;
    run.scrape(&issued).await?;
    issued.stop().await?;
    run.stored(stored).await?;
    let restarted = run.restart().await?;
    let (_, alone) = restarted.memory()?;
    restarted.stop().await?;
    if foreign > 0 {
        run.among_foreign_secrets(foreign, alone).await?;
    }
    let operator = renewals::due_at_once(&mut run).await?;
    if !args.skip_renewal {
        renewals::by_time(&mut run).await?;
    }
    let (now, peak) = operator.memory()?;
    run.row(Row::new("memory after renewals, MiB", now).beside("settled before", run.figures.totals.memory_settled));
    run.row(Row::new("memory after renewals: at its highest, MiB", peak).at_most(1.5 * now, "1.5 × settled"));
    operator.stop().await?;
    Ok(run.figures)
}

// === impl Run ===

impl Run<'_> {
    pub(super) fn row(&mut self, row: Row) {
        self.figures.rows.push(row);
    }

    /// The operator with nothing to do.
    async fn empty(&mut self) -> anyhow::Result<()> {
        say("  no resources");
        let operator = self.bed.operator()?;
        operator.ready().await?;
        tokio::time::sleep(REST).await;
        let (memory, _) = operator.memory()?;
        self.figures.totals.memory_with_none = memory;
        self.row(Row::new("memory with none, MiB", memory).at_most(14.0, ""));
        operator.stop().await
    }

    /// All resources get their first token.
    async fn issue(&mut self, stored: u64) -> anyhow::Result<Operator> {
        say("  first tokens");
        let (bed, n) = (self.bed, self.bed.resources);
        let (before, control_plane) = (bed.requests()?, bed.control_plane_cpu()?);
        let operator = bed.operator()?;
        waits::requests(bed, "first tokens", 0, n).await?;
        waits::tokens(bed).await?;
        let took = seconds(operator.age());
        ensure!(bed.count_ready().await? == n, "not all are ready");
        let requests = waits::rest(bed).await?.since(&before);
        let cpu = seconds(operator.cpu()?);
        let control_plane = bed.control_plane_cpu()?.since(control_plane);
        ensure!(bed.issuer.count() == n, "{} requests for {n} tokens", bed.issuer.count());
        let floor = &self.floor;
        let bound = 1.3f64.mul_add(seconds(floor.writes), seconds(self.asked_apart));
        let (absolute, cpu_bound) = (floor.goal(8.0), floor.goal(1.2));
        let (floor, speed, client) = (seconds(floor.writes), floor.calls_per_second, per_1000(seconds(floor.cpu), n));
        self.row(Row::new(
            "the floor's calls in a second; 800 to 1,240 where the goals in seconds were set",
            speed.round(),
        ));
        self.row(
            Row::new("from start to all ready, s", took)
                .beside("floor", floor)
                .at_most(bound, "1.3 × floor + latency × N / issuer concurrency"),
        );
        if n == 1000 {
            self.row(
                Row::new("from start to all ready, in absolute time, s", took)
                    .at_most(absolute, "8, and more where the floor is slower"),
            );
        }
        self.row(
            Row::new("CPU for 1,000 tokens, s", per_1000(cpu, n))
                .beside("the floor's client", client)
                .at_most(cpu_bound, "1.2, and more where the floor is slower"),
        );
        self.row(Row::new("CPU of the apiserver for 1,000 tokens, s", per_1000(control_plane.apiserver, n)));
        self.row(Row::new("CPU of etcd for 1,000 tokens, s", per_1000(control_plane.etcd, n)));
        self.row(Row::count("apiserver requests for a first token", per(requests.of_work(), n)).at_most(6.0, ""));
        let written = bed.cluster.etcd_bytes().await?.saturating_sub(stored);
        self.row(Row::new("etcd, for a resource until it is compacted, bytes", per(written, n).round()));
        let (settled, peak) = operator.memory()?;
        let goal = if n <= 1000 { 20.0 } else { 64.0 };
        self.row(Row::new("memory settled, MiB", settled).at_most(goal, ""));
        self.row(Row::new("memory at its highest, MiB", peak).at_most(1.5 * settled, "1.5 × settled"));
        self.figures.requests.push(("first tokens", requests));
        let totals = &mut self.figures.totals;
        (totals.seconds_to_ready, totals.cpu_seconds, totals.memory_settled) = (took, cpu, settled);
        Ok(operator)
    }

    /// Nothing happens, and nothing should.
    async fn idle(&mut self, operator: &Operator) -> anyhow::Result<()> {
        say(&format!("  at rest for {} s", self.args.idle));
        let (before, cpu) = (self.bed.requests()?, operator.cpu()?);
        tokio::time::sleep(Duration::from_secs(self.args.idle)).await;
        let cpu = operator.cpu()?.saturating_sub(cpu);
        let requests = self.bed.requests()?.since(&before);
        self.row(
            Row::count("at rest: requests but for watches and the Lease", whole(requests.at_rest())).at_most(0.0, ""),
        );
        let minute = 60.0 / f64::from(u32::try_from(self.args.idle.max(1))?);
        self.row(Row::new("at rest: CPU in a minute, s", seconds(cpu) * minute).at_most(0.1, ""));
        self.figures.requests.push(("at rest", requests));
        Ok(())
    }

    /// What Prometheus does every half minute.
    async fn scrape(&mut self, operator: &Operator) -> anyhow::Result<()> {
        let cpu = operator.cpu()?;
        let (took, bytes) = operator.scrape().await?;
        let cpu = operator.cpu()?.saturating_sub(cpu);
        let (after, peak) = operator.memory()?;
        let settled = self.figures.totals.memory_settled;
        self.row(Row::count("a scrape of /metrics: kB", (count(bytes) / 1000.0).round()));
        self.row(Row::new("a scrape of /metrics: took, s", seconds(took)).beside("CPU, s", seconds(cpu)));
        self.row(Row::new("a scrape of /metrics: memory after it, MiB", after).beside("settled", settled));
        self.row(
            Row::new("a scrape of /metrics: memory at its highest, MiB", peak).at_most(1.5 * settled, "1.5 × settled"),
        );
        Ok(())
    }

    /// What stays in etcd.
    async fn stored(&mut self, before: u64) -> anyhow::Result<()> {
        let stored = stored(self.bed).await?.saturating_sub(before);
        self.row(Row::new(
            "etcd, for a resource with its Secret and event, bytes",
            per(stored, self.bed.resources).round(),
        ));
        Ok(())
    }

    /// Started again with all tokens there.
    async fn restart(&mut self) -> anyhow::Result<Operator> {
        say("  restart");
        let (bed, n) = (self.bed, self.bed.resources);
        let [floor, client] = floor::lists(bed).await?;
        let before = bed.requests()?;
        let operator = bed.operator()?;
        let ready = operator.ready().await?;
        tokio::time::sleep(REST).await;
        let requests = bed.requests()?.since(&before);
        ensure!(bed.issuer.count() == n, "a restart has cost a token");
        self.row(Row::count("restart: requests for resources", whole(requests.of_work())).at_most(0.0, ""));
        let lists = (count(n) / 40.0).max(10.0);
        self.row(Row::count("restart: requests in all", whole(requests.all())).at_most(lists, "N / 40, or 10"));
        self.row(
            Row::new("restart: ready after, s", seconds(ready))
                .beside("floor", seconds(floor))
                .at_most(1.5f64.mul_add(seconds(floor), STARTING), "1.5 × floor, and 0.2 s for the process to start"),
        );
        let cpu = seconds(operator.cpu()?);
        let bound = self.floor.goal((count(n) * 0.5 / 10_000.0).max(0.1));
        self.row(
            Row::new("restart: CPU, s", cpu)
                .beside("the floor's client", seconds(client))
                .at_most(bound, "0.5 for 10,000, at least 0.1, and more where the floor is slower"),
        );
        self.figures.requests.push(("restart", requests));
        Ok(operator)
    }

    /// The same among Secrets of others.
    async fn among_foreign_secrets(&mut self, foreign: usize, alone: f64) -> anyhow::Result<()> {
        say("  restart among Secrets of others");
        self.bed.make_foreign_secrets(foreign).await?;
        let operator = self.bed.operator()?;
        operator.ready().await?;
        tokio::time::sleep(REST).await;
        let (_, peak) = operator.memory()?;
        self.row(
            Row::new("restart among Secrets of others: memory at its highest, MiB", peak)
                .beside("alone", alone)
                .at_most(alone * 1.1, "1.1 × alone"),
        );
        operator.stop().await
    }
}

/// Bytes that etcd holds without history.
async fn stored(bed: &Bed) -> anyhow::Result<u64> {
    bed.cluster.compact_etcd().await?;
    tokio::time::sleep(ETCD_COMMITS).await;
    bed.cluster.etcd_bytes().await
}

pub(super) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn whole(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

pub(super) fn per(number: u64, each: usize) -> f64 {
    whole(number) / count(each)
}

pub(super) fn per_1000(seconds: f64, resources: usize) -> f64 {
    seconds * 1000.0 / count(resources)
}
