//! Licences of what is in a package: nasbn's own, ONNX Runtime's, and those of the crates that the program is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{PackageError, Part};
use crate::library::Library;

/// The crate that the program is built from.
const ROOT: &str = "nasbn-runtime";
/// What Rust's own part of a program is called in the list.
const STANDARD_LIBRARY: &str = "the Rust standard library";
/// Largest licence text that is taken.
const MOST_BYTES: u64 = 64 << 10;
/// Beginnings of the names of files that hold licences, in capitals.
const LICENCE_FILES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// nasbn's own.
pub fn own() -> [Part; 2] {
    [
        Part::text("licences/LICENSE-MIT", include_str!("../../../LICENSE-MIT").to_owned()),
        Part::text("licences/LICENSE-APACHE", include_str!("../../../LICENSE-APACHE").to_owned()),
    ]
}

/// ONNX Runtime's, and those of what it is made of.
pub fn of_onnxruntime(library: &Library, notices: PathBuf) -> [Part; 2] {
    let own = include_str!("../../data/licences/onnxruntime.txt");
    let version = library.version.as_str();
    let text = format!("ONNX Runtime {version}, unchanged, from the package {}.\n\n{own}", library.package);
    [
        Part::text("licences/onnxruntime/LICENSE", text),
        Part::file("licences/onnxruntime/ThirdPartyNotices.txt", notices),
    ]
}

/// Those of the crates that the program `binary` is made of, as cargo knows them in the checkout that it was built in.
///
/// # Errors
/// [`PackageError::Licences`].
pub fn of_crates(binary: &Path, triple: &str) -> Result<Part, PackageError> {
    let root = workspace(binary).ok_or_else(|| PackageError::Licences {
        reason: format!("neither {} nor the current directory is in a checkout of nasbn", binary.display()),
    })?;
    let metadata = metadata(&root, triple)?;
    let crates = linked(&metadata).ok_or_else(|| PackageError::Licences {
        reason: format!("`cargo metadata` tells of no {ROOT} and what it uses"),
    })?;
    Ok(Part::text("licences/third-party.txt", text_of(&crates)))
}

/// The checkout that a file, or else the current directory, is in.
fn workspace(binary: &Path) -> Option<PathBuf> {
    let holds = |directory: &Path| {
        let lock = fs::read_to_string(directory.join("Cargo.lock")).unwrap_or_default();
        lock.contains(&format!("name = \"{ROOT}\"\n"))
    };
    let starts = [fs::canonicalize(binary).ok(), env::current_dir().ok()];
    starts.into_iter().flatten().find_map(|start| start.ancestors().find(|d| holds(d)).map(Path::to_owned))
}

fn metadata(root: &Path, triple: &str) -> Result<Value, PackageError> {
    let failed = |reason: String| PackageError::Licences { reason: format!("`cargo metadata`: {reason}") };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", triple]);
    let ran = command.current_dir(root).stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        return Err(failed(if said.is_empty() { ran.status.to_string() } else { said }));
    }
    serde_json::from_slice(&ran.stdout).map_err(|e| failed(e.to_string()))
}

/// A crate that is linked.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    place: String,
    /// Its directory on this machine.
    directory: PathBuf,
}

/// Crates other than the workspace's own that the program links, in order; none if the data is not what it should be.
/// It may link fewer: of one that is left out by a feature, cargo knows all the same.
fn linked(metadata: &Value) -> Option<Vec<Crate>> {
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array()?.iter().filter_map(|p| Some((p["id"].as_str()?, p))).collect();
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array()?.iter().filter_map(|n| Some((n["id"].as_str()?, n))).collect();
    let mut left = vec![*packages.iter().find(|(_, p)| p["name"] == ROOT)?.0];
    let mut seen: BTreeSet<&str> = left.iter().copied().collect();
    let mut crates = BTreeSet::new();
    while let Some(id) = left.pop() {
        let package = packages.get(id)?;
        let macros = package["targets"]
            .as_array()?
            .iter()
            .any(|t| t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == "proc-macro")));
        if macros {
            continue;
        }
        // Those of the workspace have no source.
        if !package["source"].is_null() {
            let text = |key: &str, without: &str| package[key].as_str().unwrap_or(without).to_owned();
            crates.insert(Crate {
                name: text("name", ""),
                version: text("version", ""),
                licence: text("license", "see its licence file"),
                place: text("repository", ""),
                directory: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
            });
        }
        for dependency in nodes.get(id)?["deps"].as_array()? {
            let normal = dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str()?;
            if normal && seen.insert(id) {
                left.push(id);
            }
        }
    }
    Some(crates.into_iter().collect())
}

/// The list, and every licence text once.
fn text_of(crates: &[Crate]) -> String {
    let mut out = String::from("Crates that nasbn is made of (a build may leave some out), and their licences.\n\n");
    // Linked into every program, and in no list of cargo's.
    let (name, licence) = (STANDARD_LIBRARY, "MIT OR Apache-2.0");
    let _ = writeln!(out, "{name:<28} {licence:<34} https://github.com/rust-lang/rust");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    texts.insert(include_str!("../../data/licences/rust.txt").to_owned(), vec![name.to_owned()]);
    for one in crates {
        let name = format!("{} {}", one.name, one.version);
        let _ = writeln!(out, "{name:<28} {:<34} {}", one.licence, one.place);
        for text in licence_texts(&one.directory) {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut texts: Vec<_> = texts.into_iter().map(|(text, names)| (names, text)).collect();
    texts.sort();
    for (names, text) in texts {
        let _ = write!(out, "\n{}\n{}\n\n{}\n", "=".repeat(80), names.join(", "), text.trim_end());
    }
    out
}

fn licence_texts(directory: &Path) -> BTreeSet<String> {
    let is_licence = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        LICENCE_FILES.iter().any(|begin| name.starts_with(begin))
            && fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MOST_BYTES)
    };
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = files.filter(|path| is_licence(path)).filter_map(|path| fs::read(path).ok());
    texts.map(|bytes| String::from_utf8_lossy(&bytes).replace("\r\n", "\n")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_or_tests_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "the licence\r\nof both"), ("b", "the licence\nof both")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("LICENSE-MIT"), text).unwrap();
        }
        let package = |name: &str, kind: &str, own: bool| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": "MIT", "repository": null,
                "source": if own { Value::Null } else { json!("registry") },
                "targets": [{ "kind": [kind] }],
                "manifest_path": dir.path().join(name).join("Cargo.toml"),
            })
        };
        let uses = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                package(ROOT, "lib", true), package("a", "lib", false), package("b", "lib", false),
                package("derive", "proc-macro", false), package("builds", "lib", false), package("tests", "lib", false),
            ],
            "resolve": { "nodes": [
                { "id": ROOT, "deps": [
                    uses("a", Value::Null), uses("derive", Value::Null), uses("builds", json!("build")),
                    uses("tests", json!("dev")),
                ] },
                { "id": "a", "deps": [uses("b", Value::Null)] },
                { "id": "b", "deps": [] },
            ] },
        });
        let crates = linked(&metadata).unwrap();
        assert_eq!(crates.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let text = text_of(&crates);
        assert!(text.contains("a 1.0.0 ") && text.contains("\na 1.0.0, b 1.0.0\n\nthe licence\nof both\n"), "{text}");
        assert_eq!(text.matches("the licence").count(), 1);
        assert_eq!(linked(&json!({})), None);
    }

    #[test]
    fn of_this_checkout_every_crate_has_a_licence_and_nothing_names_the_machine() {
        let exe = env::current_exe().unwrap();
        let part = of_crates(&exe, &crate::library::host_triple()).unwrap();
        let super::super::parts::Contents::Text(text) = part.contents else { unreachable!() };
        assert!(text.contains("the Rust standard library\n\nCopyright (c) The Rust Project Contributors\n"));
        for name in ["the Rust standard library ", "ort ", "clap ", "serde "] {
            assert!(text.contains(&format!("\n{name}")), "{name}");
        }
        assert!(!text.contains("nasbn-runtime") && !text.contains("serde_derive "));
        assert!(text.contains("Permission is hereby granted"));
        let home = env::var("HOME").unwrap_or_default();
        assert!(home.len() < 2 || !text.contains(&format!("{home}/")), "a path of this machine is in it");
        let again = of_crates(&exe, &crate::library::host_triple()).unwrap();
        assert_eq!(again.contents, super::super::parts::Contents::Text(text));
    }
}
