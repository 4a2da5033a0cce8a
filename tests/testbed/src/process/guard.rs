//! One small shell beside the test process that cleans up after it.
//!
//! It reads a pipe whose only other end is in this process. However this process ends, the pipe ends too, and the shell
//! kills the process groups and removes the folders it was told of. A destructor could not do that after `SIGKILL` or
//! for a static, and `PR_SET_PDEATHSIG` is Linux only and tied to the *thread* that started the child, which under
//! libtest ends with its test.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use rustix::process::Pid;

/// A folder is removed only if its name begins so: a mistake elsewhere must not cost anybody's files.
pub(super) const FOLDER_PREFIX: &str = "testbed-";

/// The list of what is held is the shell's positional parameters: process ids and absolute paths. A killed process may
/// write for a moment more, hence the second tries to remove its folder. A control group is emptied of its children by
/// `rmdir`, leaves first, and has no other files.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
set --
while read -r verb what; do
  case $verb in
    hold) set -- "$@" "$what" ;;
    forget)
      left=$#
      while [ "$left" -gt 0 ]; do
        held=$1
        shift
        [ "$held" = "$what" ] || set -- "$@" "$held"
        left=$((left - 1))
      done ;;
  esac
done
for held; do
  case $held in
    [1-9]*) kill -KILL "-$held" ;;
  esac
done
for held; do
  case $held in
    /sys/fs/cgroup/*testbed-*)
      tries=50
      until find "$held" -depth -type d -exec rmdir {} + || [ ! -d "$held" ] || [ "$tries" -eq 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
      done ;;
    /*/testbed-*)
      tries=50
      until rm -rf -- "$held" || [ "$tries" -eq 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
      done ;;
  esac
done
"#;

/// The writing end of the pipe, once the shell has been started.
static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

pub(super) fn hold_process(pid: Pid) -> anyhow::Result<()> {
    tell("hold", &pid.as_raw_nonzero().to_string())
}

pub(super) fn forget_process(pid: Pid) {
    forget(&pid.as_raw_nonzero().to_string());
}

pub(crate) fn hold_folder(path: &Path) -> anyhow::Result<()> {
    let text = path.to_str().context("the path of the temporary folder is not UTF-8")?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ensure!(
        path.is_absolute() && name.starts_with(FOLDER_PREFIX) && !text.contains('\n') && text.trim() == text,
        "{text:?} is not a folder to be removed without asking"
    );
    tell("hold", text)
}

pub(crate) fn forget_folder(path: &Path) {
    forget(&path.to_string_lossy());
}

/// Without the shell there is nothing that could remember, hence nothing to forget.
fn forget(what: &str) {
    tell("forget", what).ok();
}

fn tell(verb: &str, what: &str) -> anyhow::Result<()> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        *pipe = Some(start()?);
    }
    let pipe = pipe.as_mut().context("the guard was just started")?;
    writeln!(pipe, "{verb} {what}").context("the guard of the child processes is gone")
}

fn start() -> anyhow::Result<ChildStdin> {
    let guard = Command::new("sh")
        .args(["-c", SCRIPT, "testbed-guard"])
        .current_dir("/")
        .stdin(Stdio::piped())
        // Nothing of the terminal or of a pipe behind `cargo test` is kept open.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start sh, which guards the child processes")?;
    guard.stdin.context("no pipe to the guard")
}
