//! The program as a user meets it: streams, exit codes, and what a failure leaves behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::build;
use nasbn_export::bundle::Bundle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_nasbn-export");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names(directory: &Path) -> Vec<OsString> {
    directory.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect()
}

const SMALL: [&str; 8] = ["build", "--space", "nas-bench-macro", "--image-size", "16", "--width", "0.1", "--out"];

#[test]
fn a_bundle_is_built_inspected_and_checked() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("b");
    let out = out.to_str().unwrap();
    let built = run(&[&SMALL[..], &[out, "--json"]].concat());
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let said: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    assert_eq!(said["space"], "nas-bench-macro");
    assert!(built.stderr.is_empty(), "words on a pipe: {}", text(&built.stderr));

    let inspected = run(&["inspect", out, "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(said["paths"], "6561");
    let path = run(&["inspect", out, "--json", "--path", "22212220"]);
    let said: serde_json::Value = serde_json::from_slice(&path.stdout).unwrap();
    assert_eq!((said["depth"].as_u64(), said["layers"].as_array().unwrap().len()), (Some(7), 10));

    assert_eq!(run(&["check", out]).status.code(), Some(0));
    std::fs::write(Path::new(out).join("graphs/loss.onnx"), "").unwrap();
    let checked = run(&["check", out]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(checked.stdout.is_empty());
    let words = text(&checked.stderr);
    assert!(words.starts_with("error: ") && words.contains("loss.onnx") && words.contains("\nhint: "), "{words}");
    assert!(!words.contains('\u{1b}'), "colours on a pipe");
}

#[test]
fn mistakes_exit_with_two_and_say_what_would_be_right() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("b");
    build(0, &out);
    let out = out.to_str().unwrap();
    let fresh = root.path().join("fresh");
    let fresh = fresh.to_str().unwrap();
    for (arguments, words) in [
        (vec!["inspect", out, "--path", "222"], "nearest path"),
        (vec!["inspect", "/nonexistent"], "hint: name the directory"),
        (vec!["build", "--space", "nas-bench-macro", "--out", out], "--force"),
        (vec!["build", "--space", "nonesuch", "--out", fresh], "built-in spaces are"),
        (vec!["build", "--space", "mobilenet", "--width", "nan", "--out", fresh], "--width"),
        (
            vec!["build", "--space", "mobilenet", "--classes", "1", "--out", fresh],
            "--classes <N>': 1 is not in 2..=65535",
        ),
        (vec!["build", "--space", "mobilenet", "--image-size", "65536", "--out", fresh], "65536 is not in 1..=4096"),
        (vec!["build", "--space", "mobilenet", "--weights", "w", "--seed", "0", "--out", fresh], "cannot be used with"),
        (vec!["build", "--space", "mobilenet", "--weights", "/none", "--out", fresh], "hint: name a safetensors file"),
        (vec!["build", "--space", "mobilenet", "--sead", "1", "--out", fresh], "--seed"),
        (vec!["spaces", "nonesuch"], "nas-bench-macro"),
    ] {
        let output = run(&arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said.contains(words), "{arguments:?} said: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!Path::new(fresh).exists());
}

#[test]
fn a_printed_space_is_a_space_file() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("mine.toml");
    std::fs::write(&file, run(&["spaces", "nas-bench-macro"]).stdout).unwrap();
    let out = root.path().join("b");
    let built = run(&["build", "--space", file.to_str().unwrap(), "--width", "0.1", "--out", out.to_str().unwrap()]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
}

#[test]
fn help_begins_with_examples() {
    for command in [&["--help"][..], &["build", "--help"], &["inspect", "--help"], &["check", "--help"]] {
        let help = run(command);
        assert_eq!(help.status.code(), Some(0));
        assert!(text(&help.stdout).starts_with("Example"), "{command:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(PROGRAM)
        .args(["spaces", "mobilenet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_full_disk_leaves_the_old_bundle_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("b");
    build(0, &out);
    // Files may not grow beyond 8 KiB: the weights do not fit, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let arguments = [&SMALL[..], &[out.to_str().unwrap(), "--force", "--seed", "1"]].concat();
    let output = Command::new("sh").args(["-c", script, PROGRAM]).args(arguments).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("b/graphs/weights.safetensors cannot be written") && said.contains("hint: make room"),
        "{said}"
    );
    assert!(!said.contains(".partial-"), "a temporary name: {said}");
    assert_eq!(names(root.path()), ["b"]);
    assert_eq!(Bundle::open(&out).unwrap().manifest().seed, 0);
}

#[test]
fn a_place_that_cannot_be_written_is_named_as_it_was_given() {
    // No user may make files there.
    let output = run(&[&SMALL[..], &["/proc/self/fdinfo/bundle"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("error: /proc/self/fdinfo/bundle cannot be written: ") && said.contains("hint:"),
        "{said}"
    );
    assert!(!said.contains(".partial-") && !said.contains("at path"), "a temporary name: {said}");
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_bundle_or_the_whole_new_one() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("b");
    build(0, &out);
    let arguments = [&SMALL[..], &[out.to_str().unwrap(), "--force", "--seed", "1", "--quiet"]].concat();
    // Killed when it has written more and more entries; whether it is faster does not matter.
    for entries in [1, 2, 3, 40, 120] {
        let mut child = Command::new(PROGRAM).args(&arguments).spawn().unwrap();
        let written = || {
            let staging = names(root.path()).into_iter().find(|n| n != "b");
            let inside = |name| root.path().join(name).join("graphs").read_dir().map_or(0, Iterator::count);
            staging.map_or(0, inside)
        };
        while written() < entries && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let bundle = Bundle::open(&out).unwrap();
        bundle.verify().unwrap();
        assert!(bundle.manifest().seed <= 1);
    }
    assert_eq!(run(&arguments).status.code(), Some(0));
    assert_eq!(names(root.path()), ["b"], "leftovers of killed programs stay");
    assert_eq!(Bundle::open(&out).unwrap().manifest().seed, 1);
}
