//! This machine, and an emulated board.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use nasbn_tests::{
    Ran,
    footprint::{BOARD, DIRECTORY, PROFILE},
    program_dir, run_command,
};
use serde_json::Value;

/// Where this is 1, a part of the emulation that is missing is an error.
const REQUIRED: &str = "NASBN_REQUIRE_AARCH64";
/// Runs a program of the board.
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../targets/jetson/run-aarch64");
/// Its emulator.
const EMULATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cross/qemu/qemu-aarch64");

/// What runs `nasbn`, with which library.
pub struct Machine {
    command: Vec<PathBuf>,
    architecture: &'static str,
    /// Version and path.
    pub library: (Vec<u32>, PathBuf),
}

/// Says that something is not there, which is an error where it is required.
fn missing(what: &str, set_up: &str) {
    assert!(env::var(REQUIRED).as_deref() != Ok("1"), "{REQUIRED} is 1 and {what} is missing; run {set_up}");
    eprintln!("skipped: {what} is missing ({set_up})");
}

/// The board's `nasbn`; none with a word of it, where none need be.
pub fn program() -> Option<PathBuf> {
    let built = Path::new(DIRECTORY).join(BOARD).join(PROFILE).join("nasbn");
    let found = program_dir().ancestors().skip(1).map(|directory| directory.join(&built)).find(|file| file.is_file());
    if found.is_none() {
        missing("the board's nasbn", "`cargo jetson`");
    }
    found
}

impl Machine {
    /// This machine.
    pub fn here(library: (Vec<u32>, PathBuf)) -> Self {
        Self { command: vec![nasbn_tests::program("nasbn")], architecture: env::consts::ARCH, library }
    }

    /// An emulated board; none with a word of it, where none need be.
    pub fn emulated(library: Option<(Vec<u32>, PathBuf)>) -> Option<Self> {
        let program = program()?;
        if env::consts::ARCH != "aarch64" && !Path::new(EMULATOR).is_file() {
            missing("the emulator", "`targets/jetson/setup.sh --run`");
            return None;
        }
        let Some(library) = library else {
            missing("the board's ONNX Runtime", &format!("`nasbn-targets provision --triple {BOARD}`"));
            return None;
        };
        Some(Self { command: vec![RUNNER.into(), program], architecture: "aarch64", library })
    }

    /// Runs `nasbn`.
    pub fn nasbn(&self, arguments: &[&str]) -> Ran {
        let (program, before) = self.command.split_first().unwrap();
        run_command(Command::new(program).args(before).args(arguments).env("ORT_DYLIB_PATH", &self.library.1))
    }

    /// Asks `nasbn doctor` whether this is the machine that is meant, with a library of the version that is meant, and
    /// that works.
    pub fn examine(&self) {
        let report: Value = serde_json::from_str(&self.nasbn(&["doctor", "--json"]).ok().stdout).unwrap();
        assert_eq!(report["architecture"], self.architecture);
        let version = self.library.0.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        assert_eq!(report["onnxruntime"], version);
        let cpu = report["providers"].as_array().unwrap().iter().find(|tried| tried["provider"] == "cpu");
        assert_eq!(cpu.unwrap()["works"], true, "{report}");
    }
}
