//! `cargo scale`: what the operator costs with ten thousand tokens, beside the floor.

use std::process::ExitCode;

use clap::Parser;
use testbed::scale::{Args, run};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    Ok(if run(Args::parse()).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
