//! Programs of a node that are C, from the distribution's packages: unpacked, not installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::build::{lock, say, target_folder};

/// A program and the package that has it. runc is wanted with seccomp, which the module proxy's sources have only with
/// cgo; kube-proxy runs nft; ip makes the node's interfaces.
const PROGRAMS: [(&str, &str); 3] = [("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2")];

/// A folder with what of these is not in `PATH`, unpacked first if that has never been done.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    let cache = target_folder()?.join("testbed").join("bin");
    fs::create_dir_all(&cache)?;
    let folder = cache.join("unpacked");
    let missing: Vec<_> =
        PROGRAMS.into_iter().filter(|(program, _)| !installed(program) && !folder.join(program).is_file()).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    let _lock = lock(&cache.join("lock"))?;
    unpack(&missing, &cache, &folder).with_context(|| {
        format!("the node's tests need {}: install them", PROGRAMS.map(|(program, _)| program).join(", "))
    })?;
    Ok(folder)
}

fn unpack(missing: &[(&str, &str)], cache: &Path, folder: &Path) -> anyhow::Result<()> {
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    say(&format!("unpacking {}", packages.join(", ")));
    let root = cache.join("unpacked.root");
    let archives = tempfile::Builder::new().prefix("unpacked").suffix(".part").tempdir_in(cache)?;
    fs::create_dir_all(archives.path().join("partial"))?;
    let mut install = vec!["install", "--download-only", "--yes", "--no-install-recommends", "--reinstall"];
    let place = format!("-oDir::Cache::archives={}", archives.path().display());
    install.push(&place);
    install.extend(&packages);
    // With what they need and is not installed either.
    if run("apt-get", &install).is_err() {
        run("apt-get", &["update"])?;
        run("apt-get", &install)?;
    }
    for entry in fs::read_dir(archives.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run("dpkg-deb", &["--extract", text(&path)?, text(&root)?])?;
        }
    }
    fs::create_dir_all(folder)?;
    for (program, package) in missing {
        let places = ["usr/sbin", "usr/bin", "sbin", "bin"].map(|place| root.join(place).join(program));
        let found = places.iter().find(|place| place.is_file());
        let found = found.with_context(|| format!("the package {package} has no program {program}"))?;
        write_starter(&folder.join(program), found, &root)?;
    }
    Ok(())
}

/// The libraries stand where the linker does not look.
fn write_starter(path: &Path, program: &Path, root: &Path) -> anyhow::Result<()> {
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [root.join(&libraries), root.join(libraries.trim_start_matches("usr/"))];
    let folders = folders.map(|folder| folder.display().to_string()).join(":");
    let script = format!("#!/bin/sh\nLD_LIBRARY_PATH='{folders}' exec '{}' \"$@\"\n", program.display());
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => bail!("cannot start {program}: {error}"),
    };
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
