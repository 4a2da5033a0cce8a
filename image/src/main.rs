//! `cargo image`: assembles the operator's image into an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Parser;
use image::archive::Entry;
use image::build::{self, Architecture, Package};
use image::{notices, operator};

/// Builds the operator and assembles its image into an OCI archive, which `docker load`, `podman load`,
/// `kind load image-archive` and `ctr images import` take. Needs no container daemon.
#[derive(Parser)]
#[command(name = "cargo image")]
struct Args {
    /// What it runs on; this machine's if left out.
    #[arg(long)]
    arch: Option<Architecture>,
    /// Name and tag of the image; the package's name and version if left out.
    #[arg(long)]
    name: Option<String>,
    /// Where the archive goes; target/image/<name>-<version>-<arch>.tar if left out.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The commit for the image's label; git's if left out.
    #[arg(long)]
    revision: Option<String>,
    /// Write the image's files into this new folder instead of an archive.
    #[arg(long, conflicts_with_all = ["output", "name", "revision"])]
    rootfs: Option<PathBuf>,
    /// Build twice more, from copies in two other folders, and compare: some minutes each. It takes the files as
    /// they are now, without those that git ignores.
    #[arg(long)]
    compare: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this package lies in the workspace")?;
    let architecture = args.arch.map_or_else(Architecture::of_this_machine, Ok)?;
    let files = built(workspace, architecture)?;
    if args.compare {
        compare(workspace, architecture, &files)?;
    }
    if let Some(folder) = args.rootfs {
        return operator::write_rootfs(&files, &folder);
    }
    let package = Package::read(workspace)?;
    let revision = args.revision.or_else(|| operator::revision(workspace));
    let name = args.name.unwrap_or_else(|| format!("{}:{}", package.name, package.version));
    let file = format!("image/{}-{}-{}.tar", package.name, package.version, architecture.as_str());
    let output = args.output.unwrap_or_else(|| target_folder(workspace).join(file));
    fs::create_dir_all(output.parent().context("the archive lies in a folder")?)?;
    let labels = operator::labels(&package, revision.as_deref());
    let digest = operator::image(&name, architecture, files, labels).write(&output)?;
    println!("{name} {digest} {} bytes\n{}", fs::metadata(&output)?.len(), output.display());
    Ok(())
}

fn built(workspace: &Path, architecture: Architecture) -> anyhow::Result<Vec<Entry>> {
    let binary = build::operator(workspace, architecture)?;
    let notices = notices::collect(workspace, architecture)?;
    Ok(operator::files(fs::read(binary)?, fs::read(workspace.join("LICENSE"))?, notices.into_bytes()))
}

/// Whether the image's files are the same when they are built elsewhere.
fn compare(workspace: &Path, architecture: Architecture, here: &[Entry]) -> anyhow::Result<()> {
    let parent = tempfile::tempdir_in(target_folder(workspace))?;
    // Of different lengths: a path that is left in the binary would change its layout, too.
    for name in ["one", "another-folder"] {
        let copy = parent.path().join(name);
        copy_sources(workspace, &copy)?;
        let there = built(&copy, architecture)?;
        for (here, there) in here.iter().zip(&there) {
            ensure!(here == there, "/{} differs when it is built in another folder", here.path);
        }
        ensure!(here.len() == there.len(), "there are other files when it is built in another folder");
        println!("built again in {}: the same bytes", copy.display());
    }
    Ok(())
}

fn copy_sources(workspace: &Path, copy: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(workspace)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()?;
    ensure!(listed.status.success(), "git does not list the sources: {}", String::from_utf8_lossy(&listed.stderr));
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (workspace.join(name), copy.join(name));
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn target_folder(workspace: &Path) -> PathBuf {
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
