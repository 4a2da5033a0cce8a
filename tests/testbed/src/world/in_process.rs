//! The operator within the test's process: with a clock that the test sets, and a crash at any point.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;
use verteil_token_operator::args::Cli;
use verteil_token_operator::clock::{Clock, SystemClock};
use verteil_token_operator::run::{Listeners, run};

use super::World;

/// The system's clocks, moved by the test.
#[derive(Clone, Debug, Default)]
pub struct TestClock(Arc<Shifts>);

/// By how many seconds they are ahead.
#[derive(Debug, Default)]
struct Shifts {
    now: AtomicI64,
    elapsed: AtomicU64,
}

/// A running operator.
pub struct InProcess {
    /// Its time of day.
    pub clock: TestClock,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

// === impl TestClock ===

impl TestClock {
    /// Sets the time of day, as whoever keeps the machine's clock may do: no time passes.
    pub fn step(&self, by: SignedDuration) {
        self.0.now.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.elapsed.fetch_add(by.as_secs(), Ordering::SeqCst);
        self.0.now.fetch_add(i64::try_from(by.as_secs()).expect("in range"), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let shift = SignedDuration::from_secs(self.0.now.load(Ordering::SeqCst));
        SystemClock.now().saturating_add(shift).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed() + Duration::from_secs(self.0.elapsed.load(Ordering::SeqCst))
    }
}

// === impl World ===

impl World {
    /// Starts an operator in this process, with the rights of the chart's Role.
    #[must_use]
    pub fn in_process(&self, flags: &[&str], clock: TestClock) -> InProcess {
        InProcess::start(&self.operator_kubeconfig(), &self.namespace, flags, clock)
    }
}

// === impl InProcess ===

impl InProcess {
    fn start(kubeconfig: &Path, namespace: &str, flags: &[&str], clock: TestClock) -> Self {
        verteil_token_operator::start::init_crypto();
        let namespaces = format!("--namespaces={namespace}");
        let base = ["operator", &namespaces, "--allow-http", "--allowed-issuer-hosts=*"];
        let args = Cli::try_parse_from(base.iter().chain(flags)).expect("flags").run;
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let stop = CancellationToken::new();
        let (clock_of_operator, stop_of_operator) = (clock.clone(), stop.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let running = runtime.spawn(async move {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let client = verteil_token_operator::client::client(config)?;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let token = verteil_token_operator::tokenapi::TokenListener::of(&args).await?;
            let listeners = Listeners { http: listener, debug: None, token };
            run(client, &args, Arc::new(clock_of_operator), listeners, stop_of_operator).await
        });
        Self { clock, stop, runtime: Some(runtime), running: Some(running) }
    }

    /// Ends it as a crash would: every task stops where it awaits.
    pub fn crash(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends it in good order.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("no panic").expect("a good end");
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // A runtime may not be dropped, and so waited for, within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
