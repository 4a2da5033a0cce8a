//! An OCI image layout in one tar file, as `ctr images import`, `docker load`, `kind load image-archive`, `podman load` and
//! `skopeo` take it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name and tag by which a pod finds it.
    pub name: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// Its files, directories included, parents first.
    pub files: Vec<Entry>,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// As whom.
    pub user: String,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
}

/// A file or a directory of an image. It belongs to root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without a slash in front.
    pub path: String,
    /// Its content; `None` for a directory.
    pub content: Option<Vec<u8>>,
    /// Its permissions.
    pub mode: u32,
}

/// A blob: its digest and its bytes.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

// === impl Entry ===

impl Entry {
    /// A directory that everybody may read.
    #[must_use]
    pub fn directory(path: &str) -> Self {
        Self { path: path.to_owned(), content: None, mode: 0o755 }
    }

    /// A file that everybody may read.
    #[must_use]
    pub fn file(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), content: Some(content), mode: 0o644 }
    }

    /// A program that everybody may run.
    #[must_use]
    pub fn program(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), content: Some(content), mode: 0o755 }
    }
}

// === impl Image ===

impl Image {
    /// Writes the archive to `path` and returns the image's digest.
    pub fn write(&self, path: &Path) -> anyhow::Result<String> {
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = io::BufWriter::new(file);
        let digest = self.write_to(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
        file.flush()?;
        Ok(digest)
    }

    /// Writes the archive and returns the image's digest, which is that of its manifest.
    pub fn write_to(&self, out: impl Write) -> io::Result<String> {
        let plain = tar(&self.files)?;
        let layer = Blob::new(gzip(&plain)?);
        let config = Blob::json(&json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"User": self.user, "Entrypoint": self.entrypoint, "WorkingDir": "/", "Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&plain)]},
        }));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
            "annotations": self.labels,
        }));
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest.digest,
                "size": manifest.bytes.len(),
                "platform": {"os": "linux", "architecture": self.architecture},
                // The first is containerd's own, for a whole reference; the second is the layout's, for a tag.
                "annotations": {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag},
            }],
        });
        let mut files = vec![
            Entry::file("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()),
            Entry::file("index.json", index.to_string().into_bytes()),
            Entry::directory("blobs"),
            Entry::directory("blobs/sha256"),
        ];
        let digest = manifest.digest.clone();
        files.extend([manifest, config, layer].map(Blob::into_entry));
        write_tar(&files, out)?;
        Ok(digest)
    }
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: sha256(&bytes), bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn into_entry(self) -> Entry {
        Entry::file(&format!("blobs/{}", self.digest.replace(':', "/")), self.bytes)
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Its header has no time and no name.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn tar(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_tar(entries, &mut bytes)?;
    Ok(bytes)
}

fn write_tar(entries: &[Entry], out: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    for entry in entries {
        let content = entry.content.as_deref();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
        header.set_size(content.map_or(0, <[u8]>::len).try_into().map_err(io::Error::other)?);
        header.set_mode(entry.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let path = if content.is_some() { entry.path.clone() } else { format!("{}/", entry.path) };
        archive.append_data(&mut header, path, content.unwrap_or_default())?;
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test")]

    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            name: "localhost/one:1".to_owned(),
            architecture: "amd64".to_owned(),
            files: vec![Entry::directory("bin"), Entry::program("bin/one", b"#!".to_vec())],
            entrypoint: vec!["/bin/one".to_owned()],
            user: "65532:65532".to_owned(),
            labels: [("b", "2"), ("a", "1"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    fn written(image: &Image) -> (String, Vec<u8>) {
        let mut bytes = Vec::new();
        let digest = image.write_to(&mut bytes).unwrap();
        (digest, bytes)
    }

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        });
        files.collect()
    }

    #[test]
    fn the_same_image_has_the_same_bytes() {
        assert_eq!(written(&image()), written(&image()));
        let other = Image { user: "0".to_owned(), ..image() };
        assert_ne!(written(&image()).0, written(&other).0);
    }

    #[test]
    fn every_blob_is_what_its_name_and_its_descriptor_say() {
        let (digest, bytes) = written(&image());
        let files = unpacked(&bytes);
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", name.replace(':', "/"))];
            assert_eq!((sha256(bytes).as_str(), descriptor["size"].as_u64()), (name, Some(bytes.len() as u64)));
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], digest.as_str());
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(blob(&manifest["layers"][0]).as_slice()).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layer).as_str());
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/one"]));
        assert_eq!(config["config"]["Labels"], json!({"a": "1", "b": "2", "c": "3"}));
        assert_eq!(manifest["annotations"], config["config"]["Labels"]);
        assert_eq!(unpacked(&layer)["bin/one"], b"#!");
    }

    #[test]
    fn a_file_is_roots_and_has_no_time() {
        let bytes = tar(&image().files).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let headers = archive.entries().unwrap().map(|entry| {
            let header = entry.unwrap().header().clone();
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap())
        });
        assert_eq!(headers.collect::<Vec<_>>(), [(0, 0, 0, 0o755), (0, 0, 0, 0o755)]);
    }
}
