//! What `nasbn doctor` says of a board and of the library.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nasbn_tests::{ort_library, program, run, run_command, text};
use serde_json::Value;

/// A Jetson Nano with one bad file.
const NANO: [(&str, &str); 6] = [
    ("proc/device-tree/model", "NVIDIA Jetson Nano Developer Kit\0"),
    ("etc/nv_tegra_release", "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n"),
    ("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n< PM_CONFIG DEFAULT=0 >\n"),
    ("var/lib/nvpmodel/status", "pmode:0001 fmode:quiet"),
    ("sys/class/thermal/thermal_zone0/type", "CPU-therm\n"),
    ("sys/class/thermal/thermal_zone0/temp", "warm\n"),
];

fn nano(root: &Path) {
    for (path, contents) in NANO {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

#[test]
fn doctor_reads_the_board_below_a_root_and_warns() {
    let dir = tempfile::tempdir().unwrap();
    nano(dir.path());
    let ran = run("nasbn", &["doctor", "--json", "--root", text(dir.path())]).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let board = &report["board"];
    assert_eq!(board["model"], "NVIDIA Jetson Nano Developer Kit");
    assert_eq!((board["l4t"].as_str(), board["jetpack"].as_str()), (Some("R32.7.1"), Some("4.6.1")));
    assert_eq!((&board["power_mode"]["id"], &board["power_mode"]["name"]), (&Value::from(1), &Value::from("5W")));
    assert_eq!((&board["thermal"][0]["celsius"], &board["total_milliwatts"]), (&Value::Null, &Value::Null));
    assert!(board["notes"][0].as_str().unwrap().contains("thermal_zone0/temp"), "{board}");
    assert!(report["warnings"][0].as_str().unwrap().contains("`sudo nvpmodel -m 0`"), "{report}");
    let ran = run("nasbn", &["doctor", "--root", text(dir.path())]).ok();
    for said in [
        "board        NVIDIA Jetson Nano",
        "power mode   5W (1)",
        "not read     sys/class/thermal",
        "warning      the power mode",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
}

/// The C library of this process: one that loads, and is not ONNX Runtime.
fn c_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).unwrap();
    line[line.find('/').unwrap()..].into()
}

#[test]
fn a_library_that_does_not_load_is_told_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let library = fs::read(ort_library()).unwrap();
    // The processor stands at byte 18 of an ELF file: 183 is aarch64, 62 x86-64.
    let mut foreign = library[..64].to_vec();
    let (number, name) = if cfg!(target_arch = "aarch64") { (62, "x86_64") } else { (183, "aarch64") };
    foreign[18] = number;
    let other = format!("it is for {name}, and this program for {}", std::env::consts::ARCH);
    let cases = [
        (file("text.so", b"no library at all, but long enough"), "it is no ELF library"),
        (file("empty.so", b""), "it is no ELF library"),
        (file("foreign.so", &foreign), other.as_str()),
        (file("cut.so", &library[..100_000]), "it is cut off: 100000 bytes of"),
        (file("head.so", &library[..80]), "it is cut off: 80 bytes of"),
        (c_library(), "does not export `OrtGetApiBase`"),
        (dir.path().join("none.so"), "No such file"),
        (dir.path().to_owned(), "it is no file"),
    ];
    for (path, words) in &cases {
        run("nasbn", &["doctor", "--ort-library", text(path)]).fails(3, words);
    }
}

#[test]
fn a_library_may_be_named_without_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fs::canonicalize(ort_library()).unwrap(), dir.path().join("mine.so")).unwrap();
    let mut command = Command::new(program("nasbn"));
    let ran = run_command(command.current_dir(dir.path()).args(["doctor", "--json", "--ort-library", "mine.so"])).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["library"]["path"].as_str().unwrap().ends_with("/mine.so"), "{report}");
}

#[test]
fn what_the_systems_loader_would_find_is_looked_at_too() {
    let dir = tempfile::tempdir().unwrap();
    // Elsewhere, so that no library is provisioned above it.
    let alone = dir.path().join("bin/nasbn");
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::copy(program("nasbn"), &alone).unwrap();
    let found = dir.path().join("lib/libonnxruntime.so");
    fs::create_dir(dir.path().join("lib")).unwrap();
    let doctor = || {
        let mut command = Command::new(&alone);
        command.args(["doctor", "--json"]).env_remove("ORT_DYLIB_PATH").env("LD_LIBRARY_PATH", dir.path().join("lib"));
        run_command(&mut command)
    };
    fs::write(&found, &fs::read(ort_library()).unwrap()[..100_000]).unwrap();
    doctor().fails(3, "it is cut off");
    fs::remove_file(&found).unwrap();
    std::os::unix::fs::symlink(fs::canonicalize(ort_library()).unwrap(), &found).unwrap();
    let report: Value = serde_json::from_str(&doctor().ok().stdout).unwrap();
    assert_eq!(report["library"]["origin"], "system", "{report}");
}

#[test]
fn doctor_says_the_whole_version_of_the_library() {
    let ran = run("nasbn", &["doctor", "--json"]).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let version = report["onnxruntime"].as_str().unwrap();
    let start = format!("1.{}.", report["library"]["minor"]);
    assert!(version.starts_with(&start) && version.split('.').count() == 3, "{version}");
}

#[test]
fn doctor_says_the_board_where_there_is_no_library() {
    let dir = tempfile::tempdir().unwrap();
    nano(dir.path());
    let without = ["doctor", "--root", text(dir.path()), "--ort-library", "/nonexistent.so"];
    let ran = run("nasbn", &without).fails(3, "/nonexistent.so");
    assert!(ran.stdout.contains("NVIDIA Jetson Nano"), "{}", ran.stdout);
    let ran = run("nasbn", &[&without[..], &["--json"]].concat()).fails(3, "/nonexistent.so");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["board"]["jetpack"], "4.6.1");
}

#[test]
fn nothing_is_left_in_the_home_directory() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("nasbn"));
    command.arg("doctor").env("HOME", home.path()).env_remove("XDG_CACHE_HOME").env_remove("ORT_DISABLE_TELEMETRY");
    run_command(command.env("ORT_DYLIB_PATH", ort_library())).ok();
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_root_that_is_none_is_refused() {
    run("nasbn", &["doctor", "--root", "/nonexistent"]).fails(2, "/nonexistent");
}
