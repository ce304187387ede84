//! A bundle that cannot be written is enough for every command.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use nasbn_tests::{SMALL, export, program, run_command, text};

const FEW: &str = "--validation-images 64";
const SEARCH: &str = "--evaluations 8 --population 4";
const FAST: &str = "--min-time 1ms --finalists 2 --objective bn-all --force";
/// Runs the arguments after `$0`, the bundle, where that cannot be written. Permission bits do not bind root, so it is mounted read-only in a
/// name space of its own.
const MOUNTED: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";

fn mounted(bundle: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MOUNTED]).arg(bundle).arg(program);
    command
}

/// Whether nothing can be written to `bundle` by a program that `command` gives.
fn is_read_only(command: &dyn Fn(&Path) -> Command, bundle: &Path) -> bool {
    let ran = |program: &str, argument: &Path| {
        let mut command = command(Path::new(program));
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ran("ls", bundle) && !ran("touch", &bundle.join("probe"))
}

#[test]
fn a_bundle_that_cannot_be_written_does() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    export(&bundle, &SMALL);
    let in_place = |program: &Path| Command::new(program);
    let apart = |program: &Path| mounted(&bundle, program);
    let mut permissions = fs::metadata(&bundle).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&bundle, permissions).unwrap();
    let ways: [&dyn Fn(&Path) -> Command; 2] = [&in_place, &apart];
    let Some(command) = ways.into_iter().find(|way| is_read_only(way, &bundle)) else {
        eprintln!("SKIPPED: nothing can be made read-only here");
        return;
    };
    let out = |name: &str| dir.path().join(name).display().to_string();
    let (checkpoint, table) = (out("checkpoint"), out("here.latency"));
    let commands = [
        ("adapt", "checkpoint", "--data digits --epochs 1".to_owned()),
        (
            "score",
            "scores.csv",
            format!("--data digits --checkpoint {checkpoint} {FEW} --random 3 --indicators bn_all,zen"),
        ),
        ("search", "found", format!("--data digits --checkpoint {checkpoint} {FEW} {SEARCH} --max-macs 1G --peers 2")),
        ("subnet", "subnet", format!("--data digits --checkpoint {checkpoint} {FEW} --path 22212220")),
        ("latency", "here.latency", "--networks 4 --check 2 --min-time 1ms".to_owned()),
        ("search", "fast", format!("--data digits {FEW} {SEARCH} --latency {table} --budget 1s {FAST}")),
    ];
    let before = files(&bundle);
    for (name, to, arguments) in commands {
        let mut command = command(&program("nasbn"));
        let to = out(to);
        command.args([name, "--bundle", text(&bundle), "--threads", "1", "--quiet", "--out", &to]);
        command.args(arguments.split(' '));
        run_command(&mut command).ok();
        assert!(Path::new(&to).exists(), "{name} wrote nothing");
    }
    assert_eq!(files(&bundle), before);
    // So that it can be removed.
    let mut permissions = fs::metadata(&bundle).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&bundle, permissions).unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path().display().to_string()).collect();
    names.sort();
    names
}
