//! `cargo demo`: see `testbed::demo`.

use std::process::ExitCode;

use clap::Parser as _;
use testbed::demo::{Args, interrupted, run};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Dropping the show ends its processes and removes its folders.
    let code = runtime.block_on(async {
        tokio::select! {
            code = run(&args) => code,
            code = interrupted() => code,
        }
    });
    // A build that runs on a thread of the runtime is not waited for: it ends with this process.
    runtime.shutdown_background();
    code
}
