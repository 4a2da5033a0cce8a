//! What the operator's image consists of: one program, the CA certificates, the licences.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use pem::{EncodeConfig, LineEnding, Pem, encode_config};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::archive::{Entry, Image};
use crate::build::{Architecture, Package};

/// Nobody's user in particular, and not root: by number, so that the kubelet can tell.
pub const USER: &str = "65532:65532";
/// Where programs look for certificates on Debian, rustls-native-certs among them.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// The image's files: with this binary, the licence of this repository, and the notices of what is linked in.
#[must_use]
pub fn files(binary: Vec<u8>, licence: Vec<u8>, notices: Vec<u8>) -> Vec<Entry> {
    vec![
        Entry::directory("etc"),
        Entry::directory("etc/ssl"),
        Entry::directory("etc/ssl/certs"),
        Entry::file(CERTIFICATES, certificates().into_bytes()),
        Entry::file("LICENSE", licence),
        Entry::file("THIRD-PARTY-NOTICES", notices),
        Entry::program("verteil-token-operator", binary),
    ]
}

/// The image.
#[must_use]
pub fn image(name: &str, architecture: Architecture, files: Vec<Entry>, labels: BTreeMap<String, String>) -> Image {
    Image {
        name: name.to_owned(),
        architecture: architecture.as_str().to_owned(),
        files,
        entrypoint: vec!["/verteil-token-operator".to_owned()],
        user: USER.to_owned(),
        labels,
    }
}

/// The labels that the OCI image specification names for all images.
#[must_use]
pub fn labels(package: &Package, revision: Option<&str>) -> BTreeMap<String, String> {
    let known = [
        ("title", Some(package.name.as_str())),
        ("description", Some(package.description.as_str())),
        ("version", Some(package.version.as_str())),
        ("licenses", Some(package.license.as_str())),
        ("source", package.repository.as_deref()),
        ("revision", revision),
    ];
    known
        .into_iter()
        .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?.to_owned())))
        .collect()
}

/// The commit of a checkout, marked where files differ from it; none outside of a checkout.
#[must_use]
pub fn revision(workspace: &Path) -> Option<String> {
    let args = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").arg("-C").arg(workspace).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes the files into a new folder, for `COPY` in a Dockerfile.
pub fn write_rootfs(files: &[Entry], folder: &Path) -> anyhow::Result<()> {
    ensure!(!folder.exists(), "{} is there already", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in files {
        let path = folder.join(&entry.path);
        match &entry.content {
            None => fs::create_dir(&path)?,
            Some(content) => fs::write(&path, content)?,
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))?;
    }
    Ok(())
}

/// Mozilla's certificate authorities in PEM.
fn certificates() -> String {
    let blocks: Vec<Pem> = TLS_SERVER_ROOT_CERTS.iter().map(|root| Pem::new("CERTIFICATE", root.as_ref())).collect();
    blocks.iter().map(|block| encode_config(block, EncodeConfig::new().set_line_ending(LineEnding::LF))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn the_dockerfile_says_the_same_of_itself() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dockerfile = fs::read_to_string(workspace.join("Dockerfile")).unwrap();
        let package = Package::read(&workspace).unwrap();
        for (label, value) in labels(&package, Some("$REVISION")) {
            let value = if value == package.version { "$VERSION" } else { value.as_str() };
            assert!(dockerfile.contains(&format!("{label}=\"{value}\"")), "{label}");
        }
        let image = image("", Architecture::Amd64, Vec::new(), BTreeMap::new());
        let version = format!("ARG VERSION={}", package.version);
        assert!(dockerfile.lines().any(|line| line == version), "write {version} into the Dockerfile");
        assert!(dockerfile.contains(&format!(
            "\nUSER {}\nENTRYPOINT [\"{}\"]\n",
            image.user,
            image.entrypoint.join("")
        )));
    }

    #[test]
    fn the_certificates_are_all_of_them_and_can_be_read() {
        let read = pem::parse_many(certificates()).unwrap();
        assert!(read.len() > 100, "{}", read.len());
        assert!(read.iter().zip(TLS_SERVER_ROOT_CERTS).all(|(block, root)| block.contents() == root.as_ref()));
    }

    #[test]
    fn a_folder_has_what_an_image_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let files = files(b"binary".to_vec(), b"licence".to_vec(), b"notices".to_vec());
        write_rootfs(&files, &root).unwrap();
        for entry in &files {
            let path = root.join(&entry.path);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, entry.mode, "{}", entry.path);
            assert_eq!(fs::read(&path).ok(), entry.content);
        }
        assert!(write_rootfs(&files, &root).is_err(), "what is there is not mixed with something else");
    }
}
