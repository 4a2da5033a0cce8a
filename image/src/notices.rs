//! The licences of what is in the binary: most ask that their text goes with it.
//!
//! The texts are those that the packages bring, of the lock file's versions. Order and content hang on nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::build::{Architecture, BINARY, metadata};

/// How the files with such texts are called, in lower case.
const FILES: [&str; 6] = ["licen", "copying", "copyright", "notice", "unlicense", "authors"];
/// Data of the image that no code of the binary holds: its CA certificates.
const CERTIFICATES: &str = "webpki-root-certs";
/// What is linked in without being a package.
const TOOLCHAIN: [(&str, &str); 2] = [
    ("the Rust standard library, MIT OR Apache-2.0", "The Rust Project Contributors"),
    ("the C library musl, MIT", "2005-2020 Rich Felker, et al."),
];
/// For a package that names this licence and holds no text.
const MIT: &str = include_str!("mit.txt");
const LINE: &str = "------------------------------------------------------------------------";

/// A package that is in the binary.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Linked<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    authors: Vec<&'a str>,
    folder: &'a Path,
}

/// The notices for the operator of `workspace`.
pub fn collect(workspace: &Path, architecture: Architecture) -> anyhow::Result<String> {
    let metadata = metadata(workspace, &["--filter-platform", architecture.target()])?;
    let linked = linked(&metadata)?;
    // By their words, so that the same text in other lines is there once; of who comes first it is printed.
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut add = |text: String, whose: &str| {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        texts.entry(words).or_insert_with(|| (text, Vec::new())).1.push(whose.to_owned());
    };
    let mut notices =
        format!("{BINARY} holds parts of the following. The texts of their licences come after the list.\n\n");
    for (what, authors) in TOOLCHAIN {
        writeln!(notices, "{what}")?;
        add(mit(authors), what);
    }
    for package in &linked {
        let whose = format!("{} {}", package.name, package.version);
        writeln!(notices, "{whose}, {}", package.licence)?;
        for text in package.texts(workspace)? {
            add(text, &whose);
        }
    }
    let mut texts: Vec<(String, Vec<String>)> = texts.into_values().collect();
    texts.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (text, mut whose) in texts {
        whose.dedup();
        write!(notices, "\n{LINE}\nOf {}:\n\n{}\n", whose.join(", "), text.trim_end())?;
    }
    Ok(notices)
}

fn mit(authors: &str) -> String {
    MIT.replace("AUTHORS", authors)
}

// === impl Linked ===

impl Linked<'_> {
    /// The texts that the package holds; else that of its licence.
    fn texts(&self, workspace: &Path) -> anyhow::Result<Vec<String>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.folder).with_context(|| format!("no sources of {}", self.name))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_file() && FILES.iter().any(|prefix| name.starts_with(prefix)) {
                paths.push(path);
            }
        }
        paths.sort();
        let read = |path| fs::read_to_string(path).map(|text| text.replace("\r\n", "\n"));
        if paths.is_empty() {
            ensure!(
                ["MIT", "Apache-2.0"].contains(&self.licence),
                "{} {} holds no text of its licence, {}",
                self.name,
                self.version,
                self.licence
            );
            let text =
                if self.licence == "MIT" { mit(&self.authors.join(", ")) } else { read(workspace.join("LICENSE"))? };
            return Ok(vec![text]);
        }
        paths.into_iter().map(read).collect::<Result<_, _>>().with_context(|| format!("the licence of {}", self.name))
    }
}

/// The packages that the binary consists of, without the operator's own and what runs only when it is built; and the CA
/// certificates.
fn linked(metadata: &Value) -> anyhow::Result<BTreeSet<Linked<'_>>> {
    let by_id = |at: &str| -> Option<BTreeMap<&str, &Value>> {
        metadata.pointer(at)?.as_array()?.iter().map(|one| Some((one.get("id")?.as_str()?, one))).collect()
    };
    let (packages, nodes) = (by_id("/packages").context("no packages")?, by_id("/resolve/nodes").context("no graph")?);
    let text = |id: &str, field: &str| packages.get(id)?.get(field)?.as_str();
    let named = |name: &str| packages.keys().copied().find(|id| text(id, "name") == Some(name));
    let mut open = vec![named(BINARY).context("no operator")?, named(CERTIFICATES).context("no certificates")?];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if packages.get(id).is_some_and(|package| is_macro(package)) || !found.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).and_then(|node| node.get("deps")?.as_array()).into_iter().flatten();
        open.extend(dependencies.filter(|one| is_linked(one)).filter_map(|one| one.get("pkg")?.as_str()));
    }
    let ours = named(BINARY);
    let package = |id: &'_ str| {
        let authors = packages.get(id)?.get("authors")?.as_array()?;
        Some(Linked {
            name: text(id, "name")?,
            version: text(id, "version")?,
            licence: text(id, "license")?,
            authors: authors.iter().filter_map(Value::as_str).collect(),
            folder: Path::new(text(id, "manifest_path")?).parent()?,
        })
    };
    let others = found.into_iter().filter(|id| Some(*id) != ours);
    others.map(|id| package(id).with_context(|| format!("{id} names no licence"))).collect()
}

/// Macros run in the compiler, with all that they need.
fn is_macro(package: &Value) -> bool {
    let targets = package.get("targets").and_then(Value::as_array).into_iter().flatten();
    let mut kinds = targets.filter_map(|target| target.get("kind")?.as_array()).flatten();
    kinds.any(|kind| kind == "proc-macro")
}

/// Neither of a build script nor of tests.
fn is_linked(dependency: &Value) -> bool {
    let kinds = dependency.get("dep_kinds").and_then(Value::as_array).into_iter().flatten();
    kinds.filter_map(|one| one.get("kind")).any(Value::is_null)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[test]
    fn every_package_of_the_binary_has_its_text_and_no_other_is_named() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let notices = collect(&workspace, Architecture::Amd64).unwrap();
        let (list, texts) = notices.split_once(LINE).unwrap();
        let names: BTreeSet<&str> =
            list.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect();
        for name in ["kube-client", "rustls", "ring", "tokio", "governor", CERTIFICATES] {
            assert!(names.contains(name), "{name}");
            assert!(texts.lines().any(|line| line.starts_with("Of ") && line.contains(&format!("{name} "))), "{name}");
        }
        for name in ["serde_derive", "proptest", "criterion", "testbed", "tar", "cc"] {
            assert!(!names.contains(name), "{name}");
        }
        assert!(texts.contains("Community Data License Agreement") && texts.contains("Andreas Fuchs"), "{texts}");
        // Nothing of this machine, and the same each time.
        let home = std::env::home_dir().unwrap();
        assert!(!notices.contains(home.to_str().unwrap()));
        assert_eq!(notices, collect(&workspace, Architecture::Amd64).unwrap());
    }
}
