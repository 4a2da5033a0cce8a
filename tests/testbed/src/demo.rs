//! `cargo demo`: a real control plane, a local token issuer, and an operator that is killed and started again.
//!
//! What it claims it checks: at the issuer, which counts every request, and in the Secret.

pub(crate) mod build;
mod keep;
mod say;
mod stage;
mod story;
mod table;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use stage::Stage;
use table::Table;

/// How much of the operator's log is shown when something went wrong.
const LOG_LINES: usize = 20;

/// Shows on a real Kubernetes control plane that an OAuth2 token survives every restart of the operator.
///
/// Starts etcd, kube-apiserver and kube-controller-manager on loopback ports and a token issuer that counts its
/// requests; installs the CRD, starts the operator, applies a VerteilToken, kills the operator and starts it again,
/// lets tokens expire, and compares what the issuer has counted with what was to be expected. About a minute, once
/// everything is built. The first use builds Kubernetes with Go (about 8 minutes on two cores), unless
/// KUBEBUILDER_ASSETS names a folder with etcd, kube-apiserver, kube-controller-manager and kubectl.
///
/// Exit code: 0 if all that was claimed happened, 1 if not, 130 after Ctrl-C.
#[derive(clap::Parser, Clone, Copy, Debug)]
#[command(name = "cargo demo")]
pub struct Args {
    /// Leave everything running at the end, until Ctrl-C, and print how to reach it with kubectl
    #[arg(long)]
    pub keep: bool,

    /// How often the operator is killed (SIGKILL) or stopped (SIGTERM), in turn, while the first token holds
    #[arg(long, default_value_t = 6, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(2..=100))]
    pub restarts: u16,
}

/// The whole show.
pub async fn run(args: &Args) -> ExitCode {
    match play(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::line(&format!("\nThe demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// False if the counts are not as claimed.
async fn play(args: &Args) -> anyhow::Result<bool> {
    say::step("Build the operator");
    let program = build::operator().await?;
    let mut stage = Stage::build(program).await?;
    let mut table = Table::default();
    if let Err(error) = story::tell(&mut stage, &mut table, args.restarts).await {
        say::line(&format!("\nLast lines of the operator's log:\n{}", stage.operator_log(LOG_LINES)));
        return Err(error);
    }
    say::step("What it came to");
    say::output(&table.to_string());
    let right = table.is_right();
    say::line(if right {
        "Every token was requested once, and no restart cost one."
    } else {
        "The issuer has counted something else than was expected."
    });
    if args.keep {
        keep::keep(&mut stage).await?;
    }
    Ok(right)
}

/// Ends with Ctrl-C or SIGTERM, and the exit code that a shell expects of that.
pub async fn interrupted() -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let code = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    say::line("\nInterrupted: ending all processes, removing temporary files.");
    ExitCode::from(code)
}
