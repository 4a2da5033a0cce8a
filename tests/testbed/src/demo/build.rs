//! Building the operator's binary, with the cargo and the profile that this program was built with.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::say;

const BINARY: &str = "verteil-token-operator";
/// Variables that `cargo run` sets.
const OWN: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// Builds the operator with the profile of this program.
pub(super) async fn operator() -> anyhow::Result<PathBuf> {
    operator_in(&profile()).await
}

/// Builds the operator and returns where it is. What the compiler says is shown.
pub(crate) async fn operator_in(profile: &str) -> anyhow::Result<PathBuf> {
    say::command(&format!("cargo build --bin {BINARY} --profile {profile}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut build = tokio::process::Command::new(cargo);
    // What `cargo run` tells this program of its own package: build scripts would take it for a change and run anew.
    for (name, _) in std::env::vars_os() {
        if OWN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            build.env_remove(name);
        }
    }
    let output = build
        .current_dir(workspace)
        .args(["build", "--bin", BINARY, "--profile", profile, "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start cargo")?
        .wait_with_output()
        .await?;
    ensure!(output.status.success(), "the operator does not build");
    // Cargo knows best where it put the file: that depends on flags, variables and configuration files.
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(executable).context("cargo does not say where the operator is")
}

fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let named = message.pointer("/target/name")? == BINARY;
    message.get("executable")?.as_str().filter(|_| named).map(PathBuf::from)
}

/// The profile of this program, by the folder that it is in.
fn profile() -> String {
    let folder = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.file_name()?.to_str()?.to_owned()));
    folder.filter(|name| name != "debug").unwrap_or_else(|| "dev".to_owned())
}
