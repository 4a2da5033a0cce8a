//! A node leaves nothing behind, however its process ends, and two do not disturb each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::eventually;
use testbed::node::{Node, skipped};

use crate::helper::{Helper, absent, helper_output, tell_and_stay};

const SOON: Duration = Duration::from_secs(30);

/// What of a node the machine could see.
fn traces(folder: &Path) -> Result<(), String> {
    absent(folder)?;
    let text = &*folder.to_string_lossy();
    for cgroup in cgroups(folder) {
        absent(&cgroup)?;
    }
    for process in processes() {
        let read = |file: &str| String::from_utf8_lossy(&fs::read(process.join(file)).unwrap_or_default()).into_owned();
        if [read("cmdline"), read("environ"), read("mounts")].iter().any(|said| said.contains(text)) {
            return Err(format!("{} {}", process.display(), read("cmdline").replace('\0', " ")));
        }
    }
    Ok(())
}

/// Where its control groups would be, in both versions.
fn cgroups(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).chain([top.to_owned()]);
    hierarchies.map(|hierarchy| hierarchy.join(folder.file_name().unwrap()))
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let paths = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(|first: char| first.is_ascii_digit()))
}

/// What the machine has that a node could change: mounts, interfaces, kernel settings, ports.
fn machine() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut add = |file: &str, what: fn(&str) -> Option<&str>| {
        let text = fs::read_to_string(file).unwrap_or_default();
        lines.extend(text.lines().filter_map(what).map(|line| format!("{file}: {line}")));
    };
    add("/proc/self/mounts", |line| Some(line));
    add("/proc/net/route", |line| Some(line));
    add("/proc/net/dev", |line| line.split(':').next());
    for setting in
        ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"]
    {
        add(&format!("/proc/sys/{setting}"), |line| Some(line));
    }
    lines
}

#[tokio::test]
async fn a_node_is_ready_beside_another_one_and_leaves_nothing() {
    if skipped().is_some() {
        return;
    }
    let before = machine();
    let (one, two) = tokio::join!(Node::start(), Node::start());
    let (one, two) = (one.unwrap(), two.unwrap());
    let folders = [one.folder().to_owned(), two.folder().to_owned()];
    assert!(folders.iter().all(|folder| traces(folder).is_err()), "what is looked for is there");
    assert_eq!(machine(), before);
    drop(one);
    two.control_plane().kubectl(&["get", "node", "node"], None).await.unwrap().succeeded();
    drop(two);
    for folder in &folders {
        // At once: dropping it waits for that.
        assert_eq!(traces(folder), Ok(()));
    }
    assert_eq!(machine(), before);
}

#[tokio::test]
async fn a_killed_process_leaves_no_node() {
    if skipped().is_some() {
        return;
    }
    if let Some(out) = helper_output() {
        let node = Node::start().await.unwrap();
        tell_and_stay(&out, node.folder().to_str().unwrap());
    }
    let helper = Helper::start("node::a_killed_process_leaves_no_node");
    let folder = PathBuf::from(helper.told().await);
    assert!(traces(&folder).is_err());
    helper.kill();
    eventually("the end of its node", SOON, async || traces(&folder)).await;
}

#[tokio::test]
async fn what_is_left_when_the_guard_was_killed_as_well_goes_with_the_next_start() {
    if skipped().is_some() {
        return;
    }
    if let Some(out) = helper_output() {
        let node = Node::start().await.unwrap();
        tell_and_stay(&out, node.folder().to_str().unwrap());
    }
    let helper = Helper::start("node::what_is_left_when_the_guard_was_killed_as_well_goes_with_the_next_start");
    let folder = PathBuf::from(helper.told().await);
    for guard in guards_of(helper.pid()) {
        rustix::process::kill_process(guard, rustix::process::Signal::KILL).unwrap();
    }
    helper.kill();
    assert!(traces(&folder).is_err());
    let next = Node::start().await.unwrap();
    eventually("the end of the node before", SOON, async || traces(&folder)).await;
    next.control_plane().kubectl(&["get", "node", "node"], None).await.unwrap().succeeded();
}

/// The guards among a process's children.
fn guards_of(parent: u32) -> Vec<rustix::process::Pid> {
    let is_guard = |process: &Path| {
        let cmdline = fs::read(process.join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let own = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(parent);
        own && cmdline.ends_with(b"testbed-guard\0")
    };
    let guards = processes().filter(|process| is_guard(process));
    guards
        .map(|path| {
            rustix::process::Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap()
        })
        .collect()
}
