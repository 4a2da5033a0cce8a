//! What the operator costs, measured against the floor: the same calls made by a bare loop in the same run.
//!
//! ```text
//! floor     the writes of an issue, by a bare loop
//! empty     the operator with nothing to do
//! issue     N resources, none with a token
//! idle      all settled, then a scrape of the metrics
//! restart   stopped and started, beside a bare list of the same objects
//! foreign   started once more, among Secrets of others
//! due       all renewals due at once, and one new resource among them
//! renewal   the tokens come to their end by themselves
//! ```

mod account;
mod bed;
mod floor;
mod growth;
mod meter;
mod operator;
mod phases;
mod renewals;
mod report;
mod requests;
mod waits;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;

use crate::demo::build;
use bed::Bed;
use meter::Machine;
use report::{Report, Setup};

/// The beginning of the name of the dynamic linker, which stands near the head of who needs it.
const INTERPRETER: &[u8] = b"/ld-linux";
/// How often is told how far it is.
const TELL: Duration = Duration::from_secs(5);

/// Measures time, requests, CPU and memory of the operator with many tokens, beside the floor
///
/// The floor is what a bare loop takes for the same calls, with the operator's client and rights and as many at a time, in the
/// same run: times depend on the machine, ratios to the floor hardly do. Goals in seconds of CPU, and the one for the absolute
/// time, are longer where the floor makes fewer calls in a second than where they were set.
///
/// One after another for each number of resources, in a control plane of its own each. Requests are counted in the apiserver's
/// audit log, those of the operator's account only.
///
/// The control plane is etcd without fsync, kube-apiserver and kube-controller-manager of KUBEBUILDER_ASSETS if that is set, and
/// else those that are built with Go on the first use.
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

    /// Resources worked on at a time; the operator's default is 32. Twice --issuer-concurrency, so that there is room to stand in line
    #[arg(long, default_value_t = 64, value_name = "NUMBER")]
    pub concurrency: usize,

    /// Token requests in flight at a time, and issues at a time of the floor; the operator's default is 8
    #[arg(long, default_value_t = 32, value_name = "NUMBER")]
    pub issuer_concurrency: usize,

    /// Secrets of others, 10 kB each, in the namespace when the operator is restarted among them; with the largest number of resources
    #[arg(long, default_value_t = 20_000, value_name = "NUMBER")]
    pub foreign_secrets: usize,

    /// Seconds for which the settled operator is watched
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub idle: u64,

    /// Leave out the wait for tokens to come to their end
    #[arg(long)]
    pub skip_renewal: bool,

    /// Judge by counts only, which are the same on any machine, and by no time, CPU or memory
    #[arg(long)]
    pub counts_only: bool,

    /// The operator's binary, such as that of the image; built from this repository for this machine if left out
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
    let (mut sizes, mut setup) = (Vec::new(), None);
    for &resources in &args.resources {
        say(&format!("{resources} resources"));
        let bed = Bed::new(&args, program.clone(), resources).await?;
        if setup.is_none() {
            setup = Some(look(&args, &program, &bed).await?);
        }
        let foreign = if resources == most { args.foreign_secrets } else { 0 };
        sizes.push(phases::measure(&bed, &args, foreign).await?);
    }
    let report = Report::new(setup.context("no number of resources")?, sizes, args.counts_only);
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(report.is_met())
}

async fn look(args: &Args, program: &Path, bed: &Bed) -> anyhow::Result<Setup> {
    let version = tokio::process::Command::new(program).arg("--version").output().await?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Ok(Setup {
        machine: Machine::look()?,
        operator: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
        linked: if is_static(program)? { "static, as in the image" } else { "dynamic" },
        commit: image::operator::revision(&workspace),
        apiserver: bed.client.apiserver_version().await?.git_version,
        etcd: bed.cluster.etcd_version().await?,
        latency_ms: args.latency,
        concurrency: args.concurrency,
        issuer_concurrency: args.issuer_concurrency,
        foreign_secrets: args.foreign_secrets,
    })
}

/// Whether a program brings its C library, and with it the allocator: an ELF file without an interpreter.
fn is_static(program: &Path) -> anyhow::Result<bool> {
    let head = std::fs::read(program)?.into_iter().take(4096).collect::<Vec<u8>>();
    Ok(!head.windows(INTERPRETER.len()).any(|part| part == INTERPRETER))
}

/// Progress, beside the table.
fn say(what: &str) {
    #[expect(clippy::print_stderr, reason = "a command shows how far it is")]
    {
        eprintln!("{what}");
    }
}

/// Waits for `work`, and says every few seconds how many of `all` are `done`.
async fn progress<T>(
    what: &str,
    all: usize,
    began: Instant,
    done: impl Fn() -> usize,
    work: impl Future<Output = T>,
) -> T {
    let telling = async {
        loop {
            tokio::time::sleep(TELL).await;
            say(&format!("  {what}: {} of {all} after {:.0} s", done(), seconds(began.elapsed())));
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = telling => unreachable!("it goes on for ever"),
    }
}

/// Seconds, with what comes after the point.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
