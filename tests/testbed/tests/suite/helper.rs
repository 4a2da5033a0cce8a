//! A test that starts itself once more as a process to be killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::process::ScratchDir;
use testbed::{Child, eventually};

/// Set in the process to be killed: the file in which it says what it has started.
const OUTPUT: &str = "TESTBED_HELPER_OUTPUT";
/// For the helper to start its things, perhaps a control plane.
const START: Duration = Duration::from_secs(180);

/// This test binary again, running one test, which finds [`helper_output`] there.
pub(crate) struct Helper {
    child: Child,
    dir: ScratchDir,
}

impl Helper {
    pub(crate) fn start(test: &str) -> Self {
        let dir = ScratchDir::new().unwrap();
        let program = std::env::current_exe().unwrap();
        let out = output_in(&dir);
        let env = [(OUTPUT, out.to_str().unwrap())];
        let args = ["--exact", test, "--nocapture"];
        let child = Child::spawn("the helper", program, args, &env, &dir.path().join("log")).unwrap();
        Self { child, dir }
    }

    /// What it has said by [`tell_and_stay`].
    pub(crate) async fn told(&self) -> String {
        eventually("word from the helper", START, async || {
            assert!(self.child.is_running(), "the helper has ended: {}", self.child.log());
            std::fs::read_to_string(output_in(&self.dir)).map_err(|error| format!("{error}: {}", self.child.log()))
        })
        .await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// By `SIGKILL`, and only it, not its process group.
    pub(crate) fn kill(&self) {
        self.child.signal(testbed::Signal::KILL).unwrap();
        assert!(self.child.wait_blocking(Duration::from_secs(60)).is_some());
    }
}

fn output_in(dir: &ScratchDir) -> PathBuf {
    dir.path().join("told")
}

/// In the helper: the file for [`tell_and_stay`].
pub(crate) fn helper_output() -> Option<PathBuf> {
    std::env::var_os(OUTPUT).map(PathBuf::from)
}

/// In the helper: says something and waits to be killed.
pub(crate) fn tell_and_stay(out: &Path, text: &str) -> ! {
    let part = out.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(&part, out).unwrap();
    loop {
        std::thread::park();
    }
}

/// Whether there is such a process. One that has ended and waits for an init that never collects it does not count.
pub(crate) fn is_alive(pid: u32) -> bool {
    if Path::new("/proc/self").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may hold any character.
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

pub(crate) fn gone(pids: &[u32]) -> Result<(), String> {
    let alive: Vec<&u32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
    if alive.is_empty() { Ok(()) } else { Err(format!("alive: {alive:?}")) }
}

pub(crate) fn absent(path: &Path) -> Result<(), String> {
    if path.exists() { Err(format!("{} is there", path.display())) } else { Ok(()) }
}
