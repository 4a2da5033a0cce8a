//! The operator's process, with its meters.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::meter;
use crate::ports::free_port;
use crate::{Child, Signal, plain_http};

const PATIENCE: Duration = Duration::from_secs(300);
/// Each look is a connection to a process whose CPU is measured.
const LOOK: Duration = Duration::from_millis(20);

/// It runs until it is stopped or dropped.
pub(super) struct Operator {
    child: Child,
    http: String,
    started: Instant,
}

// === impl Operator ===

impl Operator {
    /// Starts it, and does not wait.
    pub(super) fn start(
        program: &Path,
        kubeconfig: &Path,
        namespace: &str,
        [concurrency, issuer_concurrency]: [usize; 2],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let http = format!("127.0.0.1:{}", free_port()?);
        let args = [
            format!("--namespaces={namespace}"),
            format!("--http-listen={http}"),
            format!("--debug-listen=127.0.0.1:{}", free_port()?),
            format!("--concurrency={concurrency}"),
            format!("--issuer-concurrency={issuer_concurrency}"),
            "--allow-http".to_owned(),
            "--allowed-issuer-hosts=*".to_owned(),
            "--leader-election".to_owned(),
            format!("--lease-namespace={namespace}"),
        ];
        let env = [("KUBECONFIG", &*kubeconfig.to_string_lossy()), ("NO_PROXY", "127.0.0.1")];
        let started = Instant::now();
        let child = Child::spawn("the operator", program, args.iter().map(String::as_str), &env, log)?;
        Ok(Self { child, http, started })
    }

    /// Waits for /readyz, and returns how long it took from the start.
    pub(super) async fn ready(&self) -> anyhow::Result<Duration> {
        loop {
            let answer = plain_http::get(&format!("http://{}/readyz", self.http)).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(self.started.elapsed());
            }
            ensure!(self.child.is_running(), "the operator has ended:\n{}", self.child.log_tail(20));
            ensure!(self.started.elapsed() < PATIENCE, "the operator is not ready:\n{}", self.child.log_tail(20));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads /metrics. How long that took, and how many bytes came.
    pub(super) async fn scrape(&self) -> anyhow::Result<(Duration, usize)> {
        let began = Instant::now();
        let answer = plain_http::get(&format!("http://{}/metrics", self.http)).await?;
        ensure!(answer.status == 200, "/metrics: {}", answer.status);
        Ok((began.elapsed(), answer.body.len()))
    }

    /// Time since the start.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// CPU time since the start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        meter::cpu(self.child.pid())
    }

    /// Resident memory in MiB: now, and at its highest.
    pub(super) fn memory(&self) -> anyhow::Result<(f64, f64)> {
        meter::memory(self.child.pid())
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.child.signal(Signal::TERM)?;
        let status = self.child.wait(Duration::from_secs(40)).await.context("it does not end")?;
        ensure!(status.success(), "it ended with {status}:\n{}", self.child.log_tail(20));
        Ok(())
    }
}
