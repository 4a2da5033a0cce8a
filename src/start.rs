//! From the command line to a running operator: logs, client, signals.

use std::sync::Arc;

use anyhow::Context as _;
use kube::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::client::client;
use crate::clock::SystemClock;
use crate::logs;
use crate::panics::log_panics;
use crate::run::{Listeners, run};
use crate::serve::{listen, listen_for_debugging};
use crate::tokenapi::TokenListener;

/// Runs the operator until SIGTERM or SIGINT; a second signal ends it at once.
pub fn start(args: &RunArgs) -> anyhow::Result<()> {
    args.check()?;
    let log_filter = logs::init(&args.log_filter, args.log_format).context("--log-filter")?;
    log_panics();
    init_crypto();
    // One thread: passes wait for answers far more than they compute, and threads that wake each other cost a fifth of the CPU.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stop = stop_on_signal()?;
        let config =
            Config::infer().await.context("no cluster: run in a pod, or set KUBECONFIG to a file that names one")?;
        let http = listen(args.http_listen).await?;
        let token = TokenListener::of(args).await?;
        let debug = listen_for_debugging(args.debug_listen).await.map(|listener| (listener, log_filter));
        run(client(config)?, args, Arc::new(SystemClock), Listeners { http, debug, token }, stop).await
    })
}

/// Installs the one crypto provider. Doing it twice is harmless.
pub fn init_crypto() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Cancelled by the first signal. The second aborts.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                asked.cancel();
            } else {
                tracing::error!("second signal: aborting");
                std::process::exit(1);
            }
        }
    });
    Ok(stop)
}
