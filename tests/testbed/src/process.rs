//! Child processes and folders that do not outlive the test process, however it ends.

mod guard;
mod scratch;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

pub(crate) use guard::{forget_folder, hold_folder};
pub use rustix::process::Signal;
pub use scratch::ScratchDir;

/// The child begins as this shell, which waits for a line before it becomes the program. The line is sent when the
/// guard knows the process id; if this process dies before, the shell reads end of file and ends.
const GATE: &str = r#"read -r go && exec "$@" </dev/null"#;

/// How often a wait looks at the process.
const LOOK: Duration = Duration::from_millis(10);
/// For a process to stop, which waits only for what its threads do in the kernel.
const STOP: Duration = Duration::from_secs(10);

/// A running program, killed when dropped or when this process ends, be it by `SIGKILL`.
///
/// # Guarantees
/// - [`Child::pid`] is the program itself, so signals hit it and no wrapper; it has its own process group, so a Ctrl-C
///   at the terminal hits the test process only.
/// - A signal never reaches a stranger: the process id stays reserved until this handle has seen the end.
/// - Nothing belongs to a thread or an async runtime.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: Pid,
    log: PathBuf,
    process: Mutex<std::process::Child>,
}

// === impl Child ===

impl Child {
    /// Starts `program` with `args`, with `env` added to this process's environment, stdin empty, stdout and stderr
    /// appended to `log_file`. `name` stands in messages.
    pub fn spawn(
        name: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &str)],
        log_file: &Path,
    ) -> anyhow::Result<Self> {
        let program = program.as_ref();
        ensure!(
            !program.as_encoded_bytes().contains(&b'/') || Path::new(program).is_file(),
            "cannot start {name}: there is no file {}",
            Path::new(program).display()
        );
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_file)
            .with_context(|| format!("cannot open the log of {name}, {}", log_file.display()))?;
        let mut process = Command::new("sh")
            .args(["-c", GATE, "sh"])
            .arg(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = Pid::from_child(&process);
        let gate = process.stdin.take();
        let child = Self { name: name.to_owned(), pid, log: log_file.to_owned(), process: Mutex::new(process) };
        guard::hold_process(pid)?;
        gate.context("no pipe to the child")?.write_all(b"go\n").with_context(|| format!("cannot start {name}"))?;
        Ok(child)
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the program; an error if it has ended. After [`Signal::STOP`] the program has stopped when this
    /// returns; all others act in their own time.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The lock keeps others from collecting the exit status, which would free the process id.
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = ended(&mut process, self.pid)? {
            bail!("{} has ended, {status}", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))?;
        if signal == Signal::STOP {
            self.wait_until_stopped()?;
        }
        Ok(())
    }

    /// The signal is delivered to one thread, and the others go on until it has told them.
    fn wait_until_stopped(&self) -> anyhow::Result<()> {
        // Neither an exit nor the news of the stop is collected: others may look as well.
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let deadline = Instant::now() + STOP;
        while waitid(WaitId::Pid(self.pid), look)?.is_none() {
            ensure!(Instant::now() < deadline, "{} does not stop", self.name);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The exit status, if the program has ended.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        ended(&mut process, self.pid).expect("a child process can be waited for")
    }

    /// Whether the program runs (a frozen one does).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits for the end; `None` if it has not come within `timeout`.
    pub async fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.exit_status();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// [`Child::wait`] for code outside of a runtime.
    #[must_use]
    pub fn wait_blocking(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.exit_status();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends the program with `SIGKILL`, and whatever it has started in its process group, and waits until it is gone.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(ended(&mut process, self.pid), Ok(None)) {
            // Fails only if the group is gone already, which is what is wanted.
            kill_process_group(self.pid, Signal::KILL).ok();
            process.wait().ok();
            guard::forget_process(self.pid);
        }
    }

    /// The file with the program's stdout and stderr.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All of the log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |error| format!("(no log of {}: {error})", self.name),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last `lines` lines of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// The exit status if there is one; the guard forgets a process that has ended.
fn ended(process: &mut std::process::Child, pid: Pid) -> std::io::Result<Option<ExitStatus>> {
    let status = process.try_wait()?;
    if status.is_some() {
        guard::forget_process(pid);
    }
    Ok(status)
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
