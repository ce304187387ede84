//! `cargo jetson`: the `nasbn` of a board, small and for its glibc, and what it needs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use nasbn_tests::footprint::{BOARD, DIRECTORY, Footprint, PROFILE};

/// What gets the parts of a cross build.
const SET_UP: &str = "targets/jetson/setup.sh";
/// Flags of the user's own machine, which are none of the board's.
const OTHERS_FLAGS: [&str; 3] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"];
/// Leaves out what a program that aborts at a panic does not need, a sixth of it: tables to unwind the stack by. Compilers are
/// told to make none (`-Cforce-unwind-tables=no`), and make them all the same where the standard library has debug information.
const LINKER_SCRIPT: &str = "targets/jetson/no-unwinding.ld";

/// Builds `nasbn` below `target_dir` with `cargo`, prints where it is and what it needs, and checks that boards have it.
///
/// # Errors
/// If a part of the set-up is missing, the build fails, or the program is not as a board needs it.
pub fn run(root: &Path, target_dir: &Path, mut cargo: Command) -> Result<()> {
    let compiler = compiler(root);
    ensure!(
        has_std(&compiler)?,
        "{} has no standard library for {BOARD}\nhint: run `{SET_UP}` once (`--help` says what it does)",
        compiler.display()
    );
    let native = env::consts::ARCH == "aarch64";
    if !native && linker(root).is_none() {
        bail!("there is no linker for {BOARD} in .cross/\nhint: run `{SET_UP}` once (`--help` says what it does)");
    }
    let directory = target_dir.join(DIRECTORY);
    for flags in OTHERS_FLAGS {
        cargo.env_remove(flags);
    }
    cargo.env("RUSTC", &compiler);
    cargo.args(["rustc", "--profile", PROFILE, "--target", BOARD, "--target-dir"]).arg(&directory);
    cargo.args(["--package", "nasbn-runtime", "--bin", "nasbn", "--no-default-features"]);
    // The level of the last crate is that of the passes over the whole program: below 3 the kernels' loops stay scalar.
    // Everything else is told apart, function by function, by its own crate's level.
    cargo.args(["--", "-C", "opt-level=3"]);
    if !native {
        cargo.arg("-C").arg(format!("link-arg=-Wl,--script={}", root.join(LINKER_SCRIPT).display()));
    }
    super::run(&mut cargo)?;
    let program = directory.join(BOARD).join(PROFILE).join("nasbn");
    let footprint = Footprint::read(&program)?;
    println!("{}\n{footprint}", program.display());
    let problems = footprint.problems();
    if native {
        // Linked with this board's own glibc: it runs here and where that is as new.
        problems.iter().for_each(|problem| eprintln!("warning: {problem}"));
    } else if !problems.is_empty() {
        bail!("{} is not what boards need: {}", program.display(), problems.join("; "));
    }
    Ok(())
}

/// The compiler of the set-up, if it brought one; else the one in use.
fn compiler(root: &Path) -> PathBuf {
    let own = root.join(".cross/rust/rustc");
    if own.is_file() { own } else { env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from) }
}

/// Whether a compiler has a standard library for the boards.
fn has_std(compiler: &Path) -> Result<bool> {
    let mut command = Command::new(compiler);
    command.args(["--print", "target-libdir", "--target", BOARD]);
    let output = command.output().with_context(|| format!("{}", compiler.display()))?;
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let Ok(entries) = directory.read_dir() else { return Ok(false) };
    Ok(output.status.success()
        && entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

/// The linker that `targets/jetson/cc-aarch64` will take.
fn linker(root: &Path) -> Option<PathBuf> {
    let own = env::var_os("ZIG").map_or_else(|| root.join(".cross/zig/ziglang/zig"), PathBuf::from);
    own.is_file().then_some(own)
}
