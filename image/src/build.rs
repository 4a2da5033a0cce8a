//! The operator's binary: static, and the same bytes from every folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The binary's name, which is also its package's.
pub(crate) const BINARY: &str = "verteil-token-operator";
/// Variables that `cargo run` sets of the package it runs: build scripts would take them for a change.
const OWN: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];
/// Between two flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

/// What an image can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// What cargo says of the operator's package.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// Its licence, as SPDX has it.
    pub license: String,
    /// Where its sources are, if it says so.
    pub repository: Option<String>,
}

// === impl Architecture ===

impl Architecture {
    /// This machine's.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => anyhow::bail!("there is no image for {other}: give --arch"),
        }
    }

    /// Its name in images.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in Rust, with a C library that links statically.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

// === impl Package ===

impl Package {
    /// The operator's, in this workspace.
    pub fn read(workspace: &Path) -> anyhow::Result<Self> {
        let metadata = metadata(workspace, &["--no-deps"])?;
        let packages = metadata.pointer("/packages").and_then(Value::as_array).context("no packages")?;
        let field = |package: &Value, name: &str| Some(package.get(name)?.as_str()?.to_owned());
        let package =
            packages.iter().find(|package| field(package, "name").as_deref() == Some(BINARY)).context("no operator")?;
        let needed = |name: &str| field(package, name).with_context(|| format!("Cargo.toml has no {name}"));
        Ok(Self {
            name: needed("name")?,
            version: needed("version")?,
            description: needed("description")?,
            license: needed("license")?,
            repository: field(package, "repository"),
        })
    }
}

/// Builds the operator in `workspace`, and returns where it is.
pub fn operator(workspace: &Path, architecture: Architecture) -> anyhow::Result<PathBuf> {
    let target = architecture.target();
    let output = cargo(workspace)
        .args(["build", "--release", "--locked", "--bin", BINARY, "--target", target])
        .arg("--message-format=json-render-diagnostics")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the operator does not build for {target}. It needs `rustup target add {target}` and a C compiler for it: for this \
         machine's own architecture musl-gcc and make, of Debian's packages musl-tools and make"
    );
    // Cargo knows best where it put the file.
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(executable).context("cargo does not say where the operator is")
}

fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let named = message.pointer("/target/name")? == BINARY;
    message.get("executable")?.as_str().filter(|_| named).map(PathBuf::from)
}

/// The folders of this machine, which are in messages of panics, become names that are the same everywhere. These flags
/// take the place of any that the environment has.
fn flags(workspace: &Path) -> anyhow::Result<OsString> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().context("no home folder")?.join(".cargo"),
    };
    let compiler = said(Command::new("rustc").arg("-vV"))?;
    let commit = compiler.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let sysroot = said(Command::new("rustc").args(["--print", "sysroot"]))?;
    let renamed = [
        (workspace.to_owned(), "/verteil-token-operator".to_owned()),
        (home, "/cargo".to_owned()),
        // The standard library has this name unless its sources are installed.
        (Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
    ];
    let flags = renamed.map(|(from, to)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    });
    Ok(flags.join(SEPARATOR.as_ref()))
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot start rustc")?;
    ensure!(output.status.success(), "rustc failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// What `cargo metadata` says of a workspace.
pub(crate) fn metadata(workspace: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let output = cargo(workspace)
        .args(["metadata", "--format-version=1", "--locked"])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo metadata failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Cargo for a workspace, as if nobody had run it before.
fn cargo(workspace: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if OWN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(workspace).stdin(Stdio::null());
    cargo
}
