//! One control plane for all tests of a process.

use std::sync::OnceLock;

use super::{ControlPlane, Options};

/// Never dropped: its processes end with this one. A failed start is kept too, as it would fail for every test alike.
static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();

// === impl ControlPlane ===

impl ControlPlane {
    /// The control plane that the tests of this process share, started by the first that asks.
    ///
    /// A test owns a namespace in it and disturbs no other. What is to be restarted, frozen or compacted is
    /// [started](ControlPlane::start) by the test that does so.
    pub async fn shared() -> &'static Self {
        // Every test has a runtime of its own, so the start has one too. Others wait off their runtimes' threads.
        let started = tokio::task::spawn_blocking(|| SHARED.get_or_init(start)).await;
        match started.expect("the start does not panic") {
            Ok(control_plane) => control_plane,
            Err(error) => panic!("no control plane: {error}"),
        }
    }
}

/// On a thread of its own, as a runtime may not be started within another.
fn start() -> Result<ControlPlane, String> {
    let starter = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(ControlPlane::start(Options::default()))
    });
    match starter.join() {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err("its start panicked".to_owned()),
    }
}
