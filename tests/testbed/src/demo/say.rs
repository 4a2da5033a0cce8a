//! What the demo says. That nobody listens any more is no reason to stop.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

/// The pause between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How often a wait says that it still waits.
const PROGRESS: Duration = Duration::from_secs(5);

static STEPS: AtomicUsize = AtomicUsize::new(0);

/// A line.
pub(super) fn line(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// The headline of the next step.
pub(super) fn step(text: &str) {
    line(&format!("\n[{}] {text}", STEPS.fetch_add(1, Ordering::Relaxed) + 1));
}

/// A command, as a user would type it.
pub(super) fn command(text: &str) {
    line(&format!("    $ {text}"));
}

/// What a command printed.
pub(super) fn output(text: &str) {
    for text in text.trim_end().lines() {
        line(&format!("      {text}"));
    }
}

/// What has happened, or is about to.
pub(super) fn note(text: &str) {
    line(&format!("    {text}"));
}

/// Repeats `check` until it returns `Ok`; `Err` says what it saw instead. Long waits show that they go on.
pub(super) async fn wait<T>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut said = start;
    loop {
        match check().await {
            Ok(found) => return Ok(found),
            Err(reason) if start.elapsed() > timeout => {
                bail!("waited {} s in vain for {what}: {reason}", timeout.as_secs())
            }
            Err(reason) if said.elapsed() > PROGRESS => {
                note(&format!("... {} s, waiting for {what}: {reason}", start.elapsed().as_secs()));
                said = Instant::now();
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}
