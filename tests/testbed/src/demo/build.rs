//! Building the operator's binary, with the cargo and the profile that this program was built with.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::say;

const BINARY: &str = "verteil-token-operator";

/// Builds the operator and returns where it is. What the compiler says is shown.
pub(super) async fn operator() -> anyhow::Result<PathBuf> {
    let profile = profile();
    say::command(&format!("cargo build --bin {BINARY} --profile {profile}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = tokio::process::Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--bin", BINARY, "--profile", &profile, "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start cargo")?;
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
