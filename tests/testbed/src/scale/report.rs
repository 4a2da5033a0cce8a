//! The table at the end.

use std::fmt;

use serde::Serialize;

/// What was measured with one number of resources.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) resources: usize,
    pub(super) rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: &'static str,
    value: f64,
    /// What it is to be compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<(&'static str, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
}

/// What it should be at most.
#[derive(Debug, Serialize)]
struct Goal {
    at_most: f64,
    /// Where that comes from, if it is not a number by itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    of: &'static str,
    met: bool,
}

/// All figures.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report(Vec<Figures>);

// === impl Row ===

impl Row {
    pub(super) const fn new(what: &'static str, value: f64) -> Self {
        Self { what, value, beside: None, goal: None }
    }

    pub(super) const fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.beside = Some((what, value));
        self
    }

    pub(super) fn at_most(mut self, at_most: f64, of: &'static str) -> Self {
        self.goal = Some(Goal { at_most, of, met: self.value <= at_most });
        self
    }
}

// === impl Report ===

impl Report {
    pub(super) fn add(&mut self, figures: Figures) {
        self.0.push(figures);
    }

    /// Whether every goal is met.
    pub(super) fn is_met(&self) -> bool {
        self.0.iter().flat_map(|figures| &figures.rows).all(|row| row.goal.as_ref().is_none_or(|goal| goal.met))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| N | | measured | beside it | goal | |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Figures { resources, rows } in &self.0 {
            for Row { what, value, beside, goal } in rows {
                let beside = beside.map(|(what, value)| format!("{what} {}", number(value))).unwrap_or_default();
                let (goal, verdict) = goal.as_ref().map_or_else(Default::default, |goal| {
                    let of = if goal.of.is_empty() { String::new() } else { format!(" ({})", goal.of) };
                    (format!("≤ {}{of}", number(goal.at_most)), if goal.met { "met" } else { "MISSED" })
                });
                writeln!(f, "| {resources} | {what} | {} | {beside} | {goal} | {verdict} |", number(*value))?;
            }
        }
        self.growth(f)
    }
}

impl Report {
    /// The slope of what should grow with the number of resources and no faster, between each two sizes.
    fn growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in self.0.windows(2) {
            let [small, large] = pair else { continue };
            let more = f64::from(u32::try_from(large.resources.saturating_sub(small.resources)).unwrap_or(u32::MAX));
            for what in ["from start to all ready, s", "memory settled, MiB"] {
                let value = |figures: &Figures| figures.rows.iter().find(|row| row.what == what).map(|row| row.value);
                if let (Some(before), Some(after)) = (value(small), value(large)) {
                    let slope = (after - before) * 1000.0 / more;
                    let (from, to) = (small.resources, large.resources);
                    writeln!(f, "| {from} to {to} | {what}: for each 1,000 more | {} | | | |", number(slope))?;
                }
            }
        }
        Ok(())
    }
}

/// Whole where it is, else with two digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
