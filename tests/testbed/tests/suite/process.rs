//! Child processes and folders end with their handle and with their process.

use std::path::Path;
use std::time::Duration;

use testbed::process::ScratchDir;
use testbed::{Child, Signal, eventually};

use crate::helper::{self, Helper, is_alive};

const SOON: Duration = Duration::from_secs(60);

fn sh(script: &str, dir: &ScratchDir) -> Child {
    Child::spawn("a shell", "sh", ["-c", script], &[("GREETING", "good day")], &dir.path().join("log")).unwrap()
}

async fn logs(child: &Child, line: &str) {
    eventually(&format!("the log line {line:?}"), SOON, async || {
        let log = child.log();
        if log.lines().any(|logged| logged == line) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn keeps_output_and_exit_status() {
    let dir = ScratchDir::new().unwrap();
    let child = sh("echo one; echo \"$GREETING\" >&2; read -r line || echo no input; exit 7", &dir);
    assert_eq!(child.wait(SOON).await.expect("it ends").code(), Some(7));
    assert_eq!(child.log(), "one\ngood day\nno input\n");
    assert_eq!(child.log_tail(1), "no input");
    assert!(!child.is_running());
    assert!(child.signal(Signal::TERM).unwrap_err().to_string().contains("a shell has ended"));
}

#[tokio::test]
async fn signals_hit_the_program_itself() {
    let dir = ScratchDir::new().unwrap();
    let child = sh("trap 'echo told; exit 3' TERM; echo pid $$; while :; do sleep 0.05; done", &dir);
    logs(&child, &format!("pid {}", child.pid())).await;
    child.signal(Signal::STOP).unwrap();
    child.signal(Signal::STOP).unwrap();
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait(Duration::from_millis(300)).await, None, "a frozen process does nothing");
    child.signal(Signal::CONT).unwrap();
    assert_eq!(child.wait(SOON).await.expect("it ends").code(), Some(3));
    logs(&child, "told").await;
}

#[tokio::test]
async fn a_dropped_child_is_gone_with_all_it_started() {
    let dir = ScratchDir::new().unwrap();
    let child = sh("sleep 600 & echo $!; wait", &dir);
    let grandchild = eventually("the id of the grandchild", SOON, async || {
        child.log().trim().parse().map_err(|_| "no log yet".to_owned())
    })
    .await;
    let pid = child.pid();
    drop(child);
    assert!(!is_alive(pid));
    eventually("the end of the grandchild", SOON, async || helper::gone(&[grandchild])).await;
}

#[tokio::test]
async fn says_which_program_is_missing() {
    let dir = ScratchDir::new().unwrap();
    let log = dir.path().join("log");
    let none: [&str; 0] = [];
    let error = Child::spawn("the operator", "/nowhere/operator", none, &[], &log).unwrap_err();
    assert_eq!(error.to_string(), "cannot start the operator: there is no file /nowhere/operator");
    let child = Child::spawn("the operator", "no-such-operator", none, &[], &log).unwrap();
    assert_eq!(child.wait(SOON).await.expect("it ends").code(), Some(127));
    assert!(child.log().contains("no-such-operator"), "{}", child.log());
}

#[tokio::test]
async fn children_and_folders_go_when_their_process_is_killed() {
    const NAME: &str = "process::children_and_folders_go_when_their_process_is_killed";
    if let Some(out) = helper::helper_output() {
        let dir = ScratchDir::new().unwrap();
        let frozen = sh("sleep 600", &dir);
        let file = dir.path().join("busy");
        let busy = sh(&format!("trap '' TERM HUP INT; while :; do date > {}; done", file.display()), &dir);
        let ended = sh("exit 0", &dir);
        ended.wait(SOON).await.expect("it ends");
        frozen.signal(Signal::STOP).unwrap();
        helper::tell_and_stay(&out, &format!("{}\n{}\n{}", frozen.pid(), busy.pid(), dir.path().display()));
    }
    let helper = Helper::start(NAME);
    let told = helper.told().await;
    let mut lines = told.lines();
    let pids: Vec<u32> = lines.by_ref().take(2).map(|pid| pid.parse().unwrap()).collect();
    let folder = Path::new(lines.next().unwrap());
    assert!(pids.iter().all(|pid| is_alive(*pid)) && folder.is_dir());

    helper.kill();

    eventually("the end of the children", SOON, async || helper::gone(&pids)).await;
    eventually("the end of the folder", SOON, async || helper::absent(folder)).await;
}
