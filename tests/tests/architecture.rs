//! The arrows between crates, and what each crate must not know.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

/// A crate: what it depends on, for itself or its build, and what its tests depend on besides.
#[derive(Clone, Default)]
struct Package {
    own: Vec<String>,
    tests: Vec<String>,
}

type Workspace = BTreeMap<String, Package>;

/// Crates of the workspace that each crate may use; its tests may use no other either.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("nasbn-models", &[]),
    ("nasbn-export", &["nasbn-models"]),
    ("nasbn-kernels", &[]),
    ("nasbn-runtime", &["nasbn-export", "nasbn-kernels", "nasbn-models"]),
    ("nasbn-targets", &["nasbn-export", "nasbn-models"]),
    ("nasbn-tests", &["nasbn-export", "nasbn-models", "nasbn-runtime", "nasbn-targets"]),
];

/// Packages that one crate alone may use, its tests aside.
const KNOWN_TO_ONE: [(&str, &str); 2] = [("ort", "nasbn-runtime"), ("prost", "nasbn-export")];

/// What the source of a crate must not mention, and why.
const UNSPOKEN: [(&str, &[&str]); 5] = [
    ("models", &["std::", "ort::", "prost", "onnx::"]),
    ("export", &["ort::", "nasbn_runtime"]),
    ("runtime/kernels", &["ort::", "ndarray::"]),
    ("runtime", &["nasbn_targets", "prost::"]),
    ("targets", &["nasbn_runtime", "ort::", "prost::"]),
];

fn metadata() -> Value {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn workspace() -> Workspace {
    let metadata = metadata();
    let name = |v: &Value| v["name"].as_str().unwrap().to_owned();
    let mut crates = Workspace::new();
    for package in metadata["packages"].as_array().unwrap() {
        let entry = crates.entry(name(package)).or_default();
        for dependency in package["dependencies"].as_array().unwrap() {
            let tests = dependency["kind"] == "dev";
            if tests { &mut entry.tests } else { &mut entry.own }.push(name(dependency));
        }
    }
    crates
}

/// What breaks the rules above, a line each.
fn wrong_arrows(crates: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    let rules = BTreeMap::from(MAY_USE);
    for (name, package) in crates {
        let Some(may_use) = rules.get(name.as_str()) else {
            wrong.push(format!("{name} has no rule"));
            continue;
        };
        for used in package.own.iter().chain(&package.tests).filter(|used| used.starts_with("nasbn-")) {
            if !may_use.contains(&used.as_str()) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
        for (used, user) in KNOWN_TO_ONE {
            if name != user && package.own.iter().any(|own| own == used) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    wrong.extend(rules.keys().filter(|name| !crates.contains_key(**name)).map(|name| format!("{name} is missing")));
    wrong
}

/// Lines of `source` that mention what they must not, comments aside.
fn mentions<'a>(source: &'a str, words: &'a [&str]) -> impl Iterator<Item = (usize, &'a str)> {
    // `transport::` is not `ort::`: a word begins where no identifier goes on.
    let starts = |code: &str, at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    source.lines().enumerate().flat_map(move |(i, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let held = words.iter().filter(move |w| code.match_indices(**w).any(|(at, _)| starts(code, at)));
        held.map(move |word| (i + 1, *word))
    })
}

#[test]
fn the_arrows_between_crates_point_one_way() {
    let crates = workspace();
    assert_eq!(wrong_arrows(&crates), [""; 0]);
    // The rules are about what is there: the known packages are used, and the tests use every crate.
    for (used, user) in KNOWN_TO_ONE {
        assert!(crates[user].own.iter().any(|own| own == used), "{user} does not use {used}");
    }
    let tests = &crates["nasbn-tests"];
    // The kernels are the runtime's own affair.
    for (name, _) in MAY_USE.iter().filter(|(name, _)| !["nasbn-tests", "nasbn-kernels"].contains(name)) {
        assert!(tests.own.iter().chain(&tests.tests).any(|used| used == name), "nasbn-tests does not use {name}");
    }
}

#[test]
fn a_wrong_arrow_would_be_found() {
    let crates = workspace();
    for (user, used, tests) in [
        ("nasbn-models", "nasbn-export", false),
        ("nasbn-models", "nasbn-export", true),
        ("nasbn-export", "nasbn-runtime", false),
        ("nasbn-export", "ort", false),
        ("nasbn-runtime", "nasbn-targets", false),
        ("nasbn-runtime", "prost", false),
        ("nasbn-targets", "nasbn-runtime", true),
        ("nasbn-models", "nasbn-targets", false),
    ] {
        let mut wrong = crates.clone();
        let package = wrong.get_mut(user).unwrap();
        if tests { &mut package.tests } else { &mut package.own }.push(used.to_owned());
        assert_eq!(wrong_arrows(&wrong), [format!("{user} uses {used}")]);
    }
    let mut other = crates.clone();
    let models = other.remove("nasbn-models").unwrap();
    other.insert("nasbn-other".into(), models);
    assert_eq!(wrong_arrows(&other), ["nasbn-other has no rule", "nasbn-models is missing"]);
}

#[test]
fn no_crate_speaks_of_what_it_does_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wrong = Vec::new();
    for (name, words) in UNSPOKEN {
        let mut left = vec![root.join(name).join("src")];
        let mut files = 0;
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else if path.extension().is_some_and(|e| e == "rs") {
                files += 1;
                let source = fs::read_to_string(&path).unwrap();
                wrong.extend(mentions(&source, words).map(|(line, word)| format!("{}:{line}: {word}", path.display())));
            }
        }
        assert!(files > 5, "{name} has {files} source files");
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_word_is_found_where_it_begins_and_outside_comments() {
    let source = "use crate::transport::Line; // ort::\nlet s = ort::session();\nuse std::fs;";
    assert_eq!(mentions(source, &["ort::", "std::"]).collect::<Vec<_>>(), [(2, "ort::"), (3, "std::")]);
}

#[test]
fn models_has_no_standard_library() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/src/lib.rs");
    assert!(fs::read_to_string(source).unwrap().lines().any(|line| line == "#![no_std]"));
}

#[test]
fn the_device_reads_no_spaces_as_text() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let runtime = packages.iter().find(|p| p["name"] == "nasbn-runtime").unwrap();
    for (used, feature) in [("nasbn-models", "spec"), ("nasbn-export", "cli")] {
        let all = runtime["dependencies"].as_array().unwrap();
        let dependency = all.iter().find(|d| d["name"] == used && d["kind"].is_null()).unwrap();
        assert!(!dependency["features"].as_array().unwrap().iter().any(|f| f == feature), "{used}/{feature}");
        let package = packages.iter().find(|p| p["name"] == used).unwrap();
        let by_default = package["features"]["default"].as_array().is_some_and(|d| d.iter().any(|f| f == feature));
        assert!(!by_default || dependency["uses_default_features"] == false, "{used}/{feature}");
        assert!(package["features"][feature].is_array(), "{used} has no feature {feature}");
    }
}
