//! The whole thread through the public commands, and what may go wrong on the way.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nasbn_tests::{Ran, SMALL, export, program, run, small_bundle, text};
use serde_json::Value;
use tempfile::TempDir;

/// A short adaptation that all tests read.
fn checkpoint() -> &'static Path {
    static CHECKPOINT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = CHECKPOINT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        adapt(&path, &["--epochs", "1"]).ok();
        (dir, path)
    });
    path
}

fn adapt(out: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec![
        "adapt",
        "--bundle",
        text(small_bundle()),
        "--data",
        "digits",
        "--threads",
        "1",
        "--out",
        text(out),
        "--json",
    ];
    arguments.extend(more);
    run("nasbn", &arguments)
}

fn with_checkpoint(command: &str, out: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec![command, "--bundle", text(small_bundle()), "--checkpoint", text(checkpoint())];
    arguments.extend(["--data", "digits", "--threads", "1", "--out", text(out)]);
    if command == "score" {
        arguments.extend(["--reference-paths", "8"]);
    }
    arguments.extend(more);
    run("nasbn", &arguments)
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.sort();
    files.into_iter().map(|p| (p.file_name().unwrap().into(), fs::read(&p).unwrap())).collect()
}

/// Checkpoint files without the metrics, which hold times.
fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !text(name).ends_with(".jsonl") && text(name) != ".lock").collect()
}

#[test]
fn a_single_path_learns_the_digits() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("c");
    let ran = adapt(&out, &["--path", "22212220", "--epochs", "8", "--rate", "2", "--no-augment"]).ok();
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    let losses: Vec<f64> = summary["epoch_losses"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
    // Chance is ln 10 = 2.30.
    assert!(losses[0] > 1.5 && *losses.last().unwrap() < 1.2, "{losses:?}");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count() as u64, summary["steps"].as_u64().unwrap());
    let arguments = ["subnet", "--bundle", text(small_bundle()), "--checkpoint", text(&out), "--data", "digits"];
    let subnet = dir.path().join("s");
    let more = ["--path", "22212220", "--json", "--out", text(&subnet)];
    let result: Value = serde_json::from_str(&run("nasbn", &[&arguments[..], &more].concat()).ok().stdout).unwrap();
    let accuracy = result["validation"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.5, "{accuracy}");
    for extension in ["onnx", "safetensors", "json"] {
        assert!(subnet.join(format!("subnet.{extension}")).metadata().unwrap().len() > 100);
    }
    let definition: Value = serde_json::from_slice(&fs::read(subnet.join("subnet.json")).unwrap()).unwrap();
    assert!(definition["timm"].to_string().contains("ir_r1_k5_s2_e6_c"), "{definition}");
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let common = ["--epochs", "2", "--checkpoint-steps", "3", "--seed", "7"];
    for (case, more) in [(0, vec![]), (1, vec!["--optimizer", "adam", "--sampling", "fair", "--memory", "lean"])] {
        let whole = dir.path().join(format!("whole{case}"));
        let cut = dir.path().join(format!("cut{case}"));
        let options: Vec<&str> = common.into_iter().chain(more).collect();
        adapt(&whole, &options).ok();
        // Kill it as soon as it has a checkpoint, again and again, until it gets through.
        let mut kills = 0;
        for attempt in 0.. {
            let resume: &[&str] = if cut.join("checkpoint.postcard").exists() { &["--resume"] } else { &["--force"] };
            let mut arguments =
                vec!["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--threads", "1", "--quiet"];
            arguments.extend(["--out", text(&cut)]);
            arguments.extend(&options);
            arguments.extend(resume);
            let mut child = Command::new(program("nasbn")).args(&arguments).stdout(Stdio::null()).spawn().unwrap();
            if attempt < 4 {
                let before = fs::read(cut.join("checkpoint.postcard")).ok();
                for _ in 0..600 {
                    std::thread::sleep(Duration::from_millis(20));
                    let now = fs::read(cut.join("checkpoint.postcard")).ok();
                    if now.is_some() && now != before || child.try_wait().unwrap().is_some() {
                        break;
                    }
                }
                let _ = child.kill();
                kills += u32::from(child.wait().unwrap().signal() == Some(9));
            } else {
                assert!(child.wait().unwrap().success());
                break;
            }
        }
        assert!(kills >= 1, "no run was killed");
        assert!(state(&whole) == state(&cut), "the resumed run differs");
        let steps = |dir: &Path| fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count();
        assert_eq!(steps(&whole), steps(&cut));
    }
}

#[test]
fn two_runs_into_one_directory_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("c");
    fs::create_dir(&out).unwrap();
    let held = fs::File::create(out.join(".lock")).unwrap();
    held.lock().unwrap();
    adapt(&out, &["--epochs", "1"]).fails(2, "another `nasbn` writes to");
    drop(held);
    adapt(&out, &["--epochs", "1"]).ok();
}

#[test]
fn resuming_with_other_options_or_another_bundle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("c");
    adapt(&out, &["--epochs", "1"]).ok();
    adapt(&out, &["--epochs", "1"]).fails(2, "holds a checkpoint already");
    adapt(&out, &["--epochs", "1", "--seed", "9", "--resume"]).fails(2, "seed was 0, is 9");
    adapt(&dir.path().join("none"), &["--resume"]).fails(2, "holds no checkpoint");
    let other = dir.path().join("other");
    export(&other, &[&SMALL[..], &["--seed", "1"]].concat());
    let arguments = ["score", "--bundle", text(&other), "--checkpoint", text(&out), "--data", "digits"];
    run("nasbn", &[&arguments[..], &["--random", "2", "--out", "-"]].concat()).fails(2, "another bundle");
}

#[test]
fn scores_have_the_columns_that_scripts_rely_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("scores.csv");
    let paths = dir.path().join("paths.csv");
    fs::write(&paths, "index,arch\n1,22012010\n2,22212220\n3,22012001\n").unwrap();
    with_checkpoint("score", &out, &["--paths", text(&paths)]).ok();
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let header = reader.headers().unwrap().clone();
    let wanted = ["path", "canonical", "macs", "params", "depth"];
    assert_eq!(header.iter().take(5).collect::<Vec<_>>(), wanted);
    assert!(header.iter().any(|h| h == "bn_all") && header.iter().any(|h| h == "validation_accuracy"));
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|r| &r[0]).collect::<Vec<_>>(), ["22012010", "22212220", "22012001"]);
    // The first and the last are one network: the identity moves to the end of its stage.
    assert_eq!(rows[0][1], rows[2][1]);
    assert_eq!(rows[0].iter().skip(1).collect::<Vec<_>>(), rows[2].iter().skip(1).collect::<Vec<_>>());
    // Deterministic, and the same from stdin-like lines.
    let again = dir.path().join("again.csv");
    fs::write(&paths, "22012010\n22212220\n22012001\n").unwrap();
    with_checkpoint("score", &again, &["--paths", text(&paths)]).ok();
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    with_checkpoint("score", &out, &["--random", "30", "--no-validation"]).ok();
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let canonical: std::collections::HashSet<String> = reader.records().map(|r| r.unwrap()[1].to_owned()).collect();
    assert_eq!(canonical.len(), 30);
}

#[test]
fn a_search_stays_within_its_limits_and_says_when_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("found");
    let more = ["--max-macs", "200k", "--evaluations", "12", "--population", "4", "--parents", "2", "--json"];
    let first = with_checkpoint("search", &out, &more).ok();
    let report: Value = serde_json::from_str(&first.stdout).unwrap();
    assert!(report["winner"]["macs"].as_u64().unwrap() <= 200_000);
    assert!(report["random_search"]["macs"].as_u64().unwrap() <= 200_000);
    assert_eq!(report["evaluations"], 12);
    assert!(report["peers"].as_array().unwrap().len() > 1);
    for file in ["winner.onnx", "winner.safetensors", "winner.json", "result.json"] {
        assert!(out.join(file).is_file());
    }
    let saved: Value = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(saved, report);
    let second = with_checkpoint("search", &out, &more).ok();
    assert_eq!(first.stdout, second.stdout);
    // A cheap objective: the whole space is looked at, and no path beats the winner.
    let cheap = ["--objective", "bn-all", "--max-params", "60k", "--json"];
    let report: Value = serde_json::from_str(&with_checkpoint("search", &out, &cheap).ok().stdout).unwrap();
    assert_eq!(report["method"], "exhaustive");
    assert!(report["random_search"].is_null(), "there is nothing to compare an exhaustive search with");
    let paths = dir.path().join("all.csv");
    let digits = |n: u32| (0..8).map(move |i| char::from(b'0' + (n / 3u32.pow(i) % 3) as u8));
    let all: Vec<String> = (0..3u32.pow(8)).map(|n| digits(n).collect()).collect();
    fs::write(&paths, all.join("\n")).unwrap();
    let scores = dir.path().join("all-scores.csv");
    with_checkpoint("score", &scores, &["--paths", text(&paths), "--no-validation"]).ok();
    let mut reader = csv::Reader::from_path(&scores).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let (params, bn_all) = (column("params"), column("bn_all"));
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let within: Vec<f64> = rows
        .iter()
        .filter(|row| row[params].parse::<u64>().unwrap() <= 60_000)
        .map(|row| row[bn_all].parse().unwrap())
        .collect();
    assert!(within.len() > 10 && within.len() < rows.len(), "the limit must cut the space");
    // Written in as many digits as tell it from others.
    let best = within.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(report["winner"]["score"].as_f64().unwrap(), best, "a path within the limits beats the winner");
    let said = with_checkpoint("search", &out, &cheap[..4]).ok().stdout;
    assert!(said.contains("random search none: every network was looked at"), "{said}");
    let nothing = dir.path().join("nothing");
    with_checkpoint("search", &nothing, &["--max-macs", "10"]).fails(1, "no network is within the limits");
    assert!(!nothing.exists());
    with_checkpoint("search", &nothing, &["--max-macs", "-3"]).fails_usage();
    with_checkpoint("search", &nothing, &["--max-macs", "ten"]).fails_usage();
}

/// Errors of the argument parser.
trait Usage {
    fn fails_usage(self);
}

impl Usage for Ran {
    fn fails_usage(self) {
        assert_eq!(self.status, Some(2), "{}", self.stderr);
        assert!(self.stderr.contains("error:") && self.stderr.contains("hint:"), "{}", self.stderr);
    }
}

#[test]
fn a_path_that_the_space_does_not_have_gets_the_nearest_one() {
    let dir = tempfile::tempdir().unwrap();
    with_checkpoint("subnet", dir.path(), &["--path", "2221222"]).fails(2, "7 layers instead of 8");
    let ran = with_checkpoint("subnet", dir.path(), &["--path", "92212220"]).fails(2, "position 1");
    assert!(ran.stderr.contains("the nearest path is 22212220"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn training_that_diverges_stops_and_keeps_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("c");
    adapt(&out, &["--epochs", "1"]).ok();
    let (before, metrics) = (state(&out), fs::read(out.join("metrics.jsonl")).unwrap());
    // As many steps as the checkpoint that is there, and steps so long that numbers overflow, or do not quite.
    for rate in ["1e6", "1e7"] {
        let wild = ["--epochs", "1", "--force", "--rate", rate, "--clip-norm", "0", "--warmup-epochs", "0"];
        let wild = [&wild[..], &["--checkpoint-steps", "1"]].concat();
        let ran = adapt(&out, &wild).fails(2, "the last checkpoint");
        assert!(ran.stderr.contains("--find-rate") && ran.stderr.contains("--force"), "{}", ran.stderr);
        assert!(state(&out) == before, "the old checkpoint changed");
    }
    assert!(fs::read(out.join("metrics.jsonl")).unwrap() == metrics, "the old metrics changed");
    adapt(&dir.path().join("new"), &["--epochs", "1", "--rate", "1e6", "--clip-norm", "0"])
        .fails(2, "no checkpoint was written yet");
    let arguments = ["score", "--bundle", text(small_bundle()), "--checkpoint", text(&out), "--data", "digits"];
    run("nasbn", &[&arguments[..], &["--random", "1", "--indicators", "bn_all", "--out", "-"]].concat()).ok();
}

#[test]
fn an_interrupted_run_saves_and_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let options = ["--epochs", "6", "--checkpoint-steps", "1"];
    adapt(&whole, &options).ok();
    let mut arguments =
        vec!["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--threads", "1", "--quiet"];
    arguments.extend(["--out", text(&cut)]);
    arguments.extend(options);
    let mut child = Command::new(program("nasbn")).args(&arguments).stdout(Stdio::null()).spawn().unwrap();
    while !cut.join("checkpoint.postcard").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    // What a killed process may leave, and what is a user's own.
    fs::write(cut.join(".checkpoint.postcard.nasbn-x1"), "").unwrap();
    fs::write(cut.join("parameters-best.safetensors"), "mine").unwrap();
    arguments.push("--resume");
    run("nasbn", &arguments).ok();
    assert_eq!(fs::read(cut.join("parameters-best.safetensors")).unwrap(), b"mine");
    fs::remove_file(cut.join("parameters-best.safetensors")).unwrap();
    assert!(state(&whole) == state(&cut), "the resumed run differs");
    // Nobody listening is no reason to stop.
    let deaf = fs::File::options().write(true).open("/dev/full").unwrap();
    let loud: Vec<&str> = arguments.iter().copied().filter(|a| *a != "--quiet").collect();
    assert!(Command::new(program("nasbn")).args(&loud).stderr(deaf).stdout(Stdio::null()).status().unwrap().success());
    arguments.extend(["--graphs", "portable"]);
    run("nasbn", &arguments).fails(2, "fused was true, is false");
}

#[test]
fn equal_networks_are_trained_and_written_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (typed, canonical) = (dir.path().join("typed"), dir.path().join("canonical"));
    adapt(&typed, &["--epochs", "1", "--path", "22012001"]).ok();
    adapt(&canonical, &["--epochs", "1", "--path", "22012010"]).ok();
    assert!(state(&typed) == state(&canonical), "one network was trained in two ways");
    let subnet = |path: &str| {
        let out = dir.path().join(path);
        let more = ["--path", path, "--json"];
        let ran = with_checkpoint("subnet", &out, &more).ok();
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["path"], "22012010");
        fs::read(out.join("subnet.onnx")).unwrap()
    };
    assert!(subnet("22012001") == subnet("22012010"));
}

#[test]
fn the_rate_finder_suggests_a_rate() {
    let dir = tempfile::tempdir().unwrap();
    let ran = adapt(&dir.path().join("c"), &["--find-rate", "--path", "22212220"]).ok();
    let curve: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(curve["points"].as_array().unwrap().len() > 20);
    let suggested = curve["suggested"].as_f64().unwrap();
    assert!((0.01..5.0).contains(&suggested), "{suggested}");
    assert!(!dir.path().join("c").exists());
    // It writes nothing, so it need not be told where; a run that does must.
    let arguments = ["adapt", "--bundle", text(small_bundle()), "--data", "digits", "--threads", "1"];
    let without = run("nasbn", &[&arguments[..], &["--find-rate", "--path", "22212220", "--json"]].concat()).ok();
    assert_eq!(without.stdout, ran.stdout);
    run("nasbn", &arguments).fails_usage();
}

#[test]
fn a_damaged_bundle_or_checkpoint_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    copy(small_bundle(), &broken);
    let graph =
        fs::read_dir(broken.join("graphs")).unwrap().map(|e| e.unwrap().path()).find(|p| text(p).ends_with(".onnx"));
    let graph = graph.unwrap();
    let good = fs::read(&graph).unwrap();
    let try_bundle = || {
        run(
            "nasbn",
            &[
                "score",
                "--bundle",
                text(&broken),
                "--data",
                "digits",
                "--random",
                "1",
                "--indicators",
                "bn_all",
                "--out",
                "-",
            ],
        )
    };
    try_bundle().ok();
    let mut altered = good.clone();
    altered[10] ^= 1;
    fs::write(&graph, &altered).unwrap();
    try_bundle().fails(2, "SHA-256");
    fs::write(&graph, &good[..good.len() - 1]).unwrap();
    try_bundle().fails(2, "bytes");
    fs::remove_file(&graph).unwrap();
    try_bundle().fails(2, graph.file_name().unwrap().to_str().unwrap());
    fs::write(&graph, &good).unwrap();
    let manifest = fs::read(broken.join("manifest.postcard")).unwrap();
    let mut newer = manifest.clone();
    newer[8] = 200;
    fs::write(broken.join("manifest.postcard"), &newer).unwrap();
    try_bundle().fails(2, "format 200");
    fs::write(broken.join("manifest.postcard"), b"PK\x03\x04").unwrap();
    try_bundle().fails(2, "not a nasbn bundle");
    fs::remove_dir_all(&broken).unwrap();
    try_bundle().fails(2, "not a nasbn bundle");

    let ruined = dir.path().join("ruined");
    copy(checkpoint(), &ruined);
    let try_checkpoint = || {
        let arguments = ["score", "--bundle", text(small_bundle()), "--checkpoint", text(&ruined), "--data", "digits"];
        run("nasbn", &[&arguments[..], &["--random", "1", "--indicators", "bn_all", "--out", "-"]].concat())
    };
    try_checkpoint().ok();
    let names: Vec<PathBuf> = files(&ruined).into_iter().map(|(name, _)| ruined.join(name)).collect();
    for path in names.iter().filter(|p| !text(p).ends_with(".jsonl") && !text(p).ends_with(".lock")) {
        let good = fs::read(path).unwrap();
        for end in [0, 4, good.len() / 2, good.len() - 1] {
            fs::write(path, &good[..end]).unwrap();
            try_checkpoint().fails(2, "damaged");
        }
        fs::write(path, &good).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            let _bytes = fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn doctor_says_which_library_and_a_wrong_one_is_refused() {
    let ran = run("nasbn", &["doctor", "--json"]).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let providers = report["providers"].as_array().unwrap();
    assert!(providers.iter().any(|p| p["provider"] == "cpu" && p["works"] == true), "{providers:?}");
    assert!(report["library"]["minor"].as_u64().unwrap() >= 17);
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("libonnxruntime.so");
    fs::write(&fake, b"not a library").unwrap();
    let ran = run("nasbn", &["doctor", "--json", "--ort-library", text(&fake)]).fails(3, "does not load");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["problem"].as_str().unwrap().contains("does not load"), "{report}");
    assert!(!report["hint"].as_str().unwrap().is_empty());
    run("nasbn", &["doctor", "--ort-library", "/nonexistent.so"]).fails(3, "/nonexistent.so");
    let mut environment = Command::new(program("nasbn"));
    environment.args(["doctor"]).env("ORT_DYLIB_PATH", text(&fake));
    nasbn_tests::run_command(&mut environment).fails(3, "does not load");
}

#[test]
fn the_oldest_and_the_newest_library_give_the_same_losses() {
    /// Relative difference of the mean loss of an epoch between versions of ONNX Runtime.
    const CLOSE: f64 = 1e-3;
    let libraries = nasbn_tests::libraries();
    assert!(libraries.len() >= 2, "`cargo xtest` provisions two libraries");
    let dir = tempfile::tempdir().unwrap();
    for graphs in ["fused", "portable"] {
        let losses: Vec<f64> = libraries
            .iter()
            .map(|(_, library)| {
                let more =
                    ["--epochs", "1", "--rate", "0.02", "--force", "--graphs", graphs, "--ort-library", text(library)];
                let ran = adapt(&dir.path().join("c"), &more).ok();
                assert!(!ran.stderr.contains("arena"), "{}", ran.stderr);
                let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
                summary["epoch_losses"][0].as_f64().unwrap()
            })
            .collect();
        for loss in &losses {
            assert!((loss - losses[0]).abs() < CLOSE * losses[0], "{losses:?}");
        }
    }
}

#[test]
fn bad_data_and_arguments_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let try_data =
        |data: &str| run("nasbn", &["adapt", "--bundle", text(small_bundle()), "--data", data, "--out", text(&out)]);
    try_data("cifar11:x").fails_usage();
    try_data(&format!("cifar10:{}", text(dir.path()))).fails(2, "cifar10");
    try_data(&format!("images:{}", text(dir.path()))).fails(2, text(dir.path()));
    fs::write(dir.path().join("train.bin"), [0u8; 100]).unwrap();
    try_data(&format!("cifar10:{}", text(dir.path()))).fails(2, "100");
    fs::create_dir_all(dir.path().join("classes/only")).unwrap();
    try_data(&format!("images:{}", text(&dir.path().join("classes")))).fails(2, "one class");
    adapt(&out, &["--batch", "2000"]).fails(2, "2000");
    adapt(&out, &["--validation-fraction", "2"]).fails(2, "validation fraction");
    with_checkpoint("search", &out, &["--mutation", "0"]).fails(2, "--mutation");
    adapt(&out, &["--rate", "-1"]).fails_usage();
    adapt(&out, &["--threads", "0"]).fails_usage();
    assert!(!out.exists());
}

#[test]
fn nothing_is_written_into_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(small_bundle(), &link).unwrap();
    for inside in [small_bundle().join("out"), small_bundle().join("new/deeper"), link.join("new/deeper")] {
        adapt(&inside, &["--epochs", "1"]).fails(2, "is inside the bundle");
        for command in ["score", "search", "subnet"] {
            let arguments = [command, "--bundle", text(small_bundle()), "--data", "digits", "--out", text(&inside)];
            let more: &[&str] = match command {
                "score" => &["--random", "1"],
                "subnet" => &["--path", "11111111", "--checkpoint", "none"],
                _ => &["--checkpoint", "none"],
            };
            run("nasbn", &[&arguments[..], more].concat()).fails(2, "is inside the bundle");
        }
    }
    assert!(!small_bundle().join("out").exists() && !small_bundle().join("new").exists());
}
