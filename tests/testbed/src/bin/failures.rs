//! `cargo failures`: what broken setups cost in a simulated day, measured against a real control plane.

use std::process::ExitCode;

use clap::Parser;
use testbed::World;
use testbed::day::{HEAD, Setup, cost};

/// Measures what broken setups cost in a simulated day: token requests, and attempts to connect
///
/// For each setup, one resource and then many with the same host and user name. The operator's own code runs against a real
/// apiserver and a scripted issuer that counts; only the waits are skipped. Some twenty minutes on two cores, once everything is built; fewer resources take less.
///
/// Exit code: 0 if no resource cost more than its bound, else 1.
#[derive(Parser, Clone, Copy, Debug)]
#[command(name = "cargo failures")]
struct Args {
    /// How many resources share the host and the user name in the second measurement of each setup
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(2..=1000))]
    resources: u16,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut kept = true;
    println!("{HEAD}");
    for setup in Setup::ALL {
        for resources in [1, usize::from(args.resources)] {
            let world = World::new().await;
            let cost = cost(&world, setup, resources).await;
            println!("{}", cost.row(setup));
            kept &= cost.most() <= setup.bound();
        }
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
