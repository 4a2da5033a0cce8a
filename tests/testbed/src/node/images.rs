//! Images for the pods of tests, and how the node gets them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use image::archive::{Entry, Image};
use image::build::{self, Architecture, Package};
use image::{notices, operator};

use super::components::PAUSE;
use super::{Node, Setup};

/// The operator's image in the tests.
pub const OPERATOR: &str = "localhost/verteil-token-operator:testbed";
/// That of the programs that use a token.
pub const CONSUMER: &str = "localhost/consumer:testbed";

/// Builds the operator and writes its image, as `cargo image` does.
///
/// # Caveats
/// Blocks, for some minutes when cargo builds.
pub(super) fn write_operator(folder: &Path) -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let architecture = Architecture::of_this_machine()?;
    let binary = std::fs::read(build::operator(&workspace, architecture)?)?;
    let notices = notices::collect(&workspace, architecture)?.into_bytes();
    let files = operator::files(binary, std::fs::read(workspace.join("LICENSE"))?, notices);
    let path = folder.join("operator.tar");
    let labels = operator::labels(&Package::read(&workspace)?, operator::revision(&workspace).as_deref());
    operator::image(OPERATOR, architecture, files, labels).write(&path)?;
    Ok(path)
}

/// Writes the image of the programs that use a token.
pub(super) fn write_consumer(app: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    write(app, CONSUMER, &["/app"], &folder.join("consumer.tar"))
}

fn write(app: &Path, name: &str, entrypoint: &[&str], path: &Path) -> anyhow::Result<PathBuf> {
    let image = Image {
        name: name.to_owned(),
        architecture: Architecture::of_this_machine()?.as_str().to_owned(),
        files: vec![Entry::program("app", std::fs::read(app)?)],
        entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
        user: operator::USER.to_owned(),
        labels: BTreeMap::new(),
    };
    image.write(path)?;
    Ok(path.to_owned())
}

// === impl Setup ===

impl Setup {
    /// Writes the image of a pod's sandbox.
    pub(super) fn write_pause(&self) -> anyhow::Result<PathBuf> {
        write(&self.machine.app, PAUSE, &["/app", "pause"], &self.path("pause.tar"))
    }
}

// === impl Node ===

impl Node {
    /// Loads an image from its archive.
    pub async fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.to_str().context("the archive's path is UTF-8")?;
        self.ctr(&["--namespace=k8s.io", "images", "import", archive]).await
    }

    pub(super) async fn ctr(&self, args: &[&str]) -> anyhow::Result<()> {
        let words = self.namespaces.words(&self.setup.machine.runtime.join("ctr"))?;
        let output = tokio::process::Command::new("nsenter")
            .args(words)
            .args(args)
            .env("PATH", self.namespaces.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
