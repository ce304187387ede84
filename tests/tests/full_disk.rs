//! Disks that fill up: what is left, and how to go on.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nasbn_tests::{program, run, run_short_of_room, small_bundle, text};

/// Room for metrics, but not for a checkpoint, in bytes.
const ROOM: u64 = 1 << 16;

/// Arguments of an adaptation.
fn adaptation<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let data = ["--data", "digits", "--threads", "1", "--quiet", "--out", text(out)];
    [&["adapt", "--bundle", text(small_bundle())], &data[..], more].concat()
}

/// The files of a checkpoint.
fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| !text(path).ends_with(".jsonl"));
    files.sort();
    files.into_iter().map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

fn size(file: &Path) -> u64 {
    file.metadata().unwrap().len()
}

#[test]
fn a_full_disk_leaves_the_old_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("c");
    run("nasbn", &adaptation(&out, &["--epochs", "1"])).ok();
    let before = state(&out);
    let metrics = fs::read(out.join("metrics.jsonl")).unwrap();
    // The largest file may be smaller than a checkpoint.
    let ran = run_short_of_room(ROOM, "nasbn", &adaptation(&out, &["--epochs", "2", "--force"]));
    // To go on is to go on with the older run.
    let said = ran.fails(2, "the last checkpoint").stderr;
    assert!(!said.contains("--resume"), "{said}");
    assert!(state(&out) == before, "the old checkpoint changed");
    assert!(fs::read(out.join("metrics.jsonl")).unwrap() == metrics, "its metrics changed");
}

#[test]
fn an_adaptation_that_has_written_nothing_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/deeper");
    let one = ["--epochs", "1"];
    let ran = run_short_of_room(ROOM, "nasbn", &adaptation(&out, &one));
    ran.fails(2, "no checkpoint was written yet");
    assert!(!dir.path().join("new").exists());
    // The parameters have room, but what names them cannot be written.
    fs::create_dir_all(out.join("checkpoint.postcard")).unwrap();
    run("nasbn", &adaptation(&out, &[&one[..], &["--force"]].concat())).fails(2, "checkpoint.postcard");
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["checkpoint.postcard"]);
}

#[test]
fn an_adaptation_goes_on_after_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let epochs = ["--epochs", "5", "--batch", "8"];
    run("nasbn", &adaptation(&whole, &epochs)).ok();
    let largest = state(&whole).iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap();
    // Checkpoints have room, and metrics until they are as long.
    let room = largest.next_multiple_of(512);
    assert!(room < size(&whole.join("metrics.jsonl")), "{room}");
    let said = run_short_of_room(room, "nasbn", &adaptation(&cut, &epochs)).fails(4, "metrics.jsonl").stderr;
    assert!(
        said.contains("the last checkpoint in") && said.contains("go on with the same command and --resume"),
        "{said}"
    );
    run("nasbn", &adaptation(&cut, &[&epochs[..], &["--resume"]].concat())).ok();
    assert!(state(&whole) == state(&cut), "the resumed run differs");
    let steps = |dir: &Path| fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(steps(&whole), steps(&cut));
}

#[test]
fn scores_go_on_after_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole.csv"), dir.path().join("cut.csv"));
    let partial = dir.path().join("cut.csv.partial");
    let score =
        |out| ["score", "--bundle", text(small_bundle()), "--random", "200", "--indicators", "bn_all", "--out", out];
    // Told on success: nothing but that.
    let ran = run("nasbn", &[&score(text(&whole))[..], &["--quiet"]].concat()).ok();
    assert_eq!((ran.stdout, ran.stderr), (String::new(), String::new()));
    let short = |room, more: &[&str]| run_short_of_room(room, "nasbn", &[&score(text(&cut))[..], more].concat());
    // Not even the first line has room: nothing is in the way of the next start.
    short(512, &[]).fails(2, "cut.csv.partial");
    assert!(!partial.exists());
    for more in [&[][..], &["--resume"]] {
        let said = short(4096, more).fails(4, "cut.csv.partial").stderr;
        assert!(said.contains("go on with the same command and --resume"), "{said}");
        // Rows that had room, whole.
        let kept = fs::read_to_string(&partial).unwrap();
        assert!(kept.lines().count() > 10 && kept.ends_with('\n') && kept.len() <= 4096, "{kept}");
    }
    run("nasbn", &[&score(text(&cut))[..], &["--resume"]].concat()).ok();
    assert!(fs::read(&whole).unwrap() == fs::read(&cut).unwrap() && !partial.exists());
}

#[test]
fn networks_that_have_no_room_leave_nothing_or_what_can_be_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoint, out, found) = (dir.path().join("checkpoint"), dir.path().join("sub"), dir.path().join("found"));
    run("nasbn", &adaptation(&checkpoint, &["--epochs", "1"])).ok();
    let common = ["--bundle", text(small_bundle()), "--data", "digits", "--threads", "1"];
    let subnet = [&["subnet"], &common[..], &["--path", "22212220", "--out", text(&out)]].concat();
    // subnet.json alone would have room.
    let said = run_short_of_room(8192, "nasbn", &subnet).fails(2, "subnet.onnx").stderr;
    assert!(!said.contains("nothing was changed") && !out.exists(), "{said}");
    let search = ["search", "--checkpoint", text(&checkpoint), "--objective", "bn-all", "--evaluations", "8"];
    let search = [&search[..], &["--max-params", "60k", "--out", text(&found)], &common].concat();
    run_short_of_room(0, "nasbn", &search).fails(2, "search.jsonl.partial");
    assert!(!found.exists());
    let said = run_short_of_room(4096, "nasbn", &search).fails(4, text(&found)).stderr;
    assert!(said.contains("go on with the same command and --resume"), "{said}");
    run("nasbn", &[&search[..], &["--resume"]].concat()).ok();
    assert!(found.join("winner.onnx").exists() && !found.join("search.jsonl.partial").exists());
}

#[test]
fn results_that_cannot_be_printed_are_an_error_with_a_hint() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(program("nasbn")).args(["doctor"]).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("standard output") && said.contains("hint:"), "{said}");
}
