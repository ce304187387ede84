//! `cargo demo`: the main job on real data, as a session that one could type.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// Which data the demo runs on, and how long.
struct Scale {
    /// What `--data` is.
    data: String,
    /// Options of `nasbn-export build`.
    space: &'static str,
    /// Options of `nasbn adapt`.
    adapt: &'static str,
    /// Options of `nasbn score`.
    score: &'static str,
    /// Options of `nasbn search`.
    search: &'static str,
    /// Options of `nasbn latency`.
    latency: &'static str,
    /// Options of `nasbn search` within a latency budget.
    within: &'static str,
}

impl Scale {
    fn of(cifar10: Option<&Path>) -> Self {
        match cifar10 {
            None => Self {
                data: "digits".into(),
                space: "--space nas-bench-macro --image-size 16 --width 0.25",
                adapt: "--epochs 100 --rate 2 --no-augment",
                score: "--random 1000",
                search: "--max-macs 1M",
                latency: "--threads 1 --networks 48 --check 32 --min-time 50ms",
                within: "--threads 1 --min-time 100ms",
            },
            Some(dir) => Self {
                data: format!("cifar10:{}", dir.display()),
                space: "--space nas-bench-macro --image-size 32",
                adapt: "--epochs 20",
                // A path costs a second here, so fewer are looked at, on fewer images.
                score: "--random 40 --validation-images 500",
                search: "--max-macs 50M --evaluations 60 --validation-images 1000",
                latency: "--threads 1 --networks 64 --check 64 --min-time 200ms",
                within: "--threads 1 --min-time 500ms --validation-images 1000",
            },
        }
    }
}

/// The session: a command a line; `{...}` are filled in as whole words, `{budget}` when it is its turn.
const SESSION: [&str; 8] = [
    "nasbn-export build {space} --classes 10 --bn every-operator --seed 0 --out {bundle}",
    "nasbn-export inspect {bundle}",
    "nasbn doctor",
    "nasbn adapt --bundle {bundle} --data {data} {adapt} --out {checkpoint}",
    "nasbn score --bundle {bundle} --checkpoint {checkpoint} --data {data} {score} --out {scores}",
    "nasbn search --bundle {bundle} --checkpoint {checkpoint} --data {data} {search} --out {found}",
    "nasbn latency --bundle {bundle} {latency} --out {table} --export {measured}",
    "nasbn search --bundle {bundle} --checkpoint {checkpoint} --data {data} --latency {table} --budget {budget} {within} --out {fast}",
];

/// What stands for the budget until networks have been measured.
const BUDGET: &str = "{budget}";
/// The latency table as JSON.
const MEASURED: &str = "here.latency.json";

/// A budget that half of the networks keep on the machine that `measured` was measured on.
fn budget(measured: &Path) -> Result<String> {
    let text = fs::read_to_string(measured).with_context(|| measured.display().to_string())?;
    let table: serde_json::Value = serde_json::from_str(&text).with_context(|| measured.display().to_string())?;
    let networks = table["networks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut ms: Vec<f64> = networks.iter().filter_map(|network| network["timing"]["median_ms"].as_f64()).collect();
    ms.sort_by(f64::total_cmp);
    let middle = ms.get(ms.len() / 2).context("no network was measured")?;
    Ok(format!("{middle:.3}ms"))
}

/// Words of the session's commands, the program first.
fn session(out: &Path, scale: &Scale) -> Vec<Vec<String>> {
    let options = |text: &str| text.split(' ').map(str::to_owned).collect();
    let place = |name: &str| vec![out.join(name).display().to_string()];
    let word = |word: &str| match word {
        "{space}" => options(scale.space),
        "{adapt}" => options(scale.adapt),
        "{score}" => options(scale.score),
        "{search}" => options(scale.search),
        "{latency}" => options(scale.latency),
        "{within}" => options(scale.within),
        "{table}" => place("here.latency"),
        "{measured}" => place(MEASURED),
        "{fast}" => place("found-within-budget"),
        "{bundle}" => place("bundle"),
        "{checkpoint}" => place("checkpoint"),
        "{scores}" => place("scores.csv"),
        "{found}" => place("found"),
        "{data}" => vec![scale.data.clone()],
        other => vec![other.to_owned()],
    };
    SESSION.iter().map(|line| line.split(' ').flat_map(word).collect()).collect()
}

/// Runs the session with the programs in `programs`; what it writes goes below `target_dir`, in place of what an
/// earlier run wrote.
///
/// # Errors
/// The first command that fails.
pub fn run(target_dir: &Path, programs: &Path, cifar10: Option<&Path>) -> Result<()> {
    let out: PathBuf = target_dir.join(if cifar10.is_some() { "demo-cifar10" } else { "demo" });
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    for mut words in session(&out, &Scale::of(cifar10)) {
        if let Some(word) = words.iter_mut().find(|word| *word == BUDGET) {
            *word = budget(&out.join(MEASURED))?;
        }
        println!("$ {}", words.join(" "));
        // The programs find the provisioned library by themselves.
        super::run(Command::new(programs.join(&words[0])).args(&words[1..]).env_remove("ORT_DYLIB_PATH"))?;
        println!();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_word_of_the_session_is_filled_in() {
        for cifar10 in [None, Some(Path::new("some where"))] {
            let lines = session(Path::new("target/demo"), &Scale::of(cifar10));
            assert!(lines.iter().all(|words| ["nasbn", "nasbn-export"].contains(&words[0].as_str())));
            let filled = |word: &&String| word.as_str() != BUDGET;
            assert!(lines.iter().flatten().filter(filled).all(|word| !word.is_empty() && !word.contains(['{', '}'])));
        }
        let data = Scale::of(Some(Path::new("some where"))).data;
        assert_eq!(data, "cifar10:some where");
    }

    #[test]
    fn the_budget_is_what_half_of_the_networks_keep() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.json");
        let of = |ms: f64| serde_json::json!({ "timing": { "median_ms": ms } });
        fs::write(&file, serde_json::json!({ "networks": [of(3.0), of(1.0), of(2.0)] }).to_string()).unwrap();
        assert_eq!(budget(&file).unwrap(), "2.000ms");
        fs::write(&file, "{}").unwrap();
        assert!(budget(&file).is_err() && budget(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_session_stops_at_the_first_failure_and_leaves_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("demo/old");
        fs::create_dir_all(&old).unwrap();
        // One program that ends well and tells what it was to do, one that fails.
        let log = dir.path().join("log");
        let scripts = "printf '#!/bin/sh\\necho $1 >> %s\\n' \"$1\" > nasbn-export; printf '#!/bin/sh\\nexit 3\\n' > nasbn; chmod +x nasbn*";
        let mut write = Command::new("sh");
        assert!(write.args(["-c", scripts, "sh"]).arg(&log).current_dir(dir.path()).status().unwrap().success());
        let error = run(dir.path(), dir.path(), None).unwrap_err();
        assert_eq!(error.to_string(), "`nasbn doctor` ended with exit status: 3");
        assert_eq!(fs::read_to_string(log).unwrap(), "build\ninspect\n");
        assert!(!old.exists());
    }
}
