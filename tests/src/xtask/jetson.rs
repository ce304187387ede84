//! `cargo jetson`: the `nasbn` of a board, small and for its glibc, and what it needs.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use nasbn_tests::footprint::{BOARD, DIRECTORY, Footprint, PROFILE};

/// What gets the parts of a cross build.
const SET_UP: &str = "targets/jetson/setup.sh";
/// The compiler's flags, with [`BETWEEN`] between them: cargo then takes none of the user's own machine.
const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
const BETWEEN: &str = "\x1f";
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
    super::run(super::cargo().env("RUSTC", &compiler).args(["fetch", "--quiet", "--target", BOARD]))?;
    cargo.env("RUSTC", &compiler).env(FLAGS, flags(&places(root, &directory, &compiler)?));
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

/// Places of this machine whose files panics would name, and what they are called in the program instead. Of two that hold a
/// file the latter counts.
fn places(root: &Path, directory: &Path, compiler: &Path) -> Result<Vec<(PathBuf, String)>> {
    let says = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(compiler).args(arguments).output();
        let output = output.with_context(|| format!("{}", compiler.display()))?;
        ensure!(output.status.success(), "{} {} ended with {}", compiler.display(), arguments.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let home = path::absolute(home.context("cargo has no home: set CARGO_HOME")?)?;
    // A directory a registry, which the name of its host begins.
    let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = vec![(root.to_owned(), "/nasbn".to_owned()), (path::absolute(directory)?, "/target".to_owned())];
    places.push((home.clone(), "/cargo".to_owned()));
    places.extend(registries.map(|registry| (registry, "/cargo/registry".to_owned())));
    // What the standard library's own files are called where its source is not there.
    let (version, sysroot) = (says(&["--version", "--verbose"])?, says(&["--print", "sysroot"])?);
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    places.push((Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")));
    Ok(places)
}

/// Flags that call places as told.
fn flags(places: &[(PathBuf, String)]) -> OsString {
    let mut flags = OsString::new();
    for (place, called) in places {
        flags.push(if flags.is_empty() { "" } else { BETWEEN });
        flags.push("--remap-path-prefix=");
        flags.push(place);
        flags.push(format!("={called}"));
    }
    flags
}

/// The linker that `targets/jetson/cc-aarch64` will take.
fn linker(root: &Path) -> Option<PathBuf> {
    let own = env::var_os("ZIG").map_or_else(|| root.join(".cross/zig/ziglang/zig"), PathBuf::from);
    own.is_file().then_some(own)
}
