//! What the operator costs, measured against the floor: the same calls made by a bare loop in the same run.
//!
//! ```text
//! floor     the writes of an issue, by a bare loop
//! empty     the operator with nothing to do
//! issue     N resources, none with a token
//! idle      all settled
//! restart   stopped and started, beside a bare list of the same objects
//! foreign   started once more, among Secrets of others
//! due       all renewals due at once, and one new resource among them
//! renewal   the tokens come to their end by themselves
//! ```

mod bed;
mod floor;
mod meter;
mod operator;
mod phases;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::demo::build;
use bed::Bed;
use report::Report;

/// Measures time, requests, CPU and memory of the operator with many tokens, beside the floor
///
/// The floor is what a bare loop takes for the same calls, with the same client and as many at a time, in the same run: times
/// depend on the machine, ratios to the floor hardly do. One after another for each number of resources, in a control plane of
/// its own each.
///
/// Exit code: 0 if every goal is met, else 1.
#[derive(Parser, Clone, Debug)]
#[command(name = "cargo scale")]
pub struct Args {
    /// Numbers of resources, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000", value_name = "NUMBERS")]
    pub resources: Vec<usize>,

    /// How long the issuer takes to answer, in milliseconds
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pub latency: u64,

    /// Resources worked on, and token requests in flight, at a time
    #[arg(long, default_value_t = 32, value_name = "NUMBER")]
    pub concurrency: usize,

    /// Secrets of others, 10 kB each, in the namespace when the operator is restarted among them; with the largest number of resources
    #[arg(long, default_value_t = 20_000, value_name = "NUMBER")]
    pub foreign_secrets: usize,

    /// Seconds for which the settled operator is watched
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub idle: u64,

    /// Leave out the wait for tokens to come to their end
    #[arg(long)]
    pub skip_renewal: bool,

    /// The operator's binary; built from this repository if left out
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// Also write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Measures and prints. Whether every goal is met.
pub async fn run(args: Args) -> anyhow::Result<bool> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build::operator_in("release").await?,
    };
    let most = args.resources.iter().copied().max().context("no number of resources")?;
    let mut report = Report::default();
    for &resources in &args.resources {
        say(&format!("{resources} resources"));
        let bed = Bed::new(&args, program.clone(), resources).await?;
        let foreign = if resources == most { args.foreign_secrets } else { 0 };
        report.add(phases::measure(&bed, &args, foreign).await?);
    }
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(report.is_met())
}

/// Progress, beside the table.
fn say(what: &str) {
    #[expect(clippy::print_stderr, reason = "a command shows how far it is")]
    {
        eprintln!("{what}");
    }
}

/// Seconds, with what comes after the point.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
