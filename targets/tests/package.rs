//! `nasbn-targets list`, `show` and `package`: what goes to which stream, exit statuses, and what a package does.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use support::{Ran, echo, names, package, place, program, script, target};

#[test]
fn devices_are_listed_and_shown_as_words_and_as_data() {
    let dir = place();
    let run = |arguments: &[&str]| Ran::of(program(dir.path()).args(arguments));
    let list = run(&["list"]).ok().stdout;
    assert!(list.lines().any(|line| line.starts_with("orin-nano") && line.contains(" 87 ")), "{list}");
    let list: Value = serde_json::from_str(&run(&["list", "--json"]).ok().stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 9);
    assert_eq!(list[0]["providers"], serde_json::json!(["cpu"]));
    let shown = run(&["show", "NVIDIA Jetson Nano Developer Kit"]).ok().stdout;
    assert!(shown.contains("(nano)") && shown.contains("https://developer.nvidia.com/cuda-legacy-gpus"), "{shown}");
    let shown: Value = serde_json::from_str(&run(&["show", "jetson-orin-nano", "--json"]).ok().stdout).unwrap();
    assert_eq!(shown["cpu_library"], "1.32.0");
    assert!(shown["sources_cited"].as_array().unwrap().iter().all(|s| s["title"].is_string()));
    run(&["show", "orin-nan"]).fails(2, "is it `orin-nano`?");
}

#[test]
fn output_that_goes_nowhere_is_told_by_commands_that_do_something() {
    let dir = place();
    let glibc = support::glibc();
    // A pipe that nobody reads any more.
    let closed = |mut command: Command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Ran::of(command.stdout(writer))
    };
    let list = || {
        let mut command = program(dir.path());
        command.arg("list");
        command
    };
    closed(list()).ok();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    Ran::of(list().stdout(full)).fails(2, "No space left");
    let mut command = program(dir.path());
    command.args(["package", "--target", target(), "--glibc", &glibc, "--bundle", "bundle", "--out", "deploy"]);
    command.args(["--no-library", "--no-man", "--no-third-party", "--binary"]).arg(echo());
    closed(command).fails(2, "Broken pipe");
}

#[test]
fn bad_input_ends_with_2_and_what_is_not_to_be_had_with_3() {
    let dir = place();
    let run = |arguments: &[&str]| {
        let given = ["package", "--bundle", "bundle", "--out", "deploy", "--no-man", "--no-third-party"];
        Ran::of(program(dir.path()).args(given).args(arguments).env("NASBN_PYTHON", "/nonexistent/python"))
    };
    let binary = echo();
    let glibc = support::glibc();
    let like_this = ["--target", target(), "--glibc", &glibc, "--binary", binary.to_str().unwrap()];
    run(&["--target", "orin-nanno"]).fails(2, "is it `orin-nano`?");
    run(&["--target", "nano", "--jetpack", "6.2"]).fails(2, "it runs 4.6.1");
    run(&["--target", "orin-nano"]).fails(2, "target/jetson/aarch64-unknown-linux-gnu/device/nasbn");
    run(&["--target", "orin-nano", "--binary", "bundle/manifest.postcard"]).fails(2, "neither a program nor a library");
    let other = if cfg!(target_arch = "aarch64") { "generic-x86-64-cuda" } else { "orin-nano" };
    run(&["--target", other, "--binary", binary.to_str().unwrap()]).fails(2, "and");
    run(&[&like_this[..], &["--ort-version", "1.16.0"]].concat()).fails(2, "no ONNX Runtime 1.16.0 is pinned");
    let ran = run(&like_this);
    assert!(ran.stderr.starts_with("fetching ONNX Runtime"), "{ran:?}");
    assert!(ran.status == Some(3) && ran.stderr.contains("\nhint: "), "{ran:?}");
    assert_eq!(run(&["--target", target(), "--glibc", "two"]).status, Some(2));
    assert_eq!(names(dir.path()), ["bundle", "target"]);
}

#[test]
fn man_pages_come_from_a_program_for_this_machine_that_has_them() {
    let dir = place();
    for profile in ["release", "debug"] {
        fs::create_dir_all(dir.path().join("target").join(profile)).unwrap();
    }
    // The program looks beside itself, where a `nasbn` may really have been built: here there is none. Copied by a process
    // of its own, as `script` writes.
    fs::create_dir(dir.path().join("alone")).unwrap();
    let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_nasbn-targets")).arg(dir.path().join("alone")).status();
    assert!(copy.unwrap().success());
    let run = || {
        let mut command = Command::new(dir.path().join("alone/nasbn-targets"));
        command.current_dir(dir.path()).env_remove("CARGO_TARGET_DIR");
        command.args(["package", "--target", target(), "--glibc", &support::glibc(), "--bundle", "bundle"]);
        command.args(["--out", "deploy", "--no-library", "--no-third-party", "--target-dir", "target"]);
        Ran::of(command.arg("--binary").arg(echo()))
    };
    run().fails(2, "no `nasbn` is built for this machine");
    script(&dir.path().join("target/release/nasbn"), "echo no such command >&2; exit 2");
    run().fails(2, "target/release/nasbn man: no such command");
    let write = "for out; do :; done; for name in '' -adapt -man; do echo page > \"$out/nasbn$name.1\"; done";
    script(&dir.path().join("target/debug/nasbn"), write);
    run().ok();
    // The program that is packed has no `man`.
    assert_eq!(names(&dir.path().join("deploy/man/man1")), ["nasbn-adapt.1", "nasbn.1"]);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let dir = place();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(env!("CARGO_BIN_EXE_nasbn-targets"));
    command.args(["package", "--target", target(), "--glibc", &support::glibc(), "--bundle", "bundle"]);
    command.args(["--out", "deploy", "--no-library", "--no-man", "--no-third-party", "--binary"]).arg(echo());
    Ran::of(command.current_dir(dir.path())).ok();
    let list = "stat -c '%a %n' deploy deploy/bundle/graphs deploy/bin deploy/target.json deploy/run.sh deploy.tar.gz";
    let modes = Ran::of(Command::new("sh").args(["-c", list]).current_dir(dir.path())).ok().stdout;
    let modes: Vec<_> = modes.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(modes, ["755", "755", "755", "644", "755", "644"]);
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = place();
    let first = package(dir.path(), &echo(), &["--json"]).ok().stdout;
    // Files above 8 KiB cannot be written here: the program is one.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).arg(env!("CARGO_BIN_EXE_nasbn-targets"));
    command.args([
        "package",
        "--target",
        target(),
        "--glibc",
        &support::glibc(),
        "--bundle",
        "bundle",
        "--out",
        "deploy",
    ]);
    command.args(["--no-library", "--no-man", "--no-third-party", "--force", "--binary"]).arg(echo());
    let ran = Ran::of(command.current_dir(dir.path())).fails(2, "deploy: ");
    assert!(ran.stderr.contains("make room"), "{ran:?}");
    assert_eq!(names(dir.path()), ["bundle", "deploy", "deploy.tar.gz"]);
    let first: Value = serde_json::from_str(&first).unwrap();
    let sum = Ran::of(Command::new("sha256sum").arg(dir.path().join("deploy.tar.gz"))).ok().stdout;
    assert!(sum.starts_with(first["sha256"].as_str().unwrap()), "{sum}");
    let sums =
        Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(dir.path().join("deploy")).status();
    assert!(sums.unwrap().success());
}

/// A package whose program says what it is started with.
fn talking(dir: &Path) -> impl Fn(&[&str], Option<&str>) -> String {
    package(dir, &echo(), &[]).ok();
    let deploy = fs::canonicalize(dir.join("deploy")).unwrap();
    script(&deploy.join("bin/nasbn"), "printf '%s|' \"${ORT_DYLIB_PATH:-none}\" \"$@\"");
    let library = deploy.join("onnxruntime/some-machine/1.99.0");
    fs::create_dir_all(&library).unwrap();
    fs::write(library.join("libonnxruntime.so"), "").unwrap();
    let link = dir.join("nasbn");
    std::os::unix::fs::symlink(deploy.join("run.sh"), &link).unwrap();
    move |arguments, library| {
        let mut command = Command::new(&link);
        command.args(arguments).env_remove("ORT_DYLIB_PATH").current_dir("/");
        if let Some(library) = library {
            command.env("ORT_DYLIB_PATH", library);
        }
        Ran::of(&mut command).ok().stdout.replace(deploy.to_str().unwrap(), "HERE")
    }
}

#[test]
fn the_script_finds_library_and_bundle_beside_itself() {
    let dir = place();
    let run = talking(dir.path());
    let own = "HERE/onnxruntime/some-machine/1.99.0/libonnxruntime.so";
    assert_eq!(run(&["doctor", "--json"], None), format!("{own}|doctor|--json|"));
    assert_eq!(run(&["doctor"], Some("/other.so")), "/other.so|doctor|");
    assert_eq!(run(&[], None), format!("{own}|"));
    let bundle = "--bundle|HERE/bundle|";
    assert_eq!(run(&["adapt", "--out", "a b"], None), format!("{own}|adapt|{bundle}--out|a b|"));
    for command in ["score", "search", "subnet", "latency"] {
        assert_eq!(run(&[command], None), format!("{own}|{command}|{bundle}"));
    }
    // Options of all commands stand before or after; what only looks like a command is none.
    assert_eq!(run(&["-v", "score", "--out", "score"], None), format!("{own}|-v|score|{bundle}--out|score|"));
    assert_eq!(run(&["-vv", "--verbose", "adapt", ""], None), format!("{own}|-vv|--verbose|adapt|{bundle}|"));
    assert_eq!(run(&["-v", "doctor", "adapt"], None), format!("{own}|-v|doctor|adapt|"));
    // Another bundle, or a model in its place.
    for other in [&["adapt", "--bundle", "x"][..], &["adapt", "--bundle=x"], &["latency", "--onnx", "m.onnx"]] {
        assert_eq!(run(other, None), format!("{own}|{}|", other.join("|")));
    }
}

#[test]
fn the_glibc_of_a_pinned_library_is_what_it_needs() {
    let exe = std::env::current_exe().unwrap();
    let mut seen = 0;
    for library in nasbn_targets::library::pinned().unwrap() {
        let below = format!("onnxruntime/{}/{}/libonnxruntime.so", library.triple, library.version);
        // Those that are provisioned above the tests, as `cargo xtest` does.
        for path in exe.ancestors().map(|dir| dir.join(&below)).filter(|path| path.is_file()).take(1) {
            let elf = nasbn_targets::elf::Elf::read(&path).unwrap();
            assert_eq!(elf.glibc, Some(library.glibc), "{}", path.display());
            assert_eq!(Some(elf.machine), nasbn_targets::elf::Machine::of_triple(&library.triple));
            seen += 1;
        }
    }
    // `.ci/run` provisions them, with what boards need.
    assert!(seen > 0 || support::may_skip("NASBN_REQUIRE_AARCH64", "a provisioned library"));
}

#[test]
fn the_scripts_are_in_order() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        assert!(support::may_skip("NASBN_REQUIRE_SHELLCHECK", "shellcheck"));
        return;
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let scripts = names(&data).into_iter().filter(|name| name.ends_with(".sh")).collect::<Vec<_>>();
    assert_eq!(scripts, ["deploy-look.sh", "deploy-receive.sh", "run.sh"]);
    Ran::of(Command::new("shellcheck").args(["--shell", "sh"]).args(scripts).current_dir(&data)).ok();
    // These say which shell they are for.
    let top = data.join("../..");
    let jetson = names(&top.join("targets/jetson")).into_iter().map(|name| top.join("targets/jetson").join(name));
    let begins = |path: &Path| fs::read_to_string(path).unwrap().starts_with("#!");
    let others: Vec<_> = jetson.chain([top.join(".ci/run")]).filter(|path| begins(path)).collect();
    assert_eq!(others.len(), 4, "{others:?}");
    Ran::of(Command::new("shellcheck").args(others)).ok();
}
