//! What the end-to-end tests share: the programs under test, the ONNX Runtime library, small bundles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cgroup;
pub mod footprint;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Directory of the programs: that of the test executable, or the one above `deps`.
pub fn program_dir() -> PathBuf {
    let exe = env::current_exe().expect("a test knows its executable");
    let dir = exe.parent().expect("an executable is in a directory");
    if dir.ends_with("deps") { dir.parent().expect("deps is in a directory").to_owned() } else { dir.to_owned() }
}

/// A program of the workspace, built before the tests (`cargo xtest` does).
pub fn program(name: &str) -> PathBuf {
    let path = program_dir().join(name);
    assert!(path.is_file(), "{} is not built; run the tests with `cargo xtest`", path.display());
    path
}

/// The ONNX Runtime library: `ORT_DYLIB_PATH`, or the newest provisioned one above the test executable.
pub fn ort_library() -> PathBuf {
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return path.into();
    }
    libraries().pop().map(|(_, path)| path).expect("no ONNX Runtime library is provisioned; run `cargo xtest`")
}

/// Every provisioned library of this machine with its version, oldest first.
pub fn libraries() -> Vec<(Vec<u32>, PathBuf)> {
    libraries_for(&format!("{}-unknown-linux-gnu", env::consts::ARCH))
}

/// Every provisioned library of a kind of machine with its version, oldest first.
pub fn libraries_for(triple: &str) -> Vec<(Vec<u32>, PathBuf)> {
    let dir = program_dir();
    let Some(versions) = dir.ancestors().map(|d| d.join("onnxruntime").join(triple)).find(|d| d.is_dir()) else {
        return Vec::new();
    };
    let mut found: Vec<_> = fs::read_dir(versions)
        .expect("a provisioned directory is readable")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version =
                path.file_name()?.to_str()?.split('.').map(|p| p.parse().ok()).collect::<Option<Vec<u32>>>()?;
            let library = path.join("libonnxruntime.so");
            library.is_file().then_some((version, library))
        })
        .collect();
    found.sort();
    found
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// The output, if the program ended with 0.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts the exit status and that stderr has an `error:` line with `words` and a `hint:` line.
    pub fn fails(self, status: i32, words: &str) -> Self {
        assert_eq!(self.status, Some(status), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(words), "expected {words:?} in:\n{}", self.stderr);
        assert!(self.stderr.contains("hint:"), "expected a hint in:\n{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// Runs a program of the workspace.
pub fn run(name: &str, arguments: &[&str]) -> Ran {
    run_command(Command::new(program(name)).args(arguments))
}

/// Runs a program of the workspace that can write no file beyond `bytes` (to 512 whole): there, writing fails as on a full
/// disk.
pub fn run_short_of_room(bytes: u64, name: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f \"$0\"; trap '' XFSZ; exec \"$@\"", &(bytes / 512).to_string()]);
    run_command(command.arg(program(name)).args(arguments))
}

/// Runs a prepared command to its end.
pub fn run_command(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ran {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Exports a bundle with `nasbn-export build`.
pub fn export(out: &Path, arguments: &[&str]) {
    let mut all = vec!["build", "--quiet", "--out", text(out)];
    all.extend(arguments);
    run("nasbn-export", &all).ok();
}

/// Options of `nasbn-export build` for a bundle that is small and has every kind of operator of its space.
pub const SMALL: [&str; 8] = ["--space", "nas-bench-macro", "--image-size", "8", "--width", "0.25", "--classes", "10"];

/// A bundle of [`SMALL`] that all tests of a program read.
pub fn small_bundle() -> &'static Path {
    static BUNDLE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUNDLE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let path = dir.path().join("bundle");
        export(&path, &SMALL);
        (dir, path)
    });
    path
}

/// Shared data beside the repository, if it is there; its absence fails where CI runs.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(env::var_os("CI").is_none(), "{} is missing", path.display());
    eprintln!("SKIPPED: {} is missing", path.display());
    None
}
