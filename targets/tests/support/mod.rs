//! What the tests of the program share.

pub mod bundle;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// An operator of the bundle here.
pub const SECOND: &str = "a";
/// A graph of it.
#[allow(dead_code)]
pub const GRAPH: &str = "bundle/graphs/e01.a.inference.onnx";

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    #[allow(dead_code)]
    /// Asserts the exit status, one `error:` with `words`, and one `hint:`.
    pub fn fails(self, status: i32, words: &str) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.contains(words), "{words}: {self:?}");
        assert_eq!(self.stderr.matches("\nhint: ").count(), 1, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }
}

/// A program that is there on every machine, says what it is told to, and ends well.
pub fn echo() -> PathBuf {
    fs::canonicalize("/bin/echo").unwrap()
}

/// The profile of machines like this one.
pub fn target() -> &'static str {
    if cfg!(target_arch = "aarch64") { "generic-aarch64" } else { "generic-x86-64-cuda" }
}

/// glibc of this machine.
pub fn glibc() -> String {
    let said = Ran::of(Command::new("getconf").arg("GNU_LIBC_VERSION")).ok().stdout;
    said.trim().trim_start_matches("glibc ").to_owned()
}

/// A directory with a bundle.
pub fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    bundle::build(0, SECOND, &dir.path().join("bundle"));
    dir
}

/// The program under test, in a directory.
pub fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nasbn-targets"));
    command.current_dir(dir).env_remove("CARGO_TARGET_DIR").env_remove("NASBN_SSH");
    command
}

/// Makes the package `deploy` of a program, without what would have to be fetched or built.
pub fn package(dir: &Path, binary: &Path, more: &[&str]) -> Ran {
    let mut command = program(dir);
    command.args(["package", "--target", target(), "--glibc", &glibc(), "--bundle", "bundle", "--out", "deploy"]);
    command.args(["--no-library", "--no-man", "--no-third-party", "--binary"]).arg(binary).args(more);
    Ran::of(&mut command)
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a file a program, written by a process of its own: one that this process had open could not be started while a
/// fork in another test's thread still holds it ("text file busy").
#[allow(dead_code)]
pub fn script(path: &Path, body: &str) {
    let write = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
    assert!(Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(body).status().unwrap().success());
}

/// Whether a test that needs a program that is not there may be skipped; with `variable` set to 1 it may not.
#[allow(dead_code)]
pub fn may_skip(variable: &str, missing: &str) -> bool {
    assert_ne!(env::var(variable).as_deref(), Ok("1"), "{missing} is not there, and {variable}=1");
    eprintln!("skipped: {missing} is not there; {variable}=1 makes that an error");
    true
}
