//! One thread, one result: export, adapt, score and search through every provisioned ONNX Runtime, and on an emulated
//! aarch64 board with the `nasbn` that `cargo jetson` built.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "emulated/board.rs"]
mod board;
#[path = "emulated/outcome.rs"]
mod outcome;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use board::Machine;
use nasbn_tests::{
    export,
    footprint::{BOARD, Footprint},
    libraries, libraries_for, text,
};
use outcome::{Outcome, differences, greatest};
use tempfile::TempDir;

const SPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/emulated/tiny.toml");
/// Some steps of training, with the fused operators and with standard ones.
const ADAPT: [&[&str]; 2] = [
    &["--epochs", "1", "--batch", "160"],
    &["--epochs", "1", "--batch", "479", "--memory", "lean", "--graphs", "portable", "--optimizer", "adam"],
];
/// Every indicator but the composite, which is made of these.
const SCORE: [&str; 10] = [
    "--indicators",
    "expressivity,trainability,uncertainty,validation,baseline",
    "--random",
    "3",
    "--batch",
    "16",
    "--mc-batches",
    "2",
    "--validation-images",
    "32",
];
const SEARCH: [&str; 16] = [
    "--max-macs",
    "100M",
    "--evaluations",
    "4",
    "--population",
    "2",
    "--parents",
    "2",
    "--peers",
    "1",
    "--batch",
    "16",
    "--recalibrate",
    "1",
    "--validation-images",
    "32",
];

/// A bundle of the tiny space, from this machine.
fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUNDLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        export(&path, &["--space", SPACE, "--bn", "every-operator"]);
        (dir, path)
    });
    path
}

/// The thread on one machine.
fn thread(machine: &Machine) -> Outcome {
    machine.examine();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (checkpoints, scores, found) = ([at("fused"), at("portable")], at("scores.csv"), at("found"));
    let run = |command: &str, out: &Path, more: &[&str]| {
        let common = [command, "--bundle", text(bundle()), "--data", "digits", "--threads", "1", "--json"];
        machine.nasbn(&[&common[..], &["--out", text(out)], more].concat())
    };
    for (checkpoint, options) in checkpoints.iter().zip(ADAPT) {
        run("adapt", checkpoint, options).ok();
    }
    let with = ["--checkpoint", text(&checkpoints[0])];
    run("score", &scores, &[&with[..], &SCORE].concat()).ok();
    let search = run("search", &found, &[&with[..], &SEARCH].concat()).ok();
    Outcome::read(&checkpoints, &scores, &search.stdout)
}

/// The thread on this machine with the newest library.
fn here() -> &'static Outcome {
    static HERE: OnceLock<Outcome> = OnceLock::new();
    HERE.get_or_init(|| thread(&Machine::here(libraries().pop().unwrap())))
}

fn assert_same(machine: &Machine) {
    let outcome = thread(machine);
    // Shown with --nocapture: what tolerances are set by.
    println!("{}\n{}", machine.library.1.display(), greatest(here(), &outcome));
    let found = differences(here(), &outcome);
    assert!(found.is_empty(), "{}:\n{}", machine.library.1.display(), found.join("\n"));
}

#[test]
fn every_library_gives_the_same_result() {
    let mut libraries = libraries();
    assert!(libraries.len() > 1, "only {libraries:?} are provisioned; run the tests with `cargo xtest`");
    libraries.pop();
    for library in libraries {
        assert_same(&Machine::here(library));
    }
}

#[test]
fn an_emulated_board_gives_the_same_result_with_the_oldest_library() {
    if let Some(machine) = Machine::emulated(libraries_for(BOARD).into_iter().next()) {
        assert_eq!(machine.library.0[..2], [1, 17], "provision the oldest for {BOARD}, too");
        assert_same(&machine);
    }
}

#[test]
fn an_emulated_board_gives_the_same_result_with_the_newest_library() {
    if let Some(machine) = Machine::emulated(libraries_for(BOARD).pop()) {
        assert_eq!(machine.library.0, libraries().pop().unwrap().0, "provision the newest for {BOARD}, too");
        assert_same(&machine);
    }
}

#[test]
fn the_program_of_a_board_needs_nothing_that_boards_lack() {
    if let Some(program) = board::program() {
        let footprint = Footprint::read(&program).unwrap();
        let mut problems = footprint.problems();
        if std::env::consts::ARCH == "aarch64" {
            // Linked with this machine's own glibc, of which `cargo jetson` warns only.
            problems.retain(|problem| !problem.starts_with("it needs glibc "));
        }
        assert_eq!(problems, [""; 0], "{footprint}");
    }
}

#[test]
fn the_program_of_a_board_names_no_place_of_the_machine_that_built_it() {
    let Some(program) = board::program() else { return };
    let bytes = fs::read(program).unwrap();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let home = env::home_dir().filter(|home| home.as_os_str().len() > 1);
    let places = [Some(checkout), home, env::var_os("CARGO_HOME").map(PathBuf::from), Some("/.cargo".into())];
    for place in places.into_iter().flatten() {
        let place = format!("{}/", place.display());
        assert!(!holds(&bytes, &place), "{place}");
    }
    // Panics name their files all the same, with the same words everywhere.
    assert!(holds(&bytes, "/cargo/registry/") && !holds(&bytes, "index.crates.io"));
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

#[test]
fn another_result_would_be_found() {
    assert_eq!(differences(here(), here()), [""; 0]);
    for (what, changed) in here().with_changes() {
        let found = differences(here(), &changed);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{what}: ")), "{what}: {found:?}");
    }
}
