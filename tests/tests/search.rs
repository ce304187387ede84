//! `nasbn search` that is stopped, killed and resumed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use nasbn_tests::{Ran, export, program, run, text};
use serde_json::Value;
use tempfile::TempDir;

const RECORD: &str = "search.jsonl.partial";

/// A small bundle, its checkpoint, and a place for results.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let (bundle, checkpoint) = (place.path("bundle"), place.path("checkpoint"));
        export(&bundle, &["--space", "nas-bench-macro", "--image-size", "8", "--width", "0.25", "--classes", "10"]);
        let arguments = ["adapt", "--bundle", text(&bundle), "--data", "digits", "--epochs", "1", "--quiet"];
        run("nasbn", &[&arguments[..], &["--out", text(&checkpoint)]].concat()).ok();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (bundle, checkpoint) = (self.path("bundle"), self.path("checkpoint"));
        let common = ["search", "--bundle", text(&bundle), "--checkpoint", text(&checkpoint), "--data", "digits"];
        let few = ["--population", "12", "--peers", "2", "--threads", "1"];
        let usual: &[&str] = if more.contains(&"--evaluations") { &[] } else { &["--evaluations", "60"] };
        let limit: &[&str] = if more.contains(&"--max-macs") { &[] } else { &["--max-macs", "200k"] };
        [&common[..], &few, usual, limit, more].concat().into_iter().map(str::to_owned).collect()
    }

    fn search(&self, more: &[&str]) -> Ran {
        let arguments = self.arguments(more);
        run("nasbn", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn start(&self, out: &Path, more: &[&str]) -> Child {
        let arguments = self.arguments(&[&["--out", text(out)], more].concat());
        Command::new(program("nasbn")).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Lines of a record.
fn recorded(out: &Path) -> usize {
    fs::read_to_string(out.join(RECORD)).map_or(0, |text| text.lines().count())
}

/// Waits until a search has recorded `more` scores, or has ended.
fn wait_for(out: &Path, more: usize, child: &mut Child) {
    let before = recorded(out).max(1);
    for _ in 0..12_000 {
        if recorded(out) >= before + more || child.try_wait().unwrap().is_some() {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("nothing is recorded");
}

/// Every file of a result. Files name their own directory, which is left out.
fn files(out: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let of = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).unwrap();
        let name = entry.file_name();
        match name == "result.json" {
            true => (name, String::from_utf8(bytes).unwrap().replace(text(out), "OUT").into_bytes()),
            false => (name, bytes),
        }
    };
    fs::read_dir(out).unwrap().map(|entry| of(entry.unwrap())).collect()
}

#[test]
fn a_search_that_is_killed_goes_on_to_the_same_bytes() {
    let place = Place::new();
    let (whole, cut) = (place.path("whole"), place.path("cut"));
    place.search(&["--out", text(&whole), "--quiet"]).ok();
    let mut kills = 0;
    for attempt in 0.. {
        let more: &[&str] = if cut.join(RECORD).exists() { &["--resume"] } else { &[] };
        let mut child = place.start(&cut, more);
        if attempt == 3 {
            assert!(child.wait().unwrap().success());
            break;
        }
        wait_for(&cut, 8, &mut child);
        let _ = child.kill();
        kills += u32::from(child.wait().unwrap().signal() == Some(9));
    }
    assert!(kills >= 1, "no search was killed");
    let (whole, cut) = (files(&whole), files(&cut));
    assert_eq!(whole.len(), 4, "{:?}", whole.keys());
    for (name, bytes) in &whole {
        assert!(cut.get(name) == Some(bytes), "{name:?} differs");
    }
    assert_eq!(cut.len(), 4, "{:?}", cut.keys());
}

#[test]
fn a_search_that_is_stopped_says_how_to_go_on_and_guards_what_it_left() {
    let place = Place::new();
    let out = place.path("found");
    let mut child = place.start(&out, &["--evaluations", "2000"]);
    wait_for(&out, 3, &mut child);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert!(words.contains("hint: go on with the same command and --resume"), "{words}");
    assert_eq!(files(&out).into_keys().collect::<Vec<_>>(), [RECORD]);
    let left = recorded(&out);
    let search = |more: &[&str]| place.search(&[&["--out", text(&out)], more].concat());
    search(&["--evaluations", "2000"]).fails(2, "an earlier run was stopped");
    search(&["--evaluations", "2000", "--seed", "1", "--resume"]).fails(2, "--seed was 0, is 1");
    let words = search(&["--evaluations", "2001", "--max-macs", "9M", "--resume"]).fails(2, "other options").stderr;
    assert!(words.contains("--evaluations was 2000, is 2001") && words.contains("--max-macs was "), "{words}");
    assert!(words.contains("is 9000000") && words.contains("hint: ") && !words.contains('{'), "{words}");
    search(&["--evaluations", "2000", "--objective", "accuracy", "--resume"])
        .fails(2, "--objective was loss, is accuracy");
    assert_eq!(recorded(&out), left);
    let elsewhere = place.path("elsewhere");
    place.search(&["--out", text(&elsewhere), "--resume"]).fails(2, "nothing to go on from");
    assert!(!elsewhere.exists());
    // A search that ends without a network leaves no record, and no directory that it has made.
    place.search(&["--out", text(&elsewhere), "--max-macs", "10"]).fails(1, "no network is within the limits");
    assert!(!elsewhere.exists());
    fs::create_dir(&elsewhere).unwrap();
    place.search(&["--out", text(&elsewhere), "--max-macs", "10"]).fails(1, "no network is within the limits");
    assert!(files(&elsewhere).is_empty());
}

#[test]
fn the_result_says_which_part_of_the_search_found_the_winner() {
    let place = Place::new();
    let out = place.path("found");
    let ran = place.search(&["--out", text(&out), "--json"]).ok();
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    let score = |part: &str| result[part]["score"].as_f64().unwrap();
    let (evolution, random) = (score("evolution"), score("random_search"));
    // A loss, and the lower the better.
    assert_eq!((&result["objective"], &result["direction"]), (&"loss".into(), &"lower".into()));
    assert_eq!(score("winner"), evolution.min(random));
    assert!(score("winner") > 0.0);
    let finder = if random < evolution { "random-search" } else { "evolution" };
    assert_eq!(result["found_by"], finder);
    let definition: Value = serde_json::from_slice(&fs::read(out.join("winner.json")).unwrap()).unwrap();
    assert_eq!((&definition["path"], &definition["params"]), (&result["winner"]["path"], &result["winner"]["params"]));
    assert!(definition["onnx_params"].as_u64() >= definition["params"].as_u64());
    let ran = place.search(&["--out", text(&out), "--json", "--objective", "bn-all", "--evaluations", "20000"]);
    let result: Value = serde_json::from_str(&ran.ok().stdout).unwrap();
    assert_eq!((&result["found_by"], &result["evolution"]), (&"exhaustive".into(), &Value::Null));
}
