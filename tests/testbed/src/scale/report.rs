//! The tables at the end.

use std::fmt;

use serde::Serialize;

use super::growth::{Growth, STEEPER};
use super::meter::Machine;
use super::requests::Requests;

const MISSED: &str = " **MISSED**";

/// What was measured with one number of resources.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) resources: usize,
    pub(super) rows: Vec<Row>,
    /// What the operator asked of the apiserver, phase by phase.
    #[serde(serialize_with = "as_map")]
    pub(super) requests: Vec<(&'static str, Requests)>,
    pub(super) totals: Totals,
}

/// What should grow no faster than the number of resources.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) seconds_to_ready: f64,
    pub(super) cpu_seconds: f64,
    pub(super) memory_with_none: f64,
    pub(super) memory_settled: f64,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: &'static str,
    value: f64,
    /// A count is the same on any machine.
    count: bool,
    /// What it is to be compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<(&'static str, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
}

/// What it should be.
#[derive(Debug, Serialize)]
struct Goal {
    #[serde(flatten)]
    bound: Bound,
    /// Where that comes from, if it is not a number by itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    of: &'static str,
    met: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What ran where, and how.
#[derive(Debug, Serialize)]
pub(super) struct Setup {
    pub(super) machine: Machine,
    pub(super) operator: String,
    pub(super) linked: &'static str,
    pub(super) commit: Option<String>,
    pub(super) apiserver: String,
    pub(super) etcd: String,
    pub(super) latency_ms: u64,
    pub(super) concurrency: usize,
    pub(super) issuer_concurrency: usize,
    pub(super) foreign_secrets: usize,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    setup: Setup,
    sizes: Vec<Figures>,
    growth: Vec<Growth>,
    counts_only: bool,
    met: bool,
}

// === impl Row ===

impl Row {
    /// Something that depends on the machine.
    pub(super) const fn new(what: &'static str, value: f64) -> Self {
        Self { what, value, count: false, beside: None, goal: None }
    }

    /// Something that does not.
    pub(super) const fn count(what: &'static str, value: f64) -> Self {
        Self { count: true, ..Self::new(what, value) }
    }

    pub(super) const fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.beside = Some((what, value));
        self
    }

    pub(super) fn at_most(mut self, most: f64, of: &'static str) -> Self {
        self.goal = Some(Goal { bound: Bound::AtMost(most), of, met: self.value <= most });
        self
    }

    pub(super) fn at_least(mut self, least: f64, of: &'static str) -> Self {
        self.goal = Some(Goal { bound: Bound::AtLeast(least), of, met: self.value >= least });
        self
    }

    fn is_met(&self, counts_only: bool) -> bool {
        (counts_only && !self.count) || self.goal.as_ref().is_none_or(|goal| goal.met)
    }

    /// The figure with its goal, what stands beside it, and whether it was missed.
    fn cell(&self, counts_only: bool) -> String {
        let goal = self.goal.as_ref().map_or_else(String::new, |goal| match goal.bound {
            Bound::AtMost(most) => format!(" ≤ {}", number(most)),
            Bound::AtLeast(least) => format!(" ≥ {}", number(least)),
        });
        let beside = self.beside.map_or_else(String::new, |(what, value)| format!("; {what} {}", number(value)));
        let missed = if self.is_met(counts_only) { "" } else { MISSED };
        format!("{}{goal}{beside}{missed}", number(self.value))
    }

    /// What it is, and where its goal comes from.
    fn title(&self) -> String {
        let of = self.goal.as_ref().map(|goal| goal.of).filter(|of| !of.is_empty());
        of.map_or_else(|| self.what.to_owned(), |of| format!("{} (goal: {of})", self.what))
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(setup: Setup, sizes: Vec<Figures>, counts_only: bool) -> Self {
        let none = sizes.iter().map(|size| size.totals.memory_with_none).reduce(f64::min).unwrap_or_default();
        let of = |total: fn(&Totals) -> f64| -> Vec<(usize, f64)> {
            sizes.iter().map(|size| (size.resources, total(&size.totals))).collect()
        };
        let growth: Vec<Growth> = [
            Growth::of("time to all ready, s", 0.0, &of(|totals| totals.seconds_to_ready)),
            Growth::of("CPU to all ready, s", 0.0, &of(|totals| totals.cpu_seconds)),
            Growth::of("memory settled, MiB", none, &of(|totals| totals.memory_settled)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let rows_are_met = sizes.iter().flat_map(|size| &size.rows).all(|row| row.is_met(counts_only));
        let met = rows_are_met && (counts_only || growth.iter().all(|growth| growth.linear));
        Self { setup, sizes, growth, counts_only, met }
    }

    /// Whether every goal is met that was to be judged.
    pub(super) const fn is_met(&self) -> bool {
        self.met
    }

    /// A line for each figure, with a column for each number of resources.
    fn write_rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<String> = self.sizes.iter().map(|size| format!(" {} |", thousands(size.resources))).collect();
        writeln!(f, "| |{}\n|---|{}", columns.concat(), "---|".repeat(columns.len()))?;
        let mut written = Vec::new();
        for row in self.sizes.iter().flat_map(|size| &size.rows) {
            if written.contains(&row.what) {
                continue;
            }
            written.push(row.what);
            write!(f, "| {} |", row.title())?;
            for size in &self.sizes {
                let cell = size.rows.iter().find(|other| other.what == row.what);
                write!(f, " {} |", cell.map(|row| row.cell(self.counts_only)).unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.growth.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n| growth | each 1,000 more (fitted) | each 1,000 of the most (goal: 1.3 × the least of fewer) |"
        )?;
        writeln!(f, "|---|---|---|")?;
        for Growth { what, for_1000_more, for_1000_at_most, for_1000_at_least, linear } in &self.growth {
            let missed = if *linear || self.counts_only { "" } else { MISSED };
            let (more, most, least) =
                (number(*for_1000_more), number(*for_1000_at_most), number(*for_1000_at_least * STEEPER));
            writeln!(f, "| {what} | {more} | {most} ≤ {least}{missed} |")?;
        }
        Ok(())
    }

    fn write_requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| N | phase | the operator's requests at the apiserver |\n|---|---|---|")?;
        for Figures { resources, requests, .. } in &self.sizes {
            for (phase, requests) in requests {
                writeln!(f, "| {resources} | {phase} | {requests} |")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.setup)?;
        self.write_rows(f)?;
        self.write_growth(f)?;
        self.write_requests(f)
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, operator, linked, apiserver, etcd, latency_ms, concurrency, issuer_concurrency, .. } = self;
        let commit = self.commit.as_deref().and_then(|commit| commit.get(..12)).unwrap_or("no commit");
        write!(
            f,
            "{operator} ({linked}; {commit}), kube-apiserver {apiserver}, etcd {etcd} without fsync; {machine}; issuer latency \
             {latency_ms} ms, --concurrency {concurrency}, --issuer-concurrency {issuer_concurrency}"
        )
    }
}

fn as_map<S: serde::Serializer>(requests: &[(&'static str, Requests)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(requests.iter().map(|(phase, requests)| (phase, requests)))
}

/// As people write it: 10,000.
fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", thousands(number / 1000), number % 1000) }
}

/// Whole where it is, else with two digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>, counts_only: bool) -> Report {
        let setup = Setup {
            machine: Machine::look().unwrap(),
            operator: "operator 1".into(),
            linked: "dynamic",
            commit: None,
            apiserver: "v1".into(),
            etcd: "3".into(),
            latency_ms: 50,
            concurrency: 32,
            issuer_concurrency: 8,
            foreign_secrets: 0,
        };
        let totals = Totals { seconds_to_ready: 1.0, cpu_seconds: 0.5, memory_with_none: 9.0, memory_settled: 10.0 };
        let figures = Figures { resources: 100, rows, requests: vec![("at rest", Requests::default())], totals };
        Report::new(setup, vec![figures], counts_only)
    }

    #[test]
    fn a_goal_that_is_missed_is_said_and_fails_the_whole() {
        let rows =
            || vec![Row::count("requests", 6.5).at_most(6.0, ""), Row::new("spread, s", 9.0).at_least(8.0, "jitter")];
        let report = report(rows(), false);
        assert!(!report.is_met());
        let table = report.to_string();
        assert!(table.contains("| requests | 6.50 ≤ 6 **MISSED** |\n"), "{table}");
        assert!(table.contains("| spread, s (goal: jitter) | 9 ≥ 8 |\n"), "{table}");
    }

    #[test]
    fn with_counts_only_what_depends_on_the_machine_is_shown_and_not_judged() {
        let slow = || Row::new("time, s", 20.0).beside("floor", 2.5).at_most(8.0, "");
        let few = || Row::count("requests", 6.0).at_most(6.0, "");
        assert!(!report(vec![slow(), few()], false).is_met());
        let report = report(vec![slow(), few()], true);
        assert!(report.is_met());
        let table = report.to_string();
        assert!(table.contains("| time, s | 20 ≤ 8; floor 2.50 |\n"), "{table}");
        assert!(table.contains("| requests | 6 ≤ 6 |\n"), "{table}");
    }

    #[test]
    fn each_size_has_its_column() {
        assert_eq!([100, 1000, 10_000, 1_000_500].map(thousands), ["100", "1,000", "10,000", "1,000,500"]);
        let mut report = report(vec![Row::new("memory, MiB", 9.0), Row::new("alone, MiB", 1.0)], false);
        let totals = report.sizes[0].totals;
        let rows = vec![Row::new("memory, MiB", 15.25)];
        report.sizes.push(Figures { resources: 1000, rows, requests: Vec::new(), totals });
        let table = report.to_string();
        let wanted = "| | 100 | 1,000 |\n|---|---|---|\n| memory, MiB | 9 | 15.25 |\n| alone, MiB | 1 |  |\n";
        assert!(table.contains(wanted), "{table}");
    }

    #[test]
    fn json_has_bounds_and_verdicts() {
        let report = report(vec![Row::count("requests", 6.0).at_most(6.0, "")], false);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["sizes"][0]["rows"][0]["goal"], serde_json::json!({"at_most": 6.0, "met": true}));
        assert_eq!((&json["met"], &json["sizes"][0]["requests"]["at rest"]), (&true.into(), &serde_json::json!({})));
        assert!(json["setup"]["machine"]["cores"].as_u64().unwrap() > 0, "{json}");
    }
}
